//! gRPC over containerd's socket, as a kubelet does it, and pods made of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codec::ProstCodec;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

const DEADLINE: Duration = Duration::from_secs(30);

/// A connection to `runtime.v1.RuntimeService`.
pub struct Client {
    io: tokio::runtime::Runtime,
    channel: Channel,
}

impl Client {
    /// Connect to a socket by its path.
    pub fn connect(socket: PathBuf) -> Result<Self> {
        let io = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let dial = service_fn(move |_| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        // The authority is sent but not used: the connector knows the socket.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = io.block_on(endpoint.connect_with_connector(dial)).context("connect to containerd")?;
        Ok(Self { io, channel })
    }

    /// One unary call.
    pub fn call<Q, A>(&self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        let mut grpc = Grpc::new(self.channel.clone());
        let answer = async move {
            grpc.ready().await?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            // A refused call is the interesting answer: its words are the runtime's.
            grpc.unary(Request::new(request), path, codec)
                .await
                .map_err(|status| anyhow!("{}", status.message()))
        };
        let limited = async { tokio::time::timeout(DEADLINE, answer).await };
        let answer =
            self.io.block_on(limited).with_context(|| format!("{method}: no answer within {DEADLINE:?}"))?;
        Ok(answer.with_context(|| method.to_owned())?.into_inner())
    }
}

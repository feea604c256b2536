//! SCMP_ACT_NOTIFY: the notify descriptor goes to the agent at listenerPath, with the container
//! process state of runtime-spec (config-linux.md, The Container Process State).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use creel_jail::Failed;
use creel_sys::Errno;
use rustix::net::SocketType;
use serde_json::json;

use crate::sockets::connect_unix;
use crate::state::State;

/// The agent of one container.
pub struct Agent<'a>(&'a State);

impl<'a> Agent<'a> {
    /// The agent that the container's config names.
    pub fn new(state: &'a State) -> Self {
        Agent(state)
    }

    /// Sends the descriptor of process `pid`.
    pub fn send(&self, pid: i32, status: &str, fd: &OwnedFd) -> Result<(), Failed> {
        const AT: &str = ".linux.seccomp.listenerPath";
        let State { oci_version, id, bundle, annotations, exec, .. } = self.0;
        if exec.listener_path.is_empty() {
            return Err(Failed::said("SCMP_ACT_NOTIFY needs a listener").at(AT));
        }
        let path = Path::new(&exec.listener_path);
        let fail = |call: &str, errno: Errno| Failed::host(format!("{call}({path:?})"), errno).at(AT);
        let socket = connect_unix(path, SocketType::STREAM)
            .map_err(|errno| fail("failed to connect with seccomp agent: connect", errno))?;
        let mut state = json!({
            "ociVersion": oci_version, "id": id, "status": status, "pid": pid, "bundle": bundle,
        });
        if let (Some(object), false) = (state.as_object_mut(), annotations.is_empty()) {
            object.insert("annotations".into(), json!(annotations));
        }
        let message = json!({
            "ociVersion": oci_version,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": exec.listener_metadata,
            "state": state,
        });
        creel_jail::conversation::send_fd(socket.as_fd(), message.to_string().as_bytes(), fd.as_fd())
            .map_err(|errno| fail("sendmsg", errno))
    }
}

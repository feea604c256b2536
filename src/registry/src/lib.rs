//! The client of the distribution-spec: pull, push, tags, referrers, and what it takes to be let in.
//!
//! Runs in `creel-image`, never in the runtime: nothing of the network stack is linked into what runs
//! as root. Blocking HTTP/1.1 on rustls with ring; everything public may be shared by threads.
//!
//! A [`Client`] reads the machine's configuration once; [`Client::repository`] names a place, with its
//! mirrors; a [`Repository`] fetches and stores there. Messages and errors hold no credential.
#![forbid(unsafe_code)]

mod auth;
pub mod challenge;
mod client;
mod config;
pub mod credentials;
mod date;
mod environment;
mod error;
mod http;
mod location;
mod policy;
mod reach;
mod retry;

pub use client::{
    Blob, Client, FetchedManifest, ManifestHead, Options, Pushed, Repository, Source, Upload, Verification,
};
pub use config::registries::ShortNames;
pub use environment::Environment;
pub use error::{Error, Fault, Tried};
pub use http::Notice;
pub use policy::Policy;
pub use retry::Retry;

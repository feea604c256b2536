//! Containers across commands: the state directory and the lifecycle.
//!
//! Runs in the **host** process. Each command is one module; what they share is [`store`] (the
//! state directory, its lock and its files) and [`state`] (what is kept in it).
//!
//! ```text
//!   <root>/<id>/            made by create under an exclusive lock, removed last by delete
//!       state.json          what every later command needs; written before init is born
//!       exec.json           the process section, for `exec` with flags
//!       seccomp.bpf         the compiled filter, for `exec`
//!       init                pid and start time, noted as a link; its presence ends the making
//!       exec.fifo           init waits here until `start` writes, and says here why it could not
//!                           execute its program; the name is there until `start`
//!       notify/             sd_notify socket, with NOTIFY_SOCKET
//! ```

mod api;
mod checkpoint;
mod console;
mod create;
mod criu;
mod delete;
mod error;
mod events;
mod exec;
mod filter;
mod foreground;
mod hot_mounts;
mod images;
mod inherit;
mod kill;
mod notify;
mod pause;
mod placement;
mod protect;
mod ps;
mod relay;
mod release;
pub mod resctrl;
mod restore;
mod run;
mod seccomp_agent;
mod security_modules;
mod sockets;
mod start;
mod state;
mod store;
mod terminal;
pub mod time;
mod undo;
mod update;

pub use api::*;
pub use checkpoint::checkpoint;
pub use create::{create, dry_run};
pub use creel_seccomp::{LIBSECCOMP_VERSION, names as seccomp_names, supported_flags};
pub use delete::delete;
pub use error::Error;
pub use events::{ContainerStats, Event, Events, NetworkInterface, stats};
pub use exec::exec;
pub use hot_mounts::{add as add_mounts, remove as remove_mounts};
pub use kill::{Target, kill};
pub use pause::{pause, resume};
pub use ps::pids;
pub use restore::restore;
pub use run::run;
pub use start::start;
pub use state::{ids, list, state};
pub use update::{RdtSchemata, update};

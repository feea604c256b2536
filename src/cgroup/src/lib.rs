//! The container's cgroup: where it lies, what is written into it, who is inside, how it goes away.
//!
//! Everything here runs in the **host** process; init and exec's child only write `0` to the fds
//! of [`Cgroup::join_fds`] or are cloned into [`Cgroup::clone_into`]. The order of a start is
//! [`Host::detect`], [`CgroupPath::parse`], [`plan_writes`] and [`devices::plan_rules`] (both pure),
//! [`Cgroup::create`], [`Cgroup::apply`], [`Cgroup::apply_devices`], then clone: limits hold
//! before the first instruction of the container. Later commands, [`Cgroup::update`] among them, know the cgroup from
//! its [`CgroupRecord`] alone.
//!
//! Two axes decide what happens: the [`Owner`] makes and removes directories, the [`Hierarchy`]
//! says which file means what. See cgroups(7), the kernel's admin-guide/cgroup-v1 and
//! admin-guide/cgroup-v2.

mod create;
mod delegate;
pub mod devices;
mod dir;
mod error;
mod freeze;
mod host;
mod join;
mod path;
mod processes;
mod record;
mod remove;
mod resources;
mod scope;
pub mod stats;
pub mod systemd;
mod tree;
mod update;
mod write;

pub use create::CreateOptions;
pub use error::{Error, Invalid};
pub use host::{Hierarchy, Host, Mode, Mount, OwnCgroups};
pub use join::{Join, SubCgroups, path_of};
pub use path::{CgroupPath, Layout, Scope};
pub use record::{Cgroup, CgroupRecord, DirRecord, Owner, UnitRecord};
pub use resources::{FileWrite, IfMissing, plan_writes};

//! What a failed create takes back.

use std::rc::Rc;

use creel_cgroup::Cgroup;
use creel_jail::HookState;
use creel_plan::steps::HookStep;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{UnmountFlags, unmount};

use crate::resctrl::Group;
use crate::store::StateDir;

/// Things made so far. Dropped before [`Undo::keep`], they are removed in the reverse order of
/// their making; what cannot be removed is logged, so that it does not hide why create failed.
#[derive(Debug)]
pub struct Undo<'a> {
    dir: &'a StateDir,
    cgroup: Option<Rc<Cgroup>>,
    hooks: Option<(Vec<HookStep>, HookState)>,
    host_mount: Option<(String, u64)>,
    resctrl: Option<Group>,
    armed: bool,
}

impl<'a> Undo<'a> {
    /// The state directory was made.
    pub fn new(dir: &'a StateDir) -> Self {
        Undo { dir, cgroup: None, hooks: None, host_mount: None, resctrl: None, armed: true }
    }

    /// The cgroup was made.
    pub fn cgroup(&mut self, cgroup: Cgroup) -> Rc<Cgroup> {
        let cgroup = Rc::new(cgroup);
        self.cgroup = Some(Rc::clone(&cgroup));
        cgroup
    }

    /// Hooks may have run: what they made is for the poststop hooks to undo (runtime.md, Lifecycle).
    pub fn hooks(&mut self, poststop: &[HookStep], state: HookState) {
        self.hooks = Some((poststop.to_vec(), state));
    }

    /// Without a mount namespace init mounts the root on itself, on the host: what lies at `root` then is
    /// not the mount that is there now.
    pub fn host_mount(&mut self, root: &str) {
        self.host_mount = mount_id(root).map(|id| (root.to_string(), id));
    }

    /// Groups of resctrl were made.
    pub fn resctrl(&mut self, group: &Group) {
        self.resctrl = Some(group.clone());
    }

    /// Everything stays.
    pub fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Some(cgroup) = &self.cgroup {
            // Init is gone by now. Whoever came into a cgroup that was there before has nothing to do with it.
            if cgroup.is_own() {
                if let Err(error) = cgroup.kill_all(rustix::process::Signal::KILL) {
                    tracing::warn!("undo: {error}");
                }
            }
            if let Err(error) = cgroup.destroy() {
                tracing::warn!("undo: {error}");
            }
        }
        if let Some(Err(error)) = self.resctrl.as_ref().map(Group::remove) {
            tracing::warn!("undo: {error}");
        }
        if let Some((root, before)) = &self.host_mount {
            if mount_id(root).is_some_and(|now| now != *before) {
                if let Err(errno) = unmount(root.as_str(), UnmountFlags::DETACH) {
                    tracing::warn!("undo: umount2({root:?}): {errno}");
                }
            }
        }
        if let Err(error) = self.dir.destroy() {
            tracing::warn!("undo: {error}");
        }
        if let Some((hooks, state)) = &self.hooks {
            crate::delete::poststop(hooks, state);
        }
    }
}

/// The mount that a path lies on (statx(2), Linux 5.8).
fn mount_id(path: &str) -> Option<u64> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    Some(stat.stx_mnt_id)
}

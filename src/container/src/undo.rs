//! What a failed create takes back.

use creel_cgroup::Cgroup;

use crate::store::StateDir;

/// Things made so far. Dropped before [`Undo::keep`], they are removed in the reverse order of
/// their making; what cannot be removed is logged, so that it does not hide why create failed.
#[derive(Debug)]
pub struct Undo<'a> {
    dir: &'a StateDir,
    cgroup: Option<Cgroup>,
    armed: bool,
}

impl<'a> Undo<'a> {
    /// The state directory was made.
    pub fn new(dir: &'a StateDir) -> Self {
        Undo { dir, cgroup: None, armed: true }
    }

    /// The cgroup was made.
    pub fn cgroup(&mut self, cgroup: Cgroup) -> &Cgroup {
        self.cgroup.insert(cgroup)
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
            if let Err(error) = cgroup.kill_all(rustix::process::Signal::KILL) {
                tracing::warn!("undo: {error}");
            }
            if let Err(error) = cgroup.destroy() {
                tracing::warn!("undo: {error}");
            }
        }
        if let Err(error) = self.dir.destroy() {
            tracing::warn!("undo: {error}");
        }
    }
}

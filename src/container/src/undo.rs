//! What a failed create takes back.

use std::rc::Rc;

use creel_cgroup::Cgroup;
use creel_jail::HookState;
use creel_plan::steps::HookStep;

use crate::store::StateDir;

/// Things made so far. Dropped before [`Undo::keep`], they are removed in the reverse order of
/// their making; what cannot be removed is logged, so that it does not hide why create failed.
#[derive(Debug)]
pub struct Undo<'a> {
    dir: &'a StateDir,
    cgroup: Option<Rc<Cgroup>>,
    hooks: Option<(Vec<HookStep>, HookState)>,
    armed: bool,
}

impl<'a> Undo<'a> {
    /// The state directory was made.
    pub fn new(dir: &'a StateDir) -> Self {
        Undo { dir, cgroup: None, hooks: None, armed: true }
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
        if let Some((hooks, state)) = &self.hooks {
            crate::delete::poststop(hooks, state);
        }
    }
}

//! The container's cgroup as a scope of systemd's: made, settled, changed and stopped over D-Bus,
//! filled through the files like any other.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

use crate::create::{CreateOptions, is_optional, make, make_dirs};
use crate::dir;
use crate::error::Error;
use crate::host::{Host, Mode, OwnCgroups};
use crate::path::{CgroupPath, Layout, Scope, join};
use crate::record::{Birth, Cgroup, CgroupDir, DirRecord, Owner, UnitRecord};
use crate::resources::FileWrite;
use crate::systemd::{self, Placeholder, Property, Systemd};

/// The placeholder, the stage and init: as many processes as creel has in a new scope at once.
const CROWD: u64 = 3;

/// How long systemd may take to remove the directory of a scope without processes.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

impl Scope {
    pub(crate) fn record(&self) -> UnitRecord {
        UnitRecord {
            name: self.unit.name.clone(),
            instance: self.systemd.instance(),
            below: self.below.clone(),
        }
    }
}

impl Cgroup {
    /// Has systemd start the scope, then makes what systemd did not: controllers that it does not know,
    /// the hierarchies of v1 that it leaves alone, and the cgroup below.
    pub(crate) fn create_scope(
        host: &Host,
        path: &CgroupPath,
        scope: &Scope,
        options: CreateOptions<'_>,
    ) -> Result<Cgroup, Error> {
        let layouts = path.layouts(host, &OwnCgroups::default());
        let mut cgroup = Cgroup {
            mode: host.mode,
            owner: Owner::Systemd,
            rootless: options.rootless,
            dirs: layouts.iter().map(|layout| CgroupDir::new(layout.found())).collect(),
            unit: Some(scope.record()),
            birth: RefCell::new(None),
        };
        // One that is there already may be somebody else's.
        cgroup.check_unused()?;
        cgroup.dirs.clear();
        let placeholder = Placeholder::clone_host()?;
        let (later_properties, properties): (Vec<Property>, Vec<Property>) =
            options.properties.iter().cloned().partition(is_narrow_property);
        let hierarchy = host.mode.hierarchy();
        let started = scope.systemd.start(&scope.unit, placeholder.pid(), &properties, hierarchy);
        started.map_err(Error::Systemd)?;
        cgroup.birth = RefCell::new(Some(Birth { placeholder, later: Vec::new(), later_properties }));
        for layout in &layouts {
            match cgroup.furnish(scope, layout, options.limits) {
                Ok(Some(dir)) => cgroup.dirs.push(dir),
                Ok(None) => {}
                Err(_) if is_optional(host.mode, layout) => {}
                Err(error) => return Err(cgroup.undo(error)),
            }
        }
        Ok(cgroup)
    }

    /// The scope's directory of one hierarchy, complete.
    fn furnish(
        &self,
        scope: &Scope,
        layout: &Layout,
        limits: &[FileWrite],
    ) -> Result<Option<CgroupDir>, Error> {
        let systemds_own = self.mode != Mode::V2
            && (layout.controllers.is_empty() || layout.controllers.iter().any(|c| c == "name=systemd"));
        let mut dir = if systemds_own {
            let dir = CgroupDir::new(layout.found());
            if dir.fd().is_err() {
                return Ok(None);
            }
            dir
        } else {
            if !scope.below.is_empty() && self.mode == Mode::V2 {
                self.move_placeholder(layout)?;
            }
            make(self.mode, layout, limits)?
        };
        dir.fresh = true;
        dir.by_systemd = true;
        let own = 1 + scope.below.split('/').filter(|name| !name.is_empty()).count();
        // The scope and what is below it are the container's; of the slices above only those that
        // creel made, in hierarchies that systemd leaves alone.
        dir.record.made = dir.record.made.max(u32::try_from(own).unwrap_or(1));
        Ok(Some(dir))
    }

    /// A cgroup with processes hands down no controllers ("no internal processes", cgroups(7)).
    fn move_placeholder(&self, layout: &Layout) -> Result<(), Error> {
        make_dirs(&layout.mount, &layout.inner)?;
        let path = join(&layout.mount, &layout.inner);
        let birth = self.birth.borrow();
        let Some(birth) = birth.as_ref() else { return Ok(()) };
        let pid = birth.placeholder.pid().to_string();
        dir::write(rustix::fs::CWD, &join(&path, "cgroup.procs"), &pid).map_err(|errno| Error::Call {
            call: "write",
            path: join(&path, "cgroup.procs"),
            errno,
        })
    }

    /// Leaves out, for now, limits that init could not be born under beside the placeholder. `None`
    /// when there are none in the group.
    pub(crate) fn put_off(&self, group: &[FileWrite]) -> Option<Vec<FileWrite>> {
        let mut birth = self.birth.borrow_mut();
        put_off(&mut birth.as_mut()?.later, group)
    }

    /// Init is born: the placeholder goes, and the limits that had to wait come into force. Does
    /// nothing where creel owns the cgroup.
    pub fn settle(&self) -> Result<(), Error> {
        let Some(Birth { placeholder, later, later_properties }) = self.birth.take() else { return Ok(()) };
        drop(placeholder);
        if let Some(unit) = self.unit.as_ref().filter(|_| !later_properties.is_empty()) {
            let set = Systemd::of(unit.instance).set(&unit.name, &later_properties);
            set.map_err(Error::Systemd)?;
        }
        self.apply(&later)
    }

    /// Tells systemd of values that are about to be written.
    pub(crate) fn set_properties(&self, writes: &[FileWrite]) -> Result<(), Error> {
        let Some(unit) = &self.unit else { return Ok(()) };
        let properties = systemd::plan_properties(writes, self.mode.hierarchy())?;
        if properties.is_empty() {
            return Ok(());
        }
        Systemd::of(unit.instance).set(&unit.name, &properties).map_err(Error::Systemd)
    }

    /// Has systemd forget the unit. It does so by itself when the last process is gone, and a
    /// container that is dead is deleted whether or not systemd answers: what it does not answer is
    /// logged.
    pub(crate) fn stop_unit(&self) {
        let Some(unit) = self.own_unit() else { return };
        let systemd = Systemd::of(unit.instance);
        let is_there = |dir: &CgroupDir| rustix::fs::stat(dir.record.path.as_str()).is_ok();
        if !systemd.has(&unit.name) && !self.dirs.iter().any(is_there) {
            return;
        }
        if let Err(trouble) = systemd.stop(&unit.name) {
            tracing::warn!("stop unit {}: systemd: {trouble}", unit.name);
        }
        self.wait_for_systemd();
    }

    /// The unit, unless its cgroup was there before the container. A creel that was killed before it knew
    /// whose it is has noted it, and it may be that of a running container.
    fn own_unit(&self) -> Option<&UnitRecord> {
        let is_found = !self.dirs.is_empty() && self.dirs.iter().all(|dir| dir.record.made == 0);
        self.unit.as_ref().filter(|_| !is_found)
    }

    /// Leaves the empty directory to systemd for a moment. It learns of the scope's end by cgroup.events,
    /// and of a directory that is gone by then it learns nothing: the unit would stay.
    fn wait_for_systemd(&self) {
        let Some(scope) = self.scope_path().filter(|_| self.mode == Mode::V2) else { return };
        let end = Instant::now() + LEAVE_PATIENCE;
        let mut delay = Duration::from_micros(200);
        while rustix::fs::stat(scope).is_ok() && Instant::now() < end {
            thread::sleep(delay);
            delay = (delay * 2).min(Duration::from_millis(10));
        }
    }

    /// Has systemd move a process into the container's cgroup, for a caller whom the kernel does not
    /// let: the nearest cgroup above both, that of the whole session, is not the user's (cgroups(7),
    /// "Delegation containment"). `into` is the path of the cgroup.
    pub fn attach_by_systemd(&self, into: &str, pid: i32) -> Result<(), Error> {
        let unit = self.unit.as_ref().ok_or(Error::NoCgroup("attach"))?;
        let scope = self.scope_path().ok_or(Error::NoCgroup("attach"))?;
        let below = into.strip_prefix(scope).unwrap_or_default().trim_start_matches('/');
        Systemd::of(unit.instance).attach(&unit.name, below, pid).map_err(Error::Systemd)
    }

    /// The scope's own directory in the unified hierarchy.
    fn scope_path(&self) -> Option<&str> {
        let unit = self.unit.as_ref()?;
        let path = self.unified()?.record.path.as_str();
        let end = path.rfind(unit.name.as_str())? + unit.name.len();
        path.get(..end)
    }

    /// Whether systemd owns the cgroup.
    pub fn is_systemds(&self) -> bool {
        self.unit.is_some()
    }
}

impl Layout {
    /// The directory as one that was there before.
    fn found(&self) -> DirRecord {
        DirRecord { controllers: self.controllers.clone(), path: join(&self.mount, &self.inner), made: 0 }
    }
}

/// The last word on the number of processes is what counts in the end, so it alone waits or does not.
fn put_off(later: &mut Vec<FileWrite>, group: &[FileWrite]) -> Option<Vec<FileWrite>> {
    let last = group.iter().rfind(|write| write.file == "pids.max")?;
    later.clear();
    if !is_narrow(last) {
        return None;
    }
    let (narrow, now) = group.iter().cloned().partition(is_narrow);
    *later = narrow;
    Some(now)
}

fn is_narrow(write: &FileWrite) -> bool {
    write.file == "pids.max" && write.value.trim().parse().is_ok_and(|limit: u64| limit < CROWD)
}

fn is_narrow_property(property: &Property) -> bool {
    property.name == "TasksMax" && matches!(property.value, systemd::Value::U64(limit) if limit < CROWD)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;
    use crate::host::Hierarchy;
    use crate::record::CgroupRecord;
    use crate::resources::plan_writes;
    use crate::systemd::Instance;

    #[test]
    fn the_last_limit_of_processes_is_in_force_in_the_end() {
        for (json, now, in_the_end) in [
            (r#"{"pids":{"limit":2}}"#, &[][..], &["2"][..]),
            (r#"{"pids":{"limit":20}}"#, &["20"], &[]),
            (r#"{"pids":{"limit":2},"unified":{"pids.max":"max"}}"#, &["2", "max"], &[]),
            (r#"{"pids":{"limit":2},"cpu":{"shares":9},"unified":{"pids.max":"max"}}"#, &["max"], &[]),
            (r#"{"pids":{"limit":2},"cpu":{"shares":9},"unified":{"pids.max":"1"}}"#, &[], &["1"]),
            (r#"{"pids":{"limit":20},"unified":{"pids.max":"1"}}"#, &["20"], &["1"]),
        ] {
            let writes = plan_writes(&serde_json::from_str(json).unwrap(), Hierarchy::V2).unwrap();
            let mut later = Vec::new();
            let mut written = Vec::new();
            for group in writes.chunk_by(|a, b| a.controller == b.controller) {
                written.extend(put_off(&mut later, group).unwrap_or_else(|| group.to_vec()));
            }
            written.retain(|write| write.file == "pids.max");
            let values = |writes: &[FileWrite]| writes.iter().map(|w| w.value.clone()).collect::<Vec<_>>();
            assert_eq!(values(&written), now, "{json}");
            assert_eq!(values(&later), in_the_end, "{json}");
        }
    }

    #[test]
    fn a_unit_that_was_there_before_is_not_stopped() {
        let owns = |made: &[u32]| {
            let dir = |made: &u32| DirRecord { controllers: Vec::new(), path: "/nosuch".into(), made: *made };
            let record = CgroupRecord {
                mode: Mode::V2,
                owner: Owner::Systemd,
                rootless: false,
                dirs: made.iter().map(dir).collect(),
                unit: Some(UnitRecord {
                    name: "x-y.scope".into(),
                    instance: Instance::System,
                    below: String::new(),
                }),
            };
            Cgroup::from_record(&record).own_unit().is_some()
        };
        assert!(!owns(&[0]) && !owns(&[0, 0]));
        assert!(owns(&[1]) && owns(&[0, 2]));
        // It was started, and no directory was looked at yet.
        assert!(owns(&[]));
    }
}

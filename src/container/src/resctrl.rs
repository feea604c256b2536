//! `.linux.intelRdt`: the container's group of the resctrl file system (Documentation/filesystems/
//! resctrl.rst), Intel's and AMD's control of caches and memory bandwidth.
//!
//! A group is a directory with `schemata`, what its tasks may use, and `tasks`; below it `mon_groups`
//! has groups that only count. A group named by closID may be shared with others: what this container
//! did not make it does not remove.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use creel_cgroup::stats::rdt::resctrl_root;
use creel_plan::Invalid;
use creel_plan::spec::IntelRdt;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::store::{RESCTRL, StateDir};

const AT: &str = ".linux.intelRdt";

/// What was made for a container, as kept in its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its directory.
    pub path: PathBuf,
    /// The directory is the container's own: delete removes it.
    pub own: bool,
    /// Its monitoring group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
}

/// Makes the groups of a container whose state directory is `dir`. What is about to be made is noted there
/// first: a creel that is killed in between leaves a group that nobody else would know of.
pub fn make(dir: &StateDir, rdt: &IntelRdt, id: &str) -> Result<Group, Error> {
    let root = resctrl_root();
    if let Some(root) = &root {
        let intended = serde_json::to_vec(&intended(root, rdt, id))
            .map_err(|e| Error::Corrupt { path: dir.file(RESCTRL), why: e.to_string() })?;
        dir.write_early(RESCTRL, &intended)?;
    }
    make_below(root.as_deref(), rdt, id)
}

/// What [`make`] noted in a state directory, if it came to that.
pub fn noted(dir: &StateDir) -> Option<Group> {
    dir.read(RESCTRL).ok().and_then(|text| serde_json::from_slice(&text).ok())
}

fn directory_of(root: &Path, rdt: &IntelRdt, id: &str) -> PathBuf {
    match rdt.clos_id.as_str() {
        "" => root.join(id),
        "/" => root.to_path_buf(),
        name => root.join(name),
    }
}

/// The groups that are not there yet.
fn intended(root: &Path, rdt: &IntelRdt, id: &str) -> Group {
    let path = directory_of(root, rdt, id);
    let own = rdt.clos_id.is_empty() && !path.exists();
    let monitor = rdt.enable_monitoring.then(|| path.join("mon_groups").join(id)).filter(|dir| !dir.exists());
    Group { path, own, monitor }
}

fn make_below(root: Option<&Path>, rdt: &IntelRdt, id: &str) -> Result<Group, Error> {
    let invalid = |field: &str, why: &str| Error::Invalid(Invalid::new(format!("{AT}{field}"), why));
    let Some(root) = root else {
        return Err(invalid("", "resctrl is not mounted, or the machine does not have it"));
    };
    for (field, schema, resource) in
        [(".l3CacheSchema", &rdt.l3_cache_schema, "L3"), (".memBwSchema", &rdt.mem_bw_schema, "MB")]
    {
        if !schema.is_empty() && !root.join("info").join(resource).exists() {
            return Err(invalid(field, &format!("the machine does not control {resource}")));
        }
    }
    let path = directory_of(root, rdt, id);
    if !rdt.clos_id.is_empty() && schemata(rdt).is_empty() && !path.is_dir() {
        return Err(invalid(".closID", "without a schema the group must exist already"));
    }
    let made = make_directory(root, &path)?;
    let mut group = Group { path, own: made && rdt.clos_id.is_empty(), monitor: None };
    if rdt.enable_monitoring {
        let monitor = group.path.join("mon_groups").join(id);
        if let Err(error) = make_directory(root, &monitor) {
            drop(group.remove());
            return Err(error);
        }
        group.monitor = Some(monitor);
    }
    Ok(group)
}

/// Lines for `schemata`, each with its newline.
fn schemata(rdt: &IntelRdt) -> String {
    let lines = [&rdt.l3_cache_schema, &rdt.mem_bw_schema].into_iter().chain(&rdt.schemata);
    lines.filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// True if it was not there.
fn make_directory(root: &Path, path: &Path) -> Result<bool, Error> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(failed(root, format!("mkdir {}", path.display()), &e)),
    }
}

/// The file system says in `info/last_cmd_status` what an errno cannot.
fn failed(root: &Path, call: String, error: &io::Error) -> Error {
    let errno = creel_sys::Errno::from_io_error(error).unwrap_or(creel_sys::Errno::IO);
    let said = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    let call = match said.trim() {
        "" | "ok" => call,
        said => format!("{call} [{said}]"),
    };
    Error::Failed(creel_jail::Failed::host(call, errno).at(AT))
}

impl Group {
    /// Writes what the tasks of the group may use.
    pub fn limit(&self, root: &Path, rdt: &IntelRdt) -> Result<(), Error> {
        let text = schemata(rdt);
        if text.is_empty() {
            return Ok(());
        }
        let file = self.path.join("schemata");
        fs::write(&file, &text)
            .map_err(|e| failed(root, format!("write {} {:?}", file.display(), text.trim_end()), &e))
    }

    /// Puts a process into the groups; what it clones later is in them too.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        for directory in std::iter::once(&self.path).chain(&self.monitor) {
            let file = directory.join("tasks");
            let root = self.path.parent().unwrap_or(&self.path);
            fs::write(&file, pid.to_string())
                .map_err(|e| failed(root, format!("write {} {pid}", file.display()), &e))?;
        }
        Ok(())
    }

    /// Removes what is the container's own. A group that is gone is no error.
    pub fn remove(&self) -> Result<(), Error> {
        let own = self.own.then_some(&self.path);
        // The kernel removes the monitoring groups with their group.
        let Some(directory) = own.or(self.monitor.as_ref()) else { return Ok(()) };
        match fs::remove_dir(directory) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("rmdir", directory)(e)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A directory with what the file system of a machine with L3 control shows.
    fn fixture() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("info/L3")).unwrap();
        fs::create_dir_all(dir.path().join("mon_groups")).unwrap();
        dir
    }

    fn rdt(clos_id: &str, l3: &str) -> IntelRdt {
        IntelRdt { clos_id: clos_id.into(), l3_cache_schema: l3.into(), ..IntelRdt::default() }
    }

    #[test]
    fn a_machine_without_resctrl_is_an_error_of_the_field() {
        let error = make_below(None, &rdt("", ""), "web").unwrap_err();
        assert!(error.to_string().starts_with(".linux.intelRdt: resctrl is not mounted"), "{error}");
    }

    #[test]
    fn a_container_has_a_group_of_its_own_name_which_goes_with_it() {
        let dir = fixture();
        let rdt = IntelRdt { schemata: vec!["L2:0=f".into()], ..rdt("", "L3:0=ff") };
        let group = make_below(Some(dir.path()), &rdt, "web").unwrap();
        assert_eq!(group, Group { path: dir.path().join("web"), own: true, monitor: None });
        group.limit(dir.path(), &rdt).unwrap();
        group.add(7).unwrap();
        let read = |name: &str| fs::read_to_string(group.path.join(name)).unwrap();
        assert_eq!((read("schemata").as_str(), read("tasks").as_str()), ("L3:0=ff\nL2:0=f\n", "7"));
        // The files of the real one go with the directory.
        fs::remove_file(group.path.join("schemata")).unwrap();
        fs::remove_file(group.path.join("tasks")).unwrap();
        group.remove().unwrap();
        assert!(!group.path.exists());
        group.remove().unwrap();
    }

    #[test]
    fn a_named_group_stays() {
        let dir = fixture();
        let without = make_below(Some(dir.path()), &rdt("gold", ""), "web").unwrap_err();
        assert!(without.to_string().contains("must exist already"), "{without}");
        fs::create_dir(dir.path().join("gold")).unwrap();
        let group = make_below(Some(dir.path()), &rdt("gold", ""), "web").unwrap();
        group.remove().unwrap();
        assert!(group.path.exists() && !group.own);
        let root = make_below(Some(dir.path()), &rdt("/", ""), "web").unwrap();
        assert_eq!((root.path.as_path(), root.own), (dir.path(), false));
    }

    #[test]
    fn monitoring_has_a_group_below() {
        let dir = fixture();
        fs::create_dir_all(dir.path().join("gold/mon_groups")).unwrap();
        let rdt = IntelRdt { enable_monitoring: true, ..rdt("gold", "") };
        let group = make_below(Some(dir.path()), &rdt, "web").unwrap();
        let monitor = dir.path().join("gold/mon_groups/web");
        assert_eq!(group.monitor.as_deref(), Some(monitor.as_path()));
        group.remove().unwrap();
        assert!(!monitor.exists() && dir.path().join("gold").exists());
    }

    #[test]
    fn what_is_noted_before_is_what_a_killed_create_leaves() {
        let (dir, state) = (fixture(), tempfile::tempdir().unwrap());
        let rdt = IntelRdt { enable_monitoring: true, ..rdt("", "L3:0=ff") };
        let noted_group = intended(dir.path(), &rdt, "web");
        assert!(noted_group.own && noted_group.monitor.is_some());
        let state = StateDir::make(state.path(), "web").unwrap();
        assert_eq!(noted(&state), None);
        state.write_early(RESCTRL, &serde_json::to_vec(&noted_group).unwrap()).unwrap();
        fs::create_dir(dir.path().join("web")).unwrap();
        // What was there before is not the container's.
        assert!(!intended(dir.path(), &rdt, "web").own);
        noted(&state).unwrap().remove().unwrap();
        assert!(!dir.path().join("web").exists());
        noted(&state).unwrap().remove().unwrap();
        state.destroy().unwrap();
    }

    #[test]
    fn a_resource_that_is_not_there_is_named_and_so_is_what_the_kernel_says() {
        let dir = fixture();
        let rdt = IntelRdt { mem_bw_schema: "MB:0=20".into(), ..IntelRdt::default() };
        let error = make_below(Some(dir.path()), &rdt, "web").unwrap_err().to_string();
        assert_eq!(error, ".linux.intelRdt.memBwSchema: the machine does not control MB");
        fs::write(dir.path().join("info/last_cmd_status"), "mask f00 has non-consecutive 1-bits\n").unwrap();
        let group = Group { path: dir.path().join("none"), own: true, monitor: None };
        let error = group.limit(dir.path(), &self::rdt("", "L3:0=f0f")).unwrap_err().to_string();
        assert!(error.contains("[mask f00 has non-consecutive 1-bits]"), "{error}");
    }
}

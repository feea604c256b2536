//! The container's cgroup as a value, and what state.json keeps of it.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::dir;
use crate::error::Error;
use crate::host::Mode;
use crate::resources::FileWrite;
use crate::systemd::{Instance, Placeholder, Property};

/// Who makes and removes the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// creel itself.
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
}

/// All that later commands need to find, stop and remove the cgroup, whatever is mounted then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CgroupRecord {
    /// How the hierarchies were mounted.
    pub mode: Mode,
    /// Who owns the directories.
    pub owner: Owner,
    /// Made without permission for some hierarchies.
    #[serde(default)]
    pub rootless: bool,
    /// One directory per hierarchy; none when a rootless container got no cgroup.
    pub dirs: Vec<DirRecord>,
    /// systemd's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitRecord>,
}

/// The scope of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// `docker-1234.scope`
    pub name: String,
    /// Whose systemd has it.
    pub instance: Instance,
    /// Cgroup below the unit's that holds the container; may be empty.
    #[serde(default)]
    pub below: String,
}

impl CgroupRecord {
    /// Directory by controller, `""` for the unified hierarchy: `cgroup_paths` of runc's
    /// state.json.
    pub fn paths(&self) -> BTreeMap<String, String> {
        let mut paths = BTreeMap::new();
        for dir in &self.dirs {
            if dir.controllers.is_empty() {
                paths.insert(String::new(), dir.path.clone());
            }
            paths.extend(dir.controllers.iter().map(|c| (c.clone(), dir.path.clone())));
        }
        paths
    }
}

/// A directory of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirRecord {
    /// v1 controllers of the hierarchy; empty for the unified one.
    pub controllers: Vec<String>,
    /// Absolute path.
    pub path: String,
    /// How many path components, counted from the end, creel made: those it may remove.
    pub made: u32,
}

/// The container's cgroup. Directories are opened when they are first used.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) mode: Mode,
    pub(crate) owner: Owner,
    pub(crate) rootless: bool,
    pub(crate) dirs: Vec<CgroupDir>,
    pub(crate) unit: Option<UnitRecord>,
    /// Until init is in the scope.
    pub(crate) birth: RefCell<Option<Birth>>,
}

/// The time between the birth of a scope and that of init.
#[derive(Debug)]
pub(crate) struct Birth {
    /// Keeps the scope alive.
    pub(crate) placeholder: Placeholder,
    /// Limits that leave no room for the placeholder.
    pub(crate) later: Vec<FileWrite>,
    /// The same for systemd.
    pub(crate) later_properties: Vec<Property>,
}

#[derive(Debug)]
pub(crate) struct CgroupDir {
    pub(crate) record: DirRecord,
    /// Made by this very command, so nothing is in it and nothing was attached to it.
    pub(crate) fresh: bool,
    /// systemd may have attached programs of its own.
    pub(crate) by_systemd: bool,
    fd: OnceCell<OwnedFd>,
}

impl CgroupDir {
    pub(crate) fn new(record: DirRecord) -> Self {
        CgroupDir { record, fresh: false, by_systemd: false, fd: OnceCell::new() }
    }

    pub(crate) fn is_unified(&self) -> bool {
        self.record.controllers.is_empty()
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.record.controllers.iter().any(|c| c == controller)
    }

    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd.as_fd());
        }
        let fd = dir::open(&self.record.path).map_err(|errno| self.error("open", "", errno))?;
        Ok(self.fd.get_or_init(|| fd).as_fd())
    }

    /// Error of a call on a file of the directory, or on the directory itself for `""`.
    pub(crate) fn error(&self, call: &'static str, file: &str, errno: rustix::io::Errno) -> Error {
        Error::Call { call, path: self.file(file), errno }
    }

    pub(crate) fn file(&self, file: &str) -> String {
        crate::path::join(&self.record.path, file)
    }

    pub(crate) fn read(&self, file: &str) -> Result<String, Error> {
        dir::read(self.fd()?, file).map_err(|errno| self.error("read", file, errno))
    }

    /// A file of one value, for which the directory is not opened: `list` asks one of each container.
    pub(crate) fn read_value(&self, file: &str) -> Result<String, Error> {
        let result = match self.fd.get() {
            Some(fd) => dir::read_value(fd, file),
            None => dir::read_value(rustix::fs::CWD, &self.file(file)),
        };
        result.map_err(|errno| self.error("read", file, errno))
    }

    pub(crate) fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        dir::write(self.fd()?, file, value).map_err(|errno| self.error("write", file, errno))
    }
}

impl Cgroup {
    /// What to keep in state.json.
    pub fn record(&self) -> CgroupRecord {
        CgroupRecord {
            mode: self.mode,
            owner: self.owner,
            rootless: self.rootless,
            dirs: self.dirs.iter().map(|d| d.record.clone()).collect(),
            unit: self.unit.clone(),
        }
    }

    /// The cgroup of a record. Opens nothing.
    pub fn from_record(record: &CgroupRecord) -> Cgroup {
        Cgroup {
            mode: record.mode,
            owner: record.owner,
            rootless: record.rootless,
            dirs: record.dirs.iter().cloned().map(CgroupDir::new).collect(),
            unit: record.unit.clone(),
            birth: RefCell::new(None),
        }
    }

    /// The unified hierarchy's directory, on v2 and hybrid hosts.
    pub(crate) fn unified(&self) -> Option<&CgroupDir> {
        self.dirs.iter().find(|d| d.is_unified())
    }

    /// The directory whose files belong to `controller`.
    pub(crate) fn controller(&self, controller: &str) -> Option<&CgroupDir> {
        match self.mode {
            Mode::V2 => self.unified(),
            Mode::V1 | Mode::Hybrid => self.dirs.iter().find(|d| d.has(controller)),
        }
    }

    /// Whether those inside are the container's: the directory was not there before, for others to use.
    pub fn is_own(&self) -> bool {
        self.members().is_none_or(|dir| dir.record.made > 0)
    }

    /// The directory that says who is inside: as in runc, that of the devices controller on v1.
    pub(crate) fn members(&self) -> Option<&CgroupDir> {
        self.controller("devices").or_else(|| self.dirs.first())
    }
}

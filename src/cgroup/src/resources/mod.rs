//! `.linux.resources` -> the writes that put it into force. Pure.
//!
//! The list is in the order in which a fresh cgroup takes it. Some pairs of values bound each
//! other (period and quota, memory and memory+swap), and on an existing cgroup the order that works
//! depends on the old values; such writes are marked [`FileWrite::reorder`], and the writer
//! comes back to them when the kernel says EINVAL. So nothing needs to be read first.

mod v1;
mod v2;

use std::borrow::Cow;
use std::fmt;

use creel_plan::spec::{HugepageLimit, Resources};

use crate::error::Invalid;
use crate::host::Hierarchy;

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWrite {
    /// Controller, which on v1 names the hierarchy.
    pub controller: Cow<'static, str>,
    /// File in the container's cgroup.
    pub file: Cow<'static, str>,
    /// What to write; one write(2) per line.
    pub value: String,
    /// Where it stands in the configuration.
    pub at: Cow<'static, str>,
    /// What to do when the kernel has no such file.
    pub if_missing: IfMissing,
    /// After EINVAL, try again behind the other writes of the controller.
    pub reorder: bool,
    /// Refuse when `memory.current` has reached this many bytes
    /// (`.linux.resources.memory.checkBeforeUpdate`).
    pub above_usage: Option<u64>,
}

/// What to do about ENOENT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMissing {
    /// Report it.
    Fail,
    /// Go on: the value is what the kernel does without the file.
    Skip,
    /// Write this to another file.
    Instead {
        /// File.
        file: &'static str,
        /// Value.
        value: String,
    },
}

impl FileWrite {
    fn new(
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        at: impl Into<Cow<'static, str>>,
    ) -> Self {
        FileWrite {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            at: at.into(),
            if_missing: IfMissing::Fail,
            reorder: false,
            above_usage: None,
        }
    }

    fn skip_if_missing(mut self) -> Self {
        self.if_missing = IfMissing::Skip;
        self
    }

    fn or_else(mut self, file: &'static str, value: impl ToString) -> Self {
        self.if_missing = IfMissing::Instead { file, value: value.to_string() };
        self
    }

    fn reorder(mut self) -> Self {
        self.reorder = true;
        self
    }
}

/// As a dry run prints it: `cpu.shares = "512"`.
impl fmt::Display for FileWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?}", self.file, self.value)
    }
}

/// The writes that put `.linux.resources` into force, in their order. Device rules are
/// not part of it: see [`crate::devices::plan_rules`].
pub fn plan_writes(resources: &Resources, hierarchy: Hierarchy) -> Result<Vec<FileWrite>, Invalid> {
    match hierarchy {
        Hierarchy::V1 => v1::plan(resources),
        Hierarchy::V2 => v2::plan(resources),
    }
}

/// `.linux.resources.pids.limit`: negative is unlimited; 0 becomes 1 as in runc and systemd, since
/// no container can start with 0.
fn pids(resources: &Resources) -> Option<FileWrite> {
    let limit = resources.pids.as_ref()?.limit?;
    let value = match limit {
        ..0 => "max".to_owned(),
        0 => "1".to_owned(),
        limit => limit.to_string(),
    };
    Some(FileWrite::new("pids", "pids.max", value, ".linux.resources.pids.limit"))
}

/// The cpuset lists go first: a v1 cpuset without them takes no task.
fn cpuset(resources: &Resources) -> impl Iterator<Item = FileWrite> {
    let cpu = resources.cpu.as_ref();
    let file = |file: &'static str, at: &'static str, value: Option<&String>| {
        value.filter(|v| !v.is_empty()).map(|v| FileWrite::new("cpuset", file, v, at))
    };
    file("cpuset.cpus", ".linux.resources.cpu.cpus", cpu.map(|c| &c.cpus)).into_iter().chain(file(
        "cpuset.mems",
        ".linux.resources.cpu.mems",
        cpu.map(|c| &c.mems),
    ))
}

/// Usage limit, and reservation limit where the kernel has one (5.7).
fn hugetlb(limits: &[HugepageLimit], suffix: &str) -> Result<Vec<FileWrite>, Invalid> {
    let mut writes = Vec::with_capacity(limits.len() * 2);
    for (i, limit) in limits.iter().enumerate() {
        let at = format!(".linux.resources.hugepageLimits[{i}]");
        let size = &limit.page_size;
        let digits = size.trim_end_matches(|c: char| c.is_ascii_uppercase());
        let is_size = !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && matches!(&size[digits.len()..], "KB" | "MB" | "GB");
        if !is_size {
            return Err(Invalid::new(
                format!("{at}.pageSize"),
                format!("{size:?} is no page size; expected one such as \"2MB\""),
            ));
        }
        writes.push(FileWrite::new("hugetlb", format!("hugetlb.{size}{suffix}"), limit.limit, at.clone()));
        let rsvd = FileWrite::new("hugetlb", format!("hugetlb.{size}.rsvd{suffix}"), limit.limit, at);
        writes.push(rsvd.skip_if_missing());
    }
    Ok(writes)
}

fn rdma(resources: &Resources) -> Result<Vec<FileWrite>, Invalid> {
    let mut writes = Vec::with_capacity(resources.rdma.len());
    for (device, limits) in &resources.rdma {
        let at = format!(".linux.resources.rdma[{device:?}]");
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Invalid::new(at, "no RDMA device has such a name"));
        }
        let mut value = device.clone();
        if let Some(handles) = limits.hca_handles {
            value.push_str(&format!(" hca_handle={handles}"));
        }
        if let Some(objects) = limits.hca_objects {
            value.push_str(&format!(" hca_object={objects}"));
        }
        writes.push(FileWrite::new("rdma", "rdma.max", value, at));
    }
    Ok(writes)
}

/// 0 stands for "not set" in most integer fields, as in runc.
pub(crate) fn set<T: Copy + Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|v| *v != T::default())
}

#[cfg(test)]
mod tests;

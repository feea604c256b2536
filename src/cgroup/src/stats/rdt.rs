//! Cache and memory bandwidth as resctrl counts them (the kernel's filesystems/resctrl).
//!
//! A container that was put into a resource group of its own is told by its init, which
//! /proc/PID/cpu_resctrl_groups places (5.6). The root group is everybody's: it says nothing about
//! a container.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::Serialize;

use super::files::unsigned;
use crate::error::Error;

/// Magic number of resctrl in statfs(2).
const MAGIC: u64 = 0x0765_5821;
const MOUNT_POINT: &str = "/sys/fs/resctrl";

/// What the group of a container may use, and has used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IntelRdt {
    /// The cache that can be allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<L3CacheInfo>,
    /// `L3:...` of the root group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// `L3:...` of the container's group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// The bandwidth that can be allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<MemBwInfo>,
    /// `MB:...` of the root group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// `MB:...` of the container's group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// All lines of the group's schemata.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Bandwidth used, by memory node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<BandwidthUsed>>,
    /// Cache used, by cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<CacheUsed>>,
}

/// info/L3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as the files are")]
pub struct L3CacheInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cbm_mask: String,
    #[serde(skip_serializing_if = "super::is_default")]
    pub min_cbm_bits: u64,
    #[serde(skip_serializing_if = "super::is_default")]
    pub num_closids: u64,
}

/// info/MB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as the files are")]
pub struct MemBwInfo {
    #[serde(skip_serializing_if = "super::is_default")]
    pub bandwidth_gran: u64,
    #[serde(skip_serializing_if = "super::is_default")]
    pub delay_linear: u64,
    #[serde(skip_serializing_if = "super::is_default")]
    pub min_bandwidth: u64,
    #[serde(skip_serializing_if = "super::is_default")]
    pub num_closids: u64,
}

/// Bytes read from memory; 0 for a counter that the processor lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BandwidthUsed {
    /// From all of it.
    pub mbm_total_bytes: u64,
    /// From this node's own.
    pub mbm_local_bytes: u64,
}

/// Bytes of cache in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheUsed {
    /// Last level cache.
    pub llc_occupancy: u64,
}

/// What the resource group of a process counts; nothing without resctrl, or in the root group.
pub fn of_process(pid: i32) -> Result<IntelRdt, Error> {
    Group::of_process(pid)
        .map_or(Ok(IntelRdt::default()), |group| read(&group.root, &group.path, &group.monitored))
}

/// New lines for the schemata of a process's group: `L3:0=f` and `MB:0=50`, as the kernel takes them.
pub fn set_schemata(pid: i32, lines: &[&str]) -> Result<(), Error> {
    let group =
        Group::of_process(pid).ok_or(Error::NoCgroup("set a schema without a resctrl group of its own"))?;
    write_schemata(&group.path, lines)
}

fn write_schemata(group: &Path, lines: &[&str]) -> Result<(), Error> {
    let file = group.join("schemata");
    let text: String = lines.iter().map(|line| format!("{}\n", line.trim_end())).collect();
    std::fs::write(&file, text).map_err(|error| failed("write", &file, &error))
}

/// Which of its two halves a kernel and processor have, mounted: cache allocation, bandwidth
/// allocation.
pub fn is_enabled(part: &str) -> bool {
    resctrl_root().is_some_and(|root| root.join("info").join(part).exists())
}

/// The resource group of a process.
struct Group {
    root: PathBuf,
    path: PathBuf,
    monitored: PathBuf,
}

impl Group {
    fn of_process(pid: i32) -> Option<Group> {
        let root = resctrl_root()?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/cpu_resctrl_groups")).ok()?;
        let (group, monitored) = groups_of(&text)?;
        let path = root.join(group);
        let monitored = match monitored {
            "" => path.clone(),
            name => path.join("mon_groups").join(name),
        };
        Some(Group { root, path, monitored })
    }
}

/// `res:GROUP` and `mon:GROUP`; nothing for the root group.
fn groups_of(text: &str) -> Option<(&str, &str)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let group = field("res:")?.trim_matches('/');
    let inside = |name: &str| !name.is_empty() && !name.contains('/') && name != "..";
    inside(group).then_some((group, field("mon:").filter(|name| inside(name)).unwrap_or("")))
}

/// Where resctrl is mounted, if it is. Without the usual directory the machine has none: that costs one call.
pub fn resctrl_root() -> Option<PathBuf> {
    let usual = rustix::fs::statfs(MOUNT_POINT).ok()?;
    #[allow(clippy::cast_sign_loss, reason = "a magic number; its type differs by architecture")]
    if usual.f_type as u64 == MAGIC {
        return Some(PathBuf::from(MOUNT_POINT));
    }
    let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
    mounted_elsewhere(&String::from_utf8_lossy(&mounts))
}

/// Mount point of the first resctrl of a mountinfo (proc_pid_mountinfo(5)).
fn mounted_elsewhere(mounts: &str) -> Option<PathBuf> {
    let line = mounts.lines().find(|line| {
        line.split_once(" - ").is_some_and(|(_, rest)| rest.split(' ').next() == Some("resctrl"))
    })?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// Reads the group `group`, and the counters of `monitored`, which is the same one unless the
/// container has a monitoring group of its own.
pub fn read(root: &Path, group: &Path, monitored: &Path) -> Result<IntelRdt, Error> {
    let of_root = lines(&root.join("schemata"))?;
    let schemata = lines(&group.join("schemata"))?;
    let mut rdt = IntelRdt::default();
    let last = |lines: &[String], kind: &str| {
        lines.iter().rfind(|line| line.contains(kind)).cloned().unwrap_or_default()
    };
    let info = root.join("info");
    if info.join("L3").exists() {
        rdt.l3_cache_info = Some(l3_cache_info(&info.join("L3"))?);
        rdt.l3_cache_schema_root = last(&of_root, "L3");
        rdt.l3_cache_schema = last(&schemata, "L3");
    }
    if info.join("MB").exists() {
        rdt.mem_bw_info = Some(mem_bw_info(&info.join("MB"))?);
        rdt.mem_bw_schema_root = last(&of_root, "MB");
        rdt.mem_bw_schema = last(&schemata, "MB");
    }
    rdt.schemata = schemata;
    let features = info.join("L3_MON/mon_features");
    if features.exists() {
        counters(&lines(&features)?, monitored, &mut rdt)?;
    }
    Ok(rdt)
}

fn l3_cache_info(dir: &Path) -> Result<L3CacheInfo, Error> {
    Ok(L3CacheInfo {
        cbm_mask: text(&dir.join("cbm_mask"))?,
        min_cbm_bits: number(&dir.join("min_cbm_bits"))?,
        num_closids: number(&dir.join("num_closids"))?,
    })
}

fn mem_bw_info(dir: &Path) -> Result<MemBwInfo, Error> {
    Ok(MemBwInfo {
        bandwidth_gran: number(&dir.join("bandwidth_gran"))?,
        delay_linear: number(&dir.join("delay_linear"))?,
        min_bandwidth: number(&dir.join("min_bandwidth"))?,
        num_closids: number(&dir.join("num_closids"))?,
    })
}

/// mon_data has a directory for each cache: mon_L3_00, mon_L3_01.
fn counters(features: &[String], group: &Path, rdt: &mut IntelRdt) -> Result<(), Error> {
    let has = |feature: &str| features.iter().any(|known| known == feature);
    let dir = group.join("mon_data");
    let entries = std::fs::read_dir(&dir).map_err(|error| failed("read", &dir, &error))?;
    let mut caches: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    caches.sort();
    let count = |cache: &Path, feature: &str| if has(feature) { number(&cache.join(feature)) } else { Ok(0) };
    if has("mbm_total_bytes") || has("mbm_local_bytes") {
        let used = caches.iter().map(|cache| {
            Ok(BandwidthUsed {
                mbm_total_bytes: count(cache, "mbm_total_bytes")?,
                mbm_local_bytes: count(cache, "mbm_local_bytes")?,
            })
        });
        rdt.mbm_stats = Some(used.collect::<Result<_, Error>>()?);
    }
    if has("llc_occupancy") {
        let used = caches.iter().map(|cache| Ok(CacheUsed { llc_occupancy: count(cache, "llc_occupancy")? }));
        rdt.cmt_stats = Some(used.collect::<Result<_, Error>>()?);
    }
    Ok(())
}

fn failed(call: &'static str, path: &Path, error: &std::io::Error) -> Error {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    Error::Call { call, path: path.to_string_lossy().into_owned(), errno }
}

fn text(path: &Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| failed("read", path, &error))?;
    Ok(text.trim().to_owned())
}

fn lines(path: &Path) -> Result<Vec<String>, Error> {
    Ok(text(path)?.lines().map(|line| line.trim().to_owned()).collect())
}

fn number(path: &Path) -> Result<u64, Error> {
    let text = text(path)?;
    unsigned(&text).ok_or_else(|| Error::Malformed { path: path.to_string_lossy().into_owned(), found: text })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const FILES: [(&str, &str); 16] = [
        ("schemata", "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n"),
        ("info/L3/cbm_mask", "fffff\n"),
        ("info/L3/min_cbm_bits", "1\n"),
        ("info/L3/num_closids", "16\n"),
        ("info/MB/bandwidth_gran", "10\n"),
        ("info/MB/delay_linear", "1\n"),
        ("info/MB/min_bandwidth", "10\n"),
        ("info/MB/num_closids", "8\n"),
        ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\n"),
        ("web/schemata", "    L3:0=f;1=f0\n    MB:0=20;1=70\n"),
        ("web/mon_data/mon_L3_01/llc_occupancy", "2\n"),
        ("web/mon_data/mon_L3_01/mbm_total_bytes", "20\n"),
        ("web/mon_data/mon_L3_00/llc_occupancy", "1\n"),
        ("web/mon_data/mon_L3_00/mbm_total_bytes", "10\n"),
        ("web/mon_groups/w/mon_data/mon_L3_00/llc_occupancy", "7\n"),
        ("web/mon_groups/w/mon_data/mon_L3_00/mbm_total_bytes", "8\n"),
    ];

    fn resctrl(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn a_groups_share_and_use_are_told_as_runc_tells_them() {
        let root = resctrl(&FILES);
        let group = root.path().join("web");
        let rdt = read(root.path(), &group, &group).unwrap();
        let expected = r#"{"l3_cache_info":{"cbm_mask":"fffff","min_cbm_bits":1,"num_closids":16},"l3_cache_schema_root":"L3:0=fffff;1=fffff","l3_cache_schema":"L3:0=f;1=f0","mem_bw_info":{"bandwidth_gran":10,"delay_linear":1,"min_bandwidth":10,"num_closids":8},"mem_bw_schema_root":"MB:0=100;1=100","mem_bw_schema":"MB:0=20;1=70","schemata":["L3:0=f;1=f0","MB:0=20;1=70"],"mbm_stats":[{"mbm_total_bytes":10,"mbm_local_bytes":0},{"mbm_total_bytes":20,"mbm_local_bytes":0}],"cmt_stats":[{"llc_occupancy":1},{"llc_occupancy":2}]}"#;
        assert_eq!(serde_json::to_string(&rdt).unwrap(), expected);
    }

    #[test]
    fn a_monitoring_group_of_its_own_counts_alone() {
        let root = resctrl(&FILES);
        let group = root.path().join("web");
        let rdt = read(root.path(), &group, &group.join("mon_groups/w")).unwrap();
        assert_eq!(rdt.cmt_stats, Some(vec![CacheUsed { llc_occupancy: 7 }]));
    }

    #[test]
    fn a_processor_without_monitoring_or_bandwidth_control_counts_nothing() {
        let root = resctrl(&FILES[..4]);
        let rdt = read(root.path(), root.path(), root.path()).unwrap();
        assert_eq!((rdt.mem_bw_info, rdt.mbm_stats, rdt.cmt_stats), (None, None, None));
        assert_eq!(rdt.l3_cache_info.unwrap().num_closids, 16);
        assert_eq!(serde_json::to_string(&IntelRdt::default()).unwrap(), "{}");
    }

    #[test]
    fn new_schemata_are_written_line_by_line() {
        let root = resctrl(&FILES);
        let group = root.path().join("web");
        write_schemata(&group, &["L3:0=3", "MB:0=50"]).unwrap();
        assert_eq!(std::fs::read_to_string(group.join("schemata")).unwrap(), "L3:0=3\nMB:0=50\n");
        let error = write_schemata(&root.path().join("none"), &["L3:0=3"]).unwrap_err().to_string();
        assert!(error.contains("none/schemata") && error.contains("ENOENT"), "{error}");
    }

    #[test]
    fn the_group_is_the_one_that_the_kernel_names() {
        for (text, expected) in [
            ("res:/\nmon:\n", None),
            ("res:\nmon:\n", None),
            ("", None),
            ("res:web\nmon:\n", Some(("web", ""))),
            ("res:web\nmon:w\n", Some(("web", "w"))),
            ("res:..\nmon:w\n", None),
        ] {
            assert_eq!(groups_of(text), expected, "{text:?}");
        }
        let mounts =
            "22 1 0:20 / /sys rw - sysfs sysfs rw\n40 22 0:31 / /mnt/rdt rw shared:9 - resctrl x rw\n";
        assert_eq!(mounted_elsewhere(mounts), Some(PathBuf::from("/mnt/rdt")));
        assert_eq!(mounted_elsewhere("22 1 0:20 / /resctrl rw - sysfs resctrl rw\n"), None);
    }
}

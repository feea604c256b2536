//! `.linux.resources` as properties of a unit (systemd.resource-control(5)).
//!
//! Pure. Every value is written to its file as well; a property beside it keeps systemd from putting
//! its own idea there when it next looks at the unit (a daemon-reload, a change of a sibling). So the
//! properties are made from the planned writes, those of `.unified` among them, and a limit has one
//! meaning. What systemd has no property for stays in the files alone.

use std::borrow::Cow;

use super::wire::Value;
use crate::devices::{self, Rule};
use crate::error::Invalid;
use crate::host::Hierarchy;
use crate::resources::{FileWrite, IfMissing};

/// A property of a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// Name on the bus, which is not always that of the unit file.
    pub name: String,
    /// Value.
    pub value: Value,
}

impl Property {
    /// A property.
    pub fn new(name: &str, value: Value) -> Property {
        Property { name: name.to_owned(), value }
    }

    /// As systemd's calls take it.
    pub fn to_value(&self) -> Value {
        Value::property(&self.name, self.value.clone())
    }
}

/// As systemd writes "no limit".
const INFINITY: u64 = u64::MAX;
/// Microseconds, of the kernel and of systemd.
const DEFAULT_PERIOD: u64 = 100_000;
/// systemd keeps a quota as a percentage: 1 % of a second is 10 ms.
const PERCENT: u64 = 10_000;

/// Makes the writes such as systemd can hold too.
pub fn fit(writes: &mut Vec<FileWrite>) {
    round_quota(writes);
    // CPUWeight=0 is idle, so a unit has one of the two; the kernel takes no weight of an idle cgroup.
    let is_weight = |write: &FileWrite| write.file == "cpu.weight";
    let idle = writes.iter().any(|write| write.file == "cpu.idle" && write.value.trim() == "1");
    if idle && writes.iter().any(is_weight) {
        tracing::warn!("unable to apply both cpu.weight and cpu.idle to systemd, ignoring cpu.weight");
        writes.retain(|write| !is_weight(write));
    }
}

/// Rounds cpu quotas of the config up to what systemd can hold, so that the file says what the unit
/// does and child cgroups can have the quota they were promised. `.unified` is written as it is.
fn round_quota(writes: &mut [FileWrite]) {
    let v1_period = writes.iter().find(|w| w.file == "cpu.cfs_period_us").map(|w| w.value.clone());
    for write in writes.iter_mut().filter(|w| w.at.starts_with(".linux.resources.cpu.")) {
        if write.file == "cpu.max" {
            let Some((quota, period)) = write.value.split_once(' ') else { continue };
            if let Some(rounded) = rounded(quota, period) {
                write.value = format!("{rounded} {period}");
            }
        } else if write.file == "cpu.cfs_quota_us" {
            let period = v1_period.as_deref().map_or(Cow::Owned(DEFAULT_PERIOD.to_string()), Cow::Borrowed);
            if let Some(rounded) = rounded(&write.value, &period) {
                write.value = rounded.to_string();
            }
        }
    }
}

fn rounded(quota: &str, period: &str) -> Option<u64> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    let per_second = per_second(quota, period)?;
    // A quota that is whole already keeps its value, which the division might shave.
    if quota.checked_mul(1_000_000)? / period == per_second {
        return None;
    }
    per_second.checked_mul(period).map(|product| product / 1_000_000)
}

/// Microseconds of CPU per second, in whole percents.
fn per_second(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1_000_000)?.checked_div(period)?.checked_next_multiple_of(PERCENT)
}

/// The properties of these writes. Of two values for one property the later counts, as in the file.
pub fn plan(writes: &[FileWrite], hierarchy: Hierarchy) -> Result<Vec<Property>, Invalid> {
    let mut properties: Vec<Property> = Vec::new();
    for write in writes {
        for property in translate(write, writes, hierarchy)? {
            properties.retain(|old| old.name != property.name);
            properties.push(property);
        }
    }
    Ok(properties)
}

fn translate(write: &FileWrite, all: &[FileWrite], hierarchy: Hierarchy) -> Result<Vec<Property>, Invalid> {
    let value = write.value.trim();
    let invalid = |what: &str| Invalid::new(write.at.clone().into_owned(), format!("{value:?} is no {what}"));
    let number = |what: &str| value.parse::<u64>().map_err(|_| invalid(what));
    let limit = || match value {
        "max" | "-1" => Ok(INFINITY),
        _ => number("limit"),
    };
    let one = |name: &str, value: u64| Ok(vec![Property::new(name, Value::U64(value))]);
    let v2 = hierarchy == Hierarchy::V2;
    match write.file.as_ref() {
        "cpu.weight" if v2 => {
            // CPUWeight carries both; an idle cgroup has no weight.
            let idle = all.iter().any(|w| w.file == "cpu.idle" && w.value.trim() == "1");
            if idle { Ok(Vec::new()) } else { one("CPUWeight", number("weight")?) }
        }
        // systemd 252 and newer: a weight of 0 is idle.
        "cpu.idle" if v2 && value == "1" => one("CPUWeight", 0),
        "cpu.max" if v2 => {
            let mut parts = value.split_whitespace();
            let quota = match parts.next() {
                Some("max") => None,
                Some(quota) => Some(quota.parse().map_err(|_| invalid("quota"))?),
                None => return Err(invalid("quota")),
            };
            let period = match parts.next() {
                Some(period) => period.parse().map_err(|_| invalid("period"))?,
                None => DEFAULT_PERIOD,
            };
            quota_properties(quota, period).ok_or_else(|| invalid("quota"))
        }
        "cpu.shares" => one("CPUShares", number("share")?),
        "cpu.cfs_quota_us" => {
            let period = all.iter().find(|w| w.file == "cpu.cfs_period_us").map(|w| w.value.parse());
            let period = period.and_then(Result::ok).unwrap_or(DEFAULT_PERIOD);
            let quota = if value.starts_with('-') { None } else { Some(number("quota")?) };
            quota_properties(quota, period).ok_or_else(|| invalid("quota"))
        }
        "cpuset.cpus" => Ok(vec![Property::new("AllowedCPUs", mask(value).map_err(|()| invalid("list"))?)]),
        "cpuset.mems" => {
            Ok(vec![Property::new("AllowedMemoryNodes", mask(value).map_err(|()| invalid("list"))?)])
        }
        "pids.max" => one("TasksMax", limit()?.max(1)),
        "memory.limit_in_bytes" => one("MemoryLimit", limit()?),
        "memory.max" if v2 => one("MemoryMax", limit()?),
        "memory.high" if v2 => one("MemoryHigh", limit()?),
        "memory.low" if v2 => one("MemoryLow", limit()?),
        "memory.min" if v2 => one("MemoryMin", limit()?),
        "memory.swap.max" if v2 => one("MemorySwapMax", limit()?),
        "blkio.weight" => one("BlockIOWeight", number("weight")?),
        "io.bfq.weight" if v2 => match &write.if_missing {
            // A weight of the config, not one per device; the file without BFQ has systemd's scale.
            IfMissing::Instead { value, .. } if !value.contains(' ') => {
                one("IOWeight", value.parse().map_err(|_| invalid("weight"))?)
            }
            IfMissing::Instead { .. } | IfMissing::Fail | IfMissing::Skip => Ok(Vec::new()),
        },
        "io.weight" if v2 => match value.strip_prefix("default ").unwrap_or(value).trim().parse() {
            Ok(weight) => one("IOWeight", weight),
            // Of one device; the file has it.
            Err(_) => Ok(Vec::new()),
        },
        _ => Ok(Vec::new()),
    }
}

fn quota_properties(quota: Option<u64>, period: u64) -> Option<Vec<Property>> {
    let per_second = match quota {
        Some(quota) => per_second(quota, period)?,
        None => INFINITY,
    };
    Some(vec![
        Property::new("CPUQuotaPeriodUSec", Value::U64(period)),
        Property::new("CPUQuotaPerSecUSec", Value::U64(per_second)),
    ])
}

/// Bound on the numbers of a list, so that a typo makes no mask of gigabytes.
const MOST: usize = 1 << 16;

/// `0-2,5` as a little-endian bit mask.
fn mask(list: &str) -> Result<Value, ()> {
    let mut bits: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) =
            (first.trim().parse().map_err(|_| ())?, last.trim().parse().map_err(|_| ())?);
        if first > last || last >= MOST {
            return Err(());
        }
        bits.resize(bits.len().max(last / 8 + 1), 0);
        for bit in first..=last {
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    if bits.is_empty() {
        return Err(());
    }
    Ok(Value::Array("y".to_owned(), bits.into_iter().map(Value::Byte).collect()))
}

/// `memory.oom.group` as OOMPolicy, which scopes have since systemd 253, and by which it writes the file
/// anew. It is for the start of a scope alone: systemd does not change it later.
pub fn plan_oom_policy(writes: &[FileWrite], hierarchy: Hierarchy) -> Option<Property> {
    let write = writes.iter().rfind(|w| w.file == "memory.oom.group" && hierarchy == Hierarchy::V2)?;
    let policy = match write.value.trim() {
        "0" => "continue",
        "1" => "kill",
        // The kernel refuses it.
        _ => return None,
    };
    Some(Property::new("OOMPolicy", Value::text(policy)))
}

/// The device rules as DevicePolicy and DeviceAllow: systemd then enforces the same as creel, and a
/// daemon-reload takes no device away (runc issue 4568).
///
/// systemd's list only allows. Rules that it cannot express are left to creel: on v2 systemd
/// gets no policy at all and creel's program, which systemd does not touch, decides alone. On v1 both
/// write the same files, so systemd gets the strict empty list and creel writes after it.
pub fn plan_devices(rules: &[Rule], hierarchy: Hierarchy) -> Vec<Property> {
    let entries = |list: &[(String, String)]| {
        let entry = |(path, access): &(String, String)| {
            Value::Struct(vec![Value::text(path.as_str()), Value::text(access.as_str())])
        };
        Property::new("DeviceAllow", Value::Array("(ss)".to_owned(), list.iter().map(entry).collect()))
    };
    // DeviceAllow adds to what is there; an empty one clears it.
    let clear = entries(&[]);
    let policy = |word: &str| Property::new("DevicePolicy", Value::text(word));
    if devices::allow_everything(rules) {
        return vec![clear, policy("auto")];
    }
    match (devices::allow_list(rules), hierarchy) {
        (Some(list), _) => vec![clear, policy("strict"), entries(&list)],
        (None, Hierarchy::V2) => vec![clear, policy("auto")],
        (None, Hierarchy::V1) => vec![clear, policy("strict")],
    }
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;

//! New limits for a cgroup that is in use: all that were named, or none.
//!
//! v1 has a file for every value. On v2 two values live where the configuration has one: `cpu.max`
//! holds quota and period, and the swap limit is what memory and swap together exceed memory by.
//! The half that was not named is read back from the kernel, never assumed: a default in its place
//! would change what nobody asked to change (runc issue 4225).

use creel_plan::spec::{Cpu, Memory, Resources};

use crate::error::Error;
use crate::host::Hierarchy;
use crate::record::Cgroup;
use crate::resources::{FileWrite, IfMissing, plan_writes, set};
use crate::systemd;

const CPU_MAX: &str = "cpu.max";
const MEMORY_MAX: &str = "memory.max";

impl Cgroup {
    /// Puts the limits that `resources` names into force. Device rules stay as they are. When the
    /// kernel refuses one, those before it get their old values again.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        let mut writes = self.plan_update(resources)?;
        if self.is_systemds() {
            systemd::fit(&mut writes);
            // systemd lowers a limit below what is in use without asking.
            self.check_usages(&writes)?;
        }
        let old: Vec<FileWrite> = writes.iter().rev().filter_map(|write| self.in_force(write)).collect();
        // systemd takes all or none, and one that does not answer is not waited for twice.
        self.set_properties(&writes)?;
        let result = self.apply(&writes);
        if result.is_err() {
            // The refusal is what counts.
            self.set_properties(&old).ok();
            for group in old.chunk_by(|a, b| a.controller == b.controller) {
                self.apply(group).ok();
            }
        }
        result
    }

    fn plan_update(&self, resources: &Resources) -> Result<Vec<FileWrite>, Error> {
        let hierarchy = self.mode.hierarchy();
        let mut whole = resources.clone();
        let mut named_limit = true;
        match hierarchy {
            // systemd takes the two together, and the file needs no second thought.
            Hierarchy::V1 if self.is_systemds() => self.fill_quota_and_period(&mut whole)?,
            Hierarchy::V1 => {}
            Hierarchy::V2 => {
                if let Some(cpu) = whole.cpu.as_mut().filter(|cpu| is_half(cpu)) {
                    let text = self.value("cpu", CPU_MAX)?;
                    other_half(cpu, &text).ok_or_else(|| self.malformed("cpu", CPU_MAX, text))?;
                }
                if let Some(memory) = whole.memory.as_mut().filter(|memory| needs_limit(memory)) {
                    named_limit = false;
                    let text = self.value("memory", MEMORY_MAX)?;
                    memory.limit = text.trim().parse().ok();
                }
            }
        }
        let mut writes = plan_writes(&whole, hierarchy)?;
        writes.retain(|write| named_limit || write.file != MEMORY_MAX);
        Ok(writes)
    }

    /// v1: the half of quota and period that was not named, as it is in force.
    fn fill_quota_and_period(&self, resources: &mut Resources) -> Result<(), Error> {
        const QUOTA: &str = "cpu.cfs_quota_us";
        const PERIOD: &str = "cpu.cfs_period_us";
        let Some(cpu) = resources.cpu.as_mut().filter(|cpu| is_half(cpu)) else { return Ok(()) };
        let (quota, period) = (self.value("cpu", QUOTA)?, self.value("cpu", PERIOD)?);
        other_half(cpu, &format!("{} {}", quota.trim(), period.trim()))
            .ok_or_else(|| self.malformed("cpu", QUOTA, quota))
    }

    fn value(&self, controller: &str, file: &str) -> Result<String, Error> {
        self.controller(controller).ok_or(Error::NoCgroup("update"))?.read(file)
    }

    fn malformed(&self, controller: &str, file: &str, found: String) -> Error {
        let path = self.controller(controller).map(|dir| dir.file(file)).unwrap_or_default();
        Error::Malformed { path, found }
    }

    /// The write that would undo `write`. Files of several lines hold more than the one value; they
    /// are not put back.
    fn in_force(&self, write: &FileWrite) -> Option<FileWrite> {
        let dir = self.controller(&write.controller)?;
        let read = |file: &str| dir.read(file).ok().filter(|text| text.lines().count() == 1);
        let (file, text) = match (&write.if_missing, read(&write.file)) {
            (_, Some(text)) => (write.file.clone(), text),
            (IfMissing::Instead { file, .. }, None) => ((*file).into(), read(file)?),
            (IfMissing::Fail | IfMissing::Skip, None) => return None,
        };
        Some(FileWrite {
            file,
            value: text.trim_end().to_owned(),
            if_missing: IfMissing::Skip,
            reorder: true,
            above_usage: None,
            ..write.clone()
        })
    }
}

fn is_half(cpu: &Cpu) -> bool {
    set(cpu.quota).is_some() != set(cpu.period).is_some()
}

/// Takes what was not named from `cpu.max`, which reads `QUOTA|max PERIOD`.
fn other_half(cpu: &mut Cpu, text: &str) -> Option<()> {
    let (quota, period) = text.trim().split_once(' ')?;
    if set(cpu.quota).is_none() {
        cpu.quota = Some(if quota == "max" { -1 } else { quota.parse().ok()? });
    } else {
        cpu.period = Some(period.parse().ok()?);
    }
    Some(())
}

/// Unlimited memory and swap is unlimited swap, whatever memory's own limit.
fn needs_limit(memory: &Memory) -> bool {
    set(memory.limit).is_none() && set(memory.swap).is_some_and(|swap| swap != -1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::host::Mode;
    use crate::record::{CgroupRecord, DirRecord, Owner};

    /// What an update of a v2 cgroup with these limits would write.
    fn planned(json: &str, cpu_max: &str, memory_max: &str) -> Result<Vec<String>, Error> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CPU_MAX), cpu_max).unwrap();
        std::fs::write(dir.path().join(MEMORY_MAX), memory_max).unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let cgroup = Cgroup::from_record(&CgroupRecord {
            mode: Mode::V2,
            owner: Owner::Cgroupfs,
            rootless: false,
            dirs: vec![DirRecord { controllers: Vec::new(), path, made: 0 }],
            unit: None,
        });
        let writes = cgroup.plan_update(&serde_json::from_str(json).unwrap())?;
        Ok(writes.iter().map(FileWrite::to_string).collect())
    }

    #[test]
    fn only_what_is_named_is_written_on_v2() {
        for (json, writes) in [
            ("{}", &[][..]),
            (r#"{"cpu":{"quota":5000}}"#, &[r#"cpu.max = "5000 20000""#]),
            (r#"{"cpu":{"period":40000}}"#, &[r#"cpu.max = "10000 40000""#]),
            (r#"{"cpu":{"quota":-1}}"#, &[r#"cpu.max = "max 20000""#]),
            (r#"{"cpu":{"quota":1000,"period":2000}}"#, &[r#"cpu.max = "1000 2000""#]),
            (r#"{"cpu":{"shares":1024}}"#, &[r#"cpu.weight = "100""#]),
            (r#"{"memory":{"swap":1500}}"#, &[r#"memory.swap.max = "500""#]),
            (r#"{"memory":{"swap":-1}}"#, &[r#"memory.swap.max = "max""#]),
            (r#"{"memory":{"limit":500}}"#, &[r#"memory.max = "500""#]),
            (
                r#"{"memory":{"limit":500,"swap":500}}"#,
                &[r#"memory.swap.max = "0""#, r#"memory.max = "500""#],
            ),
        ] {
            assert_eq!(planned(json, "10000 20000\n", "1000\n").unwrap(), writes, "{json}");
        }
    }

    #[test]
    fn what_is_in_force_decides_what_can_be_named_alone() {
        for (json, cpu_max, memory_max, words) in [
            (r#"{"memory":{"swap":500}}"#, "", "1000\n", "memory+swap limit should be >= memory limit"),
            (r#"{"memory":{"swap":500}}"#, "", "max\n", "unable to set swap limit without memory limit"),
            (r#"{"cpu":{"period":500}}"#, "", "", "cpu.max: unexpected content"),
        ] {
            let error = planned(json, cpu_max, memory_max).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    fn cpu(quota: Option<i64>, period: Option<u64>) -> Cpu {
        Cpu { quota, period, ..Cpu::default() }
    }

    #[test]
    fn the_half_that_was_not_named_stays() {
        for (named, in_force, quota, period) in [
            (cpu(Some(5000), None), "max 20000\n", 5000, 20_000),
            (cpu(Some(-1), None), "5000 20000\n", -1, 20_000),
            (cpu(None, Some(10_000)), "5000 20000\n", 5000, 10_000),
            (cpu(None, Some(10_000)), "max 20000\n", -1, 10_000),
            (cpu(Some(0), Some(10_000)), "5000 20000\n", 5000, 10_000),
            (cpu(Some(5000), Some(0)), "max 20000\n", 5000, 20_000),
        ] {
            assert!(is_half(&named));
            let mut whole = named.clone();
            other_half(&mut whole, in_force).unwrap();
            assert_eq!((whole.quota, whole.period), (Some(quota), Some(period)), "{named:?} {in_force}");
        }
        for whole in [cpu(None, None), cpu(Some(0), Some(0)), cpu(Some(5000), Some(10_000))] {
            assert!(!is_half(&whole));
        }
    }

    #[test]
    fn garbage_in_place_of_the_other_half_is_no_value() {
        for text in ["", "max", "many 100000\n"] {
            assert_eq!(other_half(&mut cpu(None, Some(1000)), text), None, "{text:?}");
        }
        assert_eq!(other_half(&mut cpu(Some(1000), None), "max often\n"), None);
    }

    #[test]
    fn swap_alone_is_measured_against_the_limit_in_force() {
        let memory = |limit, swap| Memory { limit, swap, ..Memory::default() };
        assert!(needs_limit(&memory(None, Some(100))));
        assert!(needs_limit(&memory(Some(0), Some(100))));
        assert!(!needs_limit(&memory(None, Some(-1))));
        assert!(!needs_limit(&memory(None, None)));
        assert!(!needs_limit(&memory(Some(50), Some(100))));
    }
}

//! v1: one directory per controller (the kernel's admin-guide/cgroup-v1).

use super::files::{Files, page_sizes, unsigned};
use super::{Blkio, BlkioEntry, Counter, CpuSet, CpuUsage, Hugetlb, Memory, Pids, Stats, Throttling};
use crate::error::Error;
use crate::record::Cgroup;

/// Nanoseconds of one tick of `cpuacct.stat`: USER_HZ is 100 on every architecture that creel
/// supports (times(2)).
const TICK: u64 = 10_000_000;

pub(super) fn read(cgroup: &Cgroup) -> Result<Stats, Error> {
    let mut stats = Stats::default();
    let files = |controller| cgroup.controller(controller).map(|dir| Files::of(dir, cgroup.rootless));
    if let Some(files) = files("cpuset") {
        stats.cpuset = cpuset(files)?;
    }
    if let Some(files) = files("memory") {
        stats.memory = memory(files)?;
    }
    if let Some(files) = files("cpu") {
        stats.cpu.throttling = throttling(files)?;
    }
    if let Some(files) = files("cpuacct") {
        stats.cpu.usage = cpu_usage(files)?;
    }
    if let Some(files) = files("pids") {
        stats.pids = pids(files)?;
    }
    if let Some(files) = files("blkio") {
        stats.blkio = blkio(files)?;
    }
    if let Some(files) = files("hugetlb") {
        for size in page_sizes() {
            if let Some(count) = hugetlb(files, &size)? {
                stats.hugetlb.insert(size, count);
            }
        }
    }
    Ok(stats)
}

fn cpuset(files: Files<'_>) -> Result<CpuSet, Error> {
    let number = |file: &str| Ok::<_, Error>(files.number(&format!("cpuset.{file}"))?.unwrap_or(0));
    let list = |file: &str| -> Result<Vec<u16>, Error> {
        let Some(text) = files.text(file)? else { return Ok(Vec::new()) };
        cpu_list(text.trim()).ok_or_else(|| files.malformed(file, &text))
    };
    Ok(CpuSet {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: number("cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: number("mem_hardwall")?,
        mem_exclusive: number("mem_exclusive")?,
        memory_migrate: number("memory_migrate")?,
        memory_spread_page: number("memory_spread_page")?,
        memory_spread_slab: number("memory_spread_slab")?,
        memory_pressure: number("memory_pressure")?,
        sched_load_balance: number("sched_load_balance")?,
        sched_relax_domain_level: files.signed("cpuset.sched_relax_domain_level")?.unwrap_or(0),
    })
}

/// `0-2,5` (cpuset(7), List format); an empty list is empty.
fn cpu_list(text: &str) -> Option<Vec<u16>> {
    let mut list = Vec::new();
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
        if from > to {
            return None;
        }
        list.extend(from..=to);
    }
    Some(list)
}

fn memory(files: Files<'_>) -> Result<Memory, Error> {
    let Some(raw) = files.pairs("memory.stat")? else { return Ok(Memory::default()) };
    let raw: std::collections::BTreeMap<_, _> = raw.into_iter().collect();
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: counter(files, "memory")?,
        swap: counter(files, "memory.memsw")?,
        kernel: counter(files, "memory.kmem")?,
        kernel_tcp: counter(files, "memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

/// A kernel without swap accounting, or newer than kernel memory limits, lacks files.
fn counter(files: Files<'_>, name: &str) -> Result<Counter, Error> {
    let number = |what: &str| Ok::<_, Error>(files.number(&format!("{name}.{what}"))?.unwrap_or(0));
    Ok(Counter {
        limit: number("limit_in_bytes")?,
        usage: number("usage_in_bytes")?,
        max: number("max_usage_in_bytes")?,
        failcnt: number("failcnt")?,
    })
}

fn throttling(files: Files<'_>) -> Result<Throttling, Error> {
    let mut throttling = Throttling::default();
    for (key, value) in files.pairs("cpu.stat")?.unwrap_or_default() {
        match key.as_str() {
            "nr_periods" => throttling.periods = value,
            "nr_throttled" => throttling.throttled_periods = value,
            "throttled_time" => throttling.throttled_time = value,
            _ => {}
        }
    }
    Ok(throttling)
}

fn cpu_usage(files: Files<'_>) -> Result<CpuUsage, Error> {
    const EACH: &str = "cpuacct.usage_percpu";
    let mut usage = CpuUsage { total: files.number("cpuacct.usage")?.unwrap_or(0), ..CpuUsage::default() };
    for (key, ticks) in files.pairs("cpuacct.stat")?.unwrap_or_default() {
        match key.as_str() {
            "user" => usage.user = ticks.saturating_mul(TICK),
            "system" => usage.kernel = ticks.saturating_mul(TICK),
            _ => {}
        }
    }
    if let Some(text) = files.text(EACH)? {
        let numbers =
            text.split_whitespace().map(|word| word.parse().map_err(|_| files.malformed(EACH, &text)));
        usage.percpu = numbers.collect::<Result<_, _>>()?;
    }
    // A heading, then `cpu user system`.
    let each = files.lines("cpuacct.usage_all", |line| match line.strip_prefix("cpu ") {
        Some(_) => Some(None),
        None => {
            let mut fields = line.split(' ').skip(1).map(|field| field.parse::<u64>().ok());
            Some(Some((fields.next()??, fields.next()??)))
        }
    })?;
    (usage.percpu_user, usage.percpu_kernel) = each.unwrap_or_default().into_iter().flatten().unzip();
    Ok(usage)
}

fn pids(files: Files<'_>) -> Result<Pids, Error> {
    Ok(Pids {
        current: files.number("pids.current")?.unwrap_or(0),
        limit: files.number("pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0),
    })
}

/// Which files a kernel has depends on its I/O scheduler. The first family whose first file names a
/// device is taken: bfq with its debug files, bfq, cfq, and what throttling counts.
fn blkio(files: Files<'_>) -> Result<Blkio, Error> {
    if let Some(sectors) = entries(files, "blkio.bfq.sectors_recursive")? {
        return scheduled(files, "blkio.bfq", sectors);
    }
    if let Some(serviced) = entries(files, "blkio.bfq.io_serviced_recursive")? {
        return served(files, serviced, "blkio.bfq.io_service_bytes_recursive");
    }
    if let Some(sectors) = entries(files, "blkio.sectors_recursive")? {
        return scheduled(files, "blkio", sectors);
    }
    for suffix in ["_recursive", ""] {
        if let Some(serviced) = entries(files, &format!("blkio.throttle.io_serviced{suffix}"))? {
            return served(files, serviced, &format!("blkio.throttle.io_service_bytes{suffix}"));
        }
    }
    Ok(Blkio::default())
}

/// What a scheduler counts.
fn scheduled(files: Files<'_>, prefix: &str, sectors: Vec<BlkioEntry>) -> Result<Blkio, Error> {
    let of = |name: &str| Ok::<_, Error>(entries(files, &format!("{prefix}.{name}"))?.unwrap_or_default());
    Ok(Blkio {
        sectors_recursive: sectors,
        io_service_time_recursive: of("io_service_time_recursive")?,
        io_wait_time_recursive: of("io_wait_time_recursive")?,
        io_merged_recursive: of("io_merged_recursive")?,
        io_queued_recursive: of("io_queued_recursive")?,
        io_time_recursive: of("time_recursive")?,
        io_serviced_recursive: of("io_serviced_recursive")?,
        io_service_bytes_recursive: of("io_service_bytes_recursive")?,
        psi: None,
    })
}

fn served(files: Files<'_>, serviced: Vec<BlkioEntry>, bytes: &str) -> Result<Blkio, Error> {
    Ok(Blkio {
        io_serviced_recursive: serviced,
        io_service_bytes_recursive: entries(files, bytes)?.unwrap_or_default(),
        ..Blkio::default()
    })
}

/// `8:0 Read 1282048`, or `8:0 6792`; the sum of all devices at the end is left out. `None` for a
/// file that is missing or names no device, as runc has it: the next family may.
fn entries(files: Files<'_>, file: &str) -> Result<Option<Vec<BlkioEntry>>, Error> {
    let lines = files.lines(file, |line| {
        if line.starts_with("Total ") {
            return Some(None);
        }
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        Some(Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: unsigned(value.trim())?,
        }))
    })?;
    let entries: Vec<_> = lines.unwrap_or_default().into_iter().flatten().collect();
    Ok(if entries.is_empty() { None } else { Some(entries) })
}

fn hugetlb(files: Files<'_>, size: &str) -> Result<Option<Hugetlb>, Error> {
    for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
        if let Some(usage) = files.number(&format!("{prefix}.usage_in_bytes"))? {
            return Ok(Some(Hugetlb {
                usage,
                max: files.number(&format!("{prefix}.max_usage_in_bytes"))?.unwrap_or(0),
                failcnt: files.number(&format!("{prefix}.failcnt"))?.unwrap_or(0),
            }));
        }
    }
    Ok(None)
}

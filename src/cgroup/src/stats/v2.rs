//! v2: one directory (the kernel's admin-guide/cgroup-v2).

use std::collections::BTreeMap;

use super::files::{Files, page_sizes};
use super::{Blkio, BlkioEntry, Counter, Cpu, Hugetlb, Memory, Pids, Pressure, PressureLine, Stats};
use crate::error::Error;
use crate::processes::value_of;
use crate::record::Cgroup;

pub(super) fn read(cgroup: &Cgroup) -> Result<Stats, Error> {
    let Some(dir) = cgroup.unified() else { return Ok(Stats::default()) };
    let files = Files::of(dir, cgroup.rootless);
    let mut stats = Stats {
        cpu: cpu(files)?,
        memory: memory(files)?,
        pids: pids(files)?,
        blkio: io(files)?,
        ..Stats::default()
    };
    for size in page_sizes() {
        if let Some(count) = hugetlb(files, &size)? {
            stats.hugetlb.insert(size, count);
        }
    }
    Ok(stats)
}

/// cpu.stat is there without the controller, in microseconds.
fn cpu(files: Files<'_>) -> Result<Cpu, Error> {
    let mut cpu = Cpu { psi: pressure(files, "cpu.pressure")?, ..Cpu::default() };
    for (key, value) in files.pairs("cpu.stat")?.unwrap_or_default() {
        let nanoseconds = value.saturating_mul(1000);
        match key.as_str() {
            "usage_usec" => cpu.usage.total = nanoseconds,
            "user_usec" => cpu.usage.user = nanoseconds,
            "system_usec" => cpu.usage.kernel = nanoseconds,
            "nr_periods" => cpu.throttling.periods = value,
            "nr_throttled" => cpu.throttling.throttled_periods = value,
            "throttled_usec" => cpu.throttling.throttled_time = nanoseconds,
            _ => {}
        }
    }
    Ok(cpu)
}

fn memory(files: Files<'_>) -> Result<Memory, Error> {
    let psi = pressure(files, "memory.pressure")?;
    let Some(raw) = files.pairs("memory.stat")? else { return Ok(Memory { psi, ..Memory::default() }) };
    let raw: BTreeMap<_, _> = raw.into_iter().collect();
    let usage = counter(files, "memory")?;
    let swap = counter(files, "memory.swap")?;
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap: Counter {
            // v1 counts memory and swap together, and readers expect that. The two peaks need not
            // have been at the same time, so their sum means nothing.
            usage: swap.usage.saturating_add(usage.usage),
            limit: swap.limit.saturating_add(if swap.limit == u64::MAX { 0 } else { usage.limit }),
            max: 0,
            failcnt: 0,
        },
        raw,
        psi,
        ..Memory::default()
    })
}

/// memory.peak came with 5.19, memory.swap.peak with 6.5.
fn counter(files: Files<'_>, name: &str) -> Result<Counter, Error> {
    let number = |what: &str| Ok::<_, Error>(files.number(&format!("{name}.{what}"))?.unwrap_or(0));
    Ok(Counter { limit: number("max")?, usage: number("current")?, max: number("peak")?, failcnt: 0 })
}

/// Without the controller the processes are counted by hand.
fn pids(files: Files<'_>) -> Result<Pids, Error> {
    if let Some(current) = files.number("pids.current")? {
        let limit = files.number("pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0);
        return Ok(Pids { current, limit });
    }
    let listing = match files.text("cgroup.procs")? {
        Some(listing) => listing,
        // Of a threaded cgroup.
        None => files.text("cgroup.threads")?.unwrap_or_default(),
    };
    Ok(Pids { current: listing.lines().count() as u64, limit: 0 })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`, under the names that v1 has for them.
fn io(files: Files<'_>) -> Result<Blkio, Error> {
    const FILE: &str = "io.stat";
    let mut blkio = Blkio { psi: pressure(files, "io.pressure")?, ..Blkio::default() };
    let text = files.text(FILE)?.unwrap_or_default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            return Err(files.malformed(FILE, line));
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            let value = value.parse().map_err(|_| files.malformed(FILE, line))?;
            table.push(BlkioEntry { major, minor, op: op.to_owned(), value });
        }
    }
    Ok(blkio)
}

fn hugetlb(files: Files<'_>, size: &str) -> Result<Option<Hugetlb>, Error> {
    for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
        if let Some(usage) = files.number(&format!("{prefix}.current"))? {
            let events = files.text(&format!("hugetlb.{size}.events"))?.unwrap_or_default();
            return Ok(Some(Hugetlb { usage, max: 0, failcnt: value_of(&events, "max").unwrap_or(0) }));
        }
    }
    Ok(None)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(files: Files<'_>, file: &str) -> Result<Option<Pressure>, Error> {
    let Some(text) = files.text(file)? else { return Ok(None) };
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let target = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        *target = pressure_line(fields).ok_or_else(|| files.malformed(file, line))?;
    }
    Ok(Some(pressure))
}

fn pressure_line<'a>(fields: impl Iterator<Item = &'a str>) -> Option<PressureLine> {
    let mut line = PressureLine::default();
    for field in fields {
        let (key, value) = field.split_once('=')?;
        match key {
            "avg10" => line.avg10 = value.parse().ok()?,
            "avg60" => line.avg60 = value.parse().ok()?,
            "avg300" => line.avg300 = value.parse().ok()?,
            "total" => line.total = value.parse().ok()?,
            _ => {}
        }
    }
    Some(line)
}

//! v1 interface files (the kernel's admin-guide/cgroup-v1, scheduler/sched-bwc).

use creel_plan::spec::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

use super::{FileWrite, cpuset, hugetlb, pids, rdma, set};
use crate::error::Invalid;

pub(super) fn plan(resources: &Resources) -> Result<Vec<FileWrite>, Invalid> {
    if !resources.unified.is_empty() {
        return Err(Invalid::new(
            ".linux.resources.unified",
            "invalid configuration: cannot use unified on cgroup v1",
        ));
    }
    let mut writes: Vec<FileWrite> = cpuset(resources).collect();
    if let Some(memory_limits) = &resources.memory {
        memory(memory_limits, &mut writes)?;
    }
    if let Some(limits) = &resources.cpu {
        cpu(limits, &mut writes)?;
    }
    writes.extend(pids(resources));
    if let Some(limits) = &resources.block_io {
        block_io(limits, &mut writes);
    }
    writes.extend(hugetlb(&resources.hugepage_limits, ".limit_in_bytes")?);
    if let Some(network) = &resources.network {
        if let Some(class) = set(network.class_id) {
            let at = ".linux.resources.network.classID";
            writes.push(FileWrite::new("net_cls", "net_cls.classid", class, at));
        }
        for (i, priority) in network.priorities.iter().enumerate() {
            let at = format!(".linux.resources.network.priorities[{i}]");
            let value = format!("{} {}", priority.name, priority.priority);
            writes.push(FileWrite::new("net_prio", "net_prio.ifpriomap", value, at));
        }
    }
    writes.extend(rdma(resources)?);
    Ok(writes)
}

/// The kernel keeps memory.limit <= memory.memsw.limit at every moment (EINVAL), so lowering goes
/// in this order and raising in the other one. Kernel memory limits are ignored: deprecated in
/// 5.4, without effect since 6.1.
fn memory(memory: &Memory, writes: &mut Vec<FileWrite>) -> Result<(), Invalid> {
    const LIMIT: &str = ".linux.resources.memory.limit";
    let file = |file: &'static str, value: i64, at: &'static str| FileWrite::new("memory", file, value, at);
    let limit = set(memory.limit);
    let swap = set(memory.swap);
    if let Some(limit) = limit {
        writes.push(file("memory.limit_in_bytes", limit, LIMIT).reorder());
    }
    match (limit, swap) {
        (_, Some(swap)) => {
            let at = ".linux.resources.memory.swap";
            writes.push(file("memory.memsw.limit_in_bytes", swap, at).reorder());
        }
        // Unlimited memory below an old memory+swap limit would be no change.
        (Some(-1), None) => {
            writes.push(file("memory.memsw.limit_in_bytes", -1, LIMIT).reorder().skip_if_missing());
        }
        (Some(_) | None, None) => {}
    }
    if let Some(reservation) = set(memory.reservation) {
        let at = ".linux.resources.memory.reservation";
        writes.push(file("memory.soft_limit_in_bytes", reservation, at));
    }
    if memory.disable_oom_killer == Some(true) {
        writes.push(file("memory.oom_control", 1, ".linux.resources.memory.disableOOMKiller"));
    }
    // Engines that mean "not set" write -1 as u64.
    if let Some(swappiness) = memory.swappiness.filter(|s| *s != u64::MAX) {
        let at = ".linux.resources.memory.swappiness";
        if swappiness > 100 {
            let why = format!("invalid memory swappiness value: {swappiness} (valid range is 0-100)");
            return Err(Invalid::new(at, why));
        }
        writes.push(FileWrite::new("memory", "memory.swappiness", swappiness, at));
    }
    Ok(())
}

fn cpu(cpu: &Cpu, writes: &mut Vec<FileWrite>) -> Result<(), Invalid> {
    let idle = cpu.idle.map(|idle| FileWrite::new("cpu", "cpu.idle", idle, ".linux.resources.cpu.idle"));
    // An idle cgroup takes no shares (EINVAL): leave idle before, become idle after.
    let (idle_off, idle_on) = match cpu.idle {
        Some(0) => (idle, None),
        Some(_) | None => (None, idle),
    };
    writes.extend(idle_off);
    if let Some(shares) = set(cpu.shares) {
        // The kernel would clamp in silence.
        let why = match shares {
            ..2 => Some("the minimum allowed cpu-shares is 2"),
            262_145.. => Some("the maximum allowed cpu-shares is 262144"),
            2..=262_144 => None,
        };
        let at = ".linux.resources.cpu.shares";
        if let Some(why) = why {
            return Err(Invalid::new(at, why));
        }
        writes.push(FileWrite::new("cpu", "cpu.shares", shares, at));
    }
    if let Some(period) = set(cpu.period) {
        let at = ".linux.resources.cpu.period";
        writes.push(FileWrite::new("cpu", "cpu.cfs_period_us", period, at).reorder());
    }
    if let Some(quota) = set(cpu.quota) {
        let at = ".linux.resources.cpu.quota";
        writes.push(FileWrite::new("cpu", "cpu.cfs_quota_us", quota, at).reorder());
    }
    // Burst may not exceed the quota in force, so it follows (5.14; absent before).
    if let Some(burst) = cpu.burst {
        let at = ".linux.resources.cpu.burst";
        writes.push(FileWrite::new("cpu", "cpu.cfs_burst_us", burst, at).reorder().skip_if_missing());
    }
    writes.extend(idle_on);
    if let Some(period) = set(cpu.realtime_period) {
        let at = ".linux.resources.cpu.realtimePeriod";
        writes.push(FileWrite::new("cpu", "cpu.rt_period_us", period, at).reorder());
    }
    if let Some(runtime) = set(cpu.realtime_runtime) {
        let at = ".linux.resources.cpu.realtimeRuntime";
        writes.push(FileWrite::new("cpu", "cpu.rt_runtime_us", runtime, at).reorder());
    }
    Ok(())
}

/// Weights go to CFQ's file where it still exists (before 5.0), else to BFQ's.
fn block_io(io: &BlockIo, writes: &mut Vec<FileWrite>) {
    if let Some(weight) = set(io.weight) {
        let write = FileWrite::new("blkio", "blkio.weight", weight, ".linux.resources.blockIO.weight");
        writes.push(write.or_else("blkio.bfq.weight", weight));
    }
    if let Some(weight) = set(io.leaf_weight) {
        let at = ".linux.resources.blockIO.leafWeight";
        writes.push(FileWrite::new("blkio", "blkio.leaf_weight", weight, at));
    }
    for (i, device) in io.weight_device.iter().enumerate() {
        let at = format!(".linux.resources.blockIO.weightDevice[{i}]");
        if let Some(weight) = set(device.weight) {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            let write = FileWrite::new("blkio", "blkio.weight_device", &value, at.clone());
            writes.push(write.or_else("blkio.bfq.weight_device", value));
        }
        if let Some(weight) = set(device.leaf_weight) {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            writes.push(FileWrite::new("blkio", "blkio.leaf_weight_device", value, at));
        }
    }
    let mut throttle = |devices: &[ThrottleDevice], file: &'static str, field: &str| {
        for (i, device) in devices.iter().enumerate() {
            let at = format!(".linux.resources.blockIO.{field}[{i}]");
            let value = format!("{}:{} {}", device.major, device.minor, device.rate);
            writes.push(FileWrite::new("blkio", file, value, at));
        }
    };
    throttle(&io.throttle_read_bps_device, "blkio.throttle.read_bps_device", "throttleReadBpsDevice");
    throttle(&io.throttle_write_bps_device, "blkio.throttle.write_bps_device", "throttleWriteBpsDevice");
    throttle(&io.throttle_read_iops_device, "blkio.throttle.read_iops_device", "throttleReadIOPSDevice");
    throttle(&io.throttle_write_iops_device, "blkio.throttle.write_iops_device", "throttleWriteIOPSDevice");
}

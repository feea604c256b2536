//! v2 interface files (the kernel's admin-guide/cgroup-v2). The configuration speaks v1, so most
//! values are converted. What v2 lacks (swappiness, the OOM killer switch, realtime bandwidth,
//! leaf weights, net_cls, net_prio) is passed over, as runc does.

use creel_plan::spec::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

use super::{FileWrite, cpuset, hugetlb, pids, rdma, set};
use crate::error::Invalid;

pub(super) fn plan(resources: &Resources) -> Result<Vec<FileWrite>, Invalid> {
    let mut writes: Vec<FileWrite> = cpuset(resources).collect();
    writes.extend(pids(resources));
    if let Some(limits) = &resources.memory {
        memory(limits, &mut writes)?;
    }
    if let Some(limits) = &resources.block_io {
        block_io(limits, &mut writes);
    }
    if let Some(limits) = &resources.cpu {
        cpu(limits, &mut writes);
    }
    writes.extend(hugetlb(&resources.hugepage_limits, ".max")?);
    writes.extend(rdma(resources)?);
    unified(resources, &mut writes)?;
    Ok(writes)
}

fn bytes(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

fn memory(memory: &Memory, writes: &mut Vec<FileWrite>) -> Result<(), Invalid> {
    const SWAP: &str = ".linux.resources.memory.swap";
    const LIMIT: &str = ".linux.resources.memory.limit";
    let limit = set(memory.limit);
    let both = set(memory.swap);
    let check = memory.check_before_update == Some(true);
    let above = |value: Option<i64>| value.filter(|_| check).and_then(|v| u64::try_from(v).ok());
    if let Some(swap) = swap_alone(limit, both).map_err(|why| Invalid::new(SWAP, why))? {
        let mut write = FileWrite::new("memory", "memory.swap.max", bytes(swap), SWAP);
        // A kernel without swap accounting does both already.
        if swap == -1 || swap == 0 {
            write = write.skip_if_missing();
        }
        write.above_usage = above(both);
        writes.push(write);
    }
    if let Some(limit) = limit {
        let mut write = FileWrite::new("memory", "memory.max", bytes(limit), LIMIT);
        write.above_usage = above(Some(limit));
        writes.push(write);
    }
    if let Some(reservation) = set(memory.reservation) {
        let at = ".linux.resources.memory.reservation";
        writes.push(FileWrite::new("memory", "memory.low", bytes(reservation), at));
    }
    Ok(())
}

/// v1 limits memory plus swap, v2 limits swap: the difference. `None` leaves swap alone.
fn swap_alone(limit: Option<i64>, both: Option<i64>) -> Result<Option<i64>, String> {
    match (limit, both) {
        // Unlimited memory has meant unlimited swap on v1.
        (Some(-1), None) => Ok(Some(-1)),
        (Some(_) | None, None) => Ok(None),
        (_, Some(-1)) => Ok(Some(-1)),
        (Some(-1), both) => Ok(both),
        (None, Some(_)) => Err("unable to set swap limit without memory limit".to_owned()),
        (Some(limit), Some(_)) if limit < 0 => Err(format!("invalid memory value: {limit}")),
        (Some(limit), Some(both)) if both < limit => {
            Err("memory+swap limit should be >= memory limit".to_owned())
        }
        (Some(limit), Some(both)) => Ok(Some(both - limit)),
    }
}

fn cpu(cpu: &Cpu, writes: &mut Vec<FileWrite>) {
    let idle = cpu.idle.map(|idle| FileWrite::new("cpu", "cpu.idle", idle, ".linux.resources.cpu.idle"));
    // An idle cgroup takes no weight (EINVAL): leave idle before, become idle after.
    let (idle_off, idle_on) = match cpu.idle {
        Some(0) => (idle, None),
        Some(_) | None => (None, idle),
    };
    writes.extend(idle_off);
    if let Some(shares) = set(cpu.shares) {
        let at = ".linux.resources.cpu.shares";
        writes.push(FileWrite::new("cpu", "cpu.weight", weight_of_shares(shares), at));
    }
    let (quota, period) = (set(cpu.quota), set(cpu.period));
    if quota.is_some() || period.is_some() {
        let max = quota.filter(|q| *q > 0).map_or("max".to_owned(), |q| q.to_string());
        let at = if quota.is_some() { ".linux.resources.cpu.quota" } else { ".linux.resources.cpu.period" };
        let value = format!("{max} {}", period.unwrap_or(100_000));
        writes.push(FileWrite::new("cpu", "cpu.max", value, at).reorder());
    }
    if let Some(burst) = cpu.burst {
        let at = ".linux.resources.cpu.burst";
        writes.push(FileWrite::new("cpu", "cpu.max.burst", burst, at).reorder());
    }
    writes.extend(idle_on);
}

/// cpu.shares 2..=262144 with default 1024 to cpu.weight 1..=10000 with default 100, by the
/// quadratic through those three points on logarithmic scales that runc 1.4 and crun 1.23 use
/// (<https://github.com/kubernetes/kubernetes/issues/131216>).
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        3..=262_143 => {
            // Below 2^18, so f64 holds it exactly.
            #[allow(clippy::cast_precision_loss, reason = "shares are below 2^18 here")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000 by construction"
            )]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

/// blkio 10..=1000 to io.weight 1..=10000, linear.
fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.max(10) - 10) * 9999 / 990
}

/// BFQ takes the blkio scale as it is; without BFQ the iocost scale is used.
fn block_io(io: &BlockIo, writes: &mut Vec<FileWrite>) {
    if let Some(weight) = set(io.weight) {
        let write = FileWrite::new("io", "io.bfq.weight", weight, ".linux.resources.blockIO.weight");
        writes.push(write.or_else("io.weight", io_weight(weight)));
    }
    for (i, device) in io.weight_device.iter().enumerate() {
        if let Some(weight) = set(device.weight) {
            let number = format!("{}:{}", device.major, device.minor);
            let at = format!(".linux.resources.blockIO.weightDevice[{i}]");
            let write = FileWrite::new("io", "io.bfq.weight", format!("{number} {weight}"), at);
            writes.push(write.or_else("io.weight", format!("{number} {}", io_weight(weight))));
        }
    }
    let mut throttle = |devices: &[ThrottleDevice], key: &str, field: &str| {
        for (i, device) in devices.iter().enumerate() {
            let at = format!(".linux.resources.blockIO.{field}[{i}]");
            let value = format!("{}:{} {key}={}", device.major, device.minor, device.rate);
            writes.push(FileWrite::new("io", "io.max", value, at));
        }
    };
    throttle(&io.throttle_read_bps_device, "rbps", "throttleReadBpsDevice");
    throttle(&io.throttle_write_bps_device, "wbps", "throttleWriteBpsDevice");
    throttle(&io.throttle_read_iops_device, "riops", "throttleReadIOPSDevice");
    throttle(&io.throttle_write_iops_device, "wiops", "throttleWriteIOPSDevice");
}

/// Written as given, after everything that was converted, so that it has the last word.
fn unified(resources: &Resources, writes: &mut Vec<FileWrite>) -> Result<(), Invalid> {
    for (file, value) in &resources.unified {
        let at = format!(".linux.resources.unified[{file:?}]");
        if file.contains('/') {
            let why = format!("unified resource {file:?} must be a file name (no slashes)");
            return Err(Invalid::new(at, why));
        }
        let controller = match file.split_once('.') {
            Some((controller, parameter)) if !controller.is_empty() && !parameter.is_empty() => controller,
            Some(_) | None => {
                let why = format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER");
                return Err(Invalid::new(at, why));
            }
        };
        let mut write = FileWrite::new("", file.clone(), value, at);
        write.controller = controller.to_owned().into();
        writes.push(write);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_to_weight_through_minimum_default_and_maximum() {
        let pairs: [(u64, u64); 9] = [
            (1, 1),
            (2, 1),
            (3, 2),
            (102, 17),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_143, 10_000),
            (262_144, 10_000),
        ];
        for (shares, weight) in pairs {
            assert_eq!(weight_of_shares(shares), weight, "shares {shares}");
        }
    }

    #[test]
    fn blkio_weight_maps_linearly() {
        assert_eq!([10, 100, 500, 1000].map(io_weight), [1, 910, 4950, 10_000]);
    }

    #[test]
    fn swap_is_the_difference() {
        assert_eq!(swap_alone(Some(100), Some(300)), Ok(Some(200)));
        assert_eq!(swap_alone(Some(100), Some(100)), Ok(Some(0)));
        assert_eq!(swap_alone(Some(100), Some(-1)), Ok(Some(-1)));
        assert_eq!(swap_alone(Some(100), None), Ok(None));
        assert_eq!(swap_alone(Some(-1), None), Ok(Some(-1)));
        assert_eq!(swap_alone(Some(-1), Some(300)), Ok(Some(300)));
        assert_eq!(swap_alone(None, None), Ok(None));
        assert!(swap_alone(None, Some(300)).is_err());
        assert!(swap_alone(Some(300), Some(100)).is_err());
        assert!(swap_alone(Some(-2), Some(100)).is_err());
    }
}

//! Nodes and links of /dev.

use super::mounts::clean;
use crate::invalid::Invalid;
use crate::names::DeviceType;
use crate::spec::Spec;
use crate::steps::DeviceStep;

/// What is made in /dev.
pub struct Devices {
    /// Nodes, the default ones first.
    pub nodes: Vec<DeviceStep>,
    /// `(path, target)`
    pub links: Vec<(&'static str, &'static str)>,
}

/// Every container has these (runtime-spec, config-linux.md, Default Devices); /dev/console comes
/// with the terminal, /dev/ptmx is a link.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

const LINKS: [(&str, &str); 6] = [
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
];

/// Plans the nodes; `bind` where mknod(2) is out of reach.
pub fn plan_devices(spec: &Spec, bind: bool) -> Result<Devices, Invalid> {
    // A /dev of the host's is complete, and not ours to add to.
    let bound = |m: &crate::spec::Mount| {
        clean(&m.destination) == "/dev"
            && (m.r#type == "bind" || m.options.iter().any(|o| o == "bind" || o == "rbind"))
    };
    if spec.mounts.iter().any(bound) {
        return Ok(Devices { nodes: Vec::new(), links: Vec::new() });
    }
    let own = spec.linux.as_ref().map_or(&[][..], |linux| &linux.devices);
    let is_own = |path: &str| own.iter().any(|d| clean(&d.path) == path);
    let mut nodes: Vec<DeviceStep> = DEFAULT
        .iter()
        .filter(|(path, ..)| !is_own(path))
        .map(|&(path, major, minor)| DeviceStep {
            at: ".linux".into(),
            path: path.into(),
            kind: DeviceType::Char.mode_bits(),
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
            bind,
        })
        .collect();
    for (i, device) in own.iter().enumerate() {
        let at = format!(".linux.devices[{i}]");
        let path = clean(&device.path);
        // Always a link to the container's own devpts.
        if path == "/dev/ptmx" {
            continue;
        }
        let kind = DeviceType::from_word(&device.r#type)
            .ok_or_else(|| Invalid::new(format!("{at}.type"), "unknown device type"))?
            .mode_bits();
        let number = |n: i64, name: &str| {
            u32::try_from(n)
                .map_err(|_| Invalid::new(format!("{at}.{name}"), format!("{n} is no device number")))
        };
        nodes.push(DeviceStep {
            kind,
            major: number(device.major, "major")?,
            minor: number(device.minor, "minor")?,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
            at,
            path,
            bind,
        });
    }
    Ok(Devices { nodes, links: LINKS.to_vec() })
}

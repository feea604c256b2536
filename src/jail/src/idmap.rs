//! Id maps of a new user namespace (user_namespaces(7)).
//!
//! Runs in the **host**, between init's clone and its first order.

use std::process::Command;

use creel_plan::steps::{IdMap, MapWriter};

use crate::error::Failed;

/// Writes the maps of process `pid`.
pub fn write(pid: i32, map: &IdMap) -> Result<(), Failed> {
    match map.writer {
        MapWriter::Privileged => write_maps(pid, &map.uids, &map.gids, ".linux"),
        MapWriter::SingleId => {
            // An ordinary user may write gid_map only once setgroups(2) is given up.
            write_file(pid, "setgroups", "deny", ".linux", "gidMappings")?;
            write_maps(pid, &map.uids, &map.gids, ".linux")
        }
        MapWriter::Helpers => {
            helper("newuidmap", pid, &map.uids, ".linux.uidMappings")?;
            helper("newgidmap", pid, &map.gids, ".linux.gidMappings")
        }
    }
}

/// Writes both map files; `of` is the part of config.json that the maps are from.
pub fn write_maps(
    pid: i32,
    uids: &[(u32, u32, u32)],
    gids: &[(u32, u32, u32)],
    of: &str,
) -> Result<(), Failed> {
    write_file(pid, "uid_map", &lines(uids), of, "uidMappings")?;
    write_file(pid, "gid_map", &lines(gids), of, "gidMappings")
}

fn lines(map: &[(u32, u32, u32)]) -> String {
    map.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect()
}

fn write_file(pid: i32, name: &str, text: &str, of: &str, field: &str) -> Result<(), Failed> {
    use rustix::fs::{Mode, OFlags};
    let path = format!("/proc/{pid}/{name}");
    let fail = |errno| {
        let call = format!("write({path}, {:?})", text.trim_end());
        Failed::host(call, errno).at(format!("{of}.{field}"))
    };
    let file =
        rustix::fs::open(path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    // One write: the kernel takes the whole map or nothing.
    rustix::io::write(&file, text.as_bytes()).map_err(fail).map(drop)
}

fn helper(program: &str, pid: i32, map: &[(u32, u32, u32)], at: &str) -> Result<(), Failed> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for (inside, outside, count) in map {
        command.args([inside, outside, count].map(u32::to_string));
    }
    let output = command.output().map_err(|e| {
        Failed::said(format!("{program}: {e}; install uidmap, or map only your own id")).at(at)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failed::said(format!("{program}: {}", said.trim().replace('\n', " | "))).at(at))
}

//! The user namespace of an ordinary user: what is unpacked gets its owners, and a root is mounted.
//!
//! Runs before a store is opened, while the process has one thread (unshare(2), CLONE_NEWUSER). The process moves
//! itself: a helper that stays outside waits until that is done and calls newuidmap(1) and newgidmap(1), which
//! give the ranges of subuid(5) and subgid(5). Where there are none, the user alone is mapped, as root, which
//! needs no privilege at all; then everything in images belongs to that one id.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use creel_image_lib::runtime_config::{IdMaps, IdRange};
use creel_image_lib::store::Settings;

use crate::output;

/// What the helper is called by.
pub const MAP_IDS: &str = "map-ids";

/// Ids of a whole map (user_namespaces(7)).
const ALL: u32 = u32::MAX;

/// Enters a user namespace where that is needed, and says how a store is written there.
pub fn enter() -> Result<Settings> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        return here();
    }
    match subordinate(uid.as_raw(), gid.as_raw()) {
        Ok(wanted) => enter_with(&wanted)?,
        Err(why) => single(uid.as_raw(), gid.as_raw(), &why)?,
    }
    // The kernel's word on it: newuidmap may have written the user alone.
    Ok(settings(&maps()?.unwrap_or_default()))
}

/// What this process can write where it is.
pub fn here() -> Result<Settings> {
    match maps()? {
        _ if !rustix::process::geteuid().is_root() => Ok(Settings::single_id()),
        None => Ok(Settings::root()),
        Some(maps) => Ok(settings(&maps)),
    }
}

/// The maps of the user namespace that this process is in; none in the first one.
pub fn maps() -> Result<Option<IdMaps>> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
    let (uids, gids) = (ranges(&read("/proc/self/uid_map")?), ranges(&read("/proc/self/gid_map")?));
    let first = |ranges: &[IdRange]| matches!(ranges, [IdRange { container: 0, host: 0, size: ALL }]);
    Ok((!first(&uids) || !first(&gids)).then_some(IdMaps { uids, gids }))
}

fn settings(maps: &IdMaps) -> Settings {
    let more = |ranges: &[IdRange]| ranges.iter().map(|range| u64::from(range.size)).sum::<u64>() > 1;
    if more(&maps.uids) && more(&maps.gids) { Settings::user_namespace() } else { Settings::single_id() }
}

fn ranges(text: &str) -> Vec<IdRange> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdRange { container: next()?, host: next()?, size: next()? })
    };
    text.lines().filter_map(line).collect()
}

/// The maps that the machine's files allow to the user, or why there are none.
fn subordinate(uid: u32, gid: u32) -> Result<IdMaps, String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let name = name.or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    let of = |file: &str, own: u32| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let map = allowed(&text, &name, uid, own);
        if map.len() > 1 { Ok(map) } else { Err(format!("{file} has no range for {name:?}")) }
    };
    let maps = IdMaps { uids: of("/etc/subuid", uid)?, gids: of("/etc/subgid", gid)? };
    for program in ["newuidmap", "newgidmap"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Err(format!("{program} is not installed (Debian package uidmap)"));
        }
    }
    Ok(maps)
}

/// subuid(5): `NAME:FIRST:COUNT`, or a number for the name. The user is root, the ranges follow.
fn allowed(text: &str, name: &str, uid: u32, own: u32) -> Vec<IdRange> {
    let mut map = vec![IdRange { container: 0, host: own, size: 1 }];
    let mut next = 1u32;
    for line in text.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [user, first, count] = fields.as_slice() else { continue };
        if *user != name && user.parse() != Ok(uid) || user.is_empty() {
            continue;
        }
        let (Ok(host), Ok(size)) = (first.parse(), count.parse::<u32>()) else { continue };
        let Some(end) = next.checked_add(size).filter(|_| size > 0) else { continue };
        map.push(IdRange { container: next, host, size });
        next = end;
    }
    map
}

fn words(map: &[IdRange]) -> Vec<String> {
    map.iter().flat_map(|range| [range.container, range.host, range.size].map(|n| n.to_string())).collect()
}

fn unshare() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| anyhow!("unshare(CLONE_NEWUSER): {errno}; user namespaces may be switched off here"))
}

fn enter_with(wanted: &IdMaps) -> Result<()> {
    let own = std::env::current_exe().context("readlink /proc/self/exe")?;
    let mut helper = Command::new(own)
        .arg(MAP_IDS)
        .arg(std::process::id().to_string())
        .args(words(&wanted.uids))
        .arg("/")
        .args(words(&wanted.gids))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start the helper for newuidmap")?;
    unshare()?;
    let go = helper.stdin.take().map(|mut pipe| pipe.write_all(b"."));
    let said = helper.wait_with_output().context("wait for newuidmap")?;
    go.transpose().context("write to the helper for newuidmap")?;
    if said.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&said.stderr);
    let why = why.trim().trim_start_matches("creel: ");
    match maps()? {
        // Nothing is written yet: the user alone may still be mapped.
        Some(maps) if maps.uids.is_empty() => {
            let [uid, gid] = [&wanted.uids, &wanted.gids].map(|map| map[0].host);
            warn_single(why);
            write_single(uid, gid)
        }
        _ => bail!("{why}"),
    }
}

fn warn_single(why: &str) {
    output::warning(&format!("{why}: all files of images belong to you, and only their user 0 can be run"));
}

fn single(uid: u32, gid: u32, why: &str) -> Result<()> {
    warn_single(why);
    unshare()?;
    write_single(uid, gid)
}

/// Without privilege a process may map itself, once it has given up setgroups(2) (user_namespaces(7)).
fn write_single(uid: u32, gid: u32) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = format!("/proc/self/{name}");
        std::fs::write(&path, text).with_context(|| path)
    };
    write("setgroups", "deny")?;
    write("uid_map", &format!("0 {uid} 1\n"))?;
    write("gid_map", &format!("0 {gid} 1\n"))
}

/// `creel-image map-ids PID UIDS / GIDS`: waits for the word that the process has moved, and writes its maps.
pub fn map_ids(words: &[OsString]) -> Result<()> {
    let (pid, maps) = words.split_first().context("whose maps")?;
    let mut go = [0];
    std::io::stdin().read_exact(&mut go).context("the process that wants the maps has ended")?;
    let [uids, gids] = maps.split(|word| word == "/").collect::<Vec<_>>()[..] else { bail!("two maps") };
    for (program, map) in [("newuidmap", uids), ("newgidmap", gids)] {
        let said = Command::new(program).arg(pid).args(map).output().with_context(|| program.to_owned())?;
        if !said.status.success() {
            // They say their names themselves.
            bail!("{}", String::from_utf8_lossy(&said.stderr).trim().replace('\n', " | "));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_the_user_follow_the_user() {
        let text = "other:1:2\nme:100000:65536\n1000:300000:10\n\nme:x:1\nme:5:0\nbroken\n";
        let map = allowed(text, "me", 1000, 1000);
        assert_eq!(words(&map).join(" "), "0 1000 1 1 100000 65536 65537 300000 10");
        assert_eq!(allowed(text, "nobody", 7, 7).len(), 1);
        assert_eq!(allowed(":1:2\n", "", 7, 7).len(), 1);
    }

    #[test]
    fn maps_are_read_as_the_kernel_prints_them() {
        let map = ranges("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(words(&map).join(" "), "0 1000 1 1 100000 65536");
        assert_eq!(settings(&IdMaps { uids: map.clone(), gids: map.clone() }), Settings::user_namespace());
        let one = map[..1].to_vec();
        assert_eq!(settings(&IdMaps { uids: one.clone(), gids: map }), Settings::single_id());
    }
}

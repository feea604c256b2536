//! The hook that removes what a container of an image has left, done here.
//!
//! Such a container has a poststop hook, `creel-image release DIR BUNDLE`. To start a process takes longer than what
//! it does, and `creel run` ends only after it; so root does it in this process, between the container's end and its
//! own. What is out of the ordinary is left to the hook: other users, who would have to enter a namespace first,
//! trees that are deep, and whatever fails here.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use creel_plan::spec::Hook;
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

const PROGRAM: &str = "creel-image";
const WORD: &str = "release";

/// Directories in each other that are removed here: a root file system is not as deep.
const DEPTH: u32 = 64;

/// Does what the hook would do, if it is that one; false when it has to run.
pub fn carry_out(hook: &Hook) -> bool {
    rustix::process::geteuid().is_root() && places(hook).is_some_and(|places| remove(places).is_ok())
}

/// The container's directory in a store, and its bundle.
fn places(hook: &Hook) -> Option<(&Path, &Path)> {
    let [_, word, directory, bundle] = hook.args.as_slice() else { return None };
    let is_meant = Path::new(&hook.path).file_name() == Some(OsStr::new(PROGRAM)) && word == WORD;
    is_meant.then_some((Path::new(directory), Path::new(bundle)))
}

fn remove((directory, bundle): (&Path, &Path)) -> Result<(), Errno> {
    let containers = directory.parent().filter(|parent| parent.ends_with("containers"));
    let store = containers.and_then(Path::parent).filter(|store| store.join("store.json").is_file());
    remove_container(store.ok_or(Errno::INVAL)?, directory)?;
    let network = bundle.join("netns");
    if network.exists() {
        // In the mount namespace of the container's runtime it is a mount; elsewhere it is none (EINVAL).
        match rustix::mount::unmount(&network, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    remove_tree(CWD, bundle.as_os_str(), DEPTH)
}

/// Takes the directory out of its place first, so that a kill leaves nothing that looks like a container's.
fn remove_container(store: &Path, directory: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = match rustix::fs::open(directory, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    // What is in `tmp/` and not locked is removed by every command that opens the store.
    match rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) | Err(Errno::AGAIN) => {}
        Err(errno) => return Err(errno),
    }
    let aside = store.join("tmp").join(format!("{}-released", rustix::process::getpid().as_raw_pid()));
    rustix::fs::renameat_with(CWD, directory, CWD, &aside, RenameFlags::NOREPLACE)?;
    remove_tree(CWD, aside.as_os_str(), DEPTH)
}

/// Removes a file, or a directory with what is in it. One that is not there is removed.
fn remove_tree(at: BorrowedFd<'_>, name: &OsStr, depth: u32) -> Result<(), Errno> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) if depth > 0 => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(at, name, flags, Mode::empty())?;
    let entries = Dir::read_from(&dir)?.collect::<Result<Vec<_>, _>>()?;
    for entry in entries {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            remove_tree(dir.as_fd(), name, depth - 1)?;
        }
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn hook(program: &str, words: &[&str]) -> Hook {
        let args = words.iter().map(|word| (*word).to_owned()).collect();
        Hook { path: program.to_owned(), args, ..Hook::default() }
    }

    #[test]
    fn only_the_companions_hook_is_meant() {
        let words = ["creel-image", "release", "/s/containers/x", "/run/b"];
        let found = hook("/usr/bin/creel-image", &words);
        assert_eq!(places(&found), Some((Path::new("/s/containers/x"), Path::new("/run/b"))));
        for other in [
            hook("/usr/bin/other", &words),
            hook("/usr/bin/creel-image", &words[..3]),
            hook("/usr/bin/creel-image", &["creel-image", "pull", "/s/containers/x", "/run/b"]),
        ] {
            assert_eq!(places(&other), None);
        }
    }

    #[test]
    fn what_the_container_left_is_removed_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        for directory in ["containers/x/upper/a/b", "containers/y", "tmp", "bundle"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        std::fs::write(at("containers/x/upper/a/file"), "").unwrap();
        std::os::unix::fs::symlink("/", at("containers/x/upper/link")).unwrap();
        std::fs::write(at("bundle/config.json"), "{}").unwrap();
        let both = (&*at("containers/x"), &*at("bundle"));
        assert_eq!(remove(both), Err(Errno::INVAL), "this is no store");
        std::fs::write(at("store.json"), "{}").unwrap();
        assert_eq!(remove(both), Ok(()));
        assert_eq!(remove(both), Ok(()), "it is gone");
        assert!(at("containers/y").exists() && !at("containers/x").exists() && !at("bundle").exists());
        assert_eq!(std::fs::read_dir(at("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_deep_tree_is_left_to_the_hook() {
        let scratch = tempfile::tempdir().unwrap();
        let mut path = scratch.path().join("d");
        for _ in 0..DEPTH + 2 {
            path.push("d");
        }
        std::fs::create_dir_all(&path).unwrap();
        let top = scratch.path().join("d");
        assert_eq!(remove_tree(CWD, top.as_os_str(), DEPTH), Err(Errno::ISDIR));
        assert!(path.exists());
    }
}

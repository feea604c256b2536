//! A cgroup with everything below it. How deep that goes is for the container to decide, if it may make
//! cgroups: no path is built, nothing recurses, and at most three descriptors are open at a time.
//!
//! The way up is `..`, since no cgroup ever changes its parent (kernfs renames within a directory only).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::dir;

/// Calls `enter` for `top` and every directory below it, parents first, and `leave` for every directory
/// below it when its own are done, with its parent and its name. All are visited; the first error is the
/// result. Directories that vanish meanwhile are none.
pub(crate) fn walk(
    top: BorrowedFd<'_>,
    enter: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    leave: &mut dyn FnMut(BorrowedFd<'_>, &CStr) -> Result<()>,
) -> Result<()> {
    let mut first: Result<()> = Ok(());
    let mut note = |result: Result<()>| match result {
        Err(errno) if first.is_ok() && !dir::is_gone(errno) => first = Err(errno),
        _ => {}
    };
    let mut visit = |dir: BorrowedFd<'_>| {
        let mut names = Vec::new();
        let result = enter(dir).and_then(|()| {
            names = dir::children(dir)?;
            Ok(())
        });
        (names, result)
    };
    let (mut left, result) = visit(top);
    note(result);
    // None is `top`.
    let mut here: Option<OwnedFd> = None;
    let mut above: Vec<(CString, Vec<CString>)> = Vec::new();
    loop {
        let dir = here.as_ref().map_or(top, AsFd::as_fd);
        if let Some(name) = left.pop() {
            match dir::open_below(dir, name.as_c_str()) {
                Ok(child) => {
                    let (names, result) = visit(child.as_fd());
                    note(result);
                    above.push((name, std::mem::replace(&mut left, names)));
                    here = Some(child);
                }
                Err(errno) => note(Err(errno)),
            }
        } else if let Some((name, siblings)) = above.pop() {
            here = if above.is_empty() { None } else { Some(dir::open_below(dir, c"..")?) };
            left = siblings;
            note(leave(here.as_ref().map_or(top, AsFd::as_fd), &name));
        } else {
            return first;
        }
    }
}

/// Removes every directory below `top`, those below others first. The first refusal does not spare the
/// others.
pub(crate) fn remove_below(top: impl AsFd) -> Result<()> {
    walk(top.as_fd(), &mut |_| Ok(()), &mut |parent, name| match rustix::fs::unlinkat(
        parent,
        name,
        rustix::fs::AtFlags::REMOVEDIR,
    ) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    /// Deeper than paths are long and descriptors are many; any file system will do.
    #[test]
    fn a_deep_tree_is_walked_and_removed() {
        const DEPTH: usize = 3000;
        let scratch = tempfile::tempdir().unwrap();
        let top = dir::open(scratch.path().to_str().unwrap()).unwrap();
        let mode = rustix::fs::Mode::RWXU;
        let mut here = top.try_clone().unwrap();
        for _ in 0..DEPTH {
            // A name need not be UTF-8.
            let odd = std::ffi::OsStr::from_bytes(b"odd\xff");
            rustix::fs::mkdirat(&here, odd, mode).unwrap();
            rustix::fs::mkdirat(&here, "deep", mode).unwrap();
            here = dir::open_below(&here, c"deep").unwrap();
        }
        let mut seen = 0;
        walk(
            top.as_fd(),
            &mut |_| {
                seen += 1;
                Ok(())
            },
            &mut |_, _| Ok(()),
        )
        .unwrap();
        assert_eq!(seen, 2 * DEPTH + 1);
        remove_below(&top).unwrap();
        assert!(dir::children(&top).unwrap().is_empty());
    }
}

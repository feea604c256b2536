//! The volumes of an image: directories that a container writes to beside its root (image-spec config.md,
//! `Volumes`).
//!
//! Each container gets new ones, with a copy of what the image has there, as Docker fills a new volume. Which they
//! are, [`crate::runtime_config::volumes`] tells. Links on the way are followed as the runtime will, in the image's
//! root.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::mount::flat;
use crate::stack::{Child, LastLink, Merged};
use crate::store;
use crate::unpack::{Error, Owners, copy_attributes, open_dir};

/// Mode of a directory that the image does not have.
const MODE: u32 = 0o755;

/// Copies what the layers have at `path` to an empty directory, and its attributes.
pub(crate) fn fill(layers: &Merged, path: &str, to: &OwnedFd, owners: Owners) -> Result<(), store::Error> {
    let bad = |why: Error| store::Error::Volume { path: path.to_owned(), why };
    match layers.resolve(path.as_bytes(), LastLink::Follow).map_err(bad)?.child {
        Child::Absent => rustix::fs::fchmod(to, Mode::from_raw_mode(MODE))
            .map_err(|errno| bad(Error::call("fchmod", path.as_bytes())(errno))),
        Child::Directory(from) => {
            flat::copy(&from, to, owners).map_err(store::Error::Mount)?;
            from.top()
                .map_or(Ok(()), |top| copy_attributes(top, to, owners))
                .map_err(|(call, errno)| bad(Error::call(call, path.as_bytes())(errno)))
        }
        Child::Other(..) => Err(bad(Error::call("mkdir", path.as_bytes())(Errno::NOTDIR))),
    }
}

/// Makes the directory at `path` of an unpacked root, where it is missing.
///
/// # Errors
/// Something else in its place, or the kernel's refusal.
pub fn make_place(root: OwnedFd, path: &str) -> Result<(), Error> {
    let fail = |call| Error::call(call, path.as_bytes());
    let mut at = rustix::io::fcntl_dupfd_cloexec(&root, 0).map_err(fail("fcntl"))?;
    let found = Merged::new(vec![root]).resolve(path.as_bytes(), LastLink::Follow)?;
    for name in found.path {
        let made = match rustix::fs::mkdirat(&at, name.as_slice(), Mode::from_raw_mode(MODE)) {
            Err(Errno::EXIST) => false,
            other => other.map(|()| true).map_err(fail("mkdir"))?,
        };
        at = open_dir(at.as_fd(), &name).map_err(fail("open"))?;
        if made {
            // The umask took part.
            rustix::fs::fchmod(&at, Mode::from_raw_mode(MODE)).map_err(fail("fchmod"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::stack::open_root;

    #[test]
    fn volumes_have_what_the_layers_show_there() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        for dir in ["low/srv/data", "high/srv/data", "out", "none"] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        std::fs::write(at("low/srv/data/low"), "low").unwrap();
        std::fs::write(at("high/srv/data/high"), "high").unwrap();
        std::fs::write(at("low/file"), "").unwrap();
        symlink("/srv/data", at("low/link")).unwrap();
        std::fs::set_permissions(at("high/srv/data"), std::fs::Permissions::from_mode(0o1770)).unwrap();
        let layers = Merged::new(["high", "low"].map(|name| open_root(&at(name)).unwrap()).into());
        let fill = |path: &str, to: &str| {
            super::fill(&layers, path, &open_root(&at(to)).unwrap(), Owners::Squashed)
                .map_err(|error| error.to_string())
        };
        fill("/link", "out").unwrap();
        assert_eq!(std::fs::read_to_string(at("out/low")).unwrap(), "low");
        assert_eq!(std::fs::read_to_string(at("out/high")).unwrap(), "high");
        assert_eq!(at("out").metadata().unwrap().permissions().mode() & 0o7777, 0o1770);
        fill("/absent/deep", "none").unwrap();
        assert_eq!(at("none").metadata().unwrap().permissions().mode() & 0o7777, 0o755);
        let error = fill("/file", "none").unwrap_err();
        assert!(error.contains("/file") && error.contains("not a directory"), "{error}");
    }

    #[test]
    fn places_of_volumes_stay_within_the_root() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        std::fs::create_dir_all(root.join("var")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        symlink("../../../../outside", root.join("var/link")).unwrap();
        let make = |path: &str| make_place(open_root(&root).unwrap(), path);
        make("/var/link/data").unwrap();
        make("/var/link/data").unwrap();
        assert!(root.join("outside/data").is_dir());
        assert!(make("/file").is_err() && make("/file/below").is_err());
    }
}

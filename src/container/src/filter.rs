//! The container's seccomp filter: from the text of its section, or from the last container that had
//! the same.
//!
//! Engines send the same profile to nearly every container, and compiling it costs more than all else
//! that create does outside the kernel. So compiled filters are kept, beside the containers:
//!
//! ```text
//!   <root>/@seccomp/        no container's id has an @
//!       0123456789abcdef    filter and section; also linked as seccomp.bpf into its containers
//! ```
//!
//! A kept filter is taken only when the section in it is the wanted one, byte by byte; the name, a hash
//! of section and binary, only finds it. Directory and file must belong to this user alone, as the
//! state directories do, whose writer decides about a container anyway. On any doubt, and on any
//! error, the filter is compiled: what is kept is only ever a copy.

use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use creel_plan::spec::SeccompText;
use creel_seccomp::{Compiled, Program};
use creel_sys::Errno;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use crate::Error;
use crate::store::{FILTER, StateDir};

const DIRECTORY: &str = "@seccomp";
/// With so many filters the directory is emptied before the next: no machine has so many profiles in
/// use, unless each container comes with one of its own.
const MOST: usize = 64;
/// No profile of an engine is a tenth of this.
const LONGEST: usize = 256 * 1024;

/// A filter and where it came from.
#[derive(Debug)]
pub struct Filter {
    /// The filter.
    pub compiled: Compiled,
    name: String,
    kept: Option<OwnedFd>,
}

impl Filter {
    /// The filter of a section that asks for one.
    pub fn of(text: &SeccompText, root: &Path) -> Result<Filter, Error> {
        let name = name_of(text.as_str());
        if let Some((directory, compiled)) = kept(root, &name, text.as_str()) {
            return Ok(Filter { compiled, name, kept: Some(directory) });
        }
        let section = creel_plan::parse::parse_seccomp(text)?;
        let compiled = Compiled {
            program: creel_seccomp::compile(&section)?,
            listener_path: section.listener_path,
            listener_metadata: section.listener_metadata,
            source: text.as_str().to_owned(),
        };
        Ok(Filter { compiled, name, kept: None })
    }

    /// A filter that came compiled, in base64; the section says how to load it and who listens. It is
    /// not kept: there was nothing to compile.
    pub fn given(base64: &str, section: Option<&SeccompText>) -> Result<Filter, Error> {
        let section = section.map(creel_plan::parse::parse_seccomp).transpose()?;
        let program = Program::from_base64(base64, section.as_ref())?;
        let section = section.unwrap_or_default();
        let compiled = Compiled {
            program,
            listener_path: section.listener_path,
            listener_metadata: section.listener_metadata,
            source: String::new(),
        };
        Ok(Filter { compiled, name: String::new(), kept: None })
    }

    /// Puts the filter into the directory of its container, and keeps a new one.
    pub fn save(&self, dir: &StateDir, root: &Path) -> Result<(), Error> {
        if let Some(directory) = &self.kept {
            if rustix::fs::linkat(directory, &self.name, dir, FILTER, AtFlags::empty()).is_ok() {
                return Ok(());
            }
        }
        let bytes = self.compiled.to_bytes();
        dir.write_early(FILTER, &bytes)?;
        if self.kept.is_none() && !self.name.is_empty() && bytes.len() <= LONGEST {
            if let Err(errno) = keep(root, &self.name, dir) {
                tracing::debug!("{}: {}", root.join(DIRECTORY).display(), creel_jail::errno_words(errno));
            }
        }
        Ok(())
    }
}

/// Sixteen hexadecimal digits. A creel that was built anew may compile otherwise.
fn name_of(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let binary = |meta: Metadata| (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
    std::fs::metadata("/proc/self/exe").map(binary).ok().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn kept(root: &Path, name: &str, text: &str) -> Option<(OwnedFd, Compiled)> {
    let directory = open_directory(root).ok()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, name, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let size = usize::try_from(stat.st_size).ok().filter(|size| *size <= LONGEST)?;
    if !is_own(&stat) || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = vec![0; size];
    let mut read = 0;
    while read < size {
        match rustix::io::read(&file, bytes.get_mut(read..)?) {
            Ok(0) | Err(_) => return None,
            Ok(n) => read += n,
        }
    }
    let compiled = Compiled::from_bytes(&bytes).ok()?;
    (compiled.source == text).then_some((directory, compiled))
}

fn open_directory(root: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, root.join(DIRECTORY), flags, Mode::empty())?;
    if is_own(&rustix::fs::fstat(&directory)?) { Ok(directory) } else { Err(Errno::PERM) }
}

/// Nobody else may write to it.
fn is_own(stat: &rustix::fs::Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0
}

/// Links the container's filter into the directory: whole or not at all, and whoever is first.
fn keep(root: &Path, name: &str, dir: &StateDir) -> Result<(), Errno> {
    let directory = match open_directory(root) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(CWD, root.join(DIRECTORY), Mode::from_raw_mode(0o700))?;
            open_directory(root)?
        }
        other => other?,
    };
    make_room(directory.as_fd(), name)?;
    rustix::fs::linkat(dir, FILTER, &directory, name, AtFlags::empty())
}

/// One of that name is of another section or damaged.
fn make_room(directory: std::os::fd::BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let names: Vec<_> = Dir::read_from(directory)?
        .flatten()
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| !name.to_bytes().starts_with(b"."))
        .collect();
    let full = names.len() >= MOST;
    for old in names.iter().filter(|old| full || old.to_bytes() == name.as_bytes()) {
        creel_sys::best_effort(rustix::fs::unlinkat(directory, old.as_c_str(), AtFlags::empty()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn text(errno: u32) -> SeccompText {
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": {errno},
                "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_ALLOW"}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn make(root: &Path, id: &str, text: &SeccompText) -> Filter {
        let filter = Filter::of(text, root).unwrap();
        filter.save(&StateDir::make(root, id).unwrap(), root).unwrap();
        filter
    }

    fn is_kept(root: &Path, text: &SeccompText) -> bool {
        Filter::of(text, root).unwrap().kept.is_some()
    }

    #[test]
    fn the_second_container_takes_the_firsts_filter() {
        let root = tempfile::tempdir().unwrap();
        let first = make(root.path(), "a", &text(1));
        let second = make(root.path(), "b", &text(1));
        assert!(first.kept.is_none() && second.kept.is_some());
        assert_eq!(first.compiled, second.compiled);
        let inode = |id: &str| root.path().join(id).join(FILTER).metadata().unwrap().ino();
        assert_eq!(inode("a"), inode("b"));
        assert!(!is_kept(root.path(), &text(2)));
    }

    #[test]
    fn a_filter_that_came_compiled_is_not_kept() {
        let root = tempfile::tempdir().unwrap();
        // ret ALLOW
        let filter = Filter::given("BgAAAAAA/38=", Some(&text(1))).unwrap();
        filter.save(&StateDir::make(root.path(), "a").unwrap(), root.path()).unwrap();
        assert!(!root.path().join(DIRECTORY).exists() && root.path().join("a").join(FILTER).exists());
        assert!(Filter::given("!", None).is_err());
    }

    #[test]
    fn damage_and_foreign_sections_are_compiled_anew() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), "a", &text(1));
        let file = root.path().join(DIRECTORY).join(name_of(text(1).as_str()));
        let other = Filter::of(&text(2), root.path()).unwrap().compiled;
        for bytes in [&b"creelbpf"[..], &other.to_bytes()] {
            std::fs::write(&file, bytes).unwrap();
            let again = Filter::of(&text(1), root.path()).unwrap();
            assert!(again.kept.is_none());
            assert_eq!(again.compiled.source, text(1).as_str());
        }
        // And the right one takes the place.
        make(root.path(), "b", &text(1));
        assert!(is_kept(root.path(), &text(1)));
    }

    #[test]
    fn what_others_may_write_to_is_not_trusted() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), "a", &text(1));
        let directory = root.path().join(DIRECTORY);
        let file = directory.join(name_of(text(1).as_str()));
        for path in [&directory, &file] {
            let before = path.metadata().unwrap().permissions();
            std::fs::set_permissions(path, PermissionsExt::from_mode(before.mode() | 0o020)).unwrap();
            assert!(!is_kept(root.path(), &text(1)), "{path:?}");
            std::fs::set_permissions(path, before).unwrap();
        }
        assert!(is_kept(root.path(), &text(1)));
        std::fs::rename(&directory, root.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &directory).unwrap();
        assert!(!is_kept(root.path(), &text(1)));
    }

    #[test]
    fn the_directory_stays_small() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..MOST as u32 + 5 {
            make(root.path(), &format!("c{n}"), &text(n));
        }
        let count = std::fs::read_dir(root.path().join(DIRECTORY)).unwrap().count();
        assert_eq!(count, 5);
        assert!(root.path().join("c0").join(FILTER).exists());
    }
}

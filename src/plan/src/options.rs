//! Mount options: the words of `.mounts[].options` turned into what the kernel takes.
//!
//! A word is an attribute of the mount (mount_setattr(2)), a flag of the superblock (fsconfig(2)),
//! a propagation, an operation (bind, remount), an extension (tmpcopyup, idmap), or else data for
//! the file system, as mount(8) has it. Later words win over earlier ones. Each value can also be
//! said in the MS_* bits of mount(2), for kernels and file systems without the newer calls.

mod flags;
mod idmap;
mod propagation;
mod table;
#[cfg(test)]
mod tests;

use crate::invalid::did_you_mean;
pub use flags::{Atime, AttrChange, SbFlags, attr, ms};
pub use idmap::{MapText, Relative};
pub use propagation::{Propagation, PropagationKind};
use table::{Meaning, TABLE, meaning};

/// `bind` or `rbind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind {
    /// `rbind`: with everything mounted below the source.
    pub recursive: bool,
}

/// `idmap` or `ridmap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idmap {
    /// `ridmap`: also what is mounted below.
    pub recursive: bool,
    /// crun's `idmap=uids=...;gids=...`.
    pub maps: Option<MapText>,
}

/// One parameter for the file system, as fsconfig(2) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataParam<'a> {
    /// Index in the option list.
    pub index: usize,
    /// Name.
    pub key: &'a str,
    /// Text after `=`; `None` makes it a flag.
    pub value: Option<&'a str>,
}

/// The options of one mount, sorted by who applies them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Attributes of the mount itself.
    pub attr: AttrChange,
    /// Attributes of the mount and everything below it (AT_RECURSIVE); never empty.
    pub recursive: Option<AttrChange>,
    /// Flags of the superblock.
    pub sb: SbFlags,
    /// `remount`
    pub remount: bool,
    /// Bind mount, and how.
    pub bind: Option<Bind>,
    /// Propagation changes in the order written.
    pub propagation: Vec<Propagation>,
    /// Everything else: index in the list and text, `key=value` or `flag`.
    pub data: Vec<(usize, String)>,
    /// The same on a bind mount, where the kernel would ignore it.
    pub stray: Vec<(usize, String)>,
    /// `copy-symlink`: a source that is a link is made again at the destination.
    pub copy_symlink: bool,
    /// `src-nofollow`: a source that is a link is itself bound.
    pub source_nofollow: bool,
    /// `dest-nofollow`: a destination that is a link is itself mounted on.
    pub destination_nofollow: bool,
    /// Copy what the image has at the destination into the new tmpfs.
    pub tmpcopyup: bool,
    /// Id-mapped mount, and how; the last word counts.
    pub idmap: Option<Idmap>,
}

impl MountOptions {
    /// The data argument of mount(2).
    pub fn data_string(&self) -> String {
        let words: Vec<&str> = self.data.iter().map(|(_, word)| word.as_str()).collect();
        words.join(",")
    }

    /// The data as parameters. One option may hold several, divided by commas, because mount(2)
    /// would divide it there; a comma after a backslash (overlayfs) or inside double quotes (an
    /// SELinux context) does not divide.
    pub fn data_params(&self) -> impl Iterator<Item = DataParam<'_>> {
        self.data.iter().flat_map(|(index, words)| {
            divide(words).into_iter().filter_map(|word| {
                let (key, value) = match word.split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (word, None),
                };
                (!key.is_empty()).then_some(DataParam { index: *index, key, value })
            })
        })
    }

    /// Every flag of mount(2) that the options set, without MS_REMOUNT, MS_BIND and propagation.
    pub fn ms_flags(&self) -> u64 {
        self.attr.ms_flags() | self.sb.set
    }

    fn apply(&mut self, meaning: Meaning) {
        match meaning {
            Meaning::Nothing => {}
            Meaning::Set(bits) => self.attr.set(bits),
            Meaning::Clear(bits) => self.attr.clear(bits),
            Meaning::Atime(mode) => self.attr.choose_atime(mode),
            Meaning::NotAtime(mode) => self.attr.not_atime(mode),
            Meaning::RecursiveSet(bits) => self.recursive.get_or_insert_default().set(bits),
            Meaning::RecursiveClear(bits) => self.recursive.get_or_insert_default().clear(bits),
            Meaning::RecursiveAtime(mode) => self.recursive.get_or_insert_default().choose_atime(mode),
            Meaning::RecursiveNotAtime(mode) => self.recursive.get_or_insert_default().not_atime(mode),
            Meaning::SuperSet(bits) => self.sb.set(bits),
            Meaning::SuperClear(bits) => self.sb.clear(bits),
            Meaning::Remount => self.remount = true,
            // MS_REC stays once said, as in runc and crun: "rbind" then "bind" is recursive.
            Meaning::Bind => self.bind = self.bind.or(Some(Bind { recursive: false })),
            Meaning::BindRecursive => self.bind = Some(Bind { recursive: true }),
            Meaning::Propagation(kind) => self.propagation.push(Propagation { kind, recursive: false }),
            Meaning::PropagationRecursive(kind) => {
                self.propagation.push(Propagation { kind, recursive: true });
            }
            Meaning::CopyUp => self.tmpcopyup = true,
            Meaning::CopySymlink => self.copy_symlink = true,
            Meaning::SourceNofollow => self.source_nofollow = true,
            Meaning::DestinationNofollow => self.destination_nofollow = true,
            Meaning::Idmap => self.idmap = Some(Idmap { recursive: false, maps: None }),
            Meaning::IdmapRecursive => self.idmap = Some(Idmap { recursive: true, maps: None }),
        }
    }
}

fn divide(words: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in words.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                parts.extend(words.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(words.get(start..));
    parts
}

/// Number of options in [`NAMES`].
const COUNT: usize = TABLE.len() - 2;

/// Every option that is not file system data, sorted: `mountOptions` of `creel features`. As in
/// runc `idmap` and `ridmap` are not listed; features.md shows them as `mountExtensions`.
pub const NAMES: &[&str] = &names();

const fn names() -> [&'static str; COUNT] {
    let mut names = [""; COUNT];
    let (mut from, mut to) = (0, 0);
    while from < TABLE.len() {
        if !matches!(TABLE[from].1, Meaning::Idmap | Meaning::IdmapRecursive) {
            names[to] = TABLE[from].0;
            to += 1;
        }
        from += 1;
    }
    names
}

/// Sorts the options of one mount. The error is the index of the wrong option and what is wrong
/// with it. A bind mount cannot take file system data, because the kernel would ignore it: as in runc
/// that is worth a warning; but a word that is nearly one of the table is a mistake, and a mount that
/// is not read-only because of one letter is no small matter.
pub fn parse_options(options: &[String]) -> Result<MountOptions, (usize, String)> {
    let mut parsed = MountOptions::default();
    for (index, option) in options.iter().enumerate() {
        if option.contains('\0') {
            return Err((index, "must not contain a null byte".to_owned()));
        }
        match meaning(option) {
            Some(meaning) => parsed.apply(meaning),
            None if idmap::is_mapping(option) => {
                parsed.idmap = Some(idmap::parse(option).map_err(|why| (index, why))?);
            }
            // mount(2) skips empty words of its data.
            None if option.is_empty() => {}
            None => parsed.data.push((index, option.clone())),
        }
    }
    if parsed.bind.is_some() {
        parsed.stray = std::mem::take(&mut parsed.data);
        for (index, word) in parsed.stray.iter().filter(|(_, word)| !word.contains('=')) {
            if let Some(known) = did_you_mean(word, TABLE.iter().map(|row| row.0)) {
                return Err((*index, format!("unknown mount option {word:?}; did you mean {known:?}")));
            }
        }
    }
    Ok(parsed)
}

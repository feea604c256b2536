//! Names of entries: made safe before anything is opened by them.

use std::fmt;

/// Why a name is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// `..` leads above the root.
    AboveRoot,
    /// A whiteout of nothing, of `.` or of `..`.
    Whiteout,
    /// A directory whose name is that of a whiteout.
    WhiteoutParent,
    /// The root is not a directory.
    Root,
    /// A parent is neither a directory nor a link to one.
    Parent,
    /// Symbolic links that lead in a circle.
    Loop,
}

impl fmt::Display for Escape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Escape::AboveRoot => "the path leads out of the root",
            Escape::Whiteout => "not a whiteout of a name",
            Escape::WhiteoutParent => "a whiteout cannot be a directory",
            Escape::Root => "the root must be a directory",
            Escape::Parent => "a parent is not a directory",
            Escape::Loop => "too many symbolic links",
        })
    }
}

/// The components of a path, with `.` and `..` taken out lexically, as containerd and umoci read names.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Escape> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or(Escape::AboveRoot)?;
            }
            name => parts.push(name),
        }
    }
    Ok(parts)
}

/// What the last component of a path says (image-spec layer.md, "Whiteouts").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// An entry.
    Plain(&'a [u8]),
    /// The lower layers' entry of this name is gone.
    Whiteout(&'a [u8]),
    /// All that the lower layers have in this directory is gone.
    Opaque,
    /// aufs's own bookkeeping.
    Ignored,
}

const PREFIX: &[u8] = b".wh.";

pub(super) fn classify<'a>(parents: &[&[u8]], name: &'a [u8]) -> Result<Name<'a>, Escape> {
    if parents.iter().any(|part| part.starts_with(PREFIX) && !part.starts_with(b".wh..wh.")) {
        return Err(Escape::WhiteoutParent);
    }
    if parents.iter().any(|part| part.starts_with(PREFIX)) {
        return Ok(Name::Ignored);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Name::Plain(name)),
        Some(b".wh..opq") => Ok(Name::Opaque),
        Some(b"" | b"." | b"..") => Err(Escape::Whiteout),
        Some(rest) if rest.starts_with(PREFIX) => Ok(Name::Ignored),
        Some(rest) => Ok(Name::Whiteout(rest)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn names_are_cleaned_and_never_leave_the_root() {
        assert_eq!(components(b"/a//./b/../c/").unwrap(), [b"a".as_slice(), b"c"]);
        assert_eq!(components(b"./").unwrap(), Vec::<&[u8]>::new());
        for path in ["..", "../a", "a/../../b", "/.."] {
            assert_eq!(components(path.as_bytes()), Err(Escape::AboveRoot), "{path}");
        }
    }

    #[test]
    fn whiteouts_are_told_from_names() {
        let of = |name: &'static str| classify(&[b"d"], name.as_bytes());
        assert_eq!(of("a.wh."), Ok(Name::Plain(b"a.wh.")));
        assert_eq!(of(".wh.a"), Ok(Name::Whiteout(b"a")));
        assert_eq!(of(".wh..a"), Ok(Name::Whiteout(b".a")));
        assert_eq!(of(".wh..wh..opq"), Ok(Name::Opaque));
        assert_eq!(of(".wh..wh.plnk"), Ok(Name::Ignored));
        for name in [".wh.", ".wh..", ".wh..."] {
            assert_eq!(of(name), Err(Escape::Whiteout), "{name}");
        }
        assert_eq!(classify(&[b".wh.a"], b"b"), Err(Escape::WhiteoutParent));
        assert_eq!(classify(&[b".wh..wh.plnk"], b"b"), Ok(Name::Ignored));
    }
}

//! crun's text for the maps of an idmapped mount: `idmap=uids=0-1000-10#10-2000-1;gids=@0-0-5`.
//!
//! Each triplet is the first id in the file system, the first id on the host and a count. With `@` the
//! second one is an id of the container's user namespace.

use super::Idmap;

/// Whether the host's id of a line is to be looked up in the container's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relative {
    /// As it stands.
    No,
    /// `@`
    Yes,
}

/// `(first id in the file system, first id on the host, count)`
pub type Line = (u32, u32, u32, Relative);

/// The two maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapText {
    /// `uids=`
    pub uids: Vec<Line>,
    /// `gids=`
    pub gids: Vec<Line>,
}

/// Whether an option is `idmap=` or `ridmap=`.
pub(super) fn is_mapping(option: &str) -> bool {
    option.starts_with("idmap=") || option.starts_with("ridmap=")
}

/// Reads such an option.
pub(super) fn parse(option: &str) -> Result<Idmap, String> {
    let (name, text) = option.split_once('=').unwrap_or((option, ""));
    let mut maps = MapText::default();
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let map = match part.split_once('=') {
            Some(("uids", lines)) => (&mut maps.uids, lines),
            Some(("gids", lines)) => (&mut maps.gids, lines),
            _ => return Err(format!("expected uids=... or gids=..., found {part:?}")),
        };
        for line in map.1.split('#').filter(|line| !line.is_empty()) {
            map.0.push(triplet(line)?);
        }
    }
    for (name, lines) in [("uids", &maps.uids), ("gids", &maps.gids)] {
        if lines.is_empty() {
            return Err(format!("an id-mapped mount needs both mappings, {name}= is missing"));
        }
    }
    Ok(Idmap { recursive: name == "ridmap", maps: Some(maps) })
}

fn triplet(line: &str) -> Result<Line, String> {
    let (relative, numbers) = match line.strip_prefix('@') {
        Some(rest) => (Relative::Yes, rest),
        None => (Relative::No, line),
    };
    let words: Vec<&str> = numbers.split('-').collect();
    let wrong = || format!("expected three numbers such as 0-1000-10, found {line:?}");
    let number = |i: usize| -> Result<u32, String> {
        let word = words.get(i).filter(|w| w.bytes().all(|b| b.is_ascii_digit())).ok_or_else(wrong)?;
        word.parse().map_err(|_| wrong())
    };
    let (inside, outside, count) = (number(0)?, number(1)?, number(2)?);
    if words.len() != 3 || count == 0 {
        return Err(wrong());
    }
    Ok((inside, outside, count, relative))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn maps_are_lists_of_triplets() {
        let read = parse("idmap=uids=0-1-10#10-11-10;gids=@0-100-5").unwrap();
        assert!(!read.recursive && parse("ridmap=uids=0-0-1;gids=0-0-1").unwrap().recursive);
        let maps = read.maps.unwrap();
        assert_eq!(maps.uids, [(0, 1, 10, Relative::No), (10, 11, 10, Relative::No)]);
        assert_eq!(maps.gids, [(0, 100, 5, Relative::Yes)]);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in [
            "idmap=",
            "idmap=uids=0-1-10",
            "idmap=uids=0-1;gids=0-1-1",
            "idmap=uids=a-1-1;gids=0-1-1",
            "idmap=uids=0-1-0;gids=0-1-1",
            "idmap=users=0-1-1",
            "idmap=uids=0-1-1-1;gids=0-1-1",
            "idmap=uids=0-1-99999999999;gids=0-1-1",
            "idmap=uids=-1-1-1;gids=0-1-1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

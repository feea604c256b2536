//! How the document is read: as Go's decoder in runc reads it (encoding/json, `Unmarshal`).
//!
//! A missing or null field is the zero value, an unknown one is ignored, and the case of a key's letters
//! does not matter: a `maskedpaths` that masks under runc must not be dropped in silence. A key that
//! comes again in another case adds to what is there; the very same key twice is a mistake.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::spec::SeccompText;

/// A value that is read into a place which may hold one already.
pub trait Decode {
    /// Reads it. Null empties what is a pointer, a list or a map in Go and leaves alone what is not.
    fn decode<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<(), D::Error>;
}

/// A struct of the document.
pub trait Object: Default {
    /// Its fields as Rust names them, or as they are written where that says more.
    const FIELDS: &'static [&'static str];

    /// Reads the value of the field with that number.
    fn field<'de, A: MapAccess<'de>>(&mut self, number: usize, map: &mut A) -> Result<(), A::Error>;
}

/// Reads a struct from an object, and from nothing else.
pub fn object<'de, T: Object, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let mut place = T::default();
    from.deserialize_map(Fields(&mut place))?;
    Ok(place)
}

impl<T: Object> Decode for Option<T> {
    fn decode<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<(), D::Error> {
        let there = from.deserialize_option(OrNull(self.get_or_insert_default()))?;
        if !there {
            *self = None;
        }
        Ok(())
    }
}

impl<T: Object> Decode for T {
    fn decode<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<(), D::Error> {
        from.deserialize_option(OrNull(self)).map(drop)
    }
}

impl<T: for<'de> Deserialize<'de>> Decode for BTreeMap<String, T> {
    fn decode<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<(), D::Error> {
        let more: Option<BTreeMap<String, T>> = Option::deserialize(from)?;
        match more {
            Some(more) => self.extend(more),
            None => self.clear(),
        }
        Ok(())
    }
}

impl<T: for<'de> Deserialize<'de>> Decode for Vec<T> {
    fn decode<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<(), D::Error> {
        *self = Option::deserialize(from)?.unwrap_or_default();
        Ok(())
    }
}

macro_rules! values {
    ($($ty:ty),*) => { $(
        impl Decode for $ty {
            fn decode<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<(), D::Error> {
                if let Some(value) = Option::deserialize(from)? {
                    *self = value;
                }
                Ok(())
            }
        }
    )* };
}
values!(bool, u32, u64, i32, i64, String);

macro_rules! pointers {
    ($($ty:ty),*) => { $(
        impl Decode for Option<$ty> {
            fn decode<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<(), D::Error> {
                *self = Option::deserialize(from)?;
                Ok(())
            }
        }
    )* };
}
pointers!(bool, u16, u32, u64, i64, Vec<String>, SeccompText);

/// The place of a field.
pub struct Place<'a, T>(pub &'a mut T);

impl<'de, T: Decode> DeserializeSeed<'de> for Place<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.0.decode(from)
    }
}

/// The place of a struct, or null. Tells whether there was a struct.
struct OrNull<'a, T>(&'a mut T);

impl<'de, T: Object> Visitor<'de> for OrNull<'_, T> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_none<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_map(Fields(self.0))?;
        Ok(true)
    }
}

struct Fields<'a, T>(&'a mut T);

impl<'de, T: Object> Visitor<'de> for Fields<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        const { assert!(T::FIELDS.len() <= 64, "`seen` has a bit for each") };
        let mut seen = 0u64;
        while let Some(Key(key)) = map.next_key()? {
            let found = T::FIELDS.iter().map(|name| spelling(&key, name)).enumerate();
            let Some((number, spelling)) = found.clone().find(|(_, spelling)| *spelling != Spelling::Other)
            else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if spelling == Spelling::Exact && seen & (1 << number) != 0 {
                return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
            }
            seen |= u64::from(spelling == Spelling::Exact) << number;
            self.0.field(number, &mut map)?;
        }
        Ok(())
    }
}

/// How a key says a field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Exact,
    OtherCase,
    Other,
}

/// `additional_gids` is written `additionalGids`.
fn spelling(key: &str, name: &str) -> Spelling {
    let mut key = key.bytes();
    let mut exact = true;
    let mut starts_word = false;
    for letter in name.bytes() {
        if letter == b'_' {
            starts_word = true;
            continue;
        }
        match key.next() {
            Some(found) if found.eq_ignore_ascii_case(&letter) => {
                exact &= found == if starts_word { letter.to_ascii_uppercase() } else { letter };
            }
            Some(_) | None => return Spelling::Other,
        }
        starts_word = false;
    }
    match (key.next(), exact) {
        (Some(_), _) => Spelling::Other,
        (None, true) => Spelling::Exact,
        (None, false) => Spelling::OtherCase,
    }
}

/// Borrowed from the document where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Spelling, spelling};
    use crate::parse::{parse, parse_resources};

    #[test]
    fn words_are_joined_by_capitals() {
        for (key, name, expected) in [
            ("additionalGids", "additional_gids", Spelling::Exact),
            ("additionalgids", "additional_gids", Spelling::OtherCase),
            ("additional_gids", "additional_gids", Spelling::Other),
            ("additionalGid", "additional_gids", Spelling::Other),
            ("additionalGidss", "additional_gids", Spelling::Other),
            ("ociVersion", "oci_version", Spelling::Exact),
            ("OCIVersion", "oci_version", Spelling::OtherCase),
            ("execCPUAffinity", "execCPUAffinity", Spelling::Exact),
            ("execCpuAffinity", "execCPUAffinity", Spelling::OtherCase),
            ("", "type", Spelling::Other),
        ] {
            assert_eq!(spelling(key, name), expected, "{key}");
        }
    }

    #[test]
    fn the_case_of_a_key_does_not_matter() {
        let resources = parse_resources(r#"{"hugepagelimits": [{"pagesize": "2MB", "LIMIT": 4}]}"#).unwrap();
        let [limit] = &resources.hugepage_limits[..] else { panic!("{resources:?}") };
        assert_eq!((limit.page_size.as_str(), limit.limit), ("2MB", 4));
        let spec = parse(r#"{"OCIVersion": "1.0.0", "linux": {"MaskedPaths": ["/a"]}}"#).unwrap();
        assert_eq!(spec.linux.unwrap().masked_paths, ["/a"]);
    }

    #[test]
    fn a_key_in_another_case_adds_to_what_is_there() {
        let resources =
            parse_resources(r#"{"cpu": {"shares": 5, "mems": "0"}, "CPU": {"Mems": "1"}}"#).unwrap();
        let cpu = resources.cpu.unwrap();
        assert_eq!((cpu.shares, cpu.mems.as_str()), (Some(5), "1"));
        let spec = parse(
            r#"{"ociVersion": "1.0.0", "hostName": "a", "hostname": "b", "annotations": {"x": "1"},
                "Annotations": {"y": "2"}, "linux": {"sysctl": {}}, "LINUX": null}"#,
        )
        .unwrap();
        assert_eq!((spec.hostname.as_str(), spec.annotations.len(), spec.linux), ("b", 2, None));
    }

    #[test]
    fn null_empties_pointers_lists_and_maps_and_leaves_values_alone() {
        let spec = parse(
            r#"{"ociVersion": "1.0.0", "hostName": "a", "hostname": null,
                "annotations": {"x": "1"}, "Annotations": null,
                "process": {"User": {"uid": 7}, "user": null, "Args": ["a"], "args": null,
                    "OOMScoreAdj": 5, "oomScoreAdj": null}}"#,
        )
        .unwrap();
        let process = spec.process.unwrap();
        assert_eq!((spec.hostname.as_str(), spec.annotations.len()), ("a", 0));
        assert_eq!((process.user.uid, process.args.len(), process.oom_score_adj), (7, 0, None));
    }

    #[test]
    fn keys_that_are_no_fields_keep_their_case_and_escapes_are_read() {
        let spec =
            parse(r#"{"ociVersion": "1.0.0", "annotations": {"A": "1", "a": "2"}, "hos\u0074Name": "x"}"#)
                .unwrap();
        assert_eq!(spec.annotations.len(), 2);
        assert_eq!(spec.hostname, "x");
    }

    #[test]
    fn a_wrong_value_is_named_by_the_key_as_it_is_written() {
        let error = parse(r#"{"ociVersion": "1.0.0", "linux": {"readonlypaths": [1]}}"#).unwrap_err();
        assert_eq!(error.to_string(), ".linux.readonlypaths[0]: expected a string, found number 1");
    }
}

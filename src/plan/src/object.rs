//! How a struct of the document is read: as Go's decoder reads one.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Lets a struct be read from an object only, and its keys in any case.
///
/// serde's derive also reads one from an array, field by field, so that `"linux": []` would be a
/// container without namespaces. And it ignores a key of another case like an unknown one: a
/// `maskedpaths` that masks under runc, whose decoder prefers the exact name and takes any other
/// (<https://pkg.go.dev/encoding/json#Unmarshal>), would be dropped in silence.
pub struct Object<D>(pub D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Object<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Fields { visitor, fields })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A struct's own visitor, which is shown the keys as the struct spells them.
struct Fields<V> {
    visitor: V,
    fields: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Entries { map, fields: self.fields })
    }
}

struct Entries<A> {
    map: A,
    fields: &'static [&'static str],
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(Key(key)) = self.map.next_key()? else { return Ok(None) };
        let spelled = if self.fields.contains(&key.as_ref()) {
            None
        } else {
            self.fields.iter().find(|field| field.eq_ignore_ascii_case(&key))
        };
        let key = spelled.map_or(key, |field| Cow::Borrowed(*field));
        seed.deserialize(CowStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.map.next_value_seed(seed)
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

    use crate::parse::{parse, parse_resources};

    #[test]
    fn the_case_of_a_key_does_not_matter() {
        let resources = parse_resources(r#"{"hugepagelimits": [{"pagesize": "2MB", "LIMIT": 4}]}"#).unwrap();
        let [limit] = &resources.hugepage_limits[..] else { panic!("{resources:?}") };
        assert_eq!((limit.page_size.as_str(), limit.limit), ("2MB", 4));
        let spec = parse(r#"{"OCIVersion": "1.0.0", "linux": {"MaskedPaths": ["/a"]}}"#).unwrap();
        assert_eq!(spec.linux.unwrap().masked_paths, ["/a"]);
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
    fn a_key_in_two_cases_is_there_twice() {
        let error = parse(r#"{"ociVersion": "1.0.0", "hostname": "a", "hostName": "b"}"#).unwrap_err();
        assert_eq!(error.to_string(), ".hostname: the key appears twice");
    }

    #[test]
    fn a_wrong_value_is_named_by_the_key_as_it_is_written() {
        let error = parse(r#"{"ociVersion": "1.0.0", "linux": {"readonlypaths": [1]}}"#).unwrap_err();
        assert_eq!(error.to_string(), ".linux.readonlypaths[0]: expected a string, found number 1");
    }
}

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;
use crate::testing::{TarBuilder, pax_record};

fn all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut body = Vec::new();
        loop {
            let chunk = reader.chunk()?;
            if chunk.is_empty() {
                break;
            }
            body.extend_from_slice(chunk);
            let count = chunk.len();
            reader.consume(count);
        }
        entries.push((entry, body));
    }
    Ok(entries)
}

#[test]
fn numbers_are_octal_or_base_256() {
    let cases: [(&[u8], Option<i64>); 8] = [
        (b"0000644\0", Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"\x80\0\0\0\0\x20\0\0", Some(0x20_0000)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
        (b"12x\0", None),
        (b"-1\0", None),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
    ];
    for (bytes, expected) in cases {
        assert_eq!(header::number(bytes, "n").ok(), expected, "{bytes:?}");
    }
}

#[test]
fn records_override_long_names_and_headers() {
    let mut tar = TarBuilder::default();
    tar.pax(&[
        ("path", "p".repeat(300).as_bytes()),
        ("uid", b"3000000"),
        ("mtime", b"-1.25"),
        ("size", b"2"),
    ]);
    tar.long_name(&"g".repeat(200));
    tar.file("short", b"hi");
    let (entry, body) = all(&tar.finish()).unwrap().remove(0);
    assert_eq!(entry.path, "p".repeat(300).into_bytes());
    assert_eq!((entry.uid, entry.mtime, body.as_slice()), (3_000_000, (-2, 750_000_000), b"hi".as_slice()));
}

#[test]
fn global_records_hold_until_the_end() {
    let mut tar = TarBuilder::default();
    tar.global(&[("gid", b"77")]);
    tar.file("a", b"");
    tar.pax(&[("gid", b"5")]);
    tar.file("b", b"");
    tar.file("c", b"");
    let gids: Vec<u32> = all(&tar.finish()).unwrap().iter().map(|(entry, _)| entry.gid).collect();
    assert_eq!(gids, [77, 5, 77]);
}

#[test]
fn both_families_of_xattrs_are_binary_safe() {
    let mut tar = TarBuilder::default();
    tar.pax(&[
        ("LIBARCHIVE.xattr.user.a%20b", b"AAEK"),
        ("SCHILY.xattr.user.raw", b"\0=\n\xff"),
        ("SCHILY.xattr.user.empty", b""),
    ]);
    tar.file("a", b"");
    let (entry, _) = all(&tar.finish()).unwrap().remove(0);
    let expected: [(&[u8], &[u8]); 3] =
        [(b"user.a b", b"\0\x01\n"), (b"user.empty", b""), (b"user.raw", b"\0=\n\xff")];
    let found: Vec<(&[u8], &[u8])> = entry.xattrs.iter().map(|(n, v)| (n.as_slice(), v.as_slice())).collect();
    assert_eq!(found, expected);
}

#[test]
fn extended_attributes_are_bounded_whatever_headers_they_come_from() {
    let refused = |tar: TarBuilder| all(&tar.finish()).unwrap_err().to_string();
    let value = vec![b'v'; 60 << 10];
    let names: Vec<String> = (0..257).map(|i| format!("SCHILY.xattr.user.{i}")).collect();
    // Each header says the same names: the last one counts, and nothing piles up.
    let mut tar = TarBuilder::default();
    for i in 0..100u8 {
        tar.global(&[("SCHILY.xattr.user.a", &value), ("SCHILY.xattr.user.b", &[i])]);
    }
    tar.pax(&[("SCHILY.xattr.user.a", b"own")]);
    tar.file("a", b"");
    let (entry, _) = all(&tar.finish()).unwrap().remove(0);
    let expected = [(b"user.a".to_vec(), b"own".to_vec()), (b"user.b".to_vec(), vec![99])];
    assert_eq!(entry.xattrs, expected);
    // Other names add up to the limit of one header.
    let mut tar = TarBuilder::default();
    for name in &names[..18] {
        tar.global(&[(name, &value)]);
    }
    assert!(refused(tar).starts_with("tar: global records of "));
    let all_of =
        |names: &[String]| -> Vec<u8> { names.iter().flat_map(|name| pax_record(name, b"")).collect() };
    let mut tar = TarBuilder::default();
    tar.raw(b'x', "x", &all_of(&names));
    assert_eq!(refused(tar), "tar: more than 256 extended attributes of an entry");
    let mut tar = TarBuilder::default();
    tar.raw(b'g', "g", &all_of(&names[..200]));
    tar.raw(b'x', "x", &all_of(&names[200..]));
    tar.file("a", b"");
    assert_eq!(refused(tar), "tar: more than 256 extended attributes of an entry");
    let mut tar = TarBuilder::default();
    tar.pax(&[("SCHILY.xattr.user.a", &vec![0; (64 << 10) + 1])]);
    assert_eq!(refused(tar), "tar: more than 65536 bytes in an extended attribute");
}

#[test]
fn all_forms_of_sparse_files_give_the_same_map() {
    let map = [Segment { offset: 4096, length: 3 }, Segment { offset: 10_000, length: 2 }];
    let mut forms = Vec::new();
    let mut tar = TarBuilder::default();
    tar.pax(&[
        ("GNU.sparse.size", b"20000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"10000"),
        ("GNU.sparse.numbytes", b"2"),
    ]);
    tar.file("s", b"abcde");
    forms.push(tar.finish());
    let mut tar = TarBuilder::default();
    tar.pax(&[
        ("GNU.sparse.size", b"20000"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.map", b"4096,3,10000,2"),
    ]);
    tar.file("GNUSparseFile.0/s", b"abcde");
    forms.push(tar.finish());
    let mut tar = TarBuilder::default();
    tar.pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"20000"),
    ]);
    let mut body = b"2\n4096\n3\n10000\n2\n".to_vec();
    body.resize(512, 0);
    body.extend_from_slice(b"abcde");
    tar.file("GNUSparseFile.0/s", &body);
    forms.push(tar.finish());
    let mut tar = TarBuilder::default();
    tar.gnu_sparse("s", 20_000, &[(4096, 3), (10_000, 2)], b"abcde");
    forms.push(tar.finish());
    for form in forms {
        let (entry, body) = all(&form).unwrap().remove(0);
        assert_eq!((entry.path.as_slice(), entry.size), (b"s".as_slice(), 20_000));
        assert_eq!(entry.segments.as_deref(), Some(map.as_slice()));
        assert_eq!(body, b"abcde");
    }
}

#[test]
fn a_sparse_map_that_lies_is_refused() {
    for map in ["0,6", "0,3,2,2", "19999,5", "18446744073709551615,5", "0,5,7", "a,b"] {
        let mut tar = TarBuilder::default();
        tar.pax(&[("GNU.sparse.size", b"20000"), ("GNU.sparse.map", map.as_bytes())]);
        tar.file("s", b"abcde");
        assert!(all(&tar.finish()).is_err(), "{map}");
    }
}

#[test]
fn what_is_broken_is_refused_and_what_is_short_is_known() {
    let mut tar = TarBuilder::default();
    tar.file("a", &[7; 1000]);
    let good = tar.finish();
    assert_eq!(all(&good[..1536]).unwrap().len(), 1, "an archive may end without its zeros");
    assert_eq!(all(&good[..1512]).unwrap().len(), 1, "and without the padding of its last body");
    assert!(matches!(all(&good[..1511]), Err(TarError::Truncated)), "but not without its last byte");
    assert!(matches!(all(&good[..1000]), Err(TarError::Truncated)));
    assert!(matches!(all(&good[..100]), Err(TarError::Truncated)));
    let mut broken = good.clone();
    broken[0] = b'b';
    assert!(matches!(all(&broken), Err(TarError::Checksum)));
    let records = pax_record("path", &[b'x'; 5000]);
    let mut tar = TarBuilder::default();
    tar.raw(b'x', "x", &records);
    tar.file("a", b"");
    assert!(matches!(all(&tar.finish()), Err(TarError::TooLong { what: "path", .. })));
    let mut tar = TarBuilder::default();
    tar.raw(b'x', "x", &vec![b'1'; MAX_RECORDS as usize + 1]);
    assert!(matches!(all(&tar.finish()), Err(TarError::TooLong { what: "extension header", .. })));
    let mut tar = TarBuilder::default();
    tar.pax(&[("uid", b"4294967295")]);
    tar.file("a", b"");
    assert_eq!(all(&tar.finish()).unwrap_err().to_string(), "tar entry \"a\": bad uid");
    let mut tar = TarBuilder::default();
    tar.pax(&[("size", b"18446744073709551615")]);
    tar.file("a", b"");
    assert_eq!(all(&tar.finish()).unwrap_err().to_string(), "tar entry \"a\": bad size");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096), fix in any::<bool>()) {
        if fix && bytes.len() >= 512 {
            // A right checksum lets the fields be reached.
            bytes[148..156].fill(b' ');
            let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
            bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        drop(all(&bytes));
        drop(Records::parse(&bytes));
    }
}

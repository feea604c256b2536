#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests of single variants")]

use proptest::prelude::*;

use super::*;

fn parse(options: &[&str]) -> MountOptions {
    parse_options(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn error(options: &[&str]) -> (usize, String) {
    parse_options(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>()).unwrap_err()
}

#[test]
fn table_is_sorted_and_names_leave_out_idmap() {
    assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let expected: Vec<&str> = TABLE.iter().map(|row| row.0).filter(|n| !n.ends_with("idmap")).collect();
    assert_eq!(NAMES, expected);
}

#[test]
fn names_are_the_60_of_runc_1_5_and_the_3_of_crun() {
    let runc = "async atime bind copy-symlink defaults dest-nofollow dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
        nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime \
        rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime \
        rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
        rsymfollow runbindable rw shared silent slave src-nofollow strictatime suid symfollow sync tmpcopyup unbindable";
    assert_eq!(NAMES, runc.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn attributes_set_and_clear() {
    let o = parse(&["ro", "nosuid", "nodev", "noexec", "nosymfollow", "nodiratime"]);
    assert_eq!(o.attr.attr_set(), 0x20_008f);
    assert_eq!(o.attr.attr_clr(), 0);
    assert_eq!(o.attr.ms_flags(), 1 | 2 | 4 | 8 | 256 | 2048);
    let o = parse(&["rw", "suid", "dev", "exec", "symfollow", "diratime"]);
    assert_eq!(o.attr.attr_set(), 0);
    assert_eq!(o.attr.attr_clr(), 0x20_008f);
    assert_eq!((o.attr.ms_flags(), o.attr.ms_cleared()), (0, 1 | 2 | 4 | 8 | 256 | 2048));
}

#[test]
fn later_word_wins() {
    assert_eq!(parse(&["ro", "rw"]).attr, parse(&["rw"]).attr);
    assert_eq!(parse(&["rw", "ro"]).attr, parse(&["ro"]).attr);
    assert_eq!(parse(&["rro", "rrw"]).recursive, parse(&["rrw"]).recursive);
    assert_eq!(parse(&["sync", "async"]).sb, parse(&["async"]).sb);
    assert_eq!(parse(&["noatime", "relatime"]).attr, parse(&["relatime"]).attr);
}

#[test]
fn access_time_is_a_field() {
    for (options, expected) in [
        (&["noatime"][..], Some(Atime::Noatime)),
        (&["strictatime"], Some(Atime::Strictatime)),
        (&["noatime", "strictatime"], Some(Atime::Strictatime)),
        (&["noatime", "atime"], Some(Atime::Relatime)),
        (&["strictatime", "nostrictatime"], Some(Atime::Relatime)),
        (&["noatime", "nostrictatime"], Some(Atime::Noatime)),
        (&["strictatime", "norelatime"], Some(Atime::Strictatime)),
        (&["atime"], Some(Atime::Relatime)),
        (&["nodiratime"], None),
    ] {
        assert_eq!(parse(options).attr.atime, expected, "{options:?}");
        let recursive: Vec<String> = options.iter().map(|o| format!("r{o}")).collect();
        let recursive = parse_options(&recursive).unwrap().recursive.unwrap();
        assert_eq!(recursive.atime, expected, "recursive {options:?}");
    }
    let rrelatime = parse(&["rrelatime"]).recursive.unwrap();
    assert_eq!((rrelatime.attr_set(), rrelatime.attr_clr()), (0, attr::ATIME_MASK));
}

#[test]
fn recursive_words_leave_the_mount_itself_alone() {
    let o = parse(&["rro", "rnosuid", "rdev"]);
    assert!(o.attr.is_empty());
    let deep = o.recursive.unwrap();
    assert_eq!((deep.attr_set(), deep.attr_clr()), (attr::RDONLY | attr::NOSUID, attr::NODEV));
}

#[test]
fn superblock_flags_become_keys() {
    let keys = |options: &[&str]| parse(options).sb.fsconfig_keys().collect::<Vec<_>>();
    assert_eq!(keys(&["sync", "dirsync", "lazytime", "mand"]), ["sync", "dirsync", "lazytime", "mand"]);
    assert_eq!(keys(&["async", "nolazytime", "nomand"]), ["async", "nolazytime", "nomand"]);
    assert!(keys(&["silent", "iversion", "ro"]).is_empty());
    assert_eq!(parse(&["iversion"]).sb.mount2_only(), ms::I_VERSION);
    assert_eq!(parse(&["silent", "iversion", "ro"]).ms_flags(), 1 | 32768 | 1 << 23);
}

#[test]
fn bind_stays_recursive() {
    assert_eq!(parse(&["bind"]).bind, Some(Bind { recursive: false }));
    assert_eq!(parse(&["bind", "rbind"]).bind, Some(Bind { recursive: true }));
    assert_eq!(parse(&["rbind", "bind"]).bind, Some(Bind { recursive: true }));
    assert_eq!(parse(&["ro"]).bind, None);
}

#[test]
fn propagation_keeps_its_order() {
    let o = parse(&["rprivate", "shared"]);
    let flags: Vec<u64> = o.propagation.iter().map(|p| p.ms_flags()).collect();
    assert_eq!(flags, [ms::PRIVATE | ms::REC, ms::SHARED]);
    for word in Propagation::WORDS {
        assert_eq!(parse(&[word]).propagation, [Propagation::from_word(word).unwrap()]);
    }
    assert_eq!(Propagation::from_word("rw"), None);
}

#[test]
fn unknown_words_are_data() {
    let o = parse(&["nosuid", "mode=755", "defaults", "", "size=65536k,nr_inodes=1", "inode64"]);
    assert_eq!(o.data_string(), "mode=755,size=65536k,nr_inodes=1,inode64");
    let params: Vec<_> = o.data_params().map(|p| (p.index, p.key, p.value)).collect();
    assert_eq!(
        params,
        [
            (1, "mode", Some("755")),
            (4, "size", Some("65536k")),
            (4, "nr_inodes", Some("1")),
            (5, "inode64", None)
        ]
    );
}

#[test]
fn escaped_and_quoted_commas_do_not_divide() {
    let o = parse(&[r"lowerdir=/a\,b:/c,upperdir=/u", r#"context="u:r:t:s0:c1,c2""#, "a=b=c", ",=x,"]);
    let params: Vec<_> = o.data_params().map(|p| (p.key, p.value.unwrap())).collect();
    let expected =
        [("lowerdir", r"/a\,b:/c"), ("upperdir", "/u"), ("context", r#""u:r:t:s0:c1,c2""#), ("a", "b=c")];
    assert_eq!(params, expected);
}

#[test]
fn extensions_are_seen() {
    let o = parse(&["tmpcopyup", "idmap", "ridmap", "remount"]);
    assert!(o.tmpcopyup && o.remount);
    assert_eq!(o.idmap, Some(Idmap { recursive: true, maps: None }));
}

#[test]
fn data_on_a_bind_mount_is_stray_unless_it_is_nearly_an_option() {
    assert_eq!(
        error(&["rro2", "bind"]),
        (0, r#"unknown mount option "rro2"; did you mean "rro""#.to_owned())
    );
    let o = parse(&["size=1m", "rbind", "completely-different"]);
    assert_eq!(o.stray, [(0, "size=1m".to_owned()), (2, "completely-different".to_owned())]);
    assert!(o.data.is_empty() && parse(&["size=1m"]).stray.is_empty());
    assert_eq!(error(&["ro", "a\0b"]), (1, "must not contain a null byte".to_owned()));
}

/// An option and the one that undoes it.
fn opposite(name: &str) -> Option<&'static str> {
    let candidates = [
        name.strip_prefix("no").map(str::to_owned),
        Some(format!("no{name}")),
        name.strip_prefix("rno").map(|rest| format!("r{rest}")),
        name.strip_prefix('r').map(|rest| format!("rno{rest}")),
        (name == "ro").then(|| "rw".to_owned()),
        (name == "rw").then(|| "ro".to_owned()),
    ];
    candidates.into_iter().flatten().find_map(|c| NAMES.iter().find(|n| **n == c).copied())
}

#[test]
fn bit_and_its_opposite_use_the_same_bit() {
    let mut pairs = 0;
    for name in NAMES {
        let Some(other) = opposite(name) else { continue };
        match (meaning(name).unwrap(), meaning(other).unwrap()) {
            (Meaning::Set(a), Meaning::Clear(b))
            | (Meaning::Clear(a), Meaning::Set(b))
            | (Meaning::RecursiveSet(a), Meaning::RecursiveClear(b))
            | (Meaning::RecursiveClear(a), Meaning::RecursiveSet(b))
            | (Meaning::SuperSet(a), Meaning::SuperClear(b))
            | (Meaning::SuperClear(a), Meaning::SuperSet(b)) => assert_eq!(a, b, "{name} {other}"),
            (Meaning::Atime(a), Meaning::NotAtime(b))
            | (Meaning::NotAtime(a), Meaning::Atime(b))
            | (Meaning::RecursiveAtime(a), Meaning::RecursiveNotAtime(b))
            | (Meaning::RecursiveNotAtime(a), Meaning::RecursiveAtime(b)) => {
                assert_eq!(a, b, "{name} {other}");
            }
            other => panic!("{name}: {other:?}"),
        }
        pairs += 1;
    }
    assert!(pairs >= 34, "{pairs}");
}

proptest! {
    #[test]
    fn masks_never_overlap(picks in prop::collection::vec(prop::sample::select(NAMES), 0..12)) {
        let o = parse(&picks);
        prop_assert_eq!(o.attr.set & o.attr.clear, 0);
        prop_assert_eq!(o.sb.set & o.sb.clear, 0);
        prop_assert_eq!(o.attr.set & attr::ATIME_MASK, 0);
        prop_assert_eq!(o.attr.clear & attr::ATIME_MASK, 0);
        if let Some(deep) = o.recursive {
            prop_assert!(!deep.is_empty());
            prop_assert_eq!(deep.set & deep.clear, 0);
        }
        prop_assert!(o.data.is_empty());
    }

    #[test]
    fn last_word_of_a_pair_decides(
        before in prop::collection::vec(prop::sample::select(NAMES), 0..8),
        last in prop::sample::select(NAMES),
    ) {
        let mut words = before;
        words.push(last);
        let o = parse(&words);
        match meaning(last).unwrap() {
            Meaning::Set(bit) => prop_assert!(o.attr.attr_set() & bit != 0 && o.attr.attr_clr() & bit == 0),
            Meaning::Clear(bit) => prop_assert!(o.attr.attr_set() & bit == 0 && o.attr.attr_clr() & bit != 0),
            Meaning::Atime(mode) => prop_assert_eq!(o.attr.atime, Some(mode)),
            Meaning::NotAtime(mode) => prop_assert!(mode == Atime::Relatime || o.attr.atime != Some(mode)),
            Meaning::SuperSet(bit) => prop_assert!(o.sb.set & bit != 0),
            Meaning::SuperClear(bit) => prop_assert!(o.sb.set & bit == 0),
            _ => {}
        }
    }

    #[test]
    fn any_words_are_sorted_without_loss(words in prop::collection::vec("[a-z=,\\\\\"]{0,12}", 0..6)) {
        let expected = words.iter().filter(|w| !w.is_empty() && meaning(w).is_none()).count();
        if let Ok(o) = parse_options(&words) {
            prop_assert_eq!(o.data.len(), expected);
            prop_assert!(o.data_params().all(|p| !p.key.is_empty()));
        }
    }
}

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

static FLAGS: [Flag; 4] = [
    Flag::duration("interval", ""),
    Flag::value("pid-file", "FILE", "").short('p'),
    Flag::switch("detach", "").short('d'),
    Flag::number("preserve-fds", ""),
];

fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.is_named(name))
}

fn args(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[test]
fn one_dash_and_two_are_the_same_flag() {
    for words in [
        &["-pid-file", "x"][..],
        &["--pid-file", "x"],
        &["-pid-file=x"],
        &["--pid-file=x"],
        &["-p", "x"],
        &["--p=x"],
    ] {
        let args = args(words);
        let words = Words::read(&args, false, find).unwrap();
        assert_eq!(words.value("pid-file"), Some(OsStr::new("x")), "{args:?}");
        assert_eq!(words.operands.len(), 0, "{args:?}");
    }
}

#[test]
fn the_word_after_a_flag_is_its_value_even_with_a_dash() {
    let args = args(&["-pid-file", "--detach", "id"]);
    let words = Words::read(&args, false, find).unwrap();
    assert_eq!(words.value("pid-file"), Some(OsStr::new("--detach")));
    assert!(!words.has("detach"));
}

#[test]
fn the_last_of_a_repeated_flag_counts_and_all_are_kept() {
    let args = args(&["-p", "a", "-p=b", "-d", "-d=false"]);
    let words = Words::read(&args, false, find).unwrap();
    assert_eq!(words.value("pid-file"), Some(OsStr::new("b")));
    assert_eq!(words.all("pid-file").count(), 2);
    assert!(!words.has("detach"));
}

#[test]
fn an_empty_value_is_no_value() {
    let args = args(&["--pid-file="]);
    assert_eq!(Words::read(&args, false, find).unwrap().value("pid-file"), None);
}

#[test]
fn errors_have_the_words_of_gos_flag_package() {
    for (word, message) in [
        ("---detach", "bad flag syntax: ---detach"),
        ("-=x", "bad flag syntax: -=x"),
        ("--pid-file", "flag needs an argument: -pid-file"),
        ("--detach=maybe", "invalid boolean value \"maybe\" for -detach: parse error"),
        ("-preserve-fds=x", "invalid value \"x\" for flag -preserve-fds: parse error"),
        ("--preserve-fds=1__0", "invalid value \"1__0\" for flag -preserve-fds: parse error"),
        ("--interval=5", "invalid value \"5\" for flag -interval: parse error"),
        ("-dp", "flag provided but not defined: -dp"),
        ("--foo=1", "flag provided but not defined: -foo"),
    ] {
        assert_eq!(Words::read(&args(&[word]), false, find).unwrap_err(), message);
    }
}

#[test]
fn known_flags_may_follow_operands_and_unknown_ones_are_operands_there() {
    let args = args(&["-d", "id", "-9", "--pid-file", "x"]);
    let words = Words::read(&args, false, find).unwrap();
    assert_eq!(words.operands, ["id", "-9"]);
    assert_eq!(words.value("pid-file"), Some(OsStr::new("x")));
}

#[test]
fn another_programs_flags_are_left_alone() {
    let args = args(&["-d", "id", "ls", "-d", "--", "--foo"]);
    let words = Words::read(&args, true, find).unwrap();
    assert_eq!(words.operands, ["id", "ls", "-d", "--", "--foo"]);
}

#[test]
fn a_lone_dash_is_an_operand_and_two_end_the_flags() {
    let args = args(&["-", "--", "-d"]);
    let words = Words::read(&args, false, find).unwrap();
    assert_eq!(words.operands, ["-", "-d"]);
    assert!(!words.has("detach"));
}

#[test]
fn numbers_are_read_as_go_reads_them() {
    for (text, number) in [
        ("0", Some(0)),
        ("3", Some(3)),
        ("+3", Some(3)),
        ("-1", Some(-1)),
        ("0x1F", Some(31)),
        ("017", Some(15)),
        ("0b11", Some(3)),
        ("1_000", Some(1000)),
        ("0x_1", Some(1)),
        ("", None),
        ("x", None),
        ("_1", None),
        ("1_", None),
        ("--1", None),
        ("0x", None),
        ("08", None),
        ("9223372036854775808", None),
    ] {
        assert_eq!(parse_number(OsStr::new(text)), number, "{text:?}");
    }
}

#[test]
fn lengths_of_time_are_read_as_go_reads_them() {
    for (text, milliseconds) in [
        ("0", Some(0)),
        ("5s", Some(5000)),
        ("100ms", Some(100)),
        ("1m30s", Some(90_000)),
        ("1.5h", Some(5_400_000)),
        ("+.5s", Some(500)),
        ("-1s", Some(0)),
        ("1000us", Some(1)),
        ("1000\u{b5}s", Some(1)),
        ("", None),
        ("5", None),
        ("s", None),
        ("5 s", None),
        ("5days", None),
    ] {
        assert_eq!(parse_duration(OsStr::new(text)), milliseconds.map(Duration::from_millis), "{text:?}");
    }
}

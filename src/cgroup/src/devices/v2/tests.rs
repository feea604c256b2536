//! Both translations against the meaning of the rule list: the program on an interpreter of the
//! instructions used, the v1 lines on a model of security/device_cgroup.c.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::devices::{DEFAULT_RULES, V1Write, v1_writes};

struct Request {
    kind: Kind,
    access: u8,
    major: u32,
    minor: u32,
}

/// Runs a program as the kernel does; any other instruction is a failure.
fn run(program: &[BpfInsn], request: &Request) -> bool {
    let kind: u32 = if request.kind == Kind::Block { 1 } else { 2 };
    let context = [u32::from(request.access) << 16 | kind, request.major, request.minor];
    let mut registers = [0u32; 11];
    let mut at = 0usize;
    loop {
        let i = program[at];
        at += 1;
        let (dst, src) = (usize::from(i.dst()), usize::from(i.src()));
        let imm = i.imm as u32;
        let jump = |take: bool| if take { usize::try_from(i.off).unwrap() } else { 0 };
        match i.code {
            LOAD_WORD => registers[dst] = context[usize::try_from(i.off).unwrap() / 4],
            AND32_IMM => registers[dst] &= imm,
            RSH32_IMM => registers[dst] >>= imm,
            MOV32_IMM => registers[dst] = imm,
            MOV32_REG => registers[dst] = registers[src],
            JUMP => at += jump(true),
            JEQ32_IMM => at += jump(registers[dst] == imm),
            JNE32_IMM => at += jump(registers[dst] != imm),
            EXIT => return registers[0] == 1,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// The rule list as its documentation reads.
fn means(rules: &[Rule], request: &Request) -> bool {
    let matches = |rule: &Rule, bit: u8| {
        rule.kind == Kind::All
            || (rule.kind == request.kind
                && rule.major.is_none_or(|m| m == request.major)
                && rule.minor.is_none_or(|m| m == request.minor)
                && rule.access.bits() & bit != 0)
    };
    let bits = [1, 2, 4].into_iter().filter(|bit| request.access & bit != 0);
    bits.into_iter().all(|bit| rules.iter().rev().find(|r| matches(r, bit)).is_some_and(|r| r.allow))
}

fn requests() -> impl Iterator<Item = Request> {
    let numbers = [0, 1, 3, 136, u32::MAX];
    [Kind::Block, Kind::Char].into_iter().flat_map(move |kind| {
        (1..8).flat_map(move |access| {
            numbers.into_iter().flat_map(move |major| {
                numbers.into_iter().map(move |minor| Request { kind, access, major, minor })
            })
        })
    })
}

/// A v1 cgroup after the writes: the default, and exceptions of which one must cover an allowed
/// request and none may touch one otherwise.
fn v1_allows(writes: &[V1Write], request: &Request) -> bool {
    let default_allow = writes[0].allow;
    let letter = if request.kind == Kind::Block { "b" } else { "c" };
    let mut exceptions = writes[1..].iter().map(|write| {
        assert_eq!((writes[0].line.as_str(), write.allow), ("a", !default_allow));
        let parts: Vec<&str> = write.line.split([' ', ':']).collect();
        let number = |text: &str, value: u32| text == "*" || text.parse() == Ok(value);
        let bits = parts[3].chars().fold(0, |bits, c| {
            bits | if c == 'm' {
                1
            } else if c == 'r' {
                2
            } else {
                4
            }
        });
        let same = parts[0] == letter && number(parts[1], request.major) && number(parts[2], request.minor);
        if same { bits } else { 0 }
    });
    if default_allow {
        !exceptions.any(|bits| bits & request.access != 0)
    } else {
        exceptions.any(|bits| bits & request.access == request.access)
    }
}

/// v1 does not add up several exceptions, so only single accesses compare. False: v1 cannot
/// express the list.
fn assert_v1_faithful(rules: &[Rule]) -> bool {
    let Ok(writes) = v1_writes(rules) else { return false };
    for request in requests().filter(|r| r.access.count_ones() == 1) {
        let Request { kind, access, major, minor } = &request;
        assert_eq!(
            v1_allows(&writes, &request),
            means(rules, &request),
            "{kind:?} {major}:{minor} access {access} under {rules:?}: {writes:?}"
        );
    }
    true
}

fn assert_faithful(rules: &[Rule]) {
    let program = v2_program(rules).unwrap();
    for request in requests() {
        let Request { kind, access, major, minor } = &request;
        assert_eq!(
            run(&program, &request),
            means(rules, &request),
            "{kind:?} {major}:{minor} access {access} under {rules:?}"
        );
    }
}

#[test]
fn default_rules_allow_null_and_refuse_disks() {
    let program = v2_program(&DEFAULT_RULES).unwrap();
    let ask = |kind, access, major, minor| run(&program, &Request { kind, access, major, minor });
    assert!(ask(Kind::Char, 7, 1, 3));
    assert!(ask(Kind::Char, 6, 136, 42));
    assert!(ask(Kind::Block, 1, 8, 0));
    assert!(!ask(Kind::Block, 2, 8, 0));
    assert!(!ask(Kind::Char, 4, 1, 1));
    assert_faithful(&DEFAULT_RULES);
    assert!(assert_v1_faithful(&DEFAULT_RULES));
}

#[test]
fn random_rule_lists_are_followed() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let numbers = [None, Some(0), Some(1), Some(3), Some(136), Some(u32::MAX)];
    let mut on_v1 = 0;
    for _ in 0..400 {
        let count = random(8);
        let rules: Vec<Rule> = (0..count)
            .map(|_| Rule {
                allow: random(2) == 0,
                kind: [Kind::Block, Kind::Char, Kind::Char, Kind::Block, Kind::All]
                    [usize::try_from(random(5)).unwrap()],
                major: numbers[usize::try_from(random(6)).unwrap()],
                minor: numbers[usize::try_from(random(6)).unwrap()],
                access: Access(u8::try_from(1 + random(7)).unwrap()),
                index: None,
            })
            .collect();
        assert_faithful(&rules);
        on_v1 += u32::from(assert_v1_faithful(&rules));
    }
    assert!(on_v1 > 200, "{on_v1}");
}

#[test]
fn everything_is_allowed_only_without_a_later_denial() {
    let rule =
        |allow, kind| Rule { allow, kind, major: None, minor: None, access: Access::READ, index: None };
    assert!(allow_everything(&[rule(true, Kind::All)]));
    assert!(allow_everything(&[rule(false, Kind::All), rule(true, Kind::All), rule(true, Kind::Char)]));
    assert!(!allow_everything(&[rule(true, Kind::All), rule(false, Kind::Char)]));
    assert!(!allow_everything(&[rule(true, Kind::All), rule(false, Kind::All), rule(true, Kind::Char)]));
    assert!(!allow_everything(&[]) && !allow_everything(&DEFAULT_RULES));
}

#[test]
fn too_many_rules_are_refused() {
    let rule = |major| Rule {
        allow: true,
        kind: Kind::Char,
        major: Some(major),
        minor: None,
        access: Access::ALL,
        index: None,
    };
    let rules: Vec<Rule> = (0..900).map(rule).collect();
    assert!(v2_program(&rules).is_ok());
    let rules: Vec<Rule> = (0..1001).map(rule).collect();
    assert!(v2_program(&rules).is_err());
}

#[test]
fn golden_program_of_two_rules() {
    let rule =
        |major, minor, access| Rule { allow: true, kind: Kind::Char, major, minor, access, index: None };
    let rules = [rule(None, None, Access::MKNOD), rule(Some(1), Some(3), Access::ALL)];
    let got: Vec<(u8, u8, u8, i16, i32)> =
        v2_program(&rules).unwrap().iter().map(|i| (i.code, i.dst(), i.src(), i.off, i.imm)).collect();
    assert_eq!(
        got,
        [
            (0x61, 2, 1, 0, 0),
            (0xbc, 3, 2, 0, 0),
            (0x54, 2, 0, 0, 0xffff),
            (0x74, 3, 0, 0, 16),
            (0x61, 4, 1, 4, 0),
            (0x61, 5, 1, 8, 0),
            // Not a character device: to the other section.
            (0x56, 2, 0, 4, 2),
            (0x56, 4, 0, 2, 1),
            (0x16, 5, 0, 3, 3),
            (0x05, 0, 0, 4, 0),
            (0x05, 0, 0, 3, 0),
            // No block device.
            (0x05, 0, 0, 6, 0),
            // All bits.
            (0xb4, 0, 0, 0, 1),
            (0x95, 0, 0, 0, 0),
            // mknod and nothing else.
            (0x54, 3, 0, 0, -2),
            (0x56, 3, 0, 2, 0),
            (0xb4, 0, 0, 0, 1),
            (0x95, 0, 0, 0, 0),
            (0xb4, 0, 0, 0, 0),
            (0x95, 0, 0, 0, 0),
        ]
    );
}

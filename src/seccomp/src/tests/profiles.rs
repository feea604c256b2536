//! Profiles of engines, and one for each word of the specification.

use serde_json::{Value, from_value, json};

use super::calls::Numbers;
use super::compare::{arch, compare};
use crate::names::{ACTIONS, OPERATORS};

fn check(value: Value, native: &str) {
    let profile = from_value(value.clone()).unwrap();
    let tally = compare(&profile, arch(native), Numbers::All, 300).unwrap();
    assert!(!tally.refused, "libseccomp refuses {value}");
    assert_eq!(tally.difference, None, "{value}");
    assert!(tally.tried > 10_000 && tally.modelled > 1_000, "{tally:?}");
}

fn engine(name: &str) -> Value {
    let text = match name {
        "k8s" => include_str!("../../tests/data/k8s.json"),
        _ => include_str!("../../tests/data/podman.json"),
    };
    serde_json::from_str(text).unwrap()
}

#[test]
fn profiles_of_engines() {
    for name in ["k8s", "podman"] {
        check(engine(name), "X86_64");
    }
}

/// Machines and the architectures of their profiles.
const MACHINES: &[(&str, &[&str])] = &[
    ("X86_64", &["X86_64", "X86", "X32"]),
    ("X86_64", &["X86"]),
    ("X86_64", &[]),
    ("X32", &["X32"]),
    ("AARCH64", &["AARCH64", "ARM"]),
    ("AARCH64", &["X86_64", "X86", "X32"]),
    ("ARM", &["ARM"]),
    ("PPC64LE", &["PPC64LE"]),
    ("S390X", &["S390X", "S390"]),
    ("S390", &["S390"]),
    ("PPC64", &["PPC64", "PPC"]),
    ("RISCV64", &["RISCV64"]),
    ("MIPSEL64", &["MIPSEL64", "MIPSEL64N32", "MIPSEL"]),
    ("MIPS64", &["MIPS64", "MIPS64N32", "MIPS"]),
];

#[test]
fn profiles_on_every_machine() {
    for (native, archs) in MACHINES {
        for name in ["k8s", "podman"] {
            let mut profile = engine(name);
            profile["architectures"] = archs.iter().map(|arch| format!("SCMP_ARCH_{arch}")).collect();
            check(profile, native);
        }
    }
}

fn rule(names: &[&str], action: &str) -> Value {
    json!({ "names": names, "action": action })
}

#[test]
fn every_action_as_default_and_in_a_rule() {
    for default in ACTIONS.iter().filter(|action| **action != "SCMP_ACT_NOTIFY") {
        let mut rules: Vec<_> = ACTIONS
            .iter()
            .zip(["read", "dup", "getpid", "ioctl", "socket", "semget", "open", "accept", "clone"])
            .collect();
        for native in ["X86_64", "S390X", "AARCH64"] {
            rules.rotate_left(1);
            let rules: Vec<_> = rules.iter().map(|(action, name)| rule(&[name], action)).collect();
            check(json!({ "defaultAction": default, "syscalls": rules }), native);
        }
    }
    for errno in [0, 1, 38, 4094] {
        let mut allowed = rule(&["getpid"], "SCMP_ACT_ERRNO");
        allowed["errnoRet"] = json!(errno);
        let mut traced = rule(&["dup"], "SCMP_ACT_TRACE");
        traced["errnoRet"] = json!(errno);
        check(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [allowed, traced] }), "X86_64");
        let rules = [rule(&["dup"], "SCMP_ACT_ALLOW"), rule(&["ioctl"], "SCMP_ACT_ERRNO")];
        check(
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno, "syscalls": rules }),
            "S390X",
        );
    }
}

#[test]
fn every_operator() {
    for op in OPERATORS {
        for value in [0u64, 1, 5, 0xffff_ffff, 1 << 32, 5 << 32 | 7, u64::MAX - 1, u64::MAX] {
            for (native, archs) in [("X86_64", ["X86", "X32"]), ("S390X", ["S390", "PPC64"])] {
                let archs: Vec<_> = archs.iter().map(|arch| format!("SCMP_ARCH_{arch}")).collect();
                let arg = json!({ "index": 2, "value": value, "valueTwo": 5, "op": op });
                let rule = json!({ "names": ["ioctl", "socket"], "action": "SCMP_ACT_ALLOW", "args": [arg] });
                let profile = json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS", "architectures": archs, "syscalls": [rule] });
                let tally =
                    compare(&from_value(profile.clone()).unwrap(), arch(native), Numbers::Near, 100).unwrap();
                assert_eq!(tally.difference, None, "{profile}");
            }
        }
    }
}

/// What the rule on newer calls looks at: nothing mentioned, only number 0, only pseudo numbers.
#[test]
fn profiles_that_mention_little() {
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"] {
        for names in
            [&[][..], &["read"], &["recv"], &["semop", "read"], &["no_such_call"], &["restart_syscall"]]
        {
            for (native, archs) in MACHINES {
                let archs: Vec<_> = archs.iter().map(|arch| format!("SCMP_ARCH_{arch}")).collect();
                for action in ["SCMP_ACT_TRAP", default] {
                    let rules = [rule(names, action)];
                    let profile =
                        json!({ "defaultAction": default, "architectures": archs, "syscalls": rules });
                    let tally =
                        compare(&from_value(profile.clone()).unwrap(), arch(native), Numbers::Near, 10)
                            .unwrap();
                    assert_eq!(tally.difference, None, "{profile} on {native}");
                }
            }
        }
    }
}

/// Returns and long jumps in reach of everything, however long the filter.
#[test]
fn long_filters() {
    for count in [40u64, 64, 120, 180] {
        let rules: Vec<_> = (0..count)
            .map(|value| {
                let action = ["SCMP_ACT_ALLOW", "SCMP_ACT_TRAP", "SCMP_ACT_LOG"][value as usize % 3];
                let args = json!([{ "index": value % 2, "value": value << 32 | value, "op": "SCMP_CMP_EQ" },
                    { "index": 3, "value": value, "op": "SCMP_CMP_NE" }]);
                let names = ["read", "write", "open", "dup", "getpid", "ioctl", "mkdir", "chown"];
                json!({ "names": [names[value as usize % 8]], "action": action, "args": args })
            })
            .collect();
        let archs = ["SCMP_ARCH_X86", "SCMP_ARCH_X32"];
        check(
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": archs, "syscalls": rules }),
            "X86_64",
        );
    }
}

//! What is refused, with which words, and the flags of what is not.

use serde_json::{Value, from_value, json};

use crate::arch::Arch;
use crate::flags::{LOG, NEW_LISTENER, SPEC_ALLOW, WAIT_KILLABLE_RECV};
use crate::{Program, compile, compile_on};

fn compile_json(value: Value) -> Result<Program, String> {
    compile(&from_value(value).unwrap()).map_err(|error| error.to_string())
}

fn with_rule(rule: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }, rule] })
}

#[test]
fn profiles_that_are_refused() {
    let arg = |index: u32, op: &str| {
        with_rule(json!({ "names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": index, "value": 1, "op": op }] }))
    };
    let cases = [
        (
            json!({}),
            ".linux.seccomp.defaultAction: unknown action \"\"; expected one of SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, SCMP_ACT_KILL, SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_THREAD, SCMP_ACT_LOG, SCMP_ACT_NOTIFY, SCMP_ACT_TRACE, SCMP_ACT_TRAP",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
            ".linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default action; the listener would never get its descriptor",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }),
            ".linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW takes no errno; only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4095 }),
            ".linux.seccomp.defaultErrnoRet: 4095 is above 4094",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65536 }),
            ".linux.seccomp.defaultErrnoRet: 65536 is above 65535",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG", "LOG"] }),
            ".linux.seccomp.flags[1]: unknown flag \"LOG\"; expected one of SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] }),
            ".linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY",
        ),
        (
            with_rule(json!({ "names": ["dup"], "action": "ALLOW" })),
            ".linux.seccomp.syscalls[1].action: unknown action \"ALLOW\"; expected one of SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, SCMP_ACT_KILL, SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_THREAD, SCMP_ACT_LOG, SCMP_ACT_NOTIFY, SCMP_ACT_TRACE, SCMP_ACT_TRAP",
        ),
        (
            with_rule(json!({ "names": ["dup"], "action": "SCMP_ACT_KILL", "errnoRet": 0 })),
            ".linux.seccomp.syscalls[1].errnoRet: SCMP_ACT_KILL takes no errno; only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do",
        ),
        (
            with_rule(json!({ "names": ["dup", ""], "action": "SCMP_ACT_ALLOW" })),
            ".linux.seccomp.syscalls[1].names[1]: empty system call name",
        ),
        (
            with_rule(json!({ "names": ["dup", "write"], "action": "SCMP_ACT_NOTIFY" })),
            ".linux.seccomp.syscalls[1].names[1]: SCMP_ACT_NOTIFY cannot be used for the write syscall: the listener would never get its descriptor",
        ),
        (
            arg(6, "SCMP_CMP_EQ"),
            ".linux.seccomp.syscalls[1].args[1].index: a system call has arguments 0 to 5, not 6",
        ),
        (
            arg(1, "=="),
            ".linux.seccomp.syscalls[1].args[1].op: unknown operator \"==\"; expected one of SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_LE, SCMP_CMP_LT, SCMP_CMP_MASKED_EQ, SCMP_CMP_NE",
        ),
    ];
    for (profile, words) in cases {
        assert_eq!(compile_json(profile), Err(words.to_owned()));
    }
}

#[test]
fn architectures_that_are_refused() {
    let on = |native: &str, named: &str| {
        let profile =
            from_value(json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [native, named] }))
                .unwrap();
        compile_on(&profile, Arch::by_name(native).unwrap()).map_err(|error| error.to_string())
    };
    let refused = |named: &str| on("SCMP_ARCH_X86_64", named).unwrap_err();
    assert!(
        refused("amd64")
            .starts_with(".linux.seccomp.architectures[1]: unknown architecture \"amd64\"; expected one of ")
    );
    assert_eq!(
        refused("SCMP_ARCH_S390X"),
        ".linux.seccomp.architectures[1]: SCMP_ARCH_S390X has not the byte order of this machine"
    );
    if !Arch::by_name("SCMP_ARCH_LOONGARCH64").unwrap().has_table() {
        let words = ".linux.seccomp.architectures[1]: the linked libseccomp has no system calls of SCMP_ARCH_LOONGARCH64";
        assert_eq!(refused("SCMP_ARCH_LOONGARCH64"), words);
    }
    assert!(on("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM").is_ok());
    assert!(on("SCMP_ARCH_S390X", "SCMP_ARCH_S390").is_ok());
}

#[test]
fn rules_that_contradict_each_other() {
    let arg = |index: u32| json!({ "index": index, "value": 1, "op": "SCMP_CMP_EQ" });
    let rules = |first: Value, second: Value| {
        compile_json(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            { "names": ["dup", "ioctl"], "action": "SCMP_ACT_ALLOW", "args": first },
            { "names": ["ioctl"], "action": "SCMP_ACT_LOG", "args": second }] }))
    };
    let words =
        ".linux.seccomp.syscalls[1]: an earlier rule gives \"ioctl\" another action for the same arguments";
    assert_eq!(rules(json!([arg(0)]), json!([arg(0)])).unwrap_err(), words);
    assert_eq!(rules(json!([arg(0), arg(1)]), json!([arg(0)])).unwrap_err(), words);
    assert!(rules(json!([arg(0)]), json!([arg(0), arg(1)])).is_ok());
    assert!(rules(json!([arg(0)]), json!([])).is_ok());
}

#[test]
fn flags_of_a_filter() {
    let flags = |names: Value, action: &str| {
        let program = compile_json(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": names,
            "syscalls": [{ "names": ["mkdir", "no_such_call"], "action": action }] }))
        .unwrap();
        assert_eq!(program.notify, program.flags & NEW_LISTENER != 0);
        program.flags
    };
    assert_eq!(flags(Value::Null, "SCMP_ACT_KILL"), SPEC_ALLOW);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"]), "SCMP_ACT_KILL"), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG"]), "SCMP_ACT_KILL"), LOG);
    assert_eq!(
        flags(json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"]), "SCMP_ACT_ALLOW"),
        SPEC_ALLOW | LOG
    );
    assert_eq!(flags(Value::Null, "SCMP_ACT_NOTIFY"), SPEC_ALLOW | NEW_LISTENER);
    assert_eq!(
        flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), "SCMP_ACT_NOTIFY"),
        WAIT_KILLABLE_RECV | NEW_LISTENER
    );
}

#[test]
fn more_rules_than_the_kernel_takes() {
    let args = |value: u32| json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]);
    let profile = |count: u32| {
        let rules: Vec<_> = (0..count)
            .map(|value| json!({ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args(value) }))
            .collect();
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": [], "syscalls": rules })
    };
    assert!(compile_json(profile(4000)).is_ok());
    let refused = compile_json(profile(5000)).unwrap_err();
    assert!(refused.starts_with(".linux.seccomp: the profile becomes 5"), "{refused}");
    assert!(refused.ends_with(" instructions; the kernel takes 4096"), "{refused}");
}

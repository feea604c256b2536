//! Docker's default seccomp profile, resolved for the capabilities of one container.

use serde_json::{Value, json};

use super::seccomp_table::{ALWAYS, ON_ARCHITECTURE, PERSONALITIES, SOCKET_DOMAINS, WITH_CAPABILITY};

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET (clone(2)).
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn argument(index: u32, value: u64, op: &str) -> Value {
    json!([{"index": index, "value": value, "op": op}])
}

fn allow_if(name: &str, args: Value) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args})
}

/// `linux.seccomp` for these capabilities, on an architecture by its name in GOARCH.
pub(super) fn default_profile(capabilities: &[&str], architecture: &str) -> Value {
    let has = |name: &str| capabilities.contains(&name);
    let mut allowed = words(ALWAYS);
    for (capability, names) in WITH_CAPABILITY {
        if has(capability) {
            allowed.extend(words(names));
        }
    }
    for (architectures, names) in ON_ARCHITECTURE {
        if architectures.contains(&architecture) {
            allowed.extend(words(names));
        }
    }
    allowed.sort_unstable();
    allowed.dedup();
    let mut calls = vec![json!({"names": allowed, "action": "SCMP_ACT_ALLOW"})];
    calls.extend(SOCKET_DOMAINS.map(|(op, value)| allow_if("socket", argument(0, value, op))));
    calls.extend(PERSONALITIES.map(|value| allow_if("personality", argument(0, value, "SCMP_CMP_EQ"))));
    if !has("CAP_SYS_ADMIN") {
        // The flags are clone's first argument, on s390 its second.
        let index = if architecture.starts_with("s390") { 1 } else { 0 };
        calls.push(allow_if("clone", argument(index, CLONE_NAMESPACES, "SCMP_CMP_MASKED_EQ")));
        // Its flags are behind a pointer; C libraries fall back to clone on ENOSYS.
        calls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    let mut profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "syscalls": calls});
    let architectures: &[&str] = match architecture {
        "amd64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "arm64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "s390x" => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        "loong64" => &["SCMP_ARCH_LOONGARCH64"],
        // The runtime's own, then.
        _ => &[],
    };
    if !architectures.is_empty() {
        profile["architectures"] = json!(architectures);
    }
    profile
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn action<'a>(profile: &'a Value, name: &str) -> Vec<&'a Value> {
        let calls = profile["syscalls"].as_array().unwrap();
        let names = |call: &&Value| call["names"].as_array().unwrap().contains(&json!(name));
        calls.iter().filter(names).collect()
    }

    #[test]
    fn capabilities_open_their_calls() {
        let plain = default_profile(&["CAP_CHOWN"], "amd64");
        assert!(action(&plain, "mount").is_empty() && action(&plain, "arch_prctl").len() == 1);
        assert_eq!(action(&plain, "clone3")[0]["errnoRet"], 38);
        assert_eq!(action(&plain, "clone")[0]["args"][0]["value"], 2_114_060_288u64);
        let admin = default_profile(&["CAP_SYS_ADMIN"], "arm64");
        assert_eq!(action(&admin, "mount").len(), 1);
        assert_eq!(action(&admin, "clone3")[0]["action"], "SCMP_ACT_ALLOW");
        assert!(action(&admin, "arch_prctl").is_empty());
        assert_eq!(admin["architectures"][0], "SCMP_ARCH_AARCH64");
    }

    #[test]
    fn the_tables_are_whole() {
        assert!(words(ALWAYS).len() > 350, "{}", words(ALWAYS).len());
        for name in words(ALWAYS).iter().chain(&words(WITH_CAPABILITY[1].1)) {
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
        }
    }
}

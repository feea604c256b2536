//! Profiles in the format of Docker and podman: `linux.seccomp` of runtime-spec, with calls that are there only for
//! some capabilities, architectures or kernels, and with architectures by that of the machine.

use serde_json::{Map, Value, json};

/// What decides which calls of a profile count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The container's bounding set.
    pub capabilities: &'a [&'a str],
    /// The machine, by its name in GOARCH.
    pub architecture: &'a str,
    /// Version of the kernel, its first two numbers.
    pub kernel: (u32, u32),
}

/// Fields that are the same in both formats.
const COMMON: [&str; 6] =
    ["defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata"];

/// The same of a call.
const OF_CALLS: [&str; 3] = ["action", "errnoRet", "args"];

/// Machines: their names in GOARCH, in conditions, and in the map of architectures.
const MACHINES: [(&str, &str, &str); 9] = [
    ("amd64", "amd64", "SCMP_ARCH_X86_64"),
    ("386", "x86", "SCMP_ARCH_X86"),
    ("arm64", "arm64", "SCMP_ARCH_AARCH64"),
    ("arm", "arm", "SCMP_ARCH_ARM"),
    ("ppc64le", "ppc64le", "SCMP_ARCH_PPC64LE"),
    ("riscv64", "riscv64", "SCMP_ARCH_RISCV64"),
    ("s390x", "s390x", "SCMP_ARCH_S390X"),
    ("loong64", "loongarch64", "SCMP_ARCH_LOONGARCH64"),
    ("mips64le", "mipsel64", "SCMP_ARCH_MIPSEL64"),
];

/// `linux.seccomp`, or what is wrong with the profile.
pub(super) fn resolve(profile: &Value, facts: Facts<'_>) -> Result<Value, String> {
    let fields = profile.as_object().ok_or("it is no object")?;
    if !fields.get("defaultAction").is_some_and(Value::is_string) {
        return Err("it has no defaultAction".to_owned());
    }
    let mut out: Map<String, Value> = COMMON
        .iter()
        .filter_map(|name| Some((name.to_string(), given(fields.get(*name))?.clone())))
        .collect();
    let machine = MACHINES.iter().find(|machine| machine.0 == facts.architecture);
    let native = machine.map_or(facts.architecture, |machine| machine.1);
    if let Some(map) = given(fields.get("archMap")).and_then(Value::as_array) {
        if !list(&profile["architectures"]).is_empty() {
            return Err("it has both architectures and archMap".to_owned());
        }
        let own = map.iter().find(|entry| machine.is_some_and(|machine| entry["architecture"] == machine.2));
        if let Some(own) = own {
            let all: Vec<Value> =
                [&own["architecture"]].into_iter().chain(list(&own["subArchitectures"])).cloned().collect();
            out.insert("architectures".to_owned(), Value::Array(all));
        }
    }
    let mut calls = Vec::new();
    for (index, call) in list(&profile["syscalls"]).iter().enumerate() {
        let at = |why: String| format!(".syscalls[{index}]: {why}");
        if counts(call, facts, native).map_err(at)? {
            calls.push(plain(call).map_err(at)?);
        }
    }
    out.insert("syscalls".to_owned(), Value::Array(calls));
    Ok(Value::Object(out))
}

fn given(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A call without its conditions. Old profiles have one name in `name`.
fn plain(call: &Value) -> Result<Value, String> {
    let fields = call.as_object().ok_or("it is no object")?;
    let mut out: Map<String, Value> = OF_CALLS
        .iter()
        .filter_map(|name| Some((name.to_string(), given(fields.get(*name))?.clone())))
        .collect();
    let names = match (given(fields.get("name")), list(&call["names"])) {
        (Some(name), []) => json!([name]),
        (None, names) => json!(names),
        (Some(_), _) => return Err("it has both name and names".to_owned()),
    };
    out.insert("names".to_owned(), names);
    Ok(Value::Object(out))
}

fn counts(call: &Value, facts: Facts<'_>, native: &str) -> Result<bool, String> {
    let (needs, bars) = (&call["includes"], &call["excludes"]);
    let held = |name: &Value| name.as_str().is_some_and(|name| facts.capabilities.contains(&name));
    let here = |name: &Value| name == native;
    let (needed, barred) = (list(&needs["arches"]), list(&bars["arches"]));
    let machine = (needed.is_empty() || needed.iter().any(here)) && !barred.iter().any(here);
    let capabilities = list(&needs["caps"]).iter().all(held) && !list(&bars["caps"]).iter().any(held);
    let since = |value: &Value| -> Result<Option<bool>, String> {
        let Some(value) = given(Some(value)) else { return Ok(None) };
        let wrong = || format!("minKernel {value} is not a version such as \"4.8\"");
        let (major, minor) = value.as_str().and_then(|text| text.split_once('.')).ok_or_else(wrong)?;
        let version = major.parse().ok().zip(minor.parse().ok()).ok_or_else(wrong)?;
        Ok(Some(facts.kernel >= version))
    };
    let kernel = since(&needs["minKernel"])? != Some(false) && since(&bars["minKernel"])? != Some(true);
    Ok(machine && capabilities && kernel)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const FACTS: Facts<'static> =
        Facts { capabilities: &["CAP_CHOWN"], architecture: "amd64", kernel: (6, 1) };

    fn names(conditions: Value) -> Vec<String> {
        let mut call = json!({"names": ["call"], "action": "SCMP_ACT_ALLOW", "comment": "x"});
        call.as_object_mut().unwrap().extend(conditions.as_object().unwrap().clone());
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [call]});
        let found = resolve(&profile, FACTS).unwrap();
        list(&found["syscalls"]).iter().map(|call| call.to_string()).collect()
    }

    #[test]
    fn calls_count_where_their_conditions_hold() {
        let plain = vec![r#"{"action":"SCMP_ACT_ALLOW","names":["call"]}"#.to_owned()];
        for (conditions, expected) in [
            (json!({}), true),
            (json!({"includes": {}, "excludes": null, "args": null}), true),
            (json!({"includes": {"caps": ["CAP_CHOWN"]}}), true),
            (json!({"includes": {"caps": ["CAP_CHOWN", "CAP_BPF"]}}), false),
            (json!({"excludes": {"caps": ["CAP_BPF", "CAP_CHOWN"]}}), false),
            (json!({"includes": {"arches": ["arm", "amd64"]}}), true),
            (json!({"includes": {"arches": ["arm"]}}), false),
            (json!({"excludes": {"arches": ["amd64"]}}), false),
            (json!({"includes": {"minKernel": "4.8"}}), true),
            (json!({"includes": {"minKernel": "6.2"}}), false),
            (json!({"excludes": {"minKernel": "6.1"}}), false),
            (json!({"excludes": {"minKernel": "10.0"}}), true),
        ] {
            let expected = if expected { plain.clone() } else { Vec::new() };
            assert_eq!(names(conditions.clone()), expected, "{conditions}");
        }
    }

    #[test]
    fn architectures_are_those_of_the_machine() {
        let map = json!([
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}
        ]);
        let profile =
            json!({"defaultAction": "SCMP_ACT_KILL", "archMap": map, "flags": ["SECCOMP_FILTER_FLAG_LOG"]});
        let of = |architecture| resolve(&profile, Facts { architecture, ..FACTS }).unwrap();
        assert_eq!(of("amd64")["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        assert_eq!(of("riscv64")["architectures"], json!(["SCMP_ARCH_RISCV64"]));
        assert!(of("s390x").get("architectures").is_none() && of("s390x").get("archMap").is_none());
        assert_eq!(of("amd64")["flags"], json!(["SECCOMP_FILTER_FLAG_LOG"]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let call = |fields: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [fields]});
        for (profile, said) in [
            (json!([]), "no object"),
            (json!({"syscalls": []}), "no defaultAction"),
            (call(json!({"name": "a", "names": ["b"]})), ".syscalls[0]: it has both name and names"),
            (call(json!({"names": ["b"], "includes": {"minKernel": "five"}})), "minKernel"),
            (
                json!({"defaultAction": "x", "architectures": ["a"], "archMap": [{"architecture": "b"}]}),
                "both architectures and archMap",
            ),
        ] {
            let error = resolve(&profile, FACTS).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let old = resolve(&call(json!({"name": "a", "action": "SCMP_ACT_ALLOW"})), FACTS).unwrap();
        assert_eq!(old["syscalls"][0]["names"], json!(["a"]));
    }
}

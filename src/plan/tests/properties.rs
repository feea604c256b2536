//! Properties of the plan, on configs made at random and on good configs with one thing changed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
#[path = "common/invariants.rs"]
mod invariants;

use common::{Case, LABELLED, NESTED, USER, cases, default, mount, push, set};
use creel_plan::build::Planned;
use creel_plan::facts::{HostFacts, Request};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

const FACTS: [HostFacts; 4] = [HostFacts::ROOT, USER, NESTED, LABELLED];

fn planned(config: &Value, request: &Request, facts: &HostFacts) -> Result<Planned, String> {
    let spec = creel_plan::parse::parse(&config.to_string()).map_err(|invalid| invalid.to_string())?;
    creel_plan::plan(&spec, request, facts).map_err(|invalid| invalid.to_string())
}

#[test]
fn the_golden_configs_have_the_properties() {
    for Case { name, config, request, facts } in cases() {
        let planned = planned(&config, &request, &facts).unwrap();
        invariants::check(&config, &facts, &planned).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

#[test]
fn places_in_jqs_notation_resolve() {
    let config = json!({ "a": [{ "b": 1 }], "s": { "net.x": 2 } });
    assert_eq!(invariants::resolve(&config, ".a[0].b"), Some(&json!(1)));
    assert_eq!(invariants::resolve(&config, ".s[\"net.x\"]"), Some(&json!(2)));
    assert_eq!(invariants::resolve(&config, ".a[1]"), None);
    assert_eq!(invariants::resolve(&config, ".a[0].c"), None);
}

/// Each kind absent, new or joined.
fn namespaces() -> impl Strategy<Value = Vec<Value>> {
    const KINDS: [&str; 8] = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"];
    let one = prop_oneof![2 => Just(None), 3 => Just(Some("")), 2 => Just(Some("/proc/9/ns/x"))];
    (proptest::collection::vec(one, KINDS.len()), Just(KINDS.to_vec()).prop_shuffle()).prop_map(
        |(how, kinds)| {
            let some = kinds.into_iter().zip(how).filter_map(|(kind, path)| Some((kind, path?)));
            some.map(|(kind, path)| json!({ "type": kind, "path": path })).collect()
        },
    )
}

fn mounts() -> impl Strategy<Value = Vec<Value>> {
    let destination =
        select(vec!["/dev", "/dev/", "//a/../b/.", "/x/y", "/etc/hosts", "rel/./z", "/", "/run/notify"]);
    let options = subsequence(
        vec![
            "ro",
            "nosuid",
            "bind",
            "rbind",
            "rslave",
            "shared",
            "rro",
            "noatime",
            "size=1m",
            "tmpcopyup",
            "mode=755",
            "idmap",
            "ridmap",
        ],
        0..5,
    );
    let kind = select(vec!["tmpfs", "bind", "", "overlay", "cgroup", "devpts"]);
    let maps = prop_oneof![
        4 => Just(None),
        1 => (1..9u32, 1..9u32).prop_map(|(uid, gid)| Some([uid, gid])),
    ];
    let one = (destination, kind, options, maps).prop_map(|(to, kind, options, maps)| {
        let mut mount = mount(to, kind, "src", &options);
        if let Some([uid, gid]) = maps {
            mount["uidMappings"] = json!([{ "containerID": uid, "hostID": 1, "size": uid }]);
            mount["gidMappings"] = json!([{ "containerID": gid, "hostID": 2, "size": gid }]);
        }
        mount
    });
    proptest::collection::vec(one, 0..5)
}

fn devices() -> impl Strategy<Value = Vec<Value>> {
    let path = select(vec!["/dev/null", "/dev//x", "/dev/ptmx", "/dir/../dev/y"]);
    let one = (path, select(vec!["c", "u", "b", "p"]), 0..4096u32, 0..1_048_576u32);
    let one = one.prop_map(
        |(path, kind, major, minor)| json!({ "path": path, "type": kind, "major": major, "minor": minor }),
    );
    proptest::collection::vec(one, 0..4)
}

fn hooks() -> impl Strategy<Value = Value> {
    const KINDS: [&str; 6] =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    subsequence(KINDS.to_vec(), 0..=6).prop_map(|kinds| {
        let hook = json!([{ "path": "/h", "timeout": 1 }, { "path": "/i" }]);
        kinds
            .into_iter()
            .map(|kind| (kind.to_owned(), hook.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    })
}

/// Flags of one bit each: what is on or off in a config and a request.
#[derive(Debug, Clone)]
struct Switches {
    clocks: bool,
    seccomp: bool,
    no_new_privileges: Option<bool>,
    readonly: bool,
    terminal: bool,
    sysctl: bool,
    propagation: &'static str,
    no_pivot: bool,
    notify: bool,
    labels: bool,
}

fn switches() -> impl Strategy<Value = Switches> {
    let propagation = select(vec!["", "", "rshared", "slave", "rprivate", "unbindable"]);
    (any::<[bool; 8]>(), any::<Option<bool>>(), propagation).prop_map(
        |(on, no_new_privileges, propagation)| {
            let [clocks, seccomp, readonly, terminal, sysctl, no_pivot, notify, labels] = on;
            Switches {
                clocks,
                seccomp,
                no_new_privileges,
                readonly,
                terminal,
                sysctl,
                propagation,
                no_pivot,
                notify,
                labels,
            }
        },
    )
}

fn configs() -> impl Strategy<Value = (Value, Request, HostFacts, Planned)> {
    let parts = (namespaces(), mounts(), devices(), hooks(), switches(), select(FACTS.to_vec()));
    parts.prop_filter_map("not a container that can be", |(namespaces, mounts, devices, hooks, on, facts)| {
        let has = |kind: &str, path: bool| {
            namespaces.iter().any(|n| n["type"] == kind && (n["path"] == "") != path)
        };
        let mut config = default(&[]);
        set(&mut config, "/mounts", json!(mounts));
        set(&mut config, "/hooks", hooks);
        set(&mut config, "/linux/devices", json!(devices));
        set(&mut config, "/linux/rootfsPropagation", json!(on.propagation));
        set(&mut config, "/process/noNewPrivileges", json!(on.no_new_privileges));
        set(&mut config, "/process/terminal", json!(on.terminal));
        set(&mut config, "/root/readonly", json!(on.readonly && (has("mount", false) || has("mount", true))));
        if !on.seccomp {
            set(&mut config, "/linux/seccomp", Value::Null);
        }
        if on.clocks && has("time", false) {
            set(&mut config, "/linux/timeOffsets", json!({ "boottime": { "secs": 5 } }));
        }
        if on.labels && facts == LABELLED {
            set(&mut config, "/process/selinuxLabel", json!("u:r:container_t:s0"));
            set(&mut config, "/process/apparmorProfile", json!("docker-default"));
            set(&mut config, "/linux/mountLabel", json!("u:object_r:container_file_t:s0"));
        }
        if on.sysctl && has("network", false) {
            set(&mut config, "/linux/sysctl", json!({ "net.core.somaxconn": "9" }));
        }
        if has("user", false) {
            for map in ["/linux/uidMappings", "/linux/gidMappings"] {
                set(&mut config, map, json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]));
            }
        }
        if !has("mount", false) && !has("mount", true) {
            for list in ["/mounts", "/linux/maskedPaths", "/linux/readonlyPaths"] {
                set(&mut config, list, json!([]));
            }
        }
        set(&mut config, "/linux/namespaces", json!(namespaces));
        let request = Request {
            id: "p".into(),
            bundle: "/b".into(),
            no_pivot: on.no_pivot,
            notify_dir: on.notify.then(|| "/n".into()),
            ..Request::default()
        };
        let planned = planned(&config, &request, &facts).ok()?;
        Some((config, request, facts, planned))
    })
}

/// Values that a config should not have where it has something else.
fn oddities() -> impl Strategy<Value = Value> {
    let words =
        ["", "/", "..", "\0", "ro", "bind", "=", "a=b", "rshared", "CAP_CHOWN", "ü", "/proc", " # .x"];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        select(vec![-1i64, 0, 1, 65535, 1 << 32]).prop_map(Value::from),
        select(words.to_vec()).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null])),
    ]
}

/// JSON pointers of every value in a document.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| pointers(v, format!("{at}/{i}"), found))
        }
        Value::Object(map) => map.iter().for_each(|(k, v)| {
            let key = k.replace('~', "~0").replace('/', "~1");
            pointers(v, format!("{at}/{key}"), found);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found.push(at);
}

proptest! {
    #[test]
    fn every_plan_has_the_properties((config, _, facts, planned) in configs()) {
        let verdict = invariants::check(&config, &facts, &planned);
        prop_assert!(verdict.is_ok(), "{}\n{}\n{config}", verdict.unwrap_err(), planned.plan);
    }

    #[test]
    fn plans_are_deterministic((config, request, facts, planned) in configs()) {
        let again = self::planned(&config, &request, &facts).unwrap();
        prop_assert_eq!(&planned.plan, &again.plan);
        prop_assert_eq!(planned.plan.to_string(), again.plan.to_string());
        prop_assert_eq!(planned.warnings, again.warnings);
    }

    #[test]
    fn order_of_keys_and_white_space_change_nothing((config, request, facts, planned) in configs()) {
        let text = serde_json::to_string_pretty(&config).unwrap();
        let spec = creel_plan::parse::parse(&text).unwrap();
        prop_assert_eq!(creel_plan::plan(&spec, &request, &facts).unwrap().plan, planned.plan);
    }

    #[test]
    fn a_changed_config_is_planned_or_refused_by_place(
        case in any::<prop::sample::Index>(),
        places in proptest::collection::vec((any::<prop::sample::Index>(), oddities()), 1..4),
        grow in any::<bool>(),
    ) {
        let mut all = cases();
        let Case { mut config, request, .. } = all.swap_remove(case.index(all.len()));
        for (place, oddity) in places {
            let mut found = Vec::new();
            pointers(&config, String::new(), &mut found);
            let place = place.get(&found);
            match config.pointer_mut(place) {
                Some(Value::Array(_)) if grow => push(&mut config, place, oddity),
                Some(value) => *value = oddity,
                None => {}
            }
        }
        for facts in FACTS {
            let Ok(spec) = creel_plan::parse::parse(&config.to_string()) else { continue };
            match creel_plan::plan(&spec, &request, &facts) {
                Ok(planned) => prop_assert!(!planned.plan.to_string().is_empty()),
                Err(invalid) => prop_assert!(invalid.at.starts_with('.'), "{invalid}"),
            }
        }
    }
}

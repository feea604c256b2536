#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what is not expected is shown")]

use super::*;
use crate::resources::plan_writes;

fn planned(json: &str, hierarchy: Hierarchy) -> Result<Vec<String>, Invalid> {
    let mut writes = plan_writes(&serde_json::from_str(json).unwrap(), hierarchy)?;
    fit(&mut writes);
    let show = |p: Property| match p.value {
        Value::U64(number) if number == INFINITY => format!("{}=infinity", p.name),
        Value::U64(number) => format!("{}={number}", p.name),
        Value::Array(_, bytes) => format!("{}={bytes:?}", p.name),
        other => format!("{}={other:?}", p.name),
    };
    Ok(plan(&writes, hierarchy)?.into_iter().map(show).collect())
}

#[test]
fn v2_limits_become_properties() {
    for (json, properties) in [
        ("{}", &[][..]),
        (r#"{"cpu":{"shares":1024}}"#, &["CPUWeight=100"]),
        (
            r#"{"cpu":{"quota":50000,"period":100000}}"#,
            &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=500000"],
        ),
        (r#"{"cpu":{"quota":-1}}"#, &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"]),
        (r#"{"cpu":{"quota":50500}}"#, &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=510000"]),
        (r#"{"cpu":{"idle":1,"shares":1024}}"#, &["CPUWeight=0"]),
        (r#"{"cpu":{"idle":0}}"#, &[]),
        (r#"{"pids":{"limit":10}}"#, &["TasksMax=10"]),
        (r#"{"pids":{"limit":0}}"#, &["TasksMax=1"]),
        (r#"{"pids":{"limit":-1}}"#, &["TasksMax=infinity"]),
        (
            r#"{"memory":{"limit":100,"swap":300,"reservation":50}}"#,
            &["MemorySwapMax=200", "MemoryMax=100", "MemoryLow=50"],
        ),
        (r#"{"memory":{"limit":-1}}"#, &["MemorySwapMax=infinity", "MemoryMax=infinity"]),
        (r#"{"cpu":{"cpus":"0-1,9"}}"#, &["AllowedCPUs=[Byte(3), Byte(2)]"]),
        (r#"{"cpu":{"mems":"0"}}"#, &["AllowedMemoryNodes=[Byte(1)]"]),
        (r#"{"blockIO":{"weight":500}}"#, &["IOWeight=4950"]),
        (r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":500}]}}"#, &[]),
        (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#, &[]),
    ] {
        assert_eq!(planned(json, Hierarchy::V2).unwrap(), properties, "{json}");
    }
}

#[test]
fn unified_is_translated_and_has_the_last_word() {
    for (unified, properties) in [
        (r#""cpu.idle":"1","cpu.weight":"50""#, &["CPUWeight=0"][..]),
        (r#""cpu.weight":" 50\n""#, &["CPUWeight=50"]),
        (r#""cpu.max":"max""#, &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"]),
        (r#""cpu.max":"5000 20000""#, &["CPUQuotaPeriodUSec=20000", "CPUQuotaPerSecUSec=250000"]),
        (r#""memory.high":"max","memory.min":"5""#, &["MemoryHigh=infinity", "MemoryMin=5"]),
        (r#""pids.max":"0""#, &["TasksMax=1"]),
        (r#""cpuset.cpus":"0""#, &["AllowedCPUs=[Byte(1)]"]),
        (r#""io.weight":"default 200""#, &["IOWeight=200"]),
        (r#""io.weight":"8:0 200""#, &[]),
        (r#""memory.oom.group":"1","hugetlb.2MB.max":"0""#, &[]),
    ] {
        let json = format!(r#"{{"unified":{{{unified}}}}}"#);
        assert_eq!(planned(&json, Hierarchy::V2).unwrap(), properties, "{json}");
    }
    let both = r#"{"memory":{"limit":100},"unified":{"memory.max":"200"}}"#;
    assert_eq!(planned(both, Hierarchy::V2).unwrap(), ["MemoryMax=200"]);
}

#[test]
fn killing_as_a_group_is_the_units_policy() {
    let policy = |json: &str, hierarchy: Hierarchy| {
        let writes = plan_writes(&serde_json::from_str(json).unwrap(), Hierarchy::V2).unwrap();
        plan_oom_policy(&writes, hierarchy).map(|property| (property.name, property.value))
    };
    let group = |value: &str| format!(r#"{{"unified":{{"memory.oom.group":"{value}"}}}}"#);
    for (value, word) in [("1", "kill"), ("0", "continue"), (" 1", "kill")] {
        assert_eq!(policy(&group(value), Hierarchy::V2), Some(("OOMPolicy".into(), Value::text(word))));
    }
    assert_eq!(policy(&group("2"), Hierarchy::V2), None);
    assert_eq!(policy(&group("1"), Hierarchy::V1), None);
    assert_eq!(policy("{}", Hierarchy::V2), None);
}

#[test]
fn v1_has_the_old_names() {
    for (json, properties) in [
        (r#"{"cpu":{"shares":512}}"#, &["CPUShares=512"][..]),
        (
            r#"{"cpu":{"quota":5000,"period":20000}}"#,
            &["CPUQuotaPeriodUSec=20000", "CPUQuotaPerSecUSec=250000"],
        ),
        (r#"{"memory":{"limit":100,"swap":300,"reservation":50}}"#, &["MemoryLimit=100"]),
        (r#"{"memory":{"limit":-1}}"#, &["MemoryLimit=infinity"]),
        (r#"{"blockIO":{"weight":500}}"#, &["BlockIOWeight=500"]),
        (r#"{"pids":{"limit":10}}"#, &["TasksMax=10"]),
    ] {
        assert_eq!(planned(json, Hierarchy::V1).unwrap(), properties, "{json}");
    }
}

#[test]
fn the_file_has_the_quota_that_the_unit_has() {
    let quota = |json: &str, hierarchy: Hierarchy| {
        let mut writes = plan_writes(&serde_json::from_str(json).unwrap(), hierarchy).unwrap();
        fit(&mut writes);
        writes.last().unwrap().value.clone()
    };
    let odd = r#"{"cpu":{"quota":50500,"period":100000}}"#;
    assert_eq!(quota(odd, Hierarchy::V2), "51000 100000");
    assert_eq!(quota(odd, Hierarchy::V1), "51000");
    assert_eq!(quota(r#"{"cpu":{"quota":50500}}"#, Hierarchy::V1), "51000");
    assert_eq!(quota(r#"{"cpu":{"quota":50000}}"#, Hierarchy::V2), "50000 100000");
    let shaved = r#"{"cpu":{"quota":135001,"period":150001}}"#;
    assert_eq!(quota(shaved, Hierarchy::V2), "135001 150001", "90 % and a thousandth");
    assert_eq!(quota(r#"{"cpu":{"quota":-1}}"#, Hierarchy::V2), "max 100000");
    assert_eq!(quota(r#"{"unified":{"cpu.max":"50500 100000"}}"#, Hierarchy::V2), "50500 100000");
}

#[test]
fn an_idle_unit_has_no_weight() {
    let files = |json: &str| {
        let mut writes = plan_writes(&serde_json::from_str(json).unwrap(), Hierarchy::V2).unwrap();
        fit(&mut writes);
        writes.iter().map(|write| write.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(files(r#"{"cpu":{"idle":1,"shares":1024}}"#), [r#"cpu.idle = "1""#]);
    assert_eq!(files(r#"{"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#), [r#"cpu.idle = "1""#]);
    assert_eq!(files(r#"{"cpu":{"idle":0,"shares":1024}}"#).len(), 2);
}

#[test]
fn what_is_no_number_names_its_place() {
    for (unified, words) in [
        (r#""memory.max":"much""#, r#".linux.resources.unified["memory.max"]: "much" is no limit"#),
        (r#""cpu.max":"5 0""#, "is no quota"),
        (r#""cpu.max":"""#, "is no quota"),
        (r#""cpuset.cpus":"3-1""#, "is no list"),
        (r#""cpuset.cpus":",""#, "is no list"),
        (r#""cpuset.cpus":"0-4000000000""#, "is no list"),
    ] {
        let json = format!(r#"{{"unified":{{{unified}}}}}"#);
        let error = planned(&json, Hierarchy::V2).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

fn devices(json: &str, hierarchy: Hierarchy) -> (String, Vec<String>) {
    let resources = serde_json::from_str(&format!(r#"{{"devices":{json}}}"#)).unwrap();
    let properties = plan_devices(&devices::plan_rules(&resources).unwrap(), hierarchy);
    assert_eq!(properties[0], Property::new("DeviceAllow", Value::Array("(ss)".into(), vec![])));
    let Value::Text(policy) = &properties[1].value else { panic!("{properties:?}") };
    let list = properties.get(2).map_or(Vec::new(), |list| {
        let Value::Array(_, entries) = &list.value else { panic!("{list:?}") };
        let show = |entry: &Value| match entry {
            Value::Struct(fields) => match fields.as_slice() {
                [Value::Text(path), Value::Text(access)] => format!("{path} {access}"),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        entries.iter().map(show).collect()
    });
    (policy.clone(), list)
}

#[test]
fn device_rules_become_an_allow_list() {
    let deny = r#"{"allow":false,"access":"rwm"}"#;
    let rules = format!(
        r#"[{deny},{{"allow":true,"type":"c","major":195,"minor":0,"access":"rw"}},
            {{"allow":true,"type":"b","major":8,"access":"r"}}]"#
    );
    let (policy, list) = devices(&rules, Hierarchy::V2);
    assert_eq!(policy, "strict");
    for entry in
        ["char-* m", "block-* m", "/dev/char/1:3 rwm", "char-136 rwm", "/dev/char/195:0 rwm", "block-8 rm"]
    {
        assert!(list.iter().any(|e| e == entry), "{entry} in {list:?}");
    }
    assert!(!list.iter().any(|e| e.starts_with("/dev/char/1:11")));
}

#[test]
fn rules_that_systemd_cannot_hold_are_creels_alone() {
    assert_eq!(devices(r#"[{"allow":true,"access":"rwm"}]"#, Hierarchy::V2), ("auto".into(), vec![]));
    // A deny below an allow, and a minor of every major.
    for rules in [
        r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":10,"minor":5,"access":"rwm"}]"#,
        r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","minor":7,"access":"rw"}]"#,
    ] {
        assert_eq!(devices(rules, Hierarchy::V2), ("auto".into(), vec![]), "{rules}");
        assert_eq!(devices(rules, Hierarchy::V1), ("strict".into(), vec![]), "{rules}");
    }
}

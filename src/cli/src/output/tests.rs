#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use creel_container::Status;

use super::*;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n\nbroken\njoe:x:1000:1000::/home/joe:/bin/sh\n";

fn view(id: &str, status: Status, pid: i32) -> StateView {
    StateView {
        oci_version: "1.3.0".to_owned(),
        id: id.to_owned(),
        pid,
        status,
        bundle: "/b".into(),
        rootfs: "/b/rootfs".into(),
        created: "2026-01-02T03:04:05.678901234Z".to_owned(),
        annotations: BTreeMap::new(),
        owner_uid: 0,
    }
}

#[test]
fn state_has_runcs_keys_indent_and_end() {
    let mut view = view("web", Status::Running, 42);
    view.annotations.insert("a".to_owned(), "1".to_owned());
    let expected = r#"{
  "ociVersion": "1.3.0",
  "id": "web",
  "pid": 42,
  "status": "running",
  "bundle": "/b",
  "rootfs": "/b/rootfs",
  "created": "2026-01-02T03:04:05.678901234Z",
  "annotations": {
    "a": "1"
  },
  "owner": ""
}"#;
    assert_eq!(state(&view), expected);
}

#[test]
fn state_without_annotations_has_no_such_key() {
    assert!(!state(&view("web", Status::Stopped, 0)).contains("annotations"));
}

#[test]
fn a_list_of_nothing_is_null_and_a_header() {
    assert_eq!(array(&[], PASSWD), "null\n");
    assert_eq!(ids(&[]), "");
    let header = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
    assert_eq!(table(&[], PASSWD), header);
}

#[test]
fn pids_are_one_line_and_null_when_there_are_none() {
    assert_eq!(pids(&[1, 2, 3]), "[1,2,3]\n");
    assert_eq!(pids(&[]), "null\n");
}

#[test]
fn columns_are_as_wide_as_their_longest_cell_and_three() {
    let mut other = view("a-rather-long-id", Status::Stopped, 0);
    other.owner_uid = 4242;
    let text = table(&[view("web", Status::Running, 42), other], PASSWD);
    let expected = "\
ID                 PID         STATUS      BUNDLE      CREATED                          OWNER
web                42          running     /b          2026-01-02T03:04:05.678901234Z   root
a-rather-long-id   0           stopped     /b          2026-01-02T03:04:05.678901234Z   #4242
";
    assert_eq!(text, expected);
}

#[test]
fn list_as_json_is_one_line_with_owners() {
    let text = array(&[view("web", Status::Created, 42)], PASSWD);
    assert!(text.ends_with("\"owner\":\"root\"}]\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn owners_come_from_passwd_or_are_numbers() {
    for (uid, name) in [(0, "root"), (1000, "joe"), (1, "#1"), (100, "#100")] {
        assert_eq!(owner(uid, PASSWD), name);
    }
}

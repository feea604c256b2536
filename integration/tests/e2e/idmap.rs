//! Idmapped mounts: `idmap`, `ridmap`, `.mounts[].uidMappings` and `gidMappings`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use creel_integration::{Container, needs_root, needs_runc, probe};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use serde_json::{Value, json};

/// What an owner without a mapping is shown as: /proc/sys/kernel/overflowuid.
const NOBODY: u32 = 65534;

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

/// A directory `name` of the scratch directory that belongs with its `file` to `uid:gid`, and that all
/// may write to.
fn owned(container: &Container, name: &str, uid: u32, gid: u32) -> String {
    let file = container.scratch().file(&format!("{name}/file"), "");
    let dir = file.parent().unwrap();
    for path in [&file, dir] {
        chown(path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    dir.to_str().unwrap().to_owned()
}

fn bind(container: &mut Container, target: &str, source: &str, options: &[&str], maps: Option<[Value; 2]>) {
    let mut mount = json!({ "destination": target, "source": source, "options": options });
    if let Some([uids, gids]) = maps {
        mount["uidMappings"] = uids;
        mount["gidMappings"] = gids;
    }
    container.bundle.set("mounts/-", mount);
}

#[track_caller]
fn owner(report: &Value, path: &str) -> (u64, u64) {
    let stat = &report["access"][path]["stat"];
    let id = |name: &str| stat[name].as_u64().unwrap_or_else(|| panic!("{path}: {stat}"));
    (id("uid"), id("gid"))
}

const UNMAPPED: (u64, u64) = (NOBODY as u64, NOBODY as u64);

#[test]
fn mappings_alone_make_a_mount_idmapped() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts without a user namespace");
    let mut container = Container::new();
    let source = owned(&container, "source", 7, 8);
    let other = owned(&container, "other", 70, 8);
    let maps = [map(0, 5000, 10), map(0, 6000, 10)];
    bind(&mut container, "/mnt", &source, &["bind"], Some(maps.clone()));
    bind(&mut container, "/other", &other, &["bind"], Some(maps));
    bind(&mut container, "/plain", &source, &["bind"], None);
    let report = container.seen("access=/mnt/file access=/other/file access=/plain/file");
    assert_eq!(owner(&report, "/mnt/file"), (5007, 6008));
    assert_eq!(owner(&report, "/other/file"), (u64::from(NOBODY), 6008));
    assert_eq!(owner(&report, "/plain/file"), (7, 8));
}

#[test]
fn new_files_belong_to_the_mapped_owner() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts without a user namespace");
    let mut container = Container::shell("echo x > /mnt/new; echo x > /other/new || echo refused");
    let (source, other) = (owned(&container, "source", 3, 4), owned(&container, "other", 3, 4));
    bind(&mut container, "/mnt", &source, &["bind", "idmap"], Some([map(3, 5003, 1), map(4, 6004, 1)]));
    bind(&mut container, "/other", &other, &["bind"], Some([map(3, 7003, 1), map(4, 7004, 1)]));
    container.bundle.set("process/user", json!({ "uid": 5003, "gid": 6004 }));
    let output = container.run().ok();
    let new = fs::metadata(Path::new(&source).join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (3, 4));
    // An id that the mount does not map cannot be stored: EOVERFLOW.
    assert_eq!(output.stdout, "refused\n");
    assert!(!Path::new(&other).join("new").exists());
}

#[test]
fn mapping_into_a_user_namespace() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts");
    let mut container = Container::new();
    container.bundle.user_namespace(100_000, 65536);
    let source = owned(&container, "source", 7, 8);
    let maps = [map(0, 100_000, 65536), map(8, 100_500, 1)];
    bind(&mut container, "/mnt", &source, &["bind", "ro", "nosuid", "nodev", "noexec"], Some(maps));
    bind(&mut container, "/plain", &source, &["bind"], None);
    let report = container.seen("mounts access=/mnt/file access=/plain/file");
    assert_eq!(owner(&report, "/mnt/file"), (7, 500));
    assert_eq!(owner(&report, "/plain/file"), UNMAPPED);
    assert_eq!(report["access"]["/mnt/file"]["write"], "EROFS");
    for option in ["ro", "nosuid", "nodev", "noexec", "idmapped"] {
        assert!(probe::has_mount_option(probe::mount(&report, "/mnt"), option), "{option}");
    }
    assert!(!probe::has_mount_option(probe::mount(&report, "/plain"), "idmapped"));
}

#[test]
fn option_alone_takes_the_map_of_the_user_namespace() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmap without mappings");
    let mut container = Container::new();
    container.bundle.user_namespace(100_000, 65536);
    let source = owned(&container, "source", 7, 8);
    bind(&mut container, "/mnt", &source, &["bind", "idmap"], None);
    bind(&mut container, "/again", &source, &["rbind", "ridmap"], None);
    let report = container.seen("access=/mnt/file access=/again/file");
    assert_eq!(owner(&report, "/mnt/file"), (7, 8));
    assert_eq!(owner(&report, "/again/file"), (7, 8));
}

#[test]
fn option_alone_takes_the_map_of_a_joined_user_namespace() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmap in a user namespace by path");
    let mut first = Container::idle();
    first.bundle.user_namespace(100_000, 65536);
    first.run_detached();
    let path = format!("/proc/{}/ns/user", first.init().pid());
    let mut second = Container::new();
    second.bundle.user_namespace(100_000, 65536).namespace("user", Some(&path));
    second.bundle.remove("linux/uidMappings").remove("linux/gidMappings");
    let source = owned(&second, "source", 7, 8);
    bind(&mut second, "/mnt", &source, &["bind", "idmap"], None);
    bind(&mut second, "/own", &source, &["bind"], Some([map(7, 100_001, 1), map(8, 100_002, 1)]));
    let report = second.seen("access=/mnt/file access=/own/file");
    assert_eq!(owner(&report, "/mnt/file"), (7, 8));
    assert_eq!(owner(&report, "/own/file"), (1, 2));
}

#[test]
fn ridmap_maps_what_is_mounted_below_and_idmap_does_not() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "ridmap");
    for user_namespace in [false, true] {
        let mut container = Container::new();
        let shift = if user_namespace { 100_000 } else { 0 };
        if user_namespace {
            container.bundle.user_namespace(100_000, 65536);
        }
        let source = owned(&container, "source", 1, 2);
        let other = owned(&container, "other", 3, 4);
        mount_bind(&other, container.scratch().dir("source/below")).unwrap();
        container.accept_mounts();
        let maps = || Some([map(0, shift + 1000, 10), map(0, shift + 2000, 10)]);
        bind(&mut container, "/one", &source, &["rbind", "idmap"], maps());
        bind(&mut container, "/all", &source, &["rbind", "ridmap", "rro"], maps());
        let report =
            container.seen("access=/one/file access=/one/below/file access=/all/file access=/all/below/file");
        assert_eq!(owner(&report, "/one/file"), (1001, 2002));
        let below = if user_namespace { UNMAPPED } else { (3, 4) };
        assert_eq!(owner(&report, "/one/below/file"), below);
        assert_eq!(owner(&report, "/all/file"), (1001, 2002));
        assert_eq!(owner(&report, "/all/below/file"), (1003, 2004));
        assert_eq!(report["access"]["/all/below/file"]["write"], "EROFS");
    }
}

#[test]
fn mounts_of_one_source_have_maps_of_their_own() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts without a user namespace");
    let mut container = Container::new();
    let source = owned(&container, "source", 5, 15);
    let lines = json!([
        { "containerID": 0, "hostID": 3000, "size": 5 },
        { "containerID": 5, "hostID": 4000, "size": 1 },
    ]);
    bind(&mut container, "/a", &source, &["bind"], Some([map(5, 1000, 1), map(15, 2000, 1)]));
    bind(&mut container, "/b", &source, &["bind"], Some([lines, map(15, 2000, 1)]));
    bind(&mut container, "/c", &source, &["bind"], Some([map(5, 1000, 1), map(15, 2000, 1)]));
    let report = container.seen("access=/a/file access=/b/file access=/c/file");
    assert_eq!(owner(&report, "/a/file"), (1000, 2000));
    assert_eq!(owner(&report, "/b/file"), (4000, 2000));
    assert_eq!(owner(&report, "/c/file"), (1000, 2000));
}

#[test]
fn bound_file_is_idmapped() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts without a user namespace");
    let mut container = Container::new();
    let source = format!("{}/file", owned(&container, "source", 5, 6));
    bind(&mut container, "/new/file", &source, &["bind", "ro"], Some([map(5, 50, 1), map(6, 60, 1)]));
    let report = container.seen("access=/new/file");
    assert_eq!(owner(&report, "/new/file"), (50, 60));
    assert_eq!(report["access"]["/new/file"]["write"], "EROFS");
}

#[test]
fn mounts_below_an_idmapped_one_do_not_travel_to_the_host() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts without a user namespace");
    for (propagation, option, shown) in
        [("", "ro", "master:"), ("rprivate", "rw", "[]"), ("", "shared", "shared:")]
    {
        let mut container = Container::new();
        let source = owned(&container, "source", 1, 1);
        container.scratch().dir("source/below");
        mount_bind(&source, &source).unwrap();
        mount_change(&source, MountPropagationFlags::SHARED).unwrap();
        container.accept_mounts();
        container.bundle.set("linux/rootfsPropagation", propagation);
        bind(&mut container, "/mnt", &source, &["rbind", option], Some([map(1, 2, 1), map(1, 2, 1)]));
        container.bundle.mount("/mnt/below", "tmpfs", "tmpfs", &["size=1m"]);
        let report = container.seen("mounts access=/mnt/file");
        assert_eq!(owner(&report, "/mnt/file"), (2, 2));
        let optional = probe::mount(&report, "/mnt")["optional"].to_string();
        assert!(optional.contains(shown), "{propagation} {option}: {optional}");
    }
}

#[test]
fn kernel_without_idmap_support_of_the_file_system_is_named() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts without a user namespace");
    let mut container = Container::new();
    bind(&mut container, "/mnt", "/sys/kernel", &["bind"], Some([map(0, 1, 1), map(0, 1, 1)]));
    let place = container.bundle.config["mounts"].as_array().unwrap().len() - 1;
    container.create_fails().says(&["/sys/kernel"]).creel_says(&[
        &format!(".mounts[{place}].uidMappings: mount_setattr("),
        "idmap): EINVAL (invalid argument)",
        "; the file system may not support idmapped mounts",
    ]);
}

#[test]
fn mount_that_cannot_be_idmapped_is_named() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts without a user namespace");
    let maps = || (map(0, 1000, 1), map(0, 1000, 1));
    let (uids, gids) = maps();
    for (mount, field, why) in [
        (
            json!({ "type": "tmpfs", "source": "tmpfs", "uidMappings": uids, "gidMappings": gids }),
            "",
            "only a bind mount can be id-mapped",
        ),
        (
            json!({ "source": "/", "options": ["bind", "idmap"] }),
            "",
            "an id-mapped mount needs mappings or a user namespace",
        ),
        (
            json!({ "source": "/", "options": ["bind"], "uidMappings": uids }),
            ".gidMappings",
            "must not be empty, an id-mapped mount needs both mappings",
        ),
        (
            json!({ "source": "/", "options": ["bind"], "gidMappings": gids }),
            ".uidMappings",
            "must not be empty, an id-mapped mount needs both mappings",
        ),
        (
            json!({ "source": "/", "options": ["bind"], "uidMappings": map(0, 1, 0), "gidMappings": gids }),
            ".uidMappings[0].size",
            "must not be 0",
        ),
    ] {
        let mut container = Container::new();
        let mut mount = mount;
        mount["destination"] = json!("/mnt");
        container.bundle.set("mounts/-", mount);
        let place = container.bundle.config["mounts"].as_array().unwrap().len() - 1;
        container.create_fails().creel_says(&[&format!(".mounts[{place}]{field}: {why}")]);
    }
}

#[test]
fn failed_create_takes_idmapped_mounts_back() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts without a user namespace");
    let mut container = Container::new();
    let source = owned(&container, "source", 1, 1);
    for target in ["/a", "/b"] {
        bind(&mut container, target, &source, &["bind"], Some([map(1, 2, 1), map(1, 2, 1)]));
    }
    bind(&mut container, "/c", "/no/such/source", &["bind"], Some([map(1, 3, 1), map(1, 3, 1)]));
    container.create_fails().says(&["/no/such/source"]);
}

//! `pull-and-run` of an ordinary user: in a user namespace, with ranges of ids or with one.
//!
//! The user is made for the test alone: copies of passwd, subuid and subgid with a line more are bound over the
//! machine's in the mount namespace that the test has for itself.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use creel_integration::{Cmd, Runtime, skip};
use serde_json::json;

use crate::harness::Images;
use crate::needs_images;

const USER: u32 = 39_417;
const FIRST: u32 = 1_394_170_000;

/// Whether the user has ranges of ids.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ids {
    Ranges,
    One,
}

struct User {
    home: PathBuf,
    creel: PathBuf,
}

/// Makes the user and what belongs to it, or says why this machine lets nobody make a user namespace.
fn user(images: &Images, ids: Ids) -> Result<User, String> {
    let scratch = &images.scratch;
    let home = scratch.dir("home");
    for dir in [&home, &scratch.dir("home/run")] {
        chown(dir, Some(USER), Some(USER)).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    let add = |name: &str, line: String| {
        let path = Path::new("/etc").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let own = scratch.file(&format!("etc/{name}"), format!("{text}{line}\n"));
        rustix::mount::mount_bind(&own, &path).map_err(|errno| format!("bind {}: {errno}", path.display()))
    };
    add("passwd", format!("creel-test:x:{USER}:{USER}::{}:/bin/sh", home.display()))?;
    for name in ["subuid", "subgid"] {
        let of = if ids == Ids::Ranges { "creel-test" } else { "creel-other" };
        add(name, format!("{of}:{FIRST}:65536"))?;
    }
    // The build's directory may be closed to others.
    let bin = scratch.dir("bin");
    for name in ["creel", "creel-image"] {
        std::fs::copy(Runtime::under_test().path().with_file_name(name), bin.join(name)).unwrap();
    }
    let user = User { home, creel: bin.join("creel") };
    let unshared = user.behind(Cmd::new("unshare").args(["--user", "true"])).output();
    if unshared.code() != 0 {
        return Err(format!("no user namespaces for ordinary users: {}", unshared.stderr.trim()));
    }
    Ok(user)
}

impl User {
    fn behind(&self, command: Cmd) -> Cmd {
        let id = USER.to_string();
        command
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", self.home.join("run"))
            .env("XDG_DATA_HOME", "")
            .env("REGISTRY_AUTH_FILE", "")
            .behind(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"])
    }

    fn creel(&self, args: &[&str]) -> Cmd {
        self.behind(Cmd::new(&self.creel).args(args)).cwd(Path::new("/"))
    }

    fn stored(&self, name: &str) -> usize {
        let path = self.home.join(".local/share/creel/images").join(name);
        std::fs::read_dir(path).map_or(0, Iterator::count)
    }
}

macro_rules! user {
    ($images:expr, $ids:expr) => {
        match user(&$images, $ids) {
            Ok(user) => user,
            Err(why) => skip!("{why}"),
        }
    };
}

#[test]
fn user_with_ranges_runs_any_user_of_an_image() {
    needs_images!();
    let images = Images::new();
    let user = user!(images, Ids::Ranges);
    let newuidmap = Path::new("/usr/bin/newuidmap").metadata();
    if !newuidmap.is_ok_and(|meta| meta.mode() & 0o4000 != 0) {
        skip!("newuidmap is not installed set-user-id");
    }
    let image = images.oci("a");
    let script = "id -u; touch /srv/new; busybox chown 33:44 /srv/new; ls -ln /srv/new | busybox awk '{print $1,$3,$4}'; cat /proc/self/uid_map";
    let output = user.creel(&["pull-and-run", "-q", &image, "sh", "-c", script]).output().ok();
    let map: Vec<&str> = output.stdout.split_whitespace().collect();
    let (own, first) = (USER.to_string(), FIRST.to_string());
    assert_eq!(map, ["0", "-rw-r--r--", "33", "44", "0", &own, "1", "1", &first, "65536"]);
    assert_eq!(output.stderr, "");
    let output = user.creel(&["pull-and-run", "-q", "-u", "web", &image, "id", "-u"]).output().ok();
    assert_eq!(output.stdout, "33\n");
    let output = user.creel(&["pull-and-run", "-q", "-u", "70000", &image, "id"]).output().exits(125);
    output.creel_says(&["user 70000:0 is not in your user namespace", "/etc/subuid"]);
    assert_eq!((user.stored("containers"), user.stored("snapshots")), (0, 1));
}

#[test]
fn user_without_ranges_is_told_once_and_runs_as_root_of_one_id() {
    needs_images!();
    let images = Images::new();
    let user = user!(images, Ids::One);
    let image = images.oci("a");
    let output =
        user.creel(&["pull-and-run", "-q", &image, "sh", "-c", "id -u; ls -ln /bin/busybox; exit 3"]);
    let output = output.output().exits(3);
    assert!(output.stdout.starts_with("0\n-rwxr-xr-x    1 0        0"), "{output}");
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    let output = output.says(&["warning: /etc/subuid has no range for \"creel-test\""]);
    assert!(output.stderr.contains("belong to you"));
    let output = user.creel(&["pull-and-run", "-q", "-u", "web", &image, "id"]).output().exits(125);
    output.says(&["user 33:34 is not in your user namespace"]);
    // Without a directory for it, the state is where the user may write.
    let nowhere = user.creel(&["pull-and-run", "-q", &image]).env("XDG_RUNTIME_DIR", "");
    assert_eq!(nowhere.output().exits(3).stdout, "hello\n");
    assert_eq!(user.stored("containers"), 0);
}

#[test]
fn limits_need_a_cgroup_and_the_host_network_does_not() {
    needs_images!();
    let images = Images::new();
    let user = user!(images, Ids::One);
    let image = images.oci("a");
    let devices = |flags: &[&str]| {
        let words = [&["pull-and-run", "-q"], flags, &[&image, "ls", "/sys/class/net"]].concat();
        user.creel(&words).output().ok().stdout
    };
    assert_eq!(devices(&[]), "lo\n");
    let host = std::fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(devices(&["--network", "host"]).lines().count(), host);
    let output = user.creel(&["pull-and-run", "-q", "-m", "64m", &image, "true"]).output();
    if output.code() == 0 {
        skip!("this machine lets an ordinary user make cgroups");
    }
    output.says(&["rootless", "cgroup"]);
}

#[test]
fn detached_container_is_deleted_from_outside_with_what_it_wrote() {
    needs_images!();
    let images = Images::new();
    let user = user!(images, Ids::Ranges);
    let name = images.scratch.name();
    let script = "busybox mkdir /srv/d; touch /srv/d/f; busybox chown -R 33:33 /srv/d; sleep 1000";
    let words = ["pull-and-run", "-q", "-d", "--name", name, &images.oci("a"), "sh", "-c", script];
    user.creel(&words).output().ok();
    let state = user.creel(&["state", name]).output().ok().json();
    assert_eq!(state["status"], "running");
    user.creel(&["delete", "--force", name]).output().ok();
    assert_eq!((user.stored("containers"), user.stored("tmp")), (0, 0));
    user.creel(&["image", "rm", &images.oci("a")]).output().ok();
    user.creel(&["image", "prune"]).output().ok();
    assert_eq!(user.stored("snapshots"), 0);
}

#[test]
fn bundle_that_a_user_unpacks_is_the_users_and_runs() {
    needs_images!();
    let images = Images::new();
    let user = user!(images, Ids::One);
    let layer = images.layout.layer(&images.scratch.join("tree"));
    images.scratch.file("above/srv/shut/file", "");
    let shut = |mode| {
        let path = images.scratch.join("above/srv/shut");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    shut(0o555);
    let above = images.layout.layer(&images.scratch.join("above"));
    shut(0o755);
    let config = json!({"Cmd": ["sh", "-c", "id -u; ls -ln /srv; exit 3"], "User": "web"});
    images.layout.image("w", &[layer, above], &config);
    let bundle = user.home.join("bundle").display().to_string();
    let unpacked = user.creel(&["unpack", "-q", &images.oci("w"), &bundle]).output().ok();
    assert_eq!(unpacked.stderr.lines().count(), 1, "{unpacked}");
    unpacked.says(&["warning: user 33:34 is not in your user namespace", "config.json has root, who is you"]);
    let owner = user.home.join("bundle/rootfs/bin/busybox").metadata().unwrap();
    assert_eq!((owner.uid(), owner.gid()), (USER, USER));
    let name = images.scratch.name();
    let seen = user.creel(&["run", "--bundle", &bundle, name]).output().exits(3).stdout;
    assert!(seen.starts_with("0\n") && seen.contains("dr-xr-xr-x    2 0        0"), "{seen}");
    // Nothing half-made stays, though a directory of it lets nobody write.
    let path = images.layout.blob(&images.layout.layer(&images.scratch.join("tree")).hex());
    let right = std::fs::read(&path).unwrap();
    std::fs::write(&path, &right[..right.len() - 10]).unwrap();
    let failed = user.home.join("failed").display().to_string();
    user.creel(&["unpack", "-q", &images.oci("w"), &failed]).output().exits(1).creel_says(&["layer"]);
    let left: Vec<_> =
        std::fs::read_dir(&user.home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("failed")), "{left:?}");
}

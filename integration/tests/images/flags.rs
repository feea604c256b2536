//! What the flags of `pull-and-run` do, seen from inside.

use serde_json::json;

use crate::harness::Images;
use crate::needs_images;

/// Runs a script and gives what it prints.
fn told(images: &Images, flags: &[&str], script: &str) -> String {
    let flags = [&["-q"], flags].concat();
    images.run(&flags, &images.oci("a"), &["sh", "-c", script]).output().ok().stdout
}

#[test]
fn environment_user_and_directory() {
    needs_images!();
    let images = Images::new();
    let file = images.scratch.file("env", "# comment\nB=file\nC=file\n");
    let file = file.to_str().unwrap();
    let env = ["-e", "A=flag", "--env-file", file, "-e", "C=flag", "-e", "UNSET_BY_THE_CALLER"];
    assert_eq!(told(&images, &env, "echo $A $B $C ${UNSET_BY_THE_CALLER-none}"), "flag file flag none\n");
    assert_eq!(
        told(&images, &["-u", "web", "-w", "/tmp"], "id -u; id -G; pwd; echo $HOME"),
        "33\n34 50\n/tmp\n/srv\n"
    );
    assert_eq!(told(&images, &["--user", "5:6"], "id -u; id -G"), "5\n6\n");
    assert_eq!(
        told(&images, &["--hostname", "box"], "hostname; cat /etc/hostname; grep -c box /etc/hosts"),
        "box\nbox\n1\n"
    );
    let output =
        images.run(&["-q", "--entrypoint", "/bin/echo"], &images.oci("a"), &["a", "-n"]).output().ok();
    assert_eq!(output.stdout, "a -n\n");
    images.assert_clean();
}

#[test]
fn mounts_and_read_only_root() {
    needs_images!();
    let images = Images::new();
    images.scratch.file("data/file", "data\n");
    let data = images.scratch.join("data");
    let volume = format!("{}:/data:ro", data.display());
    let script = "cat /data/file; touch /data/new 2>/dev/null || echo kept; touch /x 2>/dev/null || echo root kept; touch /t/y && echo tmpfs";
    let flags = ["-v", &volume, "--read-only", "--tmpfs", "/t"];
    assert_eq!(told(&images, &flags, script), "data\nkept\nroot kept\ntmpfs\n");
    let mount = format!("type=bind,src={},dst=/data", data.display());
    assert_eq!(told(&images, &["--mount", &mount], "echo new >/data/new"), "");
    assert_eq!(std::fs::read_to_string(data.join("new")).unwrap(), "new\n");
    images.assert_clean();
}

#[test]
fn volumes_of_an_image_can_be_written_to() {
    needs_images!();
    let images = Images::new();
    images.scratch.file("more/srv/file", "seed\n");
    let layers = ["tree", "more"].map(|name| images.layout.layer(&images.scratch.join(name)));
    let config =
        json!({"Env": ["PATH=/bin"], "Volumes": {"/srv": {}, "/tmp/../data/deep": {}, "/data/bound": {}}});
    images.layout.image("v", &layers, &config);
    images.scratch.file("bound/own", "own\n");
    let bound = format!("{}:/data/bound", images.scratch.join("bound").display());
    let script = "cat /srv/file /data/bound/own; touch /srv/x /data/deep/x && echo written; touch /x 2>&1";
    let told = |flags: &[&str]| {
        let flags = [&["-q", "-v", &bound], flags].concat();
        images.run(&flags, &images.oci("v"), &["sh", "-c", script]).output()
    };
    assert_eq!(told(&[]).ok().stdout, "seed\nown\nwritten\n");
    let kept = told(&["--read-only"]).exits(1).stdout;
    assert!(kept.starts_with("seed\nown\nwritten\n") && kept.contains("Read-only file system"), "{kept}");
    images.assert_clean();
}

#[test]
fn capabilities_filter_and_privileges() {
    needs_images!();
    let images = Images::new();
    let status = "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status";
    // Docker's fourteen capabilities.
    let default = told(&images, &[], status);
    assert!(default.contains("CapBnd:\t00000000a80425fb") && default.contains("Seccomp:\t2"), "{default}");
    let flags = [
        "--cap-drop",
        "all",
        "--cap-add",
        "chown",
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
    ];
    let other = told(&images, &flags, status);
    let expected = "CapBnd:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t0\n";
    assert_eq!(other, expected);
    let devices = "ls /dev | wc -l";
    let count = |flags: &[&str]| told(&images, flags, devices).trim().parse::<usize>().unwrap();
    assert!(count(&["--privileged"]) > count(&[]));
    images.assert_clean();
}

#[test]
fn network_is_none_or_the_hosts() {
    needs_images!();
    let images = Images::new();
    assert_eq!(told(&images, &[], "ls /sys/class/net"), "lo\n");
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let inside = told(&images, &["--network", "host"], "ls -l /proc/self/ns/net");
    assert!(inside.contains(host.to_str().unwrap()), "{inside}");
    images.assert_clean();
}

#[test]
fn limits_are_set() {
    needs_images!();
    let images = Images::new();
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
        cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true";
    let seen = told(&images, &["-m", "64m", "--pids-limit", "50", "--cpus", "0.5"], script);
    assert_eq!(seen, format!("{}\n50\n", 64 << 20));
    images.assert_clean();
}

#[test]
fn wrong_flags_are_refused_before_anything_is_pulled() {
    needs_images!();
    let images = Images::new();
    for (flags, said) in [
        (&["--link", "x"][..], "--link"),
        (&["--network", "bridge"], "none, host"),
        (&["-v", "data:/x"], "named volumes"),
        (&["-v", "/no/such/path:/x"], "/no/such/path"),
        (&["-m", "5x"], "unknown unit"),
        (&["-d", "-t"], "-d and -t"),
        (&["--security-opt", "systempaths=x"], "unknown"),
        (&["--pull", "sometimes"], "sometimes"),
        (&["--mount", "type=volume,dst=/x"], "named volumes"),
        (&["--entrypoint", "[x"], "--entrypoint"),
        (&["--platform", "linux"], "not a platform"),
    ] {
        images.run(flags, &images.oci("a"), &[]).output().exits(125).creel_says(&[said]);
    }
    assert!(images.stored("snapshots").is_empty());
}

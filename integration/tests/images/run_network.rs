//! `--network`, and the files that name things in it.

use std::path::Path;

use creel_integration::{Cmd, skip, wait};

use crate::harness::Images;
use crate::needs_images;

fn told(images: &Images, flags: &[&str], script: &str) -> String {
    let flags = [&["-q"], flags].concat();
    images.run(&flags, &images.oci("a"), &["sh", "-c", script]).output().ok().stdout
}

#[test]
fn files_of_the_network_are_provided_and_the_containers_own() {
    needs_images!();
    // Bound before the test looks at what is mounted.
    creel_integration::scratch::private_mount_namespace();
    let resolv = tempfile::NamedTempFile::new().unwrap();
    let text = "search example.org\nnameserver 127.0.0.53\nnameserver 192.0.2.7\n";
    std::fs::write(resolv.path(), text).unwrap();
    rustix::mount::mount_bind(resolv.path(), "/etc/resolv.conf").unwrap();
    let images = Images::new();
    let read = "cat /etc/resolv.conf /etc/hostname; grep -w box /etc/hosts; grep -c ip6-allnodes /etc/hosts";
    let expected = "search example.org\nnameserver 192.0.2.7\nbox\n127.0.0.1\tlocalhost box\n1\n";
    assert_eq!(told(&images, &["--hostname", "box"], read), expected);
    let host = told(&images, &["--network", "host"], "cat /etc/resolv.conf; hostname");
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(host, format!("{text}{machine}\n"));
    // Writes stay in the container; a file of the user's comes first; anybody reads them.
    told(&images, &[], "echo 192.0.2.8 other >>/etc/hosts; grep -q other /etc/hosts");
    let own = format!("{}:/etc/hosts", images.scratch.file("hosts", "192.0.2.9 mine\n").display());
    assert_eq!(told(&images, &["-v", &own, "-u", "web"], "cat /etc/hosts; head -c 3 /etc/hostname"), {
        format!("192.0.2.9 mine\n{}", &images.scratch.name()[..3])
    });
    assert_eq!(std::fs::read_to_string(images.scratch.join("hosts")).unwrap(), "192.0.2.9 mine\n");
    images.assert_clean();
}

#[test]
fn network_namespace_is_joined_by_its_path() {
    needs_images!();
    let images = Images::new();
    let path = images.scratch.file("netns", "");
    let path = path.to_str().unwrap();
    let made = Cmd::new("unshare").args([&format!("--net={path}"), "true"]).output();
    if made.code() != 0 {
        skip!("no network namespace is made here: {}", made.stderr.trim());
    }
    let inode = rustix::fs::stat(path).unwrap().st_ino;
    for network in [path.to_owned(), format!("ns:{path}")] {
        let seen = told(&images, &["--network", &network], "ls -l /proc/self/ns/net");
        assert!(seen.contains(&format!("net:[{inode}]")), "{seen} is not {inode}");
    }
    rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
    images
        .run(&["--network", "/no/such"], &images.oci("a"), &[])
        .output()
        .exits(125)
        .creel_says(&["--network /no/such"]);
    images.assert_clean();
}

#[test]
fn pasta_connects_a_container_and_ends_with_it() {
    needs_images!();
    let images = Images::new();
    if Cmd::new("sh").args(["-c", "command -v pasta"]).output().code() != 0 {
        skip!("pasta is not installed (Debian package passt)");
    }
    let route = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    if !route.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000")) {
        skip!("this machine has no default route, which pasta copies");
    }
    let script = "grep -c 00000000 /proc/net/route >/dev/null && ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let seen = told(&images, &["--network", "pasta"], script);
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(seen.lines().count() == 3 && seen.contains("lo\n") && seen.ends_with("\n0\n"), "{seen}");
    let inside = told(&images, &["--network", "pasta"], "ls -l /proc/self/ns/net");
    assert!(!inside.contains(host.to_str().unwrap()), "{inside}");
    let bundles = format!("{}-bundles", images.state().display());
    wait::until("pasta has ended", || {
        let listed = Cmd::new("pgrep").args(["-f", &format!("pasta.*{bundles}")]).output();
        listed.code() == 1
    });
    images.assert_clean();
}

#[test]
fn missing_pasta_is_named_with_its_package() {
    needs_images!();
    let images = Images::new();
    let empty = images.scratch.dir("empty");
    images
        .run(&["--network", "pasta"], &images.oci("a"), &[])
        .env("PATH", &empty)
        .output()
        .exits(125)
        .creel_says(&["pasta is not installed", "passt"]);
    assert!(images.stored("snapshots").is_empty() && Path::new(&empty).exists());
}

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

fn image() -> ImageConfig {
    let text = json!({
        "architecture": "amd64", "os": "linux", "author": "me", "os.features": ["a", "b"],
        "config": {
            "User": "web", "Env": ["A=1", "PATH=/bin", "B=2"], "Entrypoint": ["/entry"], "Cmd": ["one", "two"],
            "WorkingDir": "/srv", "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
            "Volumes": {"/data": {}, "/user": {}},
            "Labels": {"own": "label", "org.opencontainers.image.author": "label wins"}
        },
        "rootfs": {"type": "layers", "diff_ids": []}
    });
    ImageConfig::parse(text.to_string().as_bytes()).unwrap()
}

fn users() -> Databases {
    Databases {
        passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n".into(),
        group: "extra:x:7:web\n".into(),
    }
}

fn convert(run: &Run) -> Value {
    runtime_config(&image(), run, &users(), "rootfs").unwrap()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

#[test]
fn what_the_image_says_is_taken_over() {
    let config = convert(&Run::default());
    let process = &config["process"];
    assert_eq!(process["args"], json!(["/entry", "one", "two"]));
    assert_eq!(process["env"], json!(["A=1", "PATH=/bin", "B=2", "HOME=/home/web"]));
    assert_eq!(process["cwd"], "/srv");
    assert_eq!(process["user"], json!({"uid": 33, "gid": 34, "additionalGids": [7]}));
    assert_eq!(process["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    assert_eq!(process["capabilities"]["effective"], json!([]));
    let expected = json!({
        "org.opencontainers.image.architecture": "amd64",
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.os.features": "a,b",
        "org.opencontainers.image.author": "label wins",
        "org.opencontainers.image.stopSignal": "SIGQUIT",
        "org.opencontainers.image.exposedPorts": "443/tcp,80/tcp",
        "own": "label"
    });
    assert_eq!(config["annotations"], expected);
    assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(config["linux"]["maskedPaths"].as_array().unwrap().len(), 12);
    assert!(config["linux"]["resources"].get("memory").is_none());
}

#[test]
fn what_the_user_says_comes_first() {
    let run = Run {
        args: strings(&["three"]),
        env: strings(&["B=3", "C=4", "E="]),
        user: Some("0".into()),
        cwd: Some("rel".into()),
        hostname: Some("h".into()),
        terminal: true,
        memory: Some(1 << 20),
        millicpus: Some(1500),
        pids_limit: Some(9),
        annotations: [("own".to_string(), "mine".to_string())].into(),
        ..Run::default()
    };
    let config = convert(&run);
    let process = &config["process"];
    assert_eq!(process["args"], json!(["/entry", "three"]));
    let env = ["A=1", "PATH=/bin", "B=3", "C=4", "E=", "TERM=xterm", "HOSTNAME=h", "HOME=/root"];
    assert_eq!(process["env"], json!(env));
    assert_eq!(process["cwd"], "/rel");
    assert_eq!(process["user"], json!({"uid": 0, "gid": 0}));
    assert_eq!(process["capabilities"]["effective"].as_array().unwrap().len(), 14);
    assert_eq!(config["annotations"]["own"], "mine");
    let resources = &config["linux"]["resources"];
    assert_eq!(resources["cpu"], json!({"quota": 150_000, "period": 100_000}));
    assert_eq!(resources["memory"], json!({"limit": 1 << 20, "swap": 2 << 20}));
    assert_eq!(resources["pids"], json!({"limit": 9}));
}

#[test]
fn another_entrypoint_clears_the_images_command() {
    let run = Run { entrypoint: Some(strings(&["/bin/sh"])), ..Run::default() };
    assert_eq!(convert(&run)["process"]["args"], json!(["/bin/sh"]));
    let none = Run { entrypoint: Some(Vec::new()), ..Run::default() };
    assert_eq!(runtime_config(&image(), &none, &users(), "rootfs"), Err(Error::NoCommand));
    let empty = Run { entrypoint: Some(strings(&[""])), ..Run::default() };
    assert_eq!(runtime_config(&image(), &empty, &users(), "rootfs"), Err(Error::NoCommand));
}

#[test]
fn mounts_of_the_user_replace_standard_ones_and_come_in_order() {
    let mount = |destination: &str| Mount {
        destination: destination.to_string(),
        kind: "bind".into(),
        source: "/host".into(),
        options: strings(&["rbind"]),
    };
    let run = Run { mounts: vec![mount("/user/deep"), mount("/user"), mount("/dev/shm")], ..Run::default() };
    let config = convert(&run);
    let all: Vec<&str> =
        config["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
    assert_eq!(
        all,
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
            "/user",
            "/user/deep",
            "/dev/shm"
        ]
    );
    assert_eq!(volumes(&image(), &run), ["/data"]);
    let relative = Run { mounts: vec![mount("data")], ..Run::default() };
    let error = runtime_config(&image(), &relative, &users(), "rootfs");
    assert_eq!(error, Err(Error::RelativeMount("data".into())));
    let bad = Run { env: strings(&["NAME"]), ..Run::default() };
    assert_eq!(runtime_config(&image(), &bad, &users(), "rootfs"), Err(Error::NoValue("NAME".into())));
}

#[test]
fn volumes_are_places_of_the_image_that_nothing_else_is_mounted_at() {
    let of = |paths: &[&str]| {
        let mut image = image();
        image.config.volumes = paths.iter().map(|path| (path.to_string(), json!({}))).collect();
        volumes(&image, &Run::default())
    };
    let found = of(&["/a//b/", "/a/b", "/sys/fs/cgroup", "/dev/shm", "/proc", "/devices", "/"]);
    assert_eq!(found, ["/a/b", "/devices"]);
}

#[test]
fn a_privileged_container_has_no_fences() {
    let config = convert(&Run { privileged: true, ..Run::default() });
    let linux = &config["linux"];
    assert!(linux.get("seccomp").is_none() && linux.get("maskedPaths").is_none());
    assert_eq!(linux["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    assert_eq!(config["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 41);
    let sys = config["mounts"].as_array().unwrap().iter().find(|m| m["destination"] == "/sys").unwrap();
    assert!(sys["options"].as_array().unwrap().contains(&json!("rw")));
}

#[test]
fn what_a_user_namespace_cannot_do_is_left_out() {
    let one = |host| vec![IdRange { container: 0, host, size: 1 }];
    let within = IdMaps { uids: one(1000), gids: one(1001) };
    let run = Run { user: Some("0".into()), within: Some(within), network: Network::Host, ..Run::default() };
    let linux = &convert(&run)["linux"];
    assert_eq!(linux["resources"], json!({}));
    assert!(linux.get("sysctl").is_none() && linux.get("uidMappings").is_none());
    let kinds: Vec<&str> =
        linux["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["mount", "uts", "ipc", "pid", "cgroup"]);
    let text = convert(&run)["mounts"].to_string();
    assert!(!text.contains("gid=5") && text.contains("rbind"));
    let web = Run { user: None, ..run };
    let error = runtime_config(&image(), &web, &users(), "rootfs").unwrap_err().to_string();
    assert!(error.starts_with("user 33:34 is not in your user namespace"), "{error}");
}

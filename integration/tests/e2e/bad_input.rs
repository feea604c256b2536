//! Bad input: one clear line, runc's exit code, and nothing left behind.

use creel_integration::{Container, Runtime, is_creel, skip};
use serde_json::json;

#[test]
fn fields_of_a_wrong_type_are_named() {
    for (pointer, value, at) in [
        ("process/args", json!("sh"), ".process.args"),
        ("process/args/0", json!(7), ".process.args[0]"),
        ("process/user/uid", json!("root"), ".process.user.uid"),
        ("process/user/uid", json!(-1), ".process.user.uid"),
        ("process/env", json!({ "A": "b" }), ".process.env"),
        ("process/terminal", json!("no"), ".process.terminal"),
        (
            "process/rlimits",
            json!([{ "type": "RLIMIT_NOFILE", "soft": "1", "hard": 1 }]),
            ".process.rlimits[0].soft",
        ),
        ("mounts/0/options", json!("ro"), ".mounts[0].options"),
        ("mounts/0", json!("proc"), ".mounts[0]"),
        ("linux/namespaces", json!({}), ".linux.namespaces"),
        ("linux/resources/memory", json!({ "limit": "1g" }), ".linux.resources.memory.limit"),
        ("linux/resources/pids", json!({ "limit": 1.5 }), ".linux.resources.pids.limit"),
        ("linux/maskedPaths", json!("/proc/kcore"), ".linux.maskedPaths"),
        ("root", json!("rootfs"), ".root"),
        ("hooks", json!([]), ".hooks"),
    ] {
        let mut container = Container::idle();
        container.bundle.set(pointer, value);
        container.create_fails().creel_says(&[at]);
    }
}

#[test]
fn config_that_is_no_json_is_refused() {
    for text in ["", "{", "[]", "null", "{\"ociVersion\": }", "\u{0}", "{} {}"] {
        if text == "null" && !Runtime::under_test().has_runc(2) {
            // runc 1.1 panics.
            continue;
        }
        let container = Container::idle();
        let cmd = container.call("create", &[]);
        std::fs::write(container.bundle.dir().join("config.json"), text).unwrap();
        let output = cmd.output();
        assert_eq!(output.code(), 1, "{text:?}\n{output}");
        container.assert_clean(&output);
        output.creel_says(&["config.json"]);
    }
}

#[test]
fn missing_bundle_is_named() {
    let container = Container::idle();
    let output = container.call("create", &["--bundle", "/nosuch/bundle"]).output().exits(1);
    container.assert_clean(&output);
    output.says(&["/nosuch/bundle", "no such file or directory"]).creel_says(&[]);
}

#[test]
fn missing_config_is_named() {
    let container = Container::idle();
    let empty = container.scratch().dir("empty");
    let output = container.call("create", &["--bundle", empty.to_str().unwrap()]).output().exits(1);
    container.assert_clean(&output);
    output.says(&["config.json"]).creel_says(&[]);
}

#[test]
fn config_that_is_a_directory_is_refused() {
    let container = Container::idle();
    let dir = container.scratch().dir("other");
    container.scratch().dir("other/config.json");
    let output = container.call("create", &["--bundle", dir.to_str().unwrap()]).output().exits(1);
    container.assert_clean(&output);
    output.creel_says(&["config.json"]);
}

#[test]
fn missing_parts_are_named() {
    for (pointer, words) in [
        ("process/args", ".process.args"),
        ("process/cwd", ".process.cwd"),
        ("root", ".root"),
        ("process", ".process"),
        ("ociVersion", ".ociVersion"),
    ] {
        let mut container = Container::idle();
        container.bundle.remove(pointer);
        if pointer == "ociVersion" && !is_creel() {
            // runc 1.1 goes on with a warning.
            continue;
        }
        container.create_fails().creel_says(&[words]);
    }
}

#[test]
fn empty_arguments_are_refused() {
    let mut container = Container::idle();
    container.bundle.set("process/args", json!([]));
    container.create_fails().creel_says(&[".process.args"]);
}

#[test]
fn relative_working_directory_is_refused() {
    let mut container = Container::idle();
    container.bundle.set("process/cwd", "tmp");
    container.create_fails().creel_says(&[".process.cwd"]);
}

#[test]
fn working_directory_that_is_a_file_is_refused() {
    let mut container = Container::idle();
    container.bundle.set("process/cwd", "/etc/passwd");
    container.create_fails().says(&["not a directory"]).creel_says(&[".process.cwd"]);
}

#[test]
fn missing_rootfs_is_named() {
    let mut container = Container::idle();
    container.bundle.set("root/path", "nosuch");
    container.create_fails().says(&["nosuch"]).creel_says(&[".root.path"]);
}

#[test]
fn rootfs_that_is_a_file_is_refused() {
    let mut container = Container::idle();
    container.scratch().file("bundle/file", "");
    container.bundle.set("root/path", "file");
    container.create_fails().creel_says(&[".root.path", "not a directory"]);
}

#[test]
fn absolute_rootfs_is_taken_as_it_is() {
    let mut container = Container::shell("echo in");
    let path = container.bundle.rootfs("").canonicalize().unwrap();
    container.bundle.set("root/path", path.to_str().unwrap());
    assert_eq!(container.run().ok().stdout, "in\n");
}

#[test]
fn unknown_fields_are_ignored() {
    let mut container = Container::shell("echo in");
    container
        .bundle
        .set("nosuch", json!({ "field": 1 }))
        .set("process/nosuch", 1)
        .set("linux/nosuch", json!([]));
    assert_eq!(container.run().ok().stdout, "in\n");
}

#[test]
fn version_of_the_specification() {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.3.0", "1.99.0"] {
        let mut container = Container::shell("echo in");
        container.bundle.set("ociVersion", version);
        assert_eq!(container.run().ok().stdout, "in\n", "{version}");
    }
    for version in ["2.0.0", "0.9.0", "nonsense", ""] {
        let mut container = Container::idle();
        container.bundle.set("ociVersion", version);
        if is_creel() {
            container.create_fails().creel_says(&[".ociVersion"]);
        }
    }
}

#[test]
fn program_that_does_not_exist_is_named() {
    for (program, words) in [
        ("nosuchprogram", "executable file not found in $PATH"),
        ("/bin/nosuch", "no such file or directory"),
        ("./nosuch", "no such file or directory"),
    ] {
        let mut container = Container::new();
        container.bundle.args([program]);
        container.create_fails().says(&[program, words]).creel_says(&[]);
        let output = container.run().exits(1);
        output.says(&[program, words]).creel_says(&[]);
    }
}

#[test]
fn program_that_may_not_be_executed_is_named() {
    for program in ["/etc/passwd", "/etc"] {
        let mut container = Container::new();
        container.bundle.args([program]);
        container.create_fails().says(&[program]).creel_says(&[]);
    }
}

#[test]
fn what_forbids_a_program_is_named() {
    let mut container = Container::new();
    let bin = container.bundle.rootfs("bin").display().to_string();
    container.bundle.mount("/mnt", "bind", &bin, &["bind", "noexec"]).args(["/mnt/busybox"]);
    container.create_fails().says(&["/mnt/busybox", "permission denied"]).creel_says(&["noexec"]);

    let mut container = Container::new();
    let denied = json!({ "names": ["execve"], "action": "SCMP_ACT_ERRNO" });
    container.bundle.set("linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied] }));
    let output = container.run();
    assert_ne!(output.code(), 0, "{output}");
    output.says(&["operation not permitted"]).creel_says(&["a seccomp filter"]);
}

#[test]
fn program_of_no_known_format_is_named() {
    let mut container = Container::new();
    let file = container.bundle.rootfs("bin/nonsense");
    std::fs::write(&file, [0; 64]).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    container.bundle.args(["/bin/nonsense"]);
    let output = container.run();
    assert_ne!(output.code(), 0, "{output}");
    output.says(&["exec format error"]).creel_says(&["/bin/nonsense"]);
}

#[test]
fn missing_interpreter_of_a_script_is_named() {
    let mut container = Container::new();
    let file = container.bundle.rootfs("bin/script");
    std::fs::write(&file, "#!/nosuch/interpreter -x\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    container.bundle.args(["/bin/script"]);
    let output = container.run();
    assert_ne!(output.code(), 0, "{output}");
    output.says(&["no such file or directory"]).creel_says(&["/bin/script", "/nosuch/interpreter"]);
}

#[test]
fn missing_loader_of_a_dynamic_program_is_named() {
    // /bin/cat of the host is linked dynamically, and the rootfs has no loader.
    let bytes = std::fs::read("/bin/cat").unwrap();
    let loader = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let Some(loader) =
        loader.into_iter().find(|name| bytes.windows(name.len()).any(|part| part == name.as_bytes()))
    else {
        skip!("cat of the host is not linked against glibc");
    };
    let mut container = Container::new();
    std::fs::remove_file(container.bundle.rootfs("bin/cat")).unwrap();
    std::fs::copy("/bin/cat", container.bundle.rootfs("bin/cat")).unwrap();
    container.bundle.args(["/bin/cat"]);
    let output = container.run();
    assert_ne!(output.code(), 0, "{output}");
    output.says(&["no such file or directory"]).creel_says(&["/bin/cat", loader]);
}

#[test]
fn unwritable_state_root_is_an_error() {
    let container = Container::idle();
    let file = container.scratch().file("file", "");
    let output =
        container.cmd_with(&["--root", file.to_str().unwrap()], ["create", container.id()]).output().exits(1);
    container.assert_clean(&output);
}

#[test]
fn very_long_argument_lists_arrive() {
    let mut container = Container::new();
    let mut args = vec!["/bin/sh".to_owned(), "-c".to_owned(), "echo $#".to_owned(), "sh".to_owned()];
    args.extend((0..20_000).map(|n| format!("argument-{n}")));
    container.bundle.args(args);
    assert_eq!(container.run().ok().stdout, "20000\n");
}

#[test]
fn argument_list_that_is_too_long_for_the_kernel_is_an_error() {
    let mut container = Container::new();
    container.bundle.args(["/bin/true".to_owned(), "x".repeat(200_000)]);
    let output = container.run();
    assert_ne!(output.code(), 0, "{output}");
    output.says(&["argument list too long"]).creel_says(&[]);
}

#[test]
fn strings_with_zero_bytes_are_refused() {
    for (pointer, at) in [("process/args/0", ".process.args[0]"), ("process/env/0", ".process.env[0]")] {
        let mut container = Container::idle();
        container.bundle.set(pointer, "a\u{0}b");
        let output = container.call("create", &[]).output();
        assert_eq!(output.code(), 1, "{pointer}\n{output}");
        container.assert_clean(&output);
        output.creel_says(&[at]);
    }
}

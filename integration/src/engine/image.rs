//! The image every engine runs: a static busybox in one layer, as `docker save` writes archives.
//!
//! containerd, podman and Docker all load that format, so nothing but tar(1) and sha256sum(1) is needed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::harness::Skip;

/// The image whose command is a shell.
pub const BUSYBOX: &str = "localhost/creel-busybox:latest";
/// The image that a pod sandbox runs: it only waits.
pub const PAUSE: &str = "localhost/creel-pause:latest";

/// An archive with both images, made once for all engines.
#[derive(Debug)]
pub struct Archive {
    directory: TempDir,
}

impl Archive {
    /// Make it from the machine's static busybox.
    pub fn make() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let top = directory.path();
        let rootfs = top.join("rootfs");
        fill(&rootfs)?;
        run(
            "tar",
            &["--directory", &utf8(&rootfs)?, "--numeric-owner", "--owner=0", "--group=0"],
            top,
            "layer.tar",
        )?;
        let digest = run_for_output("sha256sum", &top.join("layer.tar"))?;
        let digest = digest.split(' ').next().unwrap_or_default();
        fs::write(top.join("busybox.json"), config(digest, r#"["/bin/sh"]"#)?)?;
        fs::write(top.join("pause.json"), config(digest, r#"["/bin/sleep","1000000"]"#)?)?;
        let manifest = format!(
            r#"[{{"Config":"busybox.json","RepoTags":["{BUSYBOX}"],"Layers":["layer.tar"]}},
                {{"Config":"pause.json","RepoTags":["{PAUSE}"],"Layers":["layer.tar"]}}]"#
        );
        fs::write(top.join("manifest.json"), manifest)?;
        fs::remove_dir_all(&rootfs)?;
        let archive = top.join("archive");
        fs::create_dir(&archive)?;
        for name in ["busybox.json", "pause.json", "manifest.json", "layer.tar"] {
            fs::rename(top.join(name), archive.join(name))?;
        }
        run("tar", &["--directory", &utf8(&archive)?], top, "images.tar")?;
        Ok(Self { directory })
    }

    /// The archive file.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("images.tar")
    }
}

/// A root file system: busybox with a link for each applet, a user, and the directories of a Linux.
pub fn fill(rootfs: &Path) -> Result<()> {
    let busybox = Path::new("/usr/bin/busybox");
    let Ok(bytes) = fs::read(busybox) else {
        return Err(Skip::new("no /usr/bin/busybox (package busybox-static)"));
    };
    if bytes.windows(LOADER.len()).any(|window| window == LOADER) {
        return Err(Skip::new("/usr/bin/busybox is not static (package busybox-static)"));
    }
    for name in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var"] {
        fs::create_dir_all(rootfs.join(name))?;
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(busybox, rootfs.join("bin/busybox"))?;
    let list = Command::new(busybox).arg("--list").output().context("busybox --list")?;
    let list = String::from_utf8(list.stdout)?;
    for applet in list.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", rootfs.join("bin").join(applet)).with_context(|| applet.to_owned())?;
    }
    fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n",
    )?;
    fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")?;
    Ok(())
}

/// What the interpreter of a dynamic program begins with.
const LOADER: &[u8] = b"/ld-linux";

fn config(digest: &str, command: &str) -> Result<String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no image architecture known for {other}"),
    };
    Ok(format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":["PATH=/bin"],"Cmd":{command}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    ))
}

fn utf8(path: &Path) -> Result<String> {
    Ok(path.to_str().context("temporary directory is not UTF-8")?.to_owned())
}

fn run(program: &str, args: &[&str], place: &Path, name: &str) -> Result<()> {
    let status = Command::new(program).args(args).arg("-cf").arg(place.join(name)).arg(".").status();
    let status = status.with_context(|| program.to_owned())?;
    ensure!(status.success(), "{program} for {name}: {status}");
    Ok(())
}

fn run_for_output(program: &str, file: &Path) -> Result<String> {
    let output = Command::new(program).arg(file).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

//! The container's network: the files that name things in it, and pasta(1), which connects it without privileges.
//!
//! For `--network pasta` a helper makes a network namespace and binds it to `netns` in the bundle, in the mount
//! namespace that only this process and the container have. pasta, started on that file, watches it and ends when
//! it is removed, which the hook or the sweep does: it lives as long as the bundle.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use creel_image_lib::runtime_config::{Mount, Network, Run};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::mount_bind;

use super::user_namespace;

/// What the helper is called by.
pub const MAKE_NETWORK: &str = "make-network";

/// Where pasta answers questions of the container's resolver when the machine's own listens on loopback only.
const FORWARDED: &str = "169.254.1.1";

/// `--network`. Where the namespace is that pasta connects is known later.
pub fn read(text: Option<&str>) -> Result<Network> {
    match text {
        None | Some("none") => Ok(Network::Own),
        Some("host") => Ok(Network::Host),
        Some("pasta") => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&path).any(|dir| dir.join("pasta").is_file()) {
                bail!("--network pasta: pasta is not installed; Debian has it in the package passt");
            }
            Ok(Network::Made(String::new()))
        }
        Some(path) => {
            let path = path.strip_prefix("ns:").unwrap_or(path);
            if !path.starts_with('/') {
                bail!(
                    "--network {path}: not there; write none, host, pasta or the path of a network namespace"
                );
            }
            std::fs::metadata(path).with_context(|| format!("--network {path}"))?;
            Ok(Network::Path(path.to_owned()))
        }
    }
}

/// Where the namespace of a container is bound that pasta connects.
pub fn namespace(bundle: &Path) -> PathBuf {
    bundle.join("netns")
}

/// Makes a network namespace and has pasta connect it. This process is in a mount namespace of its own by now.
pub fn start_pasta(bundle: &Path) -> Result<()> {
    let file = namespace(bundle);
    std::fs::File::create(&file).with_context(|| file.display().to_string())?;
    let own = std::env::current_exe().context("readlink /proc/self/exe")?;
    let mut helper = Command::new(own);
    said(helper.arg(MAKE_NETWORK).arg(&file), "the helper for pasta")?;
    let mut pasta = Command::new("pasta");
    // No port of the machine or the container is forwarded, and the gateway's address is the gateway.
    pasta.args(["--quiet", "--config-net", "--netns-only", "--no-map-gw", "--dns-forward", FORWARDED]);
    pasta.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
    if user_namespace::maps()?.is_none() {
        // It would become nobody, who may not join the namespace.
        pasta.args(["--runas", "0"]);
    }
    // It goes to the background when the network is there.
    said(pasta.arg("--netns").arg(&file), "pasta")
}

fn said(command: &mut Command, name: &str) -> Result<()> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().with_context(|| name.to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let why = text.lines().rfind(|line| !line.contains("syslog")).unwrap_or("it says nothing");
    bail!("{name}: {}", why.trim_start_matches("creel: "))
}

/// `creel-image make-network FILE`: makes a network namespace that the file then stands for.
pub fn make_network(words: &[OsString]) -> Result<()> {
    let [file] = words else { bail!("a file is needed") };
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| anyhow!("unshare(CLONE_NEWNET): {errno}"))?;
    mount_bind("/proc/self/ns/net", file).context("bind /proc/self/ns/net")
}

/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, unless the user mounts something there.
pub fn provide_files(bundle: &Path, run: &mut Run) -> Result<()> {
    let hostname = run.hostname.clone().unwrap_or_default();
    let of_machine = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hosts = match &run.network {
        Network::Host => of_machine("/etc/hosts"),
        Network::Own | Network::Path(_) | Network::Made(_) => hosts(&hostname),
    };
    let resolv = resolver(&run.network, &of_machine("/etc/resolv.conf"));
    for (name, text) in [("hosts", hosts), ("hostname", format!("{hostname}\n")), ("resolv.conf", resolv)] {
        let target = format!("/etc/{name}");
        if run.mounts.iter().any(|mount| mount.destination == target) {
            continue;
        }
        let path = bundle.join(name);
        // Users of the container read them, whatever the caller's umask is.
        std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)))
            .with_context(|| path.display().to_string())?;
        let source = path.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", path.display()))?.to_owned();
        let options = ["bind", "rprivate"].map(str::to_owned).to_vec();
        run.mounts.push(Mount { destination: target, kind: "bind".to_owned(), source, options });
    }
    Ok(())
}

fn hosts(hostname: &str) -> String {
    format!(
        "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    )
}

/// The machine's resolver. Servers on its loopback are out of a container's reach (resolv.conf(5)).
fn resolver(network: &Network, text: &str) -> String {
    if *network == Network::Host {
        return text.to_owned();
    }
    let server = |line: &str| line.trim().strip_prefix("nameserver").map(|server| server.trim().to_owned());
    let local = |server: &str| server.starts_with("127.") || server == "::1";
    let kept = text.lines().filter(|line| server(line).is_none_or(|server| !local(&server)));
    let mut kept: String = kept.map(|line| format!("{line}\n")).collect();
    if matches!(network, Network::Made(_)) && !kept.lines().any(|line| server(line).is_some()) {
        kept.push_str(&format!("nameserver {FORWARDED}\n"));
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn networks_that_creel_does_not_make_are_refused() {
        for text in ["bridge", "container:x", "slirp4netns"] {
            assert!(read(Some(text)).unwrap_err().to_string().contains("none, host"), "{text}");
        }
        assert_eq!(read(Some("ns:/proc/self/ns/net")).unwrap(), Network::Path("/proc/self/ns/net".into()));
    }

    #[test]
    fn resolvers_out_of_reach_are_left_out() {
        let text = "search example.org\nnameserver 127.0.0.53\nnameserver 192.0.2.1\noptions ndots:1\n";
        assert_eq!(resolver(&Network::Host, text), text);
        let reached = "search example.org\nnameserver 192.0.2.1\noptions ndots:1\n";
        assert_eq!(resolver(&Network::Own, text), reached);
        assert_eq!(resolver(&Network::Made(String::new()), text), reached);
        assert_eq!(resolver(&Network::Made(String::new()), "nameserver ::1\n"), "nameserver 169.254.1.1\n");
    }
}

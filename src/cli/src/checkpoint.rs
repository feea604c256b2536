//! `checkpoint` and what `restore` shares with it: flags to requests.

use std::path::PathBuf;

use creel_container::{CgroupsMode, CheckpointRequest, CriuFlags, NetworkLock};

use crate::flags::{Flag, Words};
use crate::globals::absolute;

/// Flags of both commands.
pub static CRIU: [Flag; 11] = [
    Flag::value("image-path", "DIR", "directory of the image files (default: ./checkpoint)"),
    Flag::value("work-path", "DIR", "directory of CRIU's logs (default: that of the images)"),
    Flag::switch("tcp-established", "allow open TCP connections"),
    Flag::switch("ext-unix-sk", "allow unix sockets whose other end is outside"),
    Flag::switch("shell-job", "allow processes of a session that began outside, such as a shell's"),
    Flag::switch("file-locks", "take file locks along"),
    Flag::value("manage-cgroups-mode", "MODE", "soft, full, strict or ignore (default: CRIU's own)"),
    Flag::value("empty-ns", "KIND", "make a namespace of this kind and leave it empty: network"),
    Flag::switch("auto-dedup", "remove pages from earlier images that are in later ones"),
    Flag::switch("lazy-pages", "move memory after the processes"),
    Flag::value("network-lock", "METHOD", "iptables, nftables or skip (default: CRIU's own)"),
];

/// Flags of `checkpoint` alone.
pub static CHECKPOINT: [Flag; 7] = [
    Flag::value("parent-path", "DIR", "images of an earlier --pre-dump, relative to --image-path"),
    Flag::switch("leave-running", "let the container go on"),
    Flag::switch("pre-dump", "save only the memory, and let the container go on"),
    Flag::switch("tcp-skip-in-flight", "leave out TCP connections that are not established yet"),
    Flag::switch("link-remap", "link removed files back where that can be done"),
    Flag::value("page-server", "ADDRESS:PORT", "where the memory is served, or sent to"),
    Flag::value("status-fd", "FD", "descriptor that gets a NUL when --lazy-pages can be asked for"),
];

/// `checkpoint`
pub fn request(id: &str, words: &Words<'_>) -> Result<CheckpointRequest, String> {
    Ok(CheckpointRequest {
        id: id.to_owned(),
        criu: criu(words)?,
        parent_path: words.value("parent-path").map(PathBuf::from),
        leave_running: words.has("leave-running"),
        pre_dump: words.has("pre-dump"),
        tcp_skip_in_flight: words.has("tcp-skip-in-flight"),
        link_remap: words.has("link-remap"),
        page_server: words
            .value("page-server")
            .map(|value| page_server(&value.to_string_lossy()))
            .transpose()?,
        status_fd: words
            .value("status-fd")
            .map(|value| status_fd(&value.to_string_lossy()))
            .transpose()?
            .flatten(),
    })
}

/// What both commands tell CRIU.
pub fn criu(words: &Words<'_>) -> Result<CriuFlags, String> {
    if let Some(kind) = words.all("empty-ns").find(|kind| *kind != "network") {
        return Err(format!("namespace {kind:?} is not supported"));
    }
    let image_path = words.value("image-path").unwrap_or("checkpoint".as_ref());
    Ok(CriuFlags {
        image_path: absolute(image_path)?,
        work_path: words.value("work-path").map(absolute).transpose()?,
        tcp_established: words.has("tcp-established"),
        ext_unix_sk: words.has("ext-unix-sk"),
        shell_job: words.has("shell-job"),
        file_locks: words.has("file-locks"),
        auto_dedup: words.has("auto-dedup"),
        lazy_pages: words.has("lazy-pages"),
        cgroups: cgroups_mode(&words.value("manage-cgroups-mode").unwrap_or_default().to_string_lossy())?,
        network_lock: network_lock(&words.value("network-lock").unwrap_or_default().to_string_lossy())?,
    })
}

fn cgroups_mode(word: &str) -> Result<CgroupsMode, String> {
    Ok(match word {
        "" => CgroupsMode::Default,
        "soft" => CgroupsMode::Soft,
        "full" => CgroupsMode::Full,
        "strict" => CgroupsMode::Strict,
        "ignore" => CgroupsMode::Ignore,
        _ => return Err(format!("invalid manage-cgroups-mode value {word:?}")),
    })
}

fn network_lock(word: &str) -> Result<Option<NetworkLock>, String> {
    Ok(Some(match word {
        "" => return Ok(None),
        "iptables" => NetworkLock::Iptables,
        "nftables" => NetworkLock::Nftables,
        "skip" => NetworkLock::Skip,
        _ => return Err(format!("invalid network-lock value {word:?}")),
    }))
}

/// `ADDRESS:PORT`, an IPv6 address in brackets.
fn page_server(text: &str) -> Result<(String, u16), String> {
    let usage = || "use --page-server ADDRESS:PORT to specify page server".to_owned();
    let (address, port) = text.rsplit_once(':').ok_or_else(usage)?;
    let plain = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(usage)?,
        None if address.contains(':') => return Err(usage()),
        None => address,
    };
    if plain.is_empty() || port.is_empty() {
        return Err(usage());
    }
    let number = port.parse().map_err(|_| format!("invalid port number {port:?}"))?;
    Ok((plain.to_owned(), number))
}

/// -1 is none, as in runc.
fn status_fd(text: &str) -> Result<Option<i32>, String> {
    match text.parse() {
        Ok(-1) => Ok(None),
        Ok(fd) if fd > 0 => Ok(Some(fd)),
        _ => Err(format!("invalid --status-fd argument {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::ffi::OsString;

    use super::*;
    use crate::commands::Subcommand;
    use crate::program::Program;

    fn of(line: &str) -> Result<CheckpointRequest, String> {
        let args: Vec<OsString> =
            line.split(' ').filter(|w| !w.is_empty()).chain(["id"]).map(Into::into).collect();
        let program = Program { argv0: String::new(), name: "creel" };
        request("id", &Subcommand::Checkpoint.parse(&program, &args).unwrap().unwrap())
    }

    #[test]
    fn without_flags_images_are_in_a_directory_below_the_current_one() {
        let request = of("").unwrap();
        assert_eq!(request.criu.image_path, std::env::current_dir().unwrap().join("checkpoint"));
        assert_eq!((request.criu.work_path, request.criu.cgroups), (None, CgroupsMode::Default));
        assert_eq!((request.page_server, request.status_fd, request.parent_path), (None, None, None));
    }

    #[test]
    fn values_are_taken_apart() {
        let request =
            of("--page-server 10.0.0.1:27 --status-fd 7 --manage-cgroups-mode=ignore --empty-ns network \
             --network-lock skip --parent-path ../one")
            .unwrap();
        assert_eq!(request.page_server, Some(("10.0.0.1".to_owned(), 27)));
        assert_eq!(request.status_fd, Some(7));
        assert_eq!(request.criu.cgroups, CgroupsMode::Ignore);
        assert_eq!(request.criu.network_lock, Some(NetworkLock::Skip));
        assert_eq!(request.parent_path, Some(PathBuf::from("../one")));
        assert_eq!(of("--page-server [::1]:27").unwrap().page_server, Some(("::1".to_owned(), 27)));
        assert_eq!(of("--status-fd -1").unwrap().status_fd, None);
    }

    #[test]
    fn wrong_values_are_refused_before_anything_happens() {
        for line in [
            "--page-server 10.0.0.1",
            "--page-server :27",
            "--page-server ::1:27",
            "--page-server [::1:27",
            "--page-server a:b",
            "--page-server a:70000",
            "--status-fd x",
            "--status-fd -2",
            "--manage-cgroups-mode props",
            "--empty-ns pid",
            "--network-lock none",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}

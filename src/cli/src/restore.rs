//! `restore`: flags to a request.

use creel_container::RestoreRequest;

use crate::flags::{Flag, Words};
use crate::{checkpoint, request};

/// Flags of `restore` beside those that `checkpoint` has too.
pub static RESTORE: [Flag; 9] = [
    Flag::value("bundle", "DIR", "bundle directory (default: the current one)").short('b'),
    Flag::value("console-socket", "PATH", "unix socket that gets the terminal's master end"),
    Flag::value("pid-file", "FILE", "file to write the pid of the init process to"),
    Flag::switch("detach", "return when the processes run").short('d'),
    Flag::switch("no-subreaper", "do not adopt processes whose parent ends"),
    Flag::switch("no-pivot", "CRIU has its own way; without effect"),
    Flag::switch("tcp-close", "close the TCP connections that were established"),
    Flag::value("lsm-profile", "TYPE:NAME", "security profile to run under, instead of the saved one"),
    Flag::value("lsm-mount-context", "CONTEXT", "SELinux context of the mounts, instead of the saved one"),
];

/// `restore`
pub fn request(id: &str, words: &Words<'_>) -> Result<RestoreRequest, String> {
    let text = |flag| words.value(flag).map(|value| value.to_string_lossy().into_owned());
    Ok(RestoreRequest {
        create: request::create(id, words)?,
        criu: checkpoint::criu(words)?,
        mode: request::run_mode(words),
        tcp_close: words.has("tcp-close"),
        lsm_profile: text("lsm-profile"),
        lsm_mount_context: text("lsm-mount-context"),
    })
}

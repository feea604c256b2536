//! The commands around images, which are another program: `creel-image`, found beside creel's own file.
//!
//! The runtime must not carry TLS and decompressors: they cost each of its starts, and it runs as root. As
//! git does with its subcommands, creel becomes the other program, which becomes `creel run` in the end.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::program::reason;

/// Its commands, with what the help says of them.
pub const COMMANDS: [(&str, &str); 11] = [
    ("pull-and-run", "run a command in a new container of an image, pulled if need be"),
    ("pull", "fetch an image into the store"),
    ("image", "list, show, verify and remove images of the store"),
    ("unpack", "unpack an image into a bundle that any runtime runs"),
    ("copy", "copy an image between registries, layouts and archives"),
    ("push", "send an image of the store, or of files, to a registry"),
    ("artifact", "push, pull and list files of any type, and what refers to an image"),
    ("tags", "list the tags of a repository"),
    ("inspect", "show an image where it lies, without a pull"),
    ("login", "store a credential, where podman and docker find it"),
    ("logout", "remove a stored credential"),
];

/// Whether this is one of its commands.
pub fn has(name: &OsStr) -> bool {
    COMMANDS.iter().any(|(known, _)| name == *known)
}

/// Becomes the other program; returns only with what kept it from that. `globals` are the words before
/// the command, which it hands back to `creel run`; `state_root` is where that keeps containers.
pub fn exec(globals: &[OsString], state_root: &Path, command_line: &[OsString]) -> String {
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return format!("readlink /proc/self/exe: {}", reason(&error)),
    };
    let path = own.with_file_name("creel-image");
    let mut command = Command::new(&path);
    command.arg("--state-root").arg(state_root);
    for word in globals {
        command.arg("--runtime-arg").arg(word);
    }
    let error = command.args(command_line).exec();
    let hint = if error.kind() == std::io::ErrorKind::NotFound { "; install it beside creel" } else { "" };
    format!("execve {}: {}{hint}", path.display(), reason(&error))
}

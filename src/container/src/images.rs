//! The image directory, and what `checkpoint` and `restore` tell CRIU alike.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use creel_plan::names::NamespaceKind;
use creel_plan::spec::Spec;

use crate::criu::{Number, Options, Switch, Text, Version};
use crate::{CriuFlags, Error};

/// What the container's standard streams were; runc's file.
pub const DESCRIPTORS: &str = "descriptors.json";
/// A configuration file of CRIU for this container.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// The one for a container without that annotation.
const CONFIG: &str = "/etc/criu/runc.conf";
/// Error and debug lines.
const LOG_LEVEL: i64 = 4;

/// Kinds of namespaces that can stay outside of the images, and the CRIU that can do that.
pub const EXTERNAL_NAMESPACES: [(NamespaceKind, Version); 2] =
    [(NamespaceKind::Network, Version(31_100)), (NamespaceKind::Pid, Version(31_500))];

/// The image directory and the directory of logs, open.
pub struct Images {
    dir: PathBuf,
    handle: File,
    work: Option<(PathBuf, File)>,
}

impl Images {
    /// Makes what is missing and opens both.
    pub fn make(flags: &CriuFlags) -> Result<Images, Error> {
        Images::open(flags, true)
    }

    /// Opens the images of an earlier checkpoint.
    pub fn find(flags: &CriuFlags) -> Result<Images, Error> {
        Images::open(flags, false)
    }

    fn open(flags: &CriuFlags, make: bool) -> Result<Images, Error> {
        let dir = flags.image_path.clone();
        if make {
            make_directory(&dir)?;
        }
        let handle = open_directory(&dir)?;
        let work = match &flags.work_path {
            Some(work) => {
                make_directory(work)?;
                Some((work.clone(), open_directory(work)?))
            }
            None => None,
        };
        Ok(Images { dir, handle, work })
    }

    /// Path of a log file.
    pub fn log(&self, name: &str) -> PathBuf {
        self.work.as_ref().map_or(&self.dir, |(work, _)| work).join(name)
    }

    /// Writes a file beside the images.
    pub fn write(&self, name: &str, data: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(name);
        std::fs::write(&path, data).map_err(Error::io("write", path))
    }

    /// Reads a file beside the images.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.dir.join(name);
        std::fs::read(&path).map_err(Error::io("open", path))
    }

    /// What both requests begin with. CRIU opens the directories as descriptors of this process, so they
    /// stay open until it is done.
    pub fn options(&self, flags: &CriuFlags, annotations: &BTreeMap<String, String>, log: &str) -> Options {
        let mut options = Options::default();
        options.number(Number::ImagesDirFd, i64::from(self.handle.as_raw_fd()));
        if let Some((_, work)) = &self.work {
            options.number(Number::WorkDirFd, i64::from(work.as_raw_fd()));
        }
        options.number(Number::LogLevel, LOG_LEVEL);
        options.text(Text::LogFile, log);
        // Obsolete beside the mode, which older ones do not know.
        options.switch(Switch::ManageCgroups, true);
        options.number(Number::ManageCgroupsMode, flags.cgroups as i64);
        options.switch(Switch::NotifyScripts, true);
        options.switch(Switch::OrphanPtsMaster, true);
        for (switch, on) in [
            (Switch::ShellJob, flags.shell_job),
            (Switch::TcpEstablished, flags.tcp_established),
            (Switch::ExtUnixSk, flags.ext_unix_sk),
            (Switch::FileLocks, flags.file_locks),
            (Switch::AutoDedup, flags.auto_dedup),
            (Switch::LazyPages, flags.lazy_pages),
        ] {
            options.switch(switch, on);
        }
        // Interfaces and addresses are whoever's made the network namespace.
        options.number(Number::EmptyNs, NamespaceKind::Network.clone_flag() as i64);
        if let Some(lock) = flags.network_lock {
            options.number(Number::NetworkLock, lock as i64);
        }
        // The file's settings come after these.
        match annotations.get(CONFIG_ANNOTATION) {
            Some(file) if file.is_empty() => {}
            Some(file) => options.text(Text::ConfigFile, file),
            None => options.text(Text::ConfigFile, CONFIG),
        }
        options
    }
}

fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("mkdir", path))
}

fn open_directory(path: &Path) -> Result<File, Error> {
    // Not with O_PATH: CRIU opens it anew by /proc/PID/fd.
    let file = File::open(path).map_err(Error::io("open", path))?;
    match file.metadata() {
        Ok(meta) if meta.is_dir() => Ok(file),
        _ => Err(Error::File { call: "open", path: path.to_path_buf(), errno: creel_sys::Errno::NOTDIR }),
    }
}

/// The path that the config gives for a namespace, if it does.
pub fn namespace_path(spec: &Spec, kind: NamespaceKind) -> Option<&str> {
    let all = spec.linux.as_ref().map_or(&[][..], |linux| &linux.namespaces);
    let found = all.iter().find(|one| NamespaceKind::from_word(&one.r#type) == Some(kind))?;
    (!found.path.is_empty()).then_some(found.path.as_str())
}

/// The name of a namespace that is not in the images, the same as runc's.
pub fn namespace_key(kind: NamespaceKind) -> &'static str {
    if kind == NamespaceKind::Network { "extRootNetNS" } else { "extRootPidNS" }
}

/// For an error about an old CRIU.
pub fn namespace_purpose(kind: NamespaceKind) -> &'static str {
    if kind == NamespaceKind::Network {
        "a network namespace given by path"
    } else {
        "a pid namespace given by path"
    }
}

/// CRIU needs root.
pub fn warn_rootless(command: &str) {
    if !rustix::process::geteuid().is_root() || crate::create::in_user_namespace() {
        tracing::warn!("{command} is untested with rootless containers");
    }
}

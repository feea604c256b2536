//! Putting planned values into the files.

use rustix::io::Errno;

use crate::devices::{self, Rule};
use crate::dir;
use crate::error::Error;
use crate::host::Mode;
use crate::record::{Cgroup, CgroupDir};
use crate::resources::{FileWrite, IfMissing};

impl Cgroup {
    /// Writes the values in their order; the first one refused ends it. Serves a new cgroup and an
    /// update alike.
    pub fn apply(&self, writes: &[FileWrite]) -> Result<(), Error> {
        for group in writes.chunk_by(|a, b| a.controller == b.controller) {
            let Some(first) = group.first() else { continue };
            let Some(dir) = self.controller(&first.controller) else {
                return Err(Error::NoController {
                    at: first.at.clone().into_owned(),
                    controller: first.controller.clone().into_owned(),
                    hint: self.why_no_controller(),
                });
            };
            match self.put_off(group) {
                None => dir.apply(group, self.mode)?,
                Some(rest) => dir.apply(&rest, self.mode)?,
            }
        }
        Ok(())
    }

    /// Refuses limits that were to be refused below what is in use.
    pub(crate) fn check_usages(&self, writes: &[FileWrite]) -> Result<(), Error> {
        for write in writes {
            if let (Some(limit), Some(dir)) = (write.above_usage, self.controller(&write.controller)) {
                dir.check_usage(write, limit)?;
            }
        }
        Ok(())
    }

    fn why_no_controller(&self) -> &'static str {
        match (self.rootless, self.mode) {
            (true, _) => "rootless without permission for cgroups",
            (false, Mode::V1 | Mode::Hybrid) => "no cgroup v1 hierarchy has this controller",
            (false, Mode::V2) => "the container has no cgroup",
        }
    }

    /// Puts device rules into force. Without privilege over devices (a rootless container, or one
    /// whose runtime is in a user namespace) they are left out, as in runc: such a container
    /// cannot make device nodes.
    pub fn apply_devices(&self, rules: &[Rule]) -> Result<(), Error> {
        let Some(dir) = self.controller("devices") else {
            if self.rootless {
                return Ok(());
            }
            return Err(Error::NotMounted("devices cgroup"));
        };
        let result =
            if dir.is_unified() { devices::v2::attach(dir, rules) } else { devices::v1::write(dir, rules) };
        match result {
            Err(error) if error.is_permission() && (self.rootless || in_user_namespace()) => Ok(()),
            Err(_) | Ok(()) => result,
        }
    }
}

/// Whether this process is in a user namespace other than the first, whose map is whole
/// (user_namespaces(7)).
fn in_user_namespace() -> bool {
    crate::host::read_proc("/proc/self/uid_map").is_ok_and(|map| !is_whole_map(&map))
}

fn is_whole_map(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

impl CgroupDir {
    fn apply(&self, group: &[FileWrite], mode: Mode) -> Result<(), Error> {
        let mut pending: Vec<&FileWrite> = group.iter().collect();
        loop {
            let count = pending.len();
            let mut first_error = None;
            let mut again = Vec::new();
            for write in pending {
                match self.apply_one(write, mode) {
                    Err(error) if write.reorder && error.errno() == Some(Errno::INVAL) => {
                        first_error.get_or_insert(error);
                        again.push(write);
                    }
                    Err(error) => return Err(error),
                    Ok(()) => {}
                }
            }
            match first_error {
                None => return Ok(()),
                Some(error) if again.len() == count => return Err(error),
                Some(_) => pending = again,
            }
        }
    }

    fn apply_one(&self, write: &FileWrite, mode: Mode) -> Result<(), Error> {
        if let Some(limit) = write.above_usage {
            self.check_usage(write, limit)?;
        }
        let (mut file, mut value) = (write.file.as_ref(), write.value.as_str());
        let mut result = self.write_lines(file, value);
        if result == Err(Errno::NOENT) {
            match &write.if_missing {
                IfMissing::Fail => {}
                IfMissing::Skip => return Ok(()),
                IfMissing::Instead { file: other, value: instead } => {
                    (file, value) = (other, instead);
                    result = self.write_lines(file, value);
                }
            }
        }
        result.map_err(|errno| Error::Write {
            at: write.at.clone().into_owned(),
            path: self.file(file),
            value: value.to_owned(),
            errno,
            hint: self.hint(write, errno, mode),
        })
    }

    /// One open, one write(2) per line.
    pub(crate) fn write_lines(&self, file: &str, value: &str) -> rustix::io::Result<()> {
        let dir = self.fd().map_err(|e| e.errno().unwrap_or(Errno::BADF))?;
        let fd = dir::open_write(dir, file)?;
        if value.is_empty() {
            return dir::write_all(&fd, value);
        }
        value.split_inclusive('\n').try_for_each(|line| dir::write_all(&fd, line))
    }

    /// Best effort as in runc: without a usage to read there is nothing to compare with.
    fn check_usage(&self, write: &FileWrite, limit: u64) -> Result<(), Error> {
        let usage = self.read("memory.current").ok().and_then(|text| text.trim().parse().ok());
        match usage {
            Some(usage) if limit <= usage => {
                Err(Error::BelowUsage { at: write.at.clone().into_owned(), limit, usage })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn hint(&self, write: &FileWrite, errno: Errno, mode: Mode) -> String {
        let controller = write.controller.as_ref();
        match errno {
            Errno::NOENT | Errno::ACCESS | Errno::PERM if mode == Mode::V2 && controller != "cgroup" => {
                let available = self.read("cgroup.controllers").unwrap_or_default();
                if available.split_whitespace().any(|c| c == controller) {
                    return missing_file(errno);
                }
                format!("the cgroup has no {controller} controller")
            }
            Errno::NOENT => missing_file(errno),
            Errno::BUSY if controller == "memory" => {
                match self.read("memory.usage_in_bytes").or_else(|_| self.read("memory.current")) {
                    Ok(usage) => format!("{} bytes are in use", usage.trim()),
                    Err(_) => String::new(),
                }
            }
            Errno::INVAL if write.file == "memory.limit_in_bytes" => {
                match self.read("memory.memsw.limit_in_bytes") {
                    Ok(both) => format!("memory and swap together are limited to {}", both.trim()),
                    Err(_) => String::new(),
                }
            }
            Errno::INVAL if write.file.starts_with("cpu.rt_") => {
                "realtime time must be available in the parent cgroup's cpu.rt_runtime_us".to_owned()
            }
            Errno::NODEV if controller == "blkio" || controller == "io" => "no such block device".to_owned(),
            _ => String::new(),
        }
    }
}

fn missing_file(errno: Errno) -> String {
    if errno == Errno::NOENT { "this kernel has no such file".to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_id_map_is_the_first_user_namespace() {
        assert!(is_whole_map("         0          0 4294967295\n"));
        assert!(!is_whole_map("         0       1000          1\n"));
        assert!(!is_whole_map("0 0 1000\n1000 1000 4294966295\n"));
    }
}

//! What the mount namespace of the harness has beside the host's mounts: state directories as on a
//! tmpfs, and many mounts where a scenario asks for them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs with so many bind mounts in it. Dropped, all of them are gone.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one at a new directory.
    pub fn at(path: PathBuf, binds: usize) -> Result<Self> {
        fs::create_dir(&path)?;
        let none = None::<&str>;
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .with_context(|| format!("mount tmpfs at {}", path.display()))?;
        let tmpfs = Self(path);
        for number in 0..binds {
            let target = tmpfs.0.join(number.to_string());
            fs::create_dir(&target)?;
            mount(Some(&target), &target, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("bind {}", target.display()))?;
        }
        Ok(tmpfs)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // The mount namespace ends with the harness anyway.
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

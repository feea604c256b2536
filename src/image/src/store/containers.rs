//! Writable layers: one directory for each container, with what it is stacked of.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};

use super::place::{self, Aside};
use super::prune::CONTAINER_IMAGE;
use super::{Error, Image, Store};
use crate::mount::{self, Overlay};
use crate::runtime_config::Databases;
use crate::stack::{Merged, open_root};
use crate::unpack::copy_attributes;

/// The part of the store that belongs to one container.
#[derive(Debug, Clone)]
pub struct Container {
    path: PathBuf,
    lowers: Vec<PathBuf>,
    user_xattrs: bool,
}

/// What /etc/passwd and /etc/group may be long.
const MAX_DATABASE: u64 = 1 << 20;

fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
    let good = !id.is_empty() && id.len() <= 255 && !id.starts_with('.') && id.bytes().all(allowed);
    if good { Ok(()) } else { Err(Error::BadId(id.to_string())) }
}

impl Store {
    /// Makes the directory of a new container. While it is there, the image's layers are not pruned.
    pub fn make_container(&self, id: &str, image: &Image) -> Result<Container, Error> {
        check_id(id)?;
        let aside = Aside::make(&self.root.join("tmp"))?;
        for name in ["upper", "work", "rootfs"] {
            let path = aside.path.join(name);
            rustix::fs::mkdirat(CWD, &path, Mode::RWXU).map_err(Error::call("mkdir", &path))?;
        }
        // The attributes of overlayfs's root are those of its upper directory.
        let upper = aside.path.join("upper");
        let to = open_root(&upper).map_err(Error::call("open", &upper))?;
        match &image.root_from {
            Some(lower) => {
                let from = self.root.join(lower);
                let from = open_root(&from).map_err(Error::call("open", &from))?;
                copy_attributes(&from, &to, self.settings.owners())
                    .map_err(|(call, errno)| Error::call(call, &upper)(errno))?;
            }
            None => {
                rustix::fs::fchmod(&to, Mode::from_raw_mode(0o755)).map_err(Error::call("fchmod", &upper))?
            }
        }
        self.write_json(&aside.path.join(CONTAINER_IMAGE), image)?;
        let path = self.root.join("containers").join(id);
        match aside.rename(&path) {
            Err(Error::Call { errno: rustix::io::Errno::EXIST, .. }) => Err(Error::InUse(id.to_string())),
            other => other,
        }?;
        Ok(self.container_at(path, image))
    }

    /// A container that is there.
    pub fn container(&self, id: &str) -> Result<Option<Container>, Error> {
        check_id(id)?;
        let path = self.root.join("containers").join(id);
        let image = place::read_json::<Image>(&path.join(CONTAINER_IMAGE))?;
        Ok(image.map(|image| self.container_at(path, &image)))
    }

    fn container_at(&self, path: PathBuf, image: &Image) -> Container {
        let lowers = image.lowers.iter().map(|lower| self.root.join(lower)).collect();
        Container { path, lowers, user_xattrs: self.settings.user_xattrs() }
    }

    /// Unmounts a container's root and removes what it wrote.
    pub fn remove_container(&self, container: &Container) -> Result<(), Error> {
        container.unmount()?;
        place::discard(&self.root.join("tmp"), &container.path)
    }

    /// What the image says about users, read without a mount.
    pub fn users(&self, image: &Image) -> Result<Databases, Error> {
        let open = |lower: &PathBuf| {
            let path = self.root.join(lower);
            open_root(&path).map_err(Error::call("open", &path))
        };
        let merged = Merged::new(image.lowers.iter().map(open).collect::<Result<_, _>>()?);
        let read = |path: &str| {
            let text = merged.read_file(path.as_bytes(), MAX_DATABASE);
            let bad =
                |error: crate::unpack::Error| Error::Malformed { path: path.into(), why: error.to_string() };
            text.map(|text| String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()).map_err(bad)
        };
        Ok(Databases { passwd: read("/etc/passwd")?, group: read("/etc/group")? })
    }
}

impl Container {
    /// Where its bundle goes: config.json lies beside `rootfs`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its root is mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Mounts its root.
    pub fn mount(&self) -> Result<(), Error> {
        let (upper, work) = (self.path.join("upper"), self.path.join("work"));
        let overlay =
            Overlay { lowers: &self.lowers, upper: &upper, work: &work, user_xattrs: self.user_xattrs };
        overlay.mount(&self.rootfs()).map_err(Error::Mount)
    }

    /// Unmounts its root, if it is mounted.
    pub fn unmount(&self) -> Result<(), Error> {
        mount::unmount(&self.rootfs()).map_err(Error::Mount)
    }
}

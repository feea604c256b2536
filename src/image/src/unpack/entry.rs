//! One entry of a layer, made real (image-spec layer.md, "Applying Changesets").
//!
//! A directory over a directory keeps what is in it and takes the new attributes; anything else is unlinked
//! first and made anew. Nothing is ever truncated in place: the old inode may have other names, in this
//! layer or in a lower one.

use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, Chmod};
use super::names::{Escape, Name, classify, components};
use super::tree::{Devices, Parent, Tree, escape, is_whiteout};
use super::{Error, remove};
use crate::tar::{Entry, Kind, Reader};

/// Where an entry goes.
struct Place<'a> {
    parents: Vec<&'a [u8]>,
    name: &'a [u8],
    path: Vec<u8>,
}

/// Applies an entry; its body is read from `reader`.
pub(super) fn apply<R: BufRead>(tree: &mut Tree, entry: &Entry, reader: &mut Reader<R>) -> Result<(), Error> {
    let mut parents = components(&entry.path).map_err(|why| escape(&entry.path, why))?;
    let path = parents.join(&b'/');
    let Some(last) = parents.pop() else { return root(tree, entry) };
    match classify(&parents, last).map_err(|why| escape(&entry.path, why))? {
        Name::Ignored => Ok(()),
        Name::Opaque => opaque(tree, &parents, &path),
        Name::Whiteout(name) => whiteout(tree, &Place { parents, name, path }),
        Name::Plain(name) => {
            let place = Place { parents, name, path };
            match entry.kind {
                Kind::Directory => directory(tree, entry, &place),
                Kind::File => file(tree, entry, reader, &place),
                Kind::HardLink => hard_link(tree, entry, &place),
                Kind::Symlink => symlink(tree, entry, &place),
                Kind::Char | Kind::Block | Kind::Fifo => node(tree, entry, &place),
            }
        }
    }
}

fn root(tree: &mut Tree, entry: &Entry) -> Result<(), Error> {
    if entry.kind != Kind::Directory {
        return Err(escape(&entry.path, Escape::Root));
    }
    let inode = rustix::fs::fstat(tree.root()).map_err(Error::call("fstat", b"/"))?.st_ino;
    tree.state_directory(inode, b"", Attributes::from(entry));
    Ok(())
}

/// `.wh..wh..opq`: what lower layers have in the directory is gone, wherever in the layer this stands.
fn opaque(tree: &mut Tree, parents: &[&[u8]], path: &[u8]) -> Result<(), Error> {
    if tree.is_overlay() {
        let parent = tree.parent(parents)?;
        return tree.make_opaque(parent.fd.as_fd(), path);
    }
    let parent = tree.parent(parents)?;
    let dir = remove::open_dir(parent.fd.as_fd(), b".").map_err(Error::call("openat", path))?;
    tree.forget_parents();
    let removed = remove::remove_lower_children(tree, dir, parent.inode);
    removed.map(drop).map_err(Error::call("unlinkat", path))
}

/// `.wh.NAME`: what lower layers have of this name is gone.
fn whiteout(tree: &mut Tree, place: &Place<'_>) -> Result<(), Error> {
    // The directory is made when it is missing, as containerd and umoci do.
    let parent = tree.parent(&place.parents)?;
    let dir = &parent.fd;
    if !tree.is_overlay() {
        tree.forget_parents();
        let removed = remove::remove_lower(tree, dir.as_fd(), parent.inode, place.name);
        return removed.map_err(Error::call("unlinkat", &place.path));
    }
    // Unprivileged since Linux 5.8.
    let made = rustix::fs::mknodat(dir, place.name, FileType::CharacterDevice, Mode::empty(), 0);
    match made {
        Ok(()) => Ok(()),
        // This layer made the name, and that stays: a directory just hides what is below it.
        Err(Errno::EXIST) => match remove::open_dir(dir.as_fd(), place.name) {
            Ok(made) => tree.make_opaque(made.as_fd(), &place.path),
            Err(_) => Ok(()),
        },
        Err(errno) => Err(Error::call("mknodat", &place.path)(errno)),
    }
}

/// Makes something at a place, after removing what is in its way.
fn make<T>(
    tree: &mut Tree,
    place: &Place<'_>,
    call: &'static str,
    create: impl Fn(&Parent) -> Result<T, Errno>,
) -> Result<T, Error> {
    let parent = tree.parent(&place.parents)?;
    let made = match create(&parent) {
        Err(Errno::EXIST) => {
            // What is removed may be where the open parent was reached through.
            tree.remove(&parent, place.name, &place.path)?;
            create(&*tree.parent(&place.parents)?)
        }
        other => other,
    };
    tree.remember(parent.inode, place.name);
    made.map_err(Error::call(call, &place.path))
}

fn directory(tree: &mut Tree, entry: &Entry, place: &Place<'_>) -> Result<(), Error> {
    let parent = tree.parent(&place.parents)?;
    let found = rustix::fs::mkdirat(&parent.fd, place.name, Mode::RWXU);
    let mut hides = false;
    match found {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(&parent.fd, place.name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::call("statat", &place.path))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                // What this layer removed or replaced before is not to shine through the directory.
                hides = tree.is_overlay();
                make(tree, place, "mkdirat", |parent| {
                    rustix::fs::mkdirat(&parent.fd, place.name, Mode::RWXU)
                })?;
            }
        }
        Err(errno) => return Err(Error::call("mkdirat", &place.path)(errno)),
    }
    let parent = tree.parent(&place.parents)?;
    tree.remember(parent.inode, place.name);
    let stat = rustix::fs::statat(&parent.fd, place.name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::call("statat", &place.path))?;
    tree.state_directory(stat.st_ino, &place.path, Attributes::from(entry));
    if hides {
        let dir =
            remove::open_dir(parent.fd.as_fd(), place.name).map_err(Error::call("openat", &place.path))?;
        tree.make_opaque(dir.as_fd(), &place.path)?;
    }
    Ok(())
}

fn file<R: BufRead>(
    tree: &mut Tree,
    entry: &Entry,
    reader: &mut Reader<R>,
    place: &Place<'_>,
) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let attributes = Attributes::from(entry);
    let by_open = attributes.mode_by_open(tree);
    let mode = by_open.unwrap_or(Mode::RUSR | Mode::WUSR);
    let (fd, inherits) = make(tree, place, "openat", |parent| {
        let fd = rustix::fs::openat(&parent.fd, place.name, flags, mode)?;
        Ok((fd, parent.setgid))
    })?;
    match &entry.segments {
        None => write_body(fd.as_fd(), reader, place, None)?,
        Some(segments) => {
            for segment in segments {
                write_body(fd.as_fd(), reader, place, Some((segment.offset, segment.length)))?;
            }
            rustix::fs::ftruncate(&fd, entry.size).map_err(Error::call("ftruncate", &place.path))?;
        }
    }
    let chmod = if by_open.is_some() { Chmod::No } else { Chmod::Yes };
    attributes.set_on_new(tree, fd.as_fd(), &place.path, inherits, chmod)
}

/// Writes the body from where the reader stands: all of it to the end, or a part to its place.
fn write_body<R: BufRead>(
    fd: BorrowedFd<'_>,
    reader: &mut Reader<R>,
    place: &Place<'_>,
    mut part: Option<(u64, u64)>,
) -> Result<(), Error> {
    loop {
        let chunk = reader.chunk()?;
        let wanted = part.map_or(chunk.len() as u64, |(_, length)| length.min(chunk.len() as u64));
        let chunk = &chunk[..usize::try_from(wanted).unwrap_or(usize::MAX).min(chunk.len())];
        if chunk.is_empty() {
            return Ok(());
        }
        let written = match part {
            None => rustix::io::write(fd, chunk),
            Some((offset, _)) => rustix::io::pwrite(fd, chunk, offset),
        };
        match written {
            Ok(count) => {
                reader.consume(count);
                part = part.map(|(offset, length)| (offset + count as u64, length - count as u64));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call("write", &place.path)(errno)),
        }
    }
}

/// A link's target is a path within the root; its last component is not followed, so links to symbolic links
/// are what they say.
fn hard_link(tree: &mut Tree, entry: &Entry, place: &Place<'_>) -> Result<(), Error> {
    let mut parents = components(&entry.link).map_err(|why| escape(&entry.link, why))?;
    let target = parents.join(&b'/');
    let Some(name) = parents.pop() else { return Err(escape(&entry.link, Escape::Root)) };
    let found = match tree.existing(&parents)? {
        Some(dir) => match rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A directory that only this layer's own entries imply may be a link below.
            Ok(stat) => (!tree.is_implied(stat.st_ino)).then_some((dir, stat)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(Error::call("statat", &target)(errno)),
        },
        None => None,
    };
    let Some((dir, stat)) = found else {
        if !tree.is_overlay() {
            return Err(Error::call("linkat", &target)(Errno::NOENT));
        }
        // The target is in a lower layer. What this layer has of the name gives way now.
        let parent = tree.parent(&place.parents)?;
        tree.remove(&parent, place.name, &place.path)?;
        tree.need_link(place.path.clone(), target);
        return Ok(());
    };
    if is_whiteout(&stat) && tree.is_overlay() {
        return Err(Error::call("linkat", &target)(Errno::NOENT));
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Error::call("linkat", &target)(Errno::PERM));
    }
    let parent = tree.parent(&place.parents)?;
    let standing = rustix::fs::statat(&parent.fd, place.name, AtFlags::SYMLINK_NOFOLLOW);
    if standing.is_ok_and(|standing| standing.st_ino == stat.st_ino) {
        // It is that file already, and to remove it first could remove the target.
        tree.remember(parent.inode, place.name);
        return Ok(());
    }
    make(tree, place, "linkat", |parent| {
        rustix::fs::linkat(&dir.fd, name, &parent.fd, place.name, AtFlags::empty())
    })
}

fn symlink(tree: &mut Tree, entry: &Entry, place: &Place<'_>) -> Result<(), Error> {
    let link = entry.link.as_slice();
    make(tree, place, "symlinkat", |parent| rustix::fs::symlinkat(link, &parent.fd, place.name))?;
    set_at(tree, entry, place, Chmod::No)
}

fn node(tree: &mut Tree, entry: &Entry, place: &Place<'_>) -> Result<(), Error> {
    let kind = match entry.kind {
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
        Kind::Fifo | Kind::File | Kind::Directory | Kind::HardLink | Kind::Symlink => FileType::Fifo,
    };
    if entry.kind != Kind::Fifo {
        if entry.kind == Kind::Char && entry.device == (0, 0) {
            tree.skip(&place.path, "character device 0:0 is overlayfs's whiteout");
            return Ok(());
        }
        if tree.options.devices == Devices::Skip {
            tree.skip(&place.path, "device nodes need root");
            return Ok(());
        }
    }
    let device = rustix::fs::makedev(entry.device.0, entry.device.1);
    let mode = Mode::from_raw_mode(entry.mode & 0o777);
    make(tree, place, "mknodat", |parent| rustix::fs::mknodat(&parent.fd, place.name, kind, mode, device))?;
    set_at(tree, entry, place, Chmod::Yes)
}

fn set_at(tree: &mut Tree, entry: &Entry, place: &Place<'_>, chmod: Chmod) -> Result<(), Error> {
    let parent = tree.existing(&place.parents)?;
    let parent = parent.ok_or_else(|| Error::call("openat2", &place.path)(Errno::NOENT))?;
    Attributes::from(entry).set_at(tree, &parent, place.name, &place.path, chmod)
}

//! Bind mounts of a FUSE file system, which answers the user who mounted it alone (mount.fuse(8), without
//! `allow_other`): not root of a user namespace, and not the host's root if it is a user's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::thread::JoinHandle;

use creel_integration::{Container, needs_root, needs_runc, skip, wait};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A file system with an empty root directory, served by a thread.
struct Fuse {
    dir: PathBuf,
    server: JoinHandle<()>,
}

impl Fuse {
    /// None where the machine has no FUSE.
    fn mount(container: &mut Container, user: u32) -> Option<Fuse> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let dir = container.scratch().dir("fuse");
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id={user},group_id={user}");
        let options = std::ffi::CString::new(options).unwrap();
        mount("fuse", &dir, "fuse", MountFlags::empty(), options.as_c_str()).unwrap();
        container.accept_mounts();
        Some(Fuse { dir, server: std::thread::spawn(move || serve(device)) })
    }

    fn unmount(self, container: &mut Container) {
        unmount(&self.dir, UnmountFlags::DETACH).unwrap();
        container.accept_mounts();
        wait::until("nobody has the file system mounted any more", || self.server.is_finished());
    }
}

/// Answers until the file system is gone (ENODEV). Layouts: linux/fuse.h.
fn serve(mut device: File) {
    const GETATTR: u32 = 3;
    const STATFS: u32 = 17;
    const INIT: u32 = 26;
    const FORGETS: [u32; 2] = [2, 42];
    let mut request = vec![0; 1 << 17];
    while let Ok(n) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let (opcode, unique) = (word(4), &request[8..16]);
        assert!(n >= 40, "{n}");
        let (error, body) = match opcode {
            // fuse_init_out: version 7.31, nothing negotiated, max_write.
            INIT => (0, words(&[7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            // fuse_attr_out: valid for no time; inode 1, mode 0755 of a directory, one link.
            GETATTR => {
                let mut attr = [0; 26];
                (attr[4], attr[19], attr[20]) = (1, 0o040_755, 1);
                (0, words(&attr))
            }
            STATFS => (0, words(&[0; 20])),
            _ if FORGETS.contains(&opcode) => continue,
            _ => (-38, Vec::new()), // ENOSYS
        };
        let length = u32::try_from(16 + body.len()).unwrap();
        let reply = [&length.to_ne_bytes()[..], &i32::to_ne_bytes(error), unique, &body].concat();
        // ENOENT: who asked has been killed meanwhile.
        drop(device.write(&reply));
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

const SEEN: &str = "grep -c ' / /mnt .* - fuse ' /proc/self/mountinfo";

#[test]
fn source_that_answers_only_the_hosts_root_is_bound_in_a_user_namespace() {
    needs_root!("may mount");
    needs_runc!(2, "mount sources that the host opens");
    let mut container = Container::new();
    let Some(fuse) = Fuse::mount(&mut container, 0) else { skip!("no /dev/fuse") };
    let source = fuse.dir.to_str().unwrap().to_owned();
    container.bundle.user_namespace(100_000, 65536).mount("/mnt", "bind", &source, &["bind"]).shell(SEEN);
    let output = container.run();
    fuse.unmount(&mut container);
    assert_eq!(output.ok().stdout.trim(), "1");
}

#[test]
fn source_that_answers_only_an_ordinary_user_is_bound_where_its_mount_point_is_there() {
    needs_root!("may mount");
    for (there, user_namespace) in [(true, false), (true, true), (false, false)] {
        let mut container = Container::new();
        let Some(fuse) = Fuse::mount(&mut container, 1000) else { skip!("no /dev/fuse") };
        let source = fuse.dir.to_str().unwrap().to_owned();
        let target = if there { "/mnt" } else { "/mnt/new" };
        std::fs::create_dir_all(container.bundle.rootfs("mnt")).unwrap();
        if user_namespace {
            container.bundle.user_namespace(100_000, 65536);
        }
        container.bundle.mount(target, "bind", &source, &["bind"]).shell(SEEN);
        let output = container.call("run", &[]).output();
        fuse.unmount(&mut container);
        match there {
            true => assert_eq!(output.ok().stdout.trim(), "1"),
            false => drop(output.exits(1).creel_says(&[".mounts[6]", "ENOENT"])),
        }
    }
}

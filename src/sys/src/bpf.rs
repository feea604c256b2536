//! bpf(2) for device programs of a cgroup (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).
//!
//! rustix and nix have no bpf(2). Loading needs CAP_BPF and CAP_NET_ADMIN or CAP_SYS_ADMIN; since
//! 5.11 the memory is charged to the memory cgroup, so RLIMIT_MEMLOCK plays no part.
#![allow(unsafe_code, reason = "bpf(2) takes a union with pointers in it")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The kernel takes no more programs than this on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGS: usize = 64;

/// One instruction: `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInsn {
    /// Operation.
    pub code: u8,
    /// Two registers of four bits.
    regs: u8,
    /// Signed jump or memory offset.
    pub off: i16,
    /// Signed immediate.
    pub imm: i32,
}

impl BpfInsn {
    /// Puts an instruction together; registers are 0 to 10.
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> BpfInsn {
        // C bit fields start at the low bits on little endian machines and at the high ones on big.
        let regs = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
        BpfInsn { code, regs, off, imm }
    }

    /// Destination register.
    pub const fn dst(self) -> u8 {
        if cfg!(target_endian = "little") { self.regs & 15 } else { self.regs >> 4 }
    }

    /// Source register.
    pub const fn src(self) -> u8 {
        if cfg!(target_endian = "little") { self.regs >> 4 } else { self.regs & 15 }
    }
}

/// `union bpf_attr` for BPF_PROG_LOAD, up to `expected_attach_type`.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: RawFd,
    attach_bpf_fd: RawFd,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: RawFd,
}

/// `union bpf_attr` for BPF_PROG_QUERY.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// `union bpf_attr` for BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
#[derive(Default)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// # Safety
///
/// `T` must be a prefix of `union bpf_attr` for `command`, and every pointer in it must be valid
/// for what the command does with it during the call.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    let pointer: *mut T = attr;
    // SAFETY: `pointer` comes from a live exclusive reference of exactly the size passed; the
    // kernel treats bytes beyond it as zero. The caller vouches for the contents.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    match libc::c_int::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// Verifies and loads a device program (BPF_PROG_LOAD).
pub fn prog_load_cgroup_device(insns: &[BpfInsn]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(insns.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        insns: address(insns.as_ptr()),
        license: address(license.as_ptr()),
        prog_name: *b"creel_device\0\0\0\0",
        expected_attach_type: BPF_CGROUP_DEVICE,
        ..LoadAttr::default()
    };
    // SAFETY: `insns` and `license` outlive the call, which only reads them.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }?;
    // SAFETY: BPF_PROG_LOAD returned a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program beside those already there, or in the place of `replace`
/// (BPF_F_ALLOW_MULTI, BPF_F_REPLACE of Linux 5.6).
pub fn prog_attach(
    cgroup: BorrowedFd<'_>,
    prog: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: prog.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | replace.map_or(0, |_| BPF_F_REPLACE),
        replace_bpf_fd: replace.map_or(0, |fd| fd.as_raw_fd()),
    };
    // SAFETY: the attribute holds no pointers, and the borrowed fds are open.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes a program off a cgroup (BPF_PROG_DETACH).
pub fn prog_detach(cgroup: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: prog.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        ..AttachAttr::default()
    };
    // SAFETY: the attribute holds no pointers, and the borrowed fds are open.
    unsafe { bpf(BPF_PROG_DETACH, &mut attr) }.map(drop)
}

/// Ids of the device programs attached to this very cgroup (BPF_PROG_QUERY).
pub fn prog_query(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MAX_PROGS];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        prog_cnt: MAX_PROGS as u32,
        ..QueryAttr::default()
    };
    // SAFETY: `prog_ids` points to MAX_PROGS exclusive u32s that outlive the call; the kernel
    // writes no more than `prog_cnt` of them.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    Ok(ids.iter().take(attr.prog_cnt as usize).copied().collect())
}

/// Opens a loaded program by its id (BPF_PROG_GET_FD_BY_ID, CAP_SYS_ADMIN).
pub fn prog_get_fd_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { prog_id: id, ..IdAttr::default() };
    // SAFETY: the attribute holds no pointers.
    let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: the call returned a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

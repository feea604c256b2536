//! A finished filter and the numbers that classic BPF and seccomp(2) give it.

/// BPF_MAXINSNS: the longest program that seccomp(2) takes.
pub(crate) const MAX_LEN: usize = 4096;

/// One instruction, `struct sock_filter` of `<linux/filter.h>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

/// A filter with the flags to load it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Instructions, 1 to 4096.
    pub filter: Vec<SockFilter>,
    /// SECCOMP_FILTER_FLAG_* for seccomp(2). Never TSYNC.
    pub flags: u32,
    /// The load returns a descriptor that a listener reads from (seccomp_unotify(2)).
    pub notify: bool,
}

/// A filter with what else a container needs of the section that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The filter.
    pub program: Program,
    /// `.linux.seccomp.listenerPath`
    pub listener_path: String,
    /// `.linux.seccomp.listenerMetadata`
    pub listener_metadata: String,
    /// `.linux.seccomp` as it stands in config.json.
    pub source: String,
}

/// SECCOMP_RET_* of `<linux/seccomp.h>`.
pub(crate) mod ret {
    pub(crate) const KILL_THREAD: u32 = 0x0000_0000;
    pub(crate) const KILL_PROCESS: u32 = 0x8000_0000;
    pub(crate) const TRAP: u32 = 0x0003_0000;
    pub(crate) const ERRNO: u32 = 0x0005_0000;
    pub(crate) const NOTIFY: u32 = 0x7fc0_0000;
    pub(crate) const TRACE: u32 = 0x7ff0_0000;
    pub(crate) const LOG: u32 = 0x7ffc_0000;
    pub(crate) const ALLOW: u32 = 0x7fff_0000;
    /// SECCOMP_RET_ACTION_FULL
    pub(crate) const ACTION: u32 = 0xffff_0000;
    /// SECCOMP_RET_DATA
    pub(crate) const DATA: u32 = 0x0000_ffff;
    /// SCMP_ACT_ERRNO(ENOSYS). MIPS has another number for it than the other architectures.
    pub(crate) const ENOSYS: u32 =
        ERRNO | if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 89 } else { 38 };
}

/// Operations of classic BPF, `<linux/bpf_common.h>`.
pub(crate) mod op {
    /// BPF_LD | BPF_W | BPF_ABS
    pub(crate) const LOAD: u16 = 0x20;
    /// BPF_ALU | BPF_AND | BPF_K
    pub(crate) const AND: u16 = 0x54;
    /// BPF_JMP | BPF_JA
    pub(crate) const JUMP: u16 = 0x05;
    /// BPF_JMP | BPF_JEQ | BPF_K
    pub(crate) const EQ: u16 = 0x15;
    /// BPF_JMP | BPF_JGT | BPF_K
    pub(crate) const GT: u16 = 0x25;
    /// BPF_JMP | BPF_JGE | BPF_K
    pub(crate) const GE: u16 = 0x35;
    /// BPF_RET | BPF_K
    pub(crate) const RETURN: u16 = 0x06;
}

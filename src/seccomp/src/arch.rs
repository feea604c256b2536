//! The architectures of the specification: what the kernel puts into `struct seccomp_data`
//! (seccomp(2)) and how system calls are numbered.

use crate::syscalls::{self, Numbers};

/// Bit 30 of the number marks an x32 call (`__X32_SYSCALL_BIT`); `arch` is AUDIT_ARCH_X86_64.
pub(crate) const X32_BIT: u32 = 1 << 30;

/// One architecture.
#[derive(Debug)]
pub(crate) struct Arch {
    /// Name in `.architectures[]`.
    pub name: &'static str,
    /// Its system calls.
    numbers: &'static Numbers,
    /// AUDIT_ARCH_*, the `arch` field of seccomp_data.
    pub audit: u32,
    /// Arguments are 64 bits wide; else only their low halves are compared. x32 is narrow here,
    /// as in libseccomp, though its registers are wide.
    pub wide: bool,
    /// Most significant half first.
    pub big_endian: bool,
    /// System calls that are also reached through socketcall(2) and ipc(2).
    pub multiplexed: Option<&'static Multiplexed>,
    /// Number 0 stands for calls that the kernel does not know (s390's setup(2)).
    pub zero_is_unknown: bool,
}

/// Numbers of calls that share an entry. 0 is a call without a number of its own.
#[derive(Debug)]
pub(crate) struct Multiplexed {
    socketcall: u32,
    ipc: u32,
    /// Numbers of SYS_SOCKET (1) to SYS_SENDMMSG (20), `<linux/net.h>`.
    sockets: [u32; 20],
    /// First of the numbers that Linux 5.1 gave to the SysV calls on all architectures alike.
    sysv: u32,
    semtimedop: u32,
}

/// A call through socketcall(2) or ipc(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Number of socketcall(2) or ipc(2).
    pub entry: u32,
    /// Its first argument.
    pub call: u32,
    /// The number of its own, if it has one.
    pub direct: Option<u32>,
}

impl Multiplexed {
    /// libseccomp's pseudo numbers: -100 less the socketcall(2) number, -200 less the ipc(2) number.
    pub(crate) fn shared(&self, pseudo: i32) -> Option<Shared> {
        let own = |number: u32| (number != 0).then_some(number);
        let code = pseudo.unsigned_abs();
        match (pseudo, code) {
            (..0, 101..=120) => {
                let call = code - 100;
                Some(Shared { entry: self.socketcall, call, direct: own(self.sockets[call as usize - 1]) })
            }
            (..0, 201..=224) => {
                let call = code - 200;
                // <linux/ipc.h>: 1..4 semaphores, 11..14 messages, 21..24 shared memory.
                let direct = match call {
                    2 => self.sysv,
                    3 => self.sysv + 1,
                    4 => self.semtimedop,
                    11 => self.sysv + 7,
                    12 => self.sysv + 8,
                    13 => self.sysv + 6,
                    14 => self.sysv + 9,
                    21 => self.sysv + 4,
                    22 => self.sysv + 5,
                    23 => self.sysv + 2,
                    24 => self.sysv + 3,
                    _ => 0,
                };
                Some(Shared { entry: self.ipc, call, direct: own(direct) })
            }
            _ => None,
        }
    }
}

const X86: Multiplexed = Multiplexed {
    socketcall: 102,
    ipc: 117,
    sockets: [359, 361, 362, 363, 0, 367, 368, 360, 0, 0, 369, 371, 373, 366, 365, 370, 372, 364, 337, 345],
    sysv: 393,
    semtimedop: 0,
};
const S390: Multiplexed = Multiplexed {
    sockets: [359, 361, 362, 363, 0, 367, 368, 360, 0, 0, 369, 371, 373, 366, 365, 370, 372, 364, 357, 358],
    ..X86
};
const S390X: Multiplexed = Multiplexed { semtimedop: 392, ..S390 };
const PPC: Multiplexed = Multiplexed {
    sockets: [
        326, 327, 328, 329, 330, 331, 332, 333, 334, 336, 335, 337, 338, 339, 340, 341, 342, 344, 343, 349,
    ],
    ..X86
};
const PPC64: Multiplexed = Multiplexed { semtimedop: 392, ..PPC };
/// O32 numbers start at 4000.
const MIPS: Multiplexed = Multiplexed {
    socketcall: 4102,
    ipc: 4117,
    sockets: [
        4183, 4169, 4170, 4174, 4168, 4172, 4171, 4184, 4178, 4175, 4180, 4176, 4182, 4181, 4173, 4179, 4177,
        4334, 4335, 4343,
    ],
    sysv: 4393,
    semtimedop: 0,
};

/// Bits of AUDIT_ARCH_* (`<linux/audit.h>`) above the ELF machine number.
const WIDE: u32 = 0x8000_0000;
const LE: u32 = 0x4000_0000;
const N32: u32 = 0x2000_0000;
const X86_64: u32 = 62 | WIDE | LE;

const fn arch(name: &'static str, numbers: &'static Numbers, audit: u32) -> Arch {
    let (wide, big_endian) = (audit & WIDE != 0 && audit & N32 == 0, audit & LE == 0);
    Arch { name, numbers, audit, wide, big_endian, multiplexed: None, zero_is_unknown: false }
}

const fn multiplexed(arch: Arch, multiplexed: &'static Multiplexed) -> Arch {
    Arch { multiplexed: Some(multiplexed), ..arch }
}

static TABLE: [Arch; 18] = [
    arch("SCMP_ARCH_X86_64", &syscalls::X86_64, X86_64),
    multiplexed(arch("SCMP_ARCH_X86", &syscalls::X86, 3 | LE), &X86),
    Arch { wide: false, ..arch("SCMP_ARCH_X32", &syscalls::X32, X86_64) },
    arch("SCMP_ARCH_AARCH64", &syscalls::AARCH64, 183 | WIDE | LE),
    arch("SCMP_ARCH_ARM", &syscalls::ARM, 40 | LE),
    multiplexed(arch("SCMP_ARCH_MIPS", &syscalls::MIPS, 8), &MIPS),
    arch("SCMP_ARCH_MIPS64", &syscalls::MIPS64, 8 | WIDE),
    arch("SCMP_ARCH_MIPS64N32", &syscalls::MIPS64N32, 8 | WIDE | N32),
    multiplexed(arch("SCMP_ARCH_MIPSEL", &syscalls::MIPSEL, 8 | LE), &MIPS),
    arch("SCMP_ARCH_MIPSEL64", &syscalls::MIPSEL64, 8 | WIDE | LE),
    arch("SCMP_ARCH_MIPSEL64N32", &syscalls::MIPSEL64N32, 8 | WIDE | LE | N32),
    multiplexed(arch("SCMP_ARCH_PPC", &syscalls::PPC, 20), &PPC),
    multiplexed(arch("SCMP_ARCH_PPC64", &syscalls::PPC64, 21 | WIDE), &PPC64),
    multiplexed(arch("SCMP_ARCH_PPC64LE", &syscalls::PPC64LE, 21 | WIDE | LE), &PPC64),
    arch("SCMP_ARCH_RISCV64", &syscalls::RISCV64, 243 | WIDE | LE),
    Arch { zero_is_unknown: true, ..multiplexed(arch("SCMP_ARCH_S390", &syscalls::S390, 22), &S390) },
    Arch {
        zero_is_unknown: true,
        ..multiplexed(arch("SCMP_ARCH_S390X", &syscalls::S390X, 22 | WIDE), &S390X)
    },
    arch("SCMP_ARCH_LOONGARCH64", &syscalls::LOONGARCH64, 258 | WIDE | LE),
];

impl Arch {
    /// The entry for a name of `.architectures[]`.
    pub(crate) fn by_name(name: &str) -> Option<&'static Arch> {
        TABLE.iter().find(|arch| arch.name == name)
    }

    /// The entry for the machine that this is compiled for.
    pub(crate) fn native() -> Option<&'static Arch> {
        Arch::by_name(
            match (std::env::consts::ARCH, cfg!(target_endian = "little"), cfg!(target_pointer_width = "64"))
            {
                ("x86_64", _, true) => "SCMP_ARCH_X86_64",
                ("x86_64", _, false) => "SCMP_ARCH_X32",
                ("x86", ..) => "SCMP_ARCH_X86",
                ("aarch64", true, _) => "SCMP_ARCH_AARCH64",
                ("arm", true, _) => "SCMP_ARCH_ARM",
                ("loongarch64", ..) => "SCMP_ARCH_LOONGARCH64",
                ("mips", false, _) => "SCMP_ARCH_MIPS",
                ("mips", true, _) => "SCMP_ARCH_MIPSEL",
                ("mips64", false, _) => "SCMP_ARCH_MIPS64",
                ("mips64", true, _) => "SCMP_ARCH_MIPSEL64",
                ("powerpc", false, _) => "SCMP_ARCH_PPC",
                ("powerpc64", false, _) => "SCMP_ARCH_PPC64",
                ("powerpc64", true, _) => "SCMP_ARCH_PPC64LE",
                ("riscv64", ..) => "SCMP_ARCH_RISCV64",
                ("s390x", ..) => "SCMP_ARCH_S390X",
                _ => return None,
            },
        )
    }

    /// Whether two architectures share the AUDIT_ARCH_*, told apart by [`X32_BIT`].
    pub(crate) fn has_x32(&self) -> bool {
        self.audit == X86_64
    }

    /// The number of a system call; negative for one that libseccomp knows and that has no number
    /// of its own here. `None` for a name that libseccomp does not know on any architecture.
    pub(crate) fn resolve(&self, name: &str) -> Option<i32> {
        syscalls::number(self.numbers, name)
    }

    /// Whether libseccomp has a table for it: every table has read(2).
    pub(crate) fn has_table(&self) -> bool {
        self.resolve("read").is_some()
    }

    /// Offset of the low half of an argument in seccomp_data.
    pub(crate) fn low(&self, arg: u32) -> u32 {
        ARGS + 8 * arg + if self.big_endian { 4 } else { 0 }
    }

    /// Offset of the high half of an argument in seccomp_data.
    pub(crate) fn high(&self, arg: u32) -> u32 {
        ARGS + 8 * arg + if self.big_endian { 0 } else { 4 }
    }
}

/// Offset of `args` in seccomp_data, after `nr`, `arch` and `instruction_pointer`.
const ARGS: u32 = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure is the test's failure")]

    use libseccomp::{ScmpArch, ScmpSyscall};

    use super::*;
    use crate::names::ARCHITECTURES;

    #[test]
    fn every_architecture_of_the_specification_has_an_entry() {
        let mut table: Vec<_> = TABLE.iter().map(|arch| arch.name).collect();
        table.sort_unstable();
        assert_eq!(table, ARCHITECTURES);
        assert!(Arch::native().is_some());
    }

    #[test]
    fn numbers_are_libseccomps() {
        let more = ["", "a", "zzz", "read\0", "readwrite", "READ"];
        for arch in &TABLE {
            let token: ScmpArch = arch.name.parse().unwrap();
            for name in syscalls::names().chain(more) {
                let theirs = ScmpSyscall::from_name_by_arch(name, token).ok().map(i32::from);
                assert_eq!(arch.resolve(name), theirs, "{} {name}", arch.name);
            }
        }
        assert!(syscalls::names().is_sorted() && syscalls::names().count() > 400);
    }

    /// libseccomp maps a number that a shared call has of its own back to the call's name.
    #[test]
    fn direct_numbers_are_libseccomps() {
        let calls = "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom \
            shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg semop semget semctl semtimedop \
            msgsnd msgrcv msgget msgctl shmat shmdt shmget shmctl";
        let mut seen = 0;
        for arch in TABLE.iter().filter(|arch| arch.has_table()) {
            let Some(multiplexed) = arch.multiplexed else { continue };
            for name in calls.split_ascii_whitespace() {
                let shared = multiplexed.shared(arch.resolve(name).unwrap()).unwrap();
                let base = if shared.entry > 4000 { 4000 } else { 0 };
                let listed = (base..base + 1000).find(|&number| {
                    ScmpSyscall::from(number as i32)
                        .get_name_by_arch(arch.name.parse().unwrap())
                        .is_ok_and(|found| found == name)
                });
                assert_eq!(shared.direct, listed, "{} {name}", arch.name);
                seen += 1;
            }
        }
        assert_eq!(seen, 8 * 32);
    }
}

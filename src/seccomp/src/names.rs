//! The words of `.linux.seccomp` that creel knows, in the order in which `creel features` lists
//! them (config-linux.md, "Seccomp").

use rustix::system::uname;

use crate::flags;

/// Values of `.defaultAction` and `.syscalls[].action`.
pub const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Values of `.syscalls[].args[].op`.
pub const OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Values of `.architectures[]`.
pub const ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// Values of `.flags[]`.
pub const FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// The flags of [`FLAGS`] that the running kernel takes.
///
/// All but SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19) are older than the oldest kernel
/// that creel runs on. libseccomp's own answer would be about libseccomp, which does not load
/// creel's filters.
pub fn supported_flags() -> Vec<&'static str> {
    let release = uname();
    let release = release.release().to_string_lossy();
    FLAGS.iter().copied().filter(|name| !flags::is_wait_killable(name) || at_least(&release, 5, 19)).collect()
}

fn at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let (have_major, have_minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (have_major, have_minor) >= (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_compare_by_number() {
        assert!(at_least("5.19.0-rc1", 5, 19));
        assert!(at_least("6.1.0-18-amd64", 5, 19));
        assert!(!at_least("5.9.16", 5, 19));
        assert!(!at_least("nonsense", 5, 19));
    }

    #[test]
    fn features_lists_are_sorted_where_runc_sorts_them() {
        for list in [ACTIONS, OPERATORS, ARCHITECTURES] {
            assert!(list.is_sorted());
        }
    }

    #[test]
    fn flags_known_for_decades_are_supported() {
        let supported = supported_flags();
        assert_eq!(supported[..3], FLAGS[..3]);
    }
}

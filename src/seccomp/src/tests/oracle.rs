//! The filter that runc builds: libseccomp's, behind the rule that answers ENOSYS.
//!
//! Nothing of the crate's reading of a profile is used; names are read by the libseccomp crate.

use std::io::{Read, Seek};

use creel_plan::spec::Seccomp;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

use super::machine::{Call, run};
use crate::arch::Arch;
use crate::program::{SockFilter, op};

/// libseccomp's filter.
pub struct Oracle {
    filter: Vec<SockFilter>,
}

/// The rule that answers ENOSYS, for AUDIT_ARCH_*, x32 or not, s390's number 0 and the largest number.
pub struct Newer(Vec<(u32, Option<bool>, bool, u32)>);

fn action(name: &str, errno: Option<u32>) -> ScmpAction {
    ScmpAction::from_str(name, Some(errno.unwrap_or(1) as i32)).unwrap()
}

fn compare(arg: &creel_plan::spec::SyscallArg) -> ScmpArgCompare {
    let op: ScmpCompareOp = arg.op.parse().unwrap();
    if let ScmpCompareOp::MaskedEqual(_) = op {
        return ScmpArgCompare::new(arg.index, ScmpCompareOp::MaskedEqual(arg.value), arg.value_two);
    }
    ScmpArgCompare::new(arg.index, op, arg.value)
}

impl Oracle {
    /// `None` if libseccomp refuses a rule.
    pub fn new(profile: &Seccomp, native: &Arch) -> Option<Oracle> {
        let default = action(&profile.default_action, profile.default_errno_ret);
        let mut context = ScmpFilterContext::new(default).unwrap();
        let token: ScmpArch = native.name.parse().unwrap();
        if token != ScmpArch::X8664 {
            context.remove_arch(ScmpArch::X8664).unwrap();
            context.add_arch(token).unwrap();
        }
        let mut archs = vec![token];
        for name in &profile.architectures {
            let arch: ScmpArch = name.parse().unwrap();
            if !archs.contains(&arch) {
                context.add_arch(arch).unwrap();
                archs.push(arch);
            }
        }
        if needs_tree(profile, &archs) {
            context.set_ctl_optimize(2).unwrap();
        }
        for rule in &profile.syscalls {
            let action = action(&rule.action, rule.errno_ret);
            if action == default {
                continue;
            }
            let all: Vec<_> = rule.args.iter().map(compare).collect();
            let twice = (0..6).any(|index| rule.args.iter().filter(|arg| arg.index == index).count() > 1);
            for name in &rule.names {
                let Ok(call) = ScmpSyscall::from_name(name) else { continue };
                if all.is_empty() {
                    context.add_rule(action, call).ok()?;
                } else if twice {
                    for one in &all {
                        context.add_rule_conditional(action, call, &[*one]).ok()?;
                    }
                } else {
                    context.add_rule_conditional(action, call, &all).ok()?;
                }
            }
        }
        Some(Oracle { filter: export(&context, native.big_endian) })
    }

    pub fn newer(profile: &Seccomp, native: &Arch) -> Newer {
        let mut archs = vec![native.name.parse().unwrap()];
        archs.extend(profile.architectures.iter().map(|name| name.parse::<ScmpArch>().unwrap()));
        Newer(newest(profile, &archs))
    }

    pub fn run(&self, call: &Call) -> u32 {
        run(&self.filter, call)
    }
}

impl Newer {
    pub fn answer(&self, call: &Call) -> Option<u32> {
        const X32: u32 = 1 << 30;
        let is_x32 = call.nr & X32 != 0;
        let applies = |(audit, x32, s390, newest): &(u32, Option<bool>, bool, u32)| {
            *audit == call.audit
                && x32.is_none_or(|x32| x32 == is_x32)
                && (*s390 && call.nr == 0 || call.nr > *newest)
        };
        self.0.iter().any(applies).then_some(0x0005_0000 | 38)
    }
}

/// libseccomp 2.5 writes the load of the number as part of the first call of an architecture, and
/// leaves it out with that call if it has a pseudo number: the rest of the list then compares
/// AUDIT_ARCH_* with numbers. Its tree, which runc asks for above 32 rules, has a load of its own.
fn needs_tree(profile: &Seccomp, archs: &[ScmpArch]) -> bool {
    let names = || profile.syscalls.iter().flat_map(|rule| &rule.names);
    archs.iter().any(|&arch| {
        names()
            .any(|name| ScmpSyscall::from_name_by_arch(name, arch).is_ok_and(|number| i32::from(number) < 0))
    })
}

fn newest(profile: &Seccomp, archs: &[ScmpArch]) -> Vec<(u32, Option<bool>, bool, u32)> {
    if ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"].contains(&profile.default_action.as_str()) {
        return Vec::new();
    }
    let mut list = Vec::new();
    for &arch in archs {
        let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
        let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok()).map(i32::from);
        let largest = numbers.max().unwrap_or(0);
        let x32 = [ScmpArch::X8664, ScmpArch::X32].contains(&arch).then_some(arch == ScmpArch::X32);
        if largest > 0 {
            list.push((audit(arch), x32, matches!(arch, ScmpArch::S390 | ScmpArch::S390X), largest as u32));
        }
    }
    list
}

/// AUDIT_ARCH_* written out from <linux/audit.h> and <linux/elf-em.h>.
const AUDIT: [(ScmpArch, u32); 17] = [
    (ScmpArch::X8664, 0xc000_003e),
    (ScmpArch::X32, 0xc000_003e),
    (ScmpArch::X86, 0x4000_0003),
    (ScmpArch::Aarch64, 0xc000_00b7),
    (ScmpArch::Arm, 0x4000_0028),
    (ScmpArch::Mips, 0x0000_0008),
    (ScmpArch::Mips64, 0x8000_0008),
    (ScmpArch::Mips64N32, 0xa000_0008),
    (ScmpArch::Mipsel, 0x4000_0008),
    (ScmpArch::Mipsel64, 0xc000_0008),
    (ScmpArch::Mipsel64N32, 0xe000_0008),
    (ScmpArch::Ppc, 0x0000_0014),
    (ScmpArch::Ppc64, 0x8000_0015),
    (ScmpArch::Ppc64Le, 0xc000_0015),
    (ScmpArch::Riscv64, 0xc000_00f3),
    (ScmpArch::S390, 0x0000_0016),
    (ScmpArch::S390X, 0x8000_0016),
];

fn audit(arch: ScmpArch) -> u32 {
    AUDIT.iter().find(|(known, _)| *known == arch).unwrap().1
}

/// The exported program is in the byte order of the filter's architectures.
fn export(context: &ScmpFilterContext, big_endian: bool) -> Vec<SockFilter> {
    let mut file = tempfile::tempfile().unwrap();
    context.export_bpf(&file).unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let instruction = |b: &[u8]| {
        let (code, k) = ([b[0], b[1]], [b[4], b[5], b[6], b[7]]);
        let (code, k) = if big_endian {
            (u16::from_be_bytes(code), u32::from_be_bytes(k))
        } else {
            (u16::from_le_bytes(code), u32::from_le_bytes(k))
        };
        let k = if code == op::RETURN { right_way_round(k) } else { k };
        SockFilter { code, jt: b[2], jf: b[3], k }
    };
    bytes.chunks(8).map(instruction).collect()
}

/// Of a return that libseccomp 2.5 duplicates for a long jump it turns the value around once more
/// when the filter is for another byte order than the machine's.
fn right_way_round(value: u32) -> u32 {
    const ACTIONS: [u32; 7] =
        [0x8000_0000, 0x0003_0000, 0x0005_0000, 0x7fc0_0000, 0x7ff0_0000, 0x7ffc_0000, 0x7fff_0000];
    if value == 0 || ACTIONS.contains(&(value & 0xffff_0000)) { value } else { value.swap_bytes() }
}

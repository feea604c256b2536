//! Device rules on v2: a program of type BPF_PROG_TYPE_CGROUP_DEVICE (Linux 4.15).
//!
//! The kernel runs it on mknod(2) and open(2) of a device with a `struct bpf_cgroup_dev_ctx`
//! (linux/bpf.h) and allows the request when it returns 1.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use creel_sys::bpf::{self, BpfInsn};
use rustix::io::Errno;

use super::{Access, Kind, Rule};
use crate::error::{Error, Invalid};
use crate::record::CgroupDir;

// Operation codes of linux/bpf_common.h and linux/bpf.h: class, size or source, operation.
const LOAD_WORD: u8 = 0x61;
const AND32_IMM: u8 = 0x54;
const RSH32_IMM: u8 = 0x74;
const MOV32_IMM: u8 = 0xb4;
const MOV32_REG: u8 = 0xbc;
const JUMP: u8 = 0x05;
const JEQ32_IMM: u8 = 0x16;
const JNE32_IMM: u8 = 0x56;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
/// The kernel passes the context here.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// Requested access bits.
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const DEV_CHAR: i32 = 2;

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> BpfInsn {
    BpfInsn::new(code, dst, src, off, imm)
}

/// Evaluation takes a time quadratic in the rules; real lists have a few dozen.
const MAX_RULES: usize = 1000;

/// Where a jump goes.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// The verdict for these allowed bits.
    Verdict(u8),
    /// A place in the program, by its number in [`Assembler::places`].
    Place(usize),
}

#[derive(Default)]
struct Assembler {
    program: Vec<BpfInsn>,
    jumps: Vec<(usize, Target)>,
    places: Vec<usize>,
}

/// The access bits allowed for a device. `None` stands for a number that no rule names.
fn allowed(rules: &[Rule], kind: Kind, major: Option<u32>, minor: Option<u32>) -> u8 {
    let matches = |rule: &Rule, bit: Access| {
        rule.kind == Kind::All
            || (rule.kind == kind
                && (rule.major.is_none() || rule.major == major)
                && (rule.minor.is_none() || rule.minor == minor)
                && rule.access.overlaps(bit))
    };
    let allows = |bit: Access| rules.iter().rev().find(|r| matches(r, bit)).is_some_and(|r| r.allow);
    let bits = [Access::MKNOD, Access::READ, Access::WRITE].into_iter().filter(|bit| allows(*bit));
    bits.fold(0, |mask, bit| mask | bit.bits())
}

/// What the rules say about one major number: minors that differ, and all others.
#[derive(PartialEq, Eq)]
struct Verdicts {
    minors: Vec<(u32, u8)>,
    others: u8,
}

fn verdicts(rules: &[Rule], kind: Kind, major: Option<u32>) -> Verdicts {
    let others = allowed(rules, kind, major, None);
    let named = rules.iter().filter(|r| r.kind == kind && (r.major.is_none() || r.major == major));
    let minors: BTreeSet<u32> = named.filter_map(|r| r.minor).collect();
    let minors = minors.into_iter().map(|minor| (minor, allowed(rules, kind, major, Some(minor))));
    Verdicts { minors: minors.filter(|(_, mask)| *mask != others).collect(), others }
}

/// Compares the device's numbers and jumps to the verdict that the rule list has for it. Every rule
/// is evaluated here and none at run time, so the program is short and the verifier, which walks
/// every path at each container's start, is done with it in a third of the time that a test per
/// rule takes.
pub fn v2_program(rules: &[Rule]) -> Result<Vec<BpfInsn>, Invalid> {
    if rules.len() > MAX_RULES {
        return Err(too_many());
    }
    let mut assembler = Assembler::default();
    // access_type: device type in the lower half, access in the upper.
    assembler.program.extend([
        insn(LOAD_WORD, KIND, CONTEXT, 0, 0),
        insn(MOV32_REG, ACCESS, KIND, 0, 0),
        insn(AND32_IMM, KIND, 0, 0, 0xffff),
        insn(RSH32_IMM, ACCESS, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        insn(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ]);
    let block = assembler.place();
    assembler.jump(JNE32_IMM, KIND, DEV_CHAR, block);
    assembler.section(rules, Kind::Char);
    assembler.arrive(block);
    assembler.section(rules, Kind::Block);
    assembler.finish()
}

fn too_many() -> Invalid {
    Invalid::new(".linux.resources.devices", "more rules than a device program can hold")
}

/// Whether the rules allow everything, as a cgroup without a program does.
pub(crate) fn allow_everything(rules: &[Rule]) -> bool {
    rules.iter().rposition(|r| r.kind == Kind::All).is_some_and(|at| {
        let decisive = rules.get(at..).unwrap_or_default();
        decisive.iter().all(|r| r.allow)
    })
}

/// The rules as what systemd's DeviceAllow holds, path and access; `None` when a list that only allows
/// cannot say it: every entry must allow what the wider ones do.
pub(crate) fn allow_list(rules: &[Rule]) -> Option<Vec<(String, String)>> {
    let mut list = Vec::new();
    for (kind, word) in [(Kind::Char, "char"), (Kind::Block, "block")] {
        let unnamed = verdicts(rules, kind, None);
        // systemd knows no minor of every major.
        if !unnamed.minors.is_empty() {
            return None;
        }
        let mut entry = |path: String, mask: u8, wider: u8| {
            if mask & wider != wider {
                return None;
            }
            if mask != wider {
                list.push((path, Access(mask).letters()));
            }
            Some(())
        };
        entry(format!("{word}-*"), unnamed.others, 0)?;
        let majors: BTreeSet<u32> = rules.iter().filter(|r| r.kind == kind).filter_map(|r| r.major).collect();
        for major in majors {
            let verdicts = verdicts(rules, kind, Some(major));
            entry(format!("{word}-{major}"), verdicts.others, unnamed.others)?;
            for (minor, mask) in verdicts.minors {
                entry(format!("/dev/{word}/{major}:{minor}"), mask, verdicts.others)?;
            }
        }
    }
    Some(list)
}

impl Assembler {
    fn place(&mut self) -> Target {
        self.places.push(0);
        Target::Place(self.places.len() - 1)
    }

    fn arrive(&mut self, target: Target) {
        if let Target::Place(number) = target {
            self.places[number] = self.program.len();
        }
    }

    fn jump(&mut self, code: u8, register: u8, value: i32, target: Target) {
        self.jumps.push((self.program.len(), target));
        self.program.push(insn(code, register, 0, 0, value));
    }

    fn section(&mut self, rules: &[Rule], kind: Kind) {
        let unnamed = verdicts(rules, kind, None);
        let majors: BTreeSet<u32> = rules.iter().filter(|r| r.kind == kind).filter_map(|r| r.major).collect();
        for major in majors {
            let verdicts = verdicts(rules, kind, Some(major));
            if verdicts == unnamed {
                continue;
            }
            if verdicts.minors.is_empty() {
                self.jump(JEQ32_IMM, MAJOR, major as i32, Target::Verdict(verdicts.others));
                continue;
            }
            let next = self.place();
            self.jump(JNE32_IMM, MAJOR, major as i32, next);
            self.minors(&verdicts);
            self.arrive(next);
        }
        self.minors(&unnamed);
    }

    fn minors(&mut self, verdicts: &Verdicts) {
        for (minor, mask) in &verdicts.minors {
            self.jump(JEQ32_IMM, MINOR, *minor as i32, Target::Verdict(*mask));
        }
        self.jump(JUMP, 0, 0, Target::Verdict(verdicts.others));
    }

    /// Appends the verdicts that are in use and fills in the offsets, which count from the next
    /// instruction.
    fn finish(mut self) -> Result<Vec<BpfInsn>, Invalid> {
        let mut verdicts = [None; 8];
        // The verdict for no bits comes last: the others jump to it.
        for mask in (0..8u8).rev() {
            if !self.jumps.iter().any(|(_, t)| matches!(t, Target::Verdict(m) if *m == mask)) {
                continue;
            }
            verdicts[usize::from(mask)] = Some(self.program.len());
            if mask != 0 && mask != Access::ALL.bits() {
                self.program.push(insn(AND32_IMM, ACCESS, 0, 0, !i32::from(mask)));
                self.jump(JNE32_IMM, ACCESS, 0, Target::Verdict(0));
            }
            self.program.push(insn(MOV32_IMM, RESULT, 0, 0, i32::from(mask != 0)));
            self.program.push(insn(EXIT, 0, 0, 0, 0));
        }
        for (at, target) in self.jumps {
            let to = match target {
                Target::Verdict(mask) => verdicts[usize::from(mask)].unwrap_or_default(),
                Target::Place(number) => self.places[number],
            };
            let offset = to.checked_sub(at + 1).and_then(|offset| i16::try_from(offset).ok());
            self.program[at].off = offset.ok_or_else(too_many)?;
        }
        Ok(self.program)
    }
}

fn error(command: &'static str, error: &std::io::Error) -> Error {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    let hint = match errno {
        Errno::PERM => "needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN",
        Errno::INVAL | Errno::NOSYS => "the kernel may lack CONFIG_CGROUP_BPF",
        _ => "",
    };
    Error::Bpf { command, errno, hint }
}

/// Loads the program and attaches it. All programs on a cgroup must agree, so an old one (an
/// update, or systemd's) is replaced, not joined.
pub(crate) fn attach(dir: &CgroupDir, rules: &[Rule]) -> Result<(), Error> {
    let bare = dir.fresh && !dir.by_systemd;
    if dir.fresh && allow_everything(rules) {
        return Ok(());
    }
    let cgroup = dir.fd()?;
    let program =
        bpf::prog_load_cgroup_device(&v2_program(rules)?).map_err(|e| error("BPF_PROG_LOAD", &e))?;
    let old = if bare { Vec::new() } else { old_programs(dir)? };
    let replace = match old.as_slice() {
        [one] => Some(one.as_fd()),
        _ => None,
    };
    bpf::prog_attach(cgroup, program.as_fd(), replace).map_err(|e| error("BPF_PROG_ATTACH", &e))?;
    if replace.is_none() {
        for one in &old {
            bpf::prog_detach(cgroup, one.as_fd()).map_err(|e| error("BPF_PROG_DETACH", &e))?;
        }
    }
    Ok(())
}

/// Programs that an LSM keeps from us stay: they can only take more away.
fn old_programs(dir: &CgroupDir) -> Result<Vec<OwnedFd>, Error> {
    let ids = bpf::prog_query(dir.fd()?).map_err(|e| error("BPF_PROG_QUERY", &e))?;
    let mut programs = Vec::with_capacity(ids.len());
    for id in ids {
        match bpf::prog_get_fd_by_id(id) {
            Ok(fd) => programs.push(fd),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(error("BPF_PROG_GET_FD_BY_ID", &e)),
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests;

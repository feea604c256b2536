//! Device rules on v2: a program of type BPF_PROG_TYPE_CGROUP_DEVICE (Linux 4.15).
//!
//! The kernel runs it on mknod(2) and open(2) of a device with a `struct bpf_cgroup_dev_ctx`
//! (linux/bpf.h) and allows the request when it returns 1.

use std::os::fd::{AsFd, OwnedFd};

use creel_sys::bpf::{self, BpfInsn};
use rustix::io::Errno;

use super::{Access, Kind, Rule};
use crate::error::Error;
use crate::record::CgroupDir;

// Operation codes of linux/bpf_common.h and linux/bpf.h: class, size or source, operation.
const LOAD_WORD: u8 = 0x61;
const AND32_IMM: u8 = 0x54;
const RSH32_IMM: u8 = 0x74;
const MOV32_IMM: u8 = 0xb4;
const MOV32_REG: u8 = 0xbc;
const JEQ32_IMM: u8 = 0x16;
const JNE32_IMM: u8 = 0x56;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
/// Holds the context first, then serves as scratch.
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
/// Requested access bits that no rule has allowed yet.
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> BpfInsn {
    BpfInsn::new(code, dst, src, off, imm)
}

/// From the last rule to the first: a matching deny rule ends the request when it names a bit
/// that is still asked for, a matching allow rule takes its bits off the request, and a request
/// with nothing left passes. An `a` rule decides what remains.
pub fn v2_program(rules: &[Rule]) -> Vec<BpfInsn> {
    let mut program = vec![
        // access_type: device type in the lower half, access in the upper.
        insn(LOAD_WORD, KIND, SCRATCH, 0, 0),
        insn(MOV32_REG, ACCESS, KIND, 0, 0),
        insn(AND32_IMM, KIND, 0, 0, 0xffff),
        insn(RSH32_IMM, ACCESS, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, SCRATCH, 4, 0),
        insn(LOAD_WORD, MINOR, SCRATCH, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let kind = match rule.kind {
            Kind::All => {
                program.extend(verdict(rule.allow));
                return program;
            }
            Kind::Block => DEV_BLOCK,
            Kind::Char => DEV_CHAR,
        };
        append(&mut program, rule, kind);
    }
    program.extend(verdict(false));
    program
}

fn verdict(allow: bool) -> [BpfInsn; 2] {
    [insn(MOV32_IMM, RESULT, 0, 0, i32::from(allow)), insn(EXIT, 0, 0, 0, 0)]
}

fn append(program: &mut Vec<BpfInsn>, rule: &Rule, kind: i32) {
    let start = program.len();
    program.push(insn(JNE32_IMM, KIND, 0, 0, kind));
    if let Some(major) = rule.major {
        program.push(insn(JNE32_IMM, MAJOR, 0, 0, major as i32));
    }
    if let Some(minor) = rule.minor {
        program.push(insn(JNE32_IMM, MINOR, 0, 0, minor as i32));
    }
    let access = i32::from(rule.access.bits());
    if rule.access == Access::ALL {
        // Nothing can be left over.
    } else if rule.allow {
        program.push(insn(AND32_IMM, ACCESS, 0, 0, !access));
        program.push(insn(JNE32_IMM, ACCESS, 0, 0, 0));
    } else {
        program.push(insn(MOV32_REG, SCRATCH, ACCESS, 0, 0));
        program.push(insn(AND32_IMM, SCRATCH, 0, 0, access));
        program.push(insn(JEQ32_IMM, SCRATCH, 0, 0, 0));
    }
    program.extend(verdict(rule.allow));
    // Every jump of the block goes to its end; offsets count from the next instruction.
    let end = program.len();
    for (at, one) in program.iter_mut().enumerate().skip(start) {
        if one.code == JNE32_IMM || one.code == JEQ32_IMM {
            // A block is at most ten instructions long.
            one.off = i16::try_from(end - at - 1).unwrap_or(i16::MAX);
        }
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
    let cgroup = dir.fd()?;
    let program = bpf::prog_load_cgroup_device(&v2_program(rules)).map_err(|e| error("BPF_PROG_LOAD", &e))?;
    let old = if dir.fresh { Vec::new() } else { old_programs(dir)? };
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

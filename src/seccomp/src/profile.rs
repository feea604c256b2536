//! `.linux.seccomp` -> typed rules. Everything that can be said about a profile without knowing
//! a system call's number is decided here.

use std::borrow::Cow;

use creel_plan::spec::{Seccomp, Syscall, SyscallArg};

use crate::arch::Arch;
use crate::args::{Cond, Op};
use crate::error::Error;
use crate::flags;
use crate::names::{ACTIONS, ARCHITECTURES, OPERATORS};
use crate::program::ret;

/// A checked profile.
pub(crate) struct Profile<'a> {
    /// SECCOMP_RET_* of the default action.
    pub default: u32,
    /// The native architecture, then the others of the profile.
    pub archs: Vec<&'static Arch>,
    /// Flags for seccomp(2).
    pub flags: u32,
    /// Some rule has SCMP_ACT_NOTIFY.
    pub notify: bool,
    /// Calls newer than the profile get ENOSYS rather than the default action.
    pub answer_newer: bool,
    /// Rules in the order of the profile.
    pub rules: Vec<Rule<'a>>,
}

/// One entry of `.syscalls[]`.
pub(crate) struct Rule<'a> {
    /// Names of the system calls.
    pub names: &'a [String],
    /// SECCOMP_RET_*, or `None` for the default action: such a rule only counts as a mention.
    pub action: Option<u32>,
    /// Conjunctions, any of which is enough. An empty conjunction always holds.
    pub alternatives: Vec<Vec<Cond>>,
}

impl<'a> Profile<'a> {
    pub(crate) fn check(profile: &'a Seccomp, native: &'static Arch) -> Result<Profile<'a>, Error> {
        let default_at = || ".linux.seccomp.defaultAction".into();
        let errno_at = || ".linux.seccomp.defaultErrnoRet".into();
        let default = action(default_at, errno_at, &profile.default_action, profile.default_errno_ret)?;
        if default == ret::NOTIFY {
            return Err(Error::NotifyDefault);
        }
        let mut rules = Vec::with_capacity(profile.syscalls.len());
        let mut notify = false;
        for (index, syscall) in profile.syscalls.iter().enumerate() {
            let rule = rule(index, syscall, default)?;
            notify |= rule.action == Some(ret::NOTIFY) && !rule.names.is_empty();
            rules.push(rule);
        }
        Ok(Profile {
            default,
            archs: architectures(&profile.architectures, native)?,
            flags: flags::from_names(profile.flags.as_deref(), notify)?,
            notify,
            answer_newer: !is_permissive(default),
            rules,
        })
    }
}

/// Under these a call that the profile has not heard of reaches the kernel or a tracer, whose
/// answer is better than ENOSYS.
fn is_permissive(default: u32) -> bool {
    matches!(default & ret::ACTION, ret::ALLOW | ret::LOG | ret::TRACE)
}

fn architectures(names: &[String], native: &'static Arch) -> Result<Vec<&'static Arch>, Error> {
    let mut archs = vec![native];
    for (index, name) in names.iter().enumerate() {
        let at = || format!(".linux.seccomp.architectures[{index}]");
        let arch =
            Arch::by_name(name).ok_or_else(|| Error::unknown(at(), "architecture", name, ARCHITECTURES))?;
        if archs.iter().any(|known| known.name == arch.name) {
            continue;
        }
        if arch.big_endian != native.big_endian {
            return Err(Error::ByteOrder { at: at(), arch: arch.name });
        }
        if !arch.has_table() {
            return Err(Error::NoTable { at: at(), arch: arch.name });
        }
        archs.push(arch);
    }
    Ok(archs)
}

/// SECCOMP_RET_* with its data. EPERM is the errno, and the message for a tracer, where none is given.
fn action<'p>(
    at: impl Fn() -> Cow<'p, str>,
    errno_at: impl Fn() -> Cow<'p, str>,
    name: &str,
    errno: Option<u32>,
) -> Result<u32, Error> {
    const EPERM: u32 = 1;
    // libseccomp's limit; the kernel turns what is above MAX_ERRNO, 4095, into that.
    const LARGEST_ERRNO: u32 = 4094;
    let (code, largest) = match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => (ret::KILL_THREAD, None),
        "SCMP_ACT_KILL_PROCESS" => (ret::KILL_PROCESS, None),
        "SCMP_ACT_TRAP" => (ret::TRAP, None),
        "SCMP_ACT_ERRNO" => (ret::ERRNO, Some(LARGEST_ERRNO)),
        "SCMP_ACT_NOTIFY" => (ret::NOTIFY, None),
        "SCMP_ACT_TRACE" => (ret::TRACE, Some(ret::DATA)),
        "SCMP_ACT_LOG" => (ret::LOG, None),
        "SCMP_ACT_ALLOW" => (ret::ALLOW, None),
        _ => return Err(Error::unknown(at().into_owned(), "action", name, ACTIONS)),
    };
    match (errno, largest) {
        (None, None) => Ok(code),
        (None, Some(_)) => Ok(code | EPERM),
        (Some(_), None) => Err(Error::ErrnoNotTaken { at: errno_at().into_owned(), action: name.to_owned() }),
        (Some(value), Some(largest)) if value > largest => {
            Err(Error::ErrnoTooLarge { at: errno_at().into_owned(), value, largest })
        }
        (Some(value), Some(_)) => Ok(code | value),
    }
}

fn rule(index: usize, syscall: &Syscall, default: u32) -> Result<Rule<'_>, Error> {
    let at = |field: &str| format!(".linux.seccomp.syscalls[{index}].{field}");
    let code = action(|| at("action").into(), || at("errnoRet").into(), &syscall.action, syscall.errno_ret)?;
    for (number, name) in syscall.names.iter().enumerate() {
        let at = || at(&format!("names[{number}]"));
        if name.is_empty() {
            return Err(Error::EmptyName { at: at() });
        }
        // The child reports through a socket after its filter is loaded (seccomp_unotify(2)).
        if code == ret::NOTIFY && name == "write" {
            return Err(Error::NotifyWrite { at: at() });
        }
    }
    let mut conds = Vec::with_capacity(syscall.args.len());
    for (number, arg) in syscall.args.iter().enumerate() {
        conds.push(cond(arg, |field| at(&format!("args[{number}].{field}")))?);
    }
    let action = (code != default).then_some(code);
    Ok(Rule { names: &syscall.names, action, alternatives: alternatives(conds) })
}

fn cond(arg: &SyscallArg, at: impl Fn(&str) -> String) -> Result<Cond, Error> {
    if arg.index > 5 {
        return Err(Error::ArgumentIndex { at: at("index"), index: arg.index });
    }
    let op = match arg.op.as_str() {
        "SCMP_CMP_NE" => Op::Ne,
        "SCMP_CMP_LT" => Op::Lt,
        "SCMP_CMP_LE" => Op::Le,
        "SCMP_CMP_EQ" => Op::Eq,
        "SCMP_CMP_GE" => Op::Ge,
        "SCMP_CMP_GT" => Op::Gt,
        "SCMP_CMP_MASKED_EQ" => return Ok(Cond::masked(arg.index, arg.value, arg.value_two)),
        other => return Err(Error::unknown(at("op"), "operator", other, OPERATORS)),
    };
    Ok(Cond::new(arg.index, op, arg.value))
}

/// Conditions on different arguments must all hold. Where an argument stands twice, any one of
/// the conditions is enough: profiles list the accepted values of an argument that way, which
/// runc supports because its first releases did.
fn alternatives(mut conds: Vec<Cond>) -> Vec<Vec<Cond>> {
    let repeated = conds.iter().enumerate().any(|(i, a)| conds[..i].iter().any(|b| a.arg == b.arg));
    if repeated {
        conds.into_iter().map(|cond| vec![cond]).collect()
    } else {
        conds.sort_by_key(|cond| cond.arg);
        vec![conds]
    }
}

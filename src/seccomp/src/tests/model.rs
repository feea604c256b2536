//! What a profile means, read off its rules for one call at a time. Unlike libseccomp's filter it
//! has no tree in which rules could get into each other's way.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use creel_plan::spec::{Seccomp, Syscall, SyscallArg};

use super::machine::Call;
use crate::arch::{Arch, X32_BIT};

/// The rules of a profile on one architecture.
pub struct Model<'a> {
    arch: &'a Arch,
    default: u32,
    /// By number: the rules for it, and what libseccomp resolved the name to.
    rules: HashMap<u32, Vec<(&'a Syscall, i32)>>,
}

impl<'a> Model<'a> {
    pub fn new(profile: &'a Seccomp, arch: &'a Arch) -> Model<'a> {
        let mut rules: HashMap<u32, Vec<_>> = HashMap::new();
        for rule in &profile.syscalls {
            for resolved in rule.names.iter().filter_map(|name| arch.resolve(name)) {
                let shared = arch.multiplexed.and_then(|multiplexed| multiplexed.shared(resolved));
                let numbers = shared.into_iter().flat_map(|shared| [Some(shared.entry), shared.direct]);
                for number in numbers.flatten().chain(u32::try_from(resolved)) {
                    rules.entry(number).or_default().push((rule, resolved));
                }
            }
        }
        Model { arch, default: action(&profile.default_action, profile.default_errno_ret), rules }
    }

    /// What a call gets by the rules, if it is one of this architecture's and the rules leave no doubt.
    pub fn outcome(&self, call: &Call) -> Option<u32> {
        let own = match self.arch.name {
            "SCMP_ARCH_X86_64" => call.nr < X32_BIT,
            "SCMP_ARCH_X32" => call.nr >= X32_BIT,
            _ => true,
        };
        if call.audit != self.arch.audit || !own {
            return None;
        }
        let mut best: Option<Match> = None;
        let mut doubt = false;
        for found in self.matches(call) {
            match best.as_ref().map(|best| found.order(best)) {
                None | Some(Ordering::Less) => (best, doubt) = (Some(found), false),
                // The earlier rule stands, but in a tree another rule may have taken this one along.
                Some(Ordering::Equal) => {
                    let other = best.as_ref().is_some_and(|best| best.action != found.action);
                    doubt |= other && found.keys.len() > 1;
                }
                Some(Ordering::Greater) => {}
            }
        }
        (!doubt).then(|| best.map_or(self.default, |best| best.action))
    }

    fn matches(&self, call: &Call) -> Vec<Match> {
        let mut matches = Vec::new();
        for (rule, resolved) in self.rules.get(&call.nr).into_iter().flatten() {
            let action = action(&rule.action, rule.errno_ret);
            for mut conds in ways(rule, self.arch, *resolved, call.nr) {
                conds.sort_by_key(|cond| cond.index);
                let tests: Vec<(bool, Key)> =
                    conds.iter().filter_map(|cond| test(cond, self.arch, call)).collect();
                if action != self.default && tests.iter().all(|(holds, _)| *holds) {
                    matches.push(Match { action, keys: tests.into_iter().map(|(_, key)| key).collect() });
                }
            }
        }
        matches
    }
}

type Key = (Reverse<u32>, u32, u64);

struct Match {
    action: u32,
    keys: Vec<Key>,
}

impl Match {
    /// Unconditional rules stand before all others; then the conditions decide one after the other.
    fn order(&self, other: &Match) -> Ordering {
        let conditional = |rule: &Match| !rule.keys.is_empty();
        let pairs = self.keys.iter().zip(&other.keys);
        conditional(self)
            .cmp(&conditional(other))
            .then_with(|| pairs.map(|(a, b)| a.cmp(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal))
    }
}

/// SECCOMP_RET_*, by seccomp(2).
fn action(name: &str, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(1);
    match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | data,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        other => panic!("{other}"),
    }
}

/// The conjunctions by which a rule for a call applies to a number.
fn ways(rule: &Syscall, arch: &Arch, resolved: i32, nr: u32) -> Vec<Vec<SyscallArg>> {
    let twice = (0..6).any(|index| rule.args.iter().filter(|arg| arg.index == index).count() > 1);
    let conjunctions: Vec<Vec<SyscallArg>> =
        if twice { rule.args.iter().map(|arg| vec![arg.clone()]).collect() } else { vec![rule.args.clone()] };
    if resolved >= 0 {
        return if resolved as u32 == nr { conjunctions } else { Vec::new() };
    }
    let Some(shared) = arch.multiplexed.and_then(|multiplexed| multiplexed.shared(resolved)) else {
        return Vec::new();
    };
    if shared.direct == Some(nr) {
        return conjunctions;
    }
    if shared.entry != nr {
        return Vec::new();
    }
    let call = SyscallArg { index: 0, value: shared.call.into(), op: "SCMP_CMP_EQ".into(), value_two: 0 };
    let through = |conds: Vec<SyscallArg>| {
        conds.into_iter().filter(|arg| arg.index != 0).chain([call.clone()]).collect()
    };
    conjunctions.into_iter().map(through).collect()
}

/// Whether a condition holds and where it stands among others; `None` for a comparison of no bits.
fn test(arg: &SyscallArg, arch: &Arch, call: &Call) -> Option<(bool, Key)> {
    let half = |value: u64| if arch.wide { value } else { value & 0xffff_ffff };
    let value = half(call.args[arg.index as usize]);
    let against = half(arg.value);
    let (holds, class) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (value == against, 0),
        "SCMP_CMP_NE" => (value != against, 0),
        "SCMP_CMP_LT" => (value < against, 1),
        "SCMP_CMP_LE" => (value <= against, 1),
        "SCMP_CMP_GE" => (value >= against, 2),
        "SCMP_CMP_GT" => (value > against, 2),
        "SCMP_CMP_MASKED_EQ" if against == 0 => return None,
        "SCMP_CMP_MASKED_EQ" => {
            let wanted = arg.value_two & against;
            return Some((value & against == wanted, (Reverse(arg.index), 0, !wanted)));
        }
        other => panic!("{other}"),
    };
    Some((holds, (Reverse(arg.index), class, if class == 1 { against } else { !against })))
}

//! Rules -> what each system call number of one architecture gets.

use std::collections::BTreeMap;

use crate::arch::Arch;
use crate::args::{Checks, Clash, Cond, Op};
use crate::error::Error;
use crate::profile::{Profile, Rule};

/// The rules of a profile on one architecture.
pub(crate) struct Calls {
    /// The architecture.
    pub arch: &'static Arch,
    /// What the numbers get that some rule names.
    pub by_number: BTreeMap<u32, Checks>,
    /// The largest number that the profile mentions, if calls above it are to get ENOSYS.
    pub newest: Option<u32>,
}

impl Calls {
    pub(crate) fn resolve(profile: &Profile<'_>, arch: &'static Arch) -> Result<Calls, Error> {
        let mut calls = Calls { arch, by_number: BTreeMap::new(), newest: None };
        let mut newest = 0;
        for (index, rule) in profile.rules.iter().enumerate() {
            for name in rule.names {
                // Names that libseccomp has not heard of are ignored: profiles list calls that are
                // newer than it.
                let Some(number) = arch.resolve(name) else { continue };
                newest = newest.max(number);
                let clash = |Clash| Error::Clash {
                    at: format!(".linux.seccomp.syscalls[{index}]"),
                    name: name.clone(),
                };
                calls.add(rule, number).map_err(clash)?;
            }
        }
        // A profile that mentions no number above 0 says nothing about what it knows.
        calls.newest = u32::try_from(newest).ok().filter(|&newest| newest != 0 && profile.answer_newer);
        Ok(calls)
    }

    fn add(&mut self, rule: &Rule<'_>, number: i32) -> Result<(), Clash> {
        let Some(action) = rule.action else { return Ok(()) };
        for conds in &rule.alternatives {
            if let Ok(number) = u32::try_from(number) {
                self.insert(number, conds, action)?;
                continue;
            }
            // Negative: no number of its own, or one beside socketcall(2) or ipc(2).
            let Some(shared) = self.arch.multiplexed.and_then(|multiplexed| multiplexed.shared(number))
            else {
                continue;
            };
            // The call's own first argument is behind a pointer there, so a check of it is lost.
            let mut through_entry = vec![Cond::new(0, Op::Eq, shared.call.into())];
            through_entry.extend(conds.iter().filter(|cond| cond.arg != 0));
            self.insert(shared.entry, &through_entry, action)?;
            if let Some(direct) = shared.direct {
                self.insert(direct, conds, action)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, number: u32, conds: &[Cond], action: u32) -> Result<(), Clash> {
        self.by_number.entry(number).or_insert_with(Checks::none).add(conds, self.arch.wide, action)
    }
}

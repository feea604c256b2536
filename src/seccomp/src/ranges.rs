//! The whole space of system call numbers of one AUDIT_ARCH_* as ranges with one outcome each.

use crate::arch::X32_BIT;
use crate::args::{Checks, Node};
use crate::calls::Calls;
use crate::program::ret;

/// What a number gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A SECCOMP_RET_*.
    Return(u32),
    /// Argument checks: an index of [`Ranges::checks`].
    Checks(usize),
}

/// Numbers that get the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// First number.
    pub first: u32,
    /// Last number.
    pub last: u32,
    /// What they get.
    pub outcome: Outcome,
}

/// Ranges in order, without gaps, from 0 to 0xffffffff. Neighbours differ.
pub(crate) struct Ranges<'a> {
    /// The ranges.
    pub list: Vec<Range>,
    /// The checks that [`Outcome::Checks`] refers to, each but once.
    pub checks: Vec<(&'a Calls, &'a [Node])>,
    default: u32,
}

impl<'a> Ranges<'a> {
    /// Ranges for architectures that share an AUDIT_ARCH_*: one, or x86_64 and x32.
    pub(crate) fn new(calls: &[&'a Calls], default: u32) -> Ranges<'a> {
        let mut ranges = Ranges { list: Vec::new(), checks: Vec::new(), default };
        match calls {
            [only] if !only.arch.has_x32() => ranges.quarter(0, u32::MAX, Some(*only), Some(*only)),
            _ => ranges.x86_64(calls),
        }
        ranges
    }

    /// Bit 30 tells x32 calls from the others, and libseccomp looks at all bits from there on.
    /// -1, which a tracer sets to skip a call (seccomp(2)), is nobody's and gets no bad-architecture action.
    fn x86_64(&mut self, calls: &[&'a Calls]) {
        let plain = calls.iter().copied().find(|calls| calls.arch.wide);
        let x32 = calls.iter().copied().find(|calls| !calls.arch.wide);
        self.quarter(0, X32_BIT - 1, plain, plain);
        self.quarter(X32_BIT, 2 * X32_BIT - 1, x32, x32);
        self.quarter(2 * X32_BIT, 3 * X32_BIT - 1, plain, x32);
        self.quarter(3 * X32_BIT, u32::MAX - 1, x32, x32);
        self.quarter(u32::MAX, u32::MAX, x32, x32.or(plain));
    }

    /// Numbers above the newest that `knows` mentions are unknown; of the others, `rules` decides,
    /// and without it they are of an architecture that the profile does not have.
    fn quarter(&mut self, first: u32, last: u32, knows: Option<&'a Calls>, rules: Option<&'a Calls>) {
        let newest = knows.and_then(|calls| calls.newest).unwrap_or(u32::MAX);
        let mut next = first;
        if let Some(calls) = rules.filter(|_| first <= newest) {
            let end = last.min(newest);
            // s390's setup(2), number 0, is what calls the kernel does not know turn into.
            if first == 0 && calls.arch.zero_is_unknown && calls.newest.is_some() {
                self.push(0, 0, Outcome::Return(ret::ENOSYS));
                next = 1;
            }
            for (&number, checks) in calls.by_number.range(next..=end) {
                self.gap(next, number, Outcome::Return(self.default));
                let outcome = self.outcome(calls, checks);
                self.push(number, number, outcome);
                match number.checked_add(1) {
                    Some(after) => next = after,
                    None => return,
                }
            }
            if next <= end {
                self.push(next, end, Outcome::Return(self.default));
            }
        } else if first <= newest {
            self.push(first, last.min(newest), Outcome::Return(ret::KILL_THREAD));
        }
        if newest < last {
            self.push(first.max(newest + 1), last, Outcome::Return(ret::ENOSYS));
        }
    }

    fn gap(&mut self, first: u32, end: u32, outcome: Outcome) {
        if first < end {
            self.push(first, end - 1, outcome);
        }
    }

    fn push(&mut self, first: u32, last: u32, outcome: Outcome) {
        match self.list.last_mut() {
            Some(range) if range.outcome == outcome => range.last = last,
            _ => self.list.push(Range { first, last, outcome }),
        }
    }

    fn outcome(&mut self, calls: &'a Calls, checks: &'a Checks) -> Outcome {
        let level = match checks {
            Checks::Always(action) => return Outcome::Return(*action),
            Checks::Level(level) if level.is_empty() => return Outcome::Return(self.default),
            Checks::Level(level) => level,
        };
        let known =
            self.checks.iter().position(|(of, nodes)| of.arch.wide == calls.arch.wide && nodes == level);
        Outcome::Checks(known.unwrap_or_else(|| {
            self.checks.push((calls, level));
            self.checks.len() - 1
        }))
    }
}

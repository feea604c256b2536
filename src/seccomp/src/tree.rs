//! Ranges -> a balanced search tree.
//!
//! The tree is made of comparisons of the number with the first number of a range. A few single
//! numbers in a row of ranges that are otherwise alike are tested one by one instead, which
//! saves a comparison for each.

use crate::assemble::{Assembler, Target};
use crate::calls::Calls;
use crate::emit;
use crate::program::{SockFilter, op, ret};
use crate::ranges::{Outcome, Range, Ranges};

/// Single numbers tested one after the other at a leaf.
const SINGLES: usize = 3;

/// Offsets in seccomp_data.
const NR: u32 = 0;
const ARCH: u32 = 4;

/// The whole filter: the architectures in turn, and the tree of each.
pub(crate) fn filter(calls: &[Calls], default: u32) -> Vec<SockFilter> {
    let mut asm = Assembler::default();
    let mut groups: Vec<Vec<&Calls>> = Vec::new();
    for of_arch in calls {
        match groups.iter_mut().find(|group| group[0].arch.audit == of_arch.arch.audit) {
            Some(group) => group.push(of_arch),
            None => groups.push(vec![of_arch]),
        }
    }
    // Written backwards: the first architecture, the machine's own, is tested first.
    let mut start = Target::Return(ret::KILL_THREAD);
    for group in groups.iter().rev() {
        let ranges = Ranges::new(group, default);
        let mut tree =
            Tree { asm: &mut asm, placed: vec![None; ranges.checks.len()], ranges: &ranges, default };
        let root = tree.search(&ranges.list);
        let root = asm.before(op::LOAD, NR, root);
        start = asm.branch(op::EQ, group[0].arch.audit, root, start);
    }
    let start = asm.before(op::LOAD, ARCH, start);
    asm.finish(start)
}

struct Tree<'a, 'b> {
    asm: &'a mut Assembler,
    ranges: &'a Ranges<'b>,
    /// Where each of the checks has been written.
    placed: Vec<Option<Target>>,
    default: u32,
}

impl Tree<'_, '_> {
    fn search(&mut self, ranges: &[Range]) -> Target {
        if let Some(common) = singles_within(ranges) {
            let mut next = self.leaf(common);
            for single in ranges.iter().rev().filter(|range| range.outcome != common) {
                let found = self.leaf(single.outcome);
                next = self.asm.branch(op::EQ, single.first, found, next);
            }
            return next;
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let at_least = high[0].first;
        let high = self.search(high);
        let low = self.search(low);
        self.asm.branch(op::GE, at_least, high, low)
    }

    fn leaf(&mut self, outcome: Outcome) -> Target {
        let index = match outcome {
            Outcome::Return(action) => return Target::Return(action),
            Outcome::Checks(index) => index,
        };
        if let Some(target) = self.placed[index] {
            return target;
        }
        let (calls, nodes) = self.ranges.checks[index];
        let target = emit::level(self.asm, calls.arch, nodes, Target::Return(self.default));
        self.placed[index] = Some(target);
        target
    }
}

/// The outcome that all ranges have but for a few single numbers.
fn singles_within(ranges: &[Range]) -> Option<Outcome> {
    let candidates = ranges.iter().take(2).map(|range| range.outcome);
    candidates.into_iter().find(|common| {
        let mut others = ranges.iter().filter(|range| range.outcome != *common);
        others.clone().count() <= SINGLES.min(ranges.len() - 1)
            && others.all(|range| range.first == range.last)
    })
}

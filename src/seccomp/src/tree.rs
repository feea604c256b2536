//! Ranges -> a balanced search tree.
//!
//! The tree is made of comparisons of the number with the first number of a range. At its leaves
//! are ranges that are alike but for a few single numbers, and those are tested one by one, which
//! takes one comparison for each instead of two. Where the leaves begin and end is chosen for the
//! fewest comparisons in total.

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
        let root = tree.search(&leaves(&ranges.list));
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
    fn search(&mut self, leaves: &[Leaf<'_>]) -> Target {
        if let [leaf] = leaves {
            let mut next = self.outcome(leaf.common);
            for single in leaf.ranges.iter().rev().filter(|range| range.outcome != leaf.common) {
                let found = self.outcome(single.outcome);
                next = self.asm.branch(op::EQ, single.first, found, next);
            }
            return next;
        }
        let (low, high) = leaves.split_at(leaves.len() / 2);
        let at_least = high[0].ranges[0].first;
        let high = self.search(high);
        let low = self.search(low);
        self.asm.branch(op::GE, at_least, high, low)
    }

    fn outcome(&mut self, outcome: Outcome) -> Target {
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

/// Neighbouring ranges that have one outcome but for a few single numbers.
#[derive(Clone, Copy)]
struct Leaf<'a> {
    ranges: &'a [Range],
    common: Outcome,
    /// Comparisons it takes.
    singles: usize,
}

/// Cuts the ranges into leaves: the cheapest cut of the ranges from each one to the last is found
/// from the cuts of those behind it.
fn leaves(ranges: &[Range]) -> Vec<Leaf<'_>> {
    // By first range: comparisons, and the first leaf.
    let mut cuts: Vec<(usize, Option<Leaf<'_>>)> = vec![(0, None); ranges.len() + 1];
    for start in (0..ranges.len()).rev() {
        let longest = ranges.len().min(start + 2 * SINGLES + 1);
        let candidates = (start + 1..=longest).map_while(|end| Leaf::of(&ranges[start..end]));
        let cost = |leaf: &Leaf<'_>| 1 + leaf.singles + cuts[start + leaf.ranges.len()].0;
        let best = candidates.min_by_key(cost);
        cuts[start] = (best.as_ref().map_or(0, cost), best);
    }
    let mut leaves = Vec::new();
    let mut start = 0;
    while let Some(leaf) = cuts[start].1 {
        start += leaf.ranges.len();
        leaves.push(leaf);
    }
    leaves
}

impl<'a> Leaf<'a> {
    fn of(ranges: &'a [Range]) -> Option<Leaf<'a>> {
        ranges.iter().take(2).find_map(|candidate| {
            let common = candidate.outcome;
            let mut others = ranges.iter().filter(|range| range.outcome != common);
            let singles = others.clone().count();
            let fits = singles <= SINGLES && others.all(|range| range.first == range.last);
            fits.then_some(Leaf { ranges, common, singles })
        })
    }
}

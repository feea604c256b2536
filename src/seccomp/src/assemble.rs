//! Labels and jumps.
//!
//! Classic BPF jumps forwards only, at most 255 instructions on a comparison. A program is
//! therefore written from its end to its start: every target is already in place when a jump to
//! it is written, so its distance is known, and one out of reach gets a stepping stone right
//! there: another copy of a return, or a long jump.

use std::collections::HashMap;

use crate::program::{SockFilter, op};

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Return this SECCOMP_RET_*; written out when something jumps to it.
    Return(u32),
    /// An instruction, counted from the end of the program.
    At(usize),
}

/// Longest jump of a comparison.
const REACH: usize = 255;

/// A program under construction, last instruction first.
#[derive(Default)]
pub(crate) struct Assembler {
    reversed: Vec<SockFilter>,
    /// The copy of a return, or the long jump to an instruction, that was written last.
    nearest: HashMap<Target, usize>,
}

impl std::hash::Hash for Target {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Target::Return(value) => (0u8, u64::from(*value)).hash(state),
            Target::At(at) => (1u8, *at as u64).hash(state),
        }
    }
}

impl Assembler {
    /// Writes a comparison of the accumulator with `k`.
    pub(crate) fn branch(&mut self, code: u16, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        // The stepping stone of `no` may still come between, hence the one instruction to spare.
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        let (jt, jf) = (self.distance(yes), self.distance(no));
        // near() has brought both within 255.
        self.push(SockFilter { code, jt: jt as u8, jf: jf as u8, k })
    }

    /// Writes an instruction that sets the accumulator for `next`. Where `next` is no comparison
    /// just written nothing looks at the accumulator, and nothing is written.
    pub(crate) fn before(&mut self, code: u16, k: u32, next: Target) -> Target {
        if next == Target::At(self.reversed.len().wrapping_sub(1)) {
            self.push(SockFilter { code, jt: 0, jf: 0, k })
        } else {
            next
        }
    }

    /// The program in order of execution, starting at `start`, which was written last.
    pub(crate) fn finish(mut self, start: Target) -> Vec<SockFilter> {
        if start != Target::At(self.reversed.len().wrapping_sub(1)) {
            self.stone(start);
        }
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, instruction: SockFilter) -> Target {
        self.reversed.push(instruction);
        Target::At(self.reversed.len() - 1)
    }

    /// Instructions to skip from the next one written to `at`.
    fn distance(&self, at: usize) -> usize {
        self.reversed.len() - at - 1
    }

    /// An instruction that leads to `target` and is in reach of the next one written, or of the
    /// one `spare` further.
    fn near(&mut self, target: Target, spare: usize) -> usize {
        let exact = match target {
            Target::At(at) => Some(at),
            Target::Return(_) => None,
        };
        let stone = self.nearest.get(&target).copied();
        match [exact, stone].into_iter().flatten().find(|&at| self.distance(at) + spare <= REACH) {
            Some(at) => at,
            None => self.stone(target),
        }
    }

    fn stone(&mut self, target: Target) -> usize {
        let instruction = match target {
            Target::Return(value) => SockFilter { code: op::RETURN, jt: 0, jf: 0, k: value },
            // A program has at most 4096 instructions once it is done; see the crate's compile().
            Target::At(at) => SockFilter { code: op::JUMP, jt: 0, jf: 0, k: self.distance(at) as u32 },
        };
        self.push(instruction);
        self.nearest.insert(target, self.reversed.len() - 1);
        self.reversed.len() - 1
    }
}

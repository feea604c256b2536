//! Argument checks of one system call: a decision tree built from its rules.
//!
//! A level of the tree is a list of conditions tried in order. One that holds leads to its
//! action or to the next level; when that finds nothing the list goes on. The order is
//! libseccomp's (`db.c`), which matters only where two rules with different actions match the
//! same call: later arguments first, then equality before upper bounds before lower bounds, then
//! the narrower bound.

use std::cmp::Ordering;

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// Equal, under the mask.
    Eq,
    /// Not equal.
    Ne,
    /// Below.
    Lt,
    /// Below or equal.
    Le,
    /// Above or equal.
    Ge,
    /// Above.
    Gt,
}

/// One condition on one argument, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cond {
    /// Argument number, 0 to 5.
    pub arg: u32,
    /// Comparison.
    pub op: Op,
    /// Value compared with; no bit outside the mask.
    pub value: u64,
    /// Bits compared; all of the argument's but for SCMP_CMP_MASKED_EQ.
    pub mask: u64,
    /// SCMP_CMP_MASKED_EQ. libseccomp keeps it apart from SCMP_CMP_EQ whatever the mask.
    pub masked: bool,
}

impl Cond {
    pub(crate) fn new(arg: u32, op: Op, value: u64) -> Cond {
        Cond { arg, op, value, mask: u64::MAX, masked: false }
    }

    pub(crate) fn masked(arg: u32, mask: u64, value: u64) -> Cond {
        Cond { arg, op: Op::Eq, value: value & mask, mask, masked: true }
    }

    /// The condition on an architecture with 32-bit arguments: the high halves count for nothing.
    fn narrow(self) -> Cond {
        let low = u64::from(u32::MAX);
        Cond { value: self.value & low, mask: self.mask & low, ..self }
    }

    /// Whether it holds for every argument, as the comparison of no bits does.
    fn is_tautology(self) -> bool {
        self.mask == 0
    }

    /// `Less` stands before `Greater` on a level.
    fn order(&self, other: &Cond) -> Ordering {
        let class = |cond: &Cond| match cond.op {
            Op::Eq | Op::Ne => 0,
            Op::Lt | Op::Le => 1,
            Op::Ge | Op::Gt => 2,
        };
        let upper = class(self) == 1;
        let by_value = if upper { self.value.cmp(&other.value) } else { other.value.cmp(&self.value) };
        other.arg.cmp(&self.arg).then(class(self).cmp(&class(other))).then(by_value)
    }
}

/// Two rules match the same arguments and want different actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clash;

/// What a system call gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Checks {
    /// One SECCOMP_RET_*, whatever the arguments.
    Always(u32),
    /// The first level of a tree. What it does not match gets the default action.
    Level(Vec<Node>),
}

/// A condition and what follows when it holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// The condition.
    pub cond: Cond,
    /// What follows.
    pub then: Then,
}

/// What follows a condition that holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// A SECCOMP_RET_*.
    Return(u32),
    /// More conditions; where none holds the level above goes on.
    Level(Vec<Node>),
}

impl Checks {
    pub(crate) fn none() -> Checks {
        Checks::Level(Vec::new())
    }

    /// Adds a rule. The first unconditional rule of a call wins over every other rule for it,
    /// earlier or later.
    pub(crate) fn add(&mut self, conds: &[Cond], wide: bool, action: u32) -> Result<(), Clash> {
        let Checks::Level(level) = self else { return Ok(()) };
        let conds: Vec<Cond> = conds
            .iter()
            .map(|cond| if wide { *cond } else { cond.narrow() })
            .filter(|cond| !cond.is_tautology())
            .collect();
        match conds.split_first() {
            None => *self = Checks::Always(action),
            Some((first, rest)) => insert(level, *first, rest, action)?,
        }
        Ok(())
    }
}

fn insert(level: &mut Vec<Node>, first: Cond, rest: &[Cond], action: u32) -> Result<(), Clash> {
    let mut place = level.len();
    for (index, node) in level.iter_mut().enumerate() {
        if node.cond == first {
            return node.then.merge(rest, action);
        }
        if first.order(&node.cond) == Ordering::Less {
            place = index;
            break;
        }
    }
    level.insert(place, Node { cond: first, then: Then::chain(rest, action) });
    Ok(())
}

impl Then {
    fn chain(conds: &[Cond], action: u32) -> Then {
        match conds.split_first() {
            None => Then::Return(action),
            Some((first, rest)) => Then::Level(vec![Node { cond: *first, then: Then::chain(rest, action) }]),
        }
    }

    /// Adds the rest of a rule. A shorter rule swallows a longer one that comes later, and one that
    /// comes earlier if the action is the same.
    fn merge(&mut self, rest: &[Cond], action: u32) -> Result<(), Clash> {
        match (&mut *self, rest.split_first()) {
            (Then::Return(known), None) if *known != action => Err(Clash),
            (Then::Return(_), _) => Ok(()),
            (Then::Level(level), Some((first, rest))) => insert(level, *first, rest, action),
            (Then::Level(level), None) if level.iter().any(|node| !node.then.is_only(action)) => Err(Clash),
            (Then::Level(_), None) => {
                *self = Then::Return(action);
                Ok(())
            }
        }
    }

    fn is_only(&self, action: u32) -> bool {
        match self {
            Then::Return(known) => *known == action,
            Then::Level(level) => level.iter().all(|node| node.then.is_only(action)),
        }
    }
}

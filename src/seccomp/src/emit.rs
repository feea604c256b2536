//! Argument checks -> instructions.

use crate::arch::Arch;
use crate::args::{Cond, Node, Op, Then};
use crate::assemble::{Assembler, Target};
use crate::program::op;

/// Writes a level of checks. What it does not match goes on at `otherwise`.
pub(crate) fn level(asm: &mut Assembler, arch: &Arch, nodes: &[Node], otherwise: Target) -> Target {
    let mut next = otherwise;
    let mut rest = nodes;
    while let Some(last) = rest.last() {
        let run = equal_values(rest, arch.wide);
        if run > 1 {
            let (before, values) = rest.split_at(rest.len() - run);
            next = switch(asm, arch, values, next);
            rest = before;
        } else {
            let yes = match &last.then {
                Then::Return(action) => Target::Return(*action),
                Then::Level(nodes) => level(asm, arch, nodes, next),
            };
            next = cond(asm, arch, last.cond, yes, next);
            rest = &rest[..rest.len() - 1];
        }
    }
    next
}

/// How many nodes at the end of a level compare one argument with values that differ in the low
/// half only and lead straight to an action: the argument is then loaded once for all.
fn equal_values(nodes: &[Node], wide: bool) -> usize {
    let plain = |node: &&Node| {
        let cond = node.cond;
        cond.op == Op::Eq && !cond.masked && matches!(node.then, Then::Return(_))
    };
    let Some(last) = nodes.last() else { return 0 };
    let same = |node: &&Node| {
        node.cond.arg == last.cond.arg && (!wide || node.cond.value >> 32 == last.cond.value >> 32)
    };
    nodes.iter().rev().take_while(|node| plain(node) && same(node)).count()
}

fn switch(asm: &mut Assembler, arch: &Arch, values: &[Node], no: Target) -> Target {
    let mut next = no;
    for node in values.iter().rev() {
        if let Then::Return(action) = node.then {
            next = asm.branch(op::EQ, node.cond.value as u32, Target::Return(action), next);
        }
    }
    let cond = values[0].cond;
    let low = asm.before(op::LOAD, arch.low(cond.arg), next);
    if !arch.wide {
        return low;
    }
    let high = asm.branch(op::EQ, (cond.value >> 32) as u32, low, no);
    asm.before(op::LOAD, arch.high(cond.arg), high)
}

/// Writes one condition. The accumulator is free to use.
fn cond(asm: &mut Assembler, arch: &Arch, cond: Cond, yes: Target, no: Target) -> Target {
    match cond.op {
        Op::Eq => equal(asm, arch, cond, yes, no),
        Op::Ne => equal(asm, arch, cond, no, yes),
        Op::Gt => above(asm, arch, cond, op::GT, yes, no),
        Op::Ge => above(asm, arch, cond, op::GE, yes, no),
        Op::Le => above(asm, arch, cond, op::GT, no, yes),
        Op::Lt => above(asm, arch, cond, op::GE, no, yes),
    }
}

fn equal(asm: &mut Assembler, arch: &Arch, cond: Cond, yes: Target, no: Target) -> Target {
    let low = half_equal(asm, arch.low(cond.arg), cond.mask as u32, cond.value as u32, yes, no);
    if arch.wide {
        half_equal(asm, arch.high(cond.arg), (cond.mask >> 32) as u32, (cond.value >> 32) as u32, low, no)
    } else {
        low
    }
}

fn half_equal(asm: &mut Assembler, offset: u32, mask: u32, value: u32, yes: Target, no: Target) -> Target {
    if mask == 0 {
        return yes;
    }
    let mut start = asm.branch(op::EQ, value, yes, no);
    if mask != u32::MAX {
        start = asm.before(op::AND, mask, start);
    }
    asm.before(op::LOAD, offset, start)
}

/// The high halves decide unless they are equal.
fn above(asm: &mut Assembler, arch: &Arch, cond: Cond, code: u16, yes: Target, no: Target) -> Target {
    let low = asm.branch(code, cond.value as u32, yes, no);
    let low = asm.before(op::LOAD, arch.low(cond.arg), low);
    if !arch.wide {
        return low;
    }
    let high = (cond.value >> 32) as u32;
    let same = asm.branch(op::EQ, high, low, no);
    let start = asm.branch(op::GT, high, yes, same);
    asm.before(op::LOAD, arch.high(cond.arg), start)
}

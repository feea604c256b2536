//! A machine for classic BPF on seccomp_data, after seccomp_check_filter() and bpf(4).

use crate::program::{SockFilter, op};

/// One system call as a filter sees it.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub nr: u32,
    pub audit: u32,
    pub big_endian: bool,
    pub args: [u64; 6],
}

impl Call {
    /// `struct seccomp_data`; the instruction pointer is one that no filter expects.
    fn data(&self) -> [u8; 64] {
        let mut data = [0u8; 64];
        let word = |value: u32| if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let long = |value: u64| if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        data[0..4].copy_from_slice(&word(self.nr));
        data[4..8].copy_from_slice(&word(self.audit));
        data[8..16].copy_from_slice(&long(0x5aa5_5aa5_a55a_a55a));
        for (index, arg) in self.args.into_iter().enumerate() {
            data[16 + 8 * index..][..8].copy_from_slice(&long(arg));
        }
        data
    }
}

/// Runs a filter; panics on what the kernel would refuse to load.
pub fn run(filter: &[SockFilter], call: &Call) -> u32 {
    let data = call.data();
    let (mut at, mut acc) = (0, 0u32);
    loop {
        let SockFilter { code, jt, jf, k } = filter[at];
        at += 1;
        let skip = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            op::LOAD => {
                let word: [u8; 4] = data[k as usize..][..4].try_into().unwrap();
                acc = if call.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
            }
            op::AND => acc &= k,
            op::JUMP => at += k as usize,
            op::EQ => at += skip(acc == k),
            op::GT => at += skip(acc > k),
            op::GE => at += skip(acc >= k),
            op::RETURN => return k,
            _ => panic!("operation {code:#x} at {}", at - 1),
        }
    }
}

/// What the kernel checks at load, and that no instruction is dead.
pub fn verify(filter: &[SockFilter]) {
    assert!((1..=4096).contains(&filter.len()));
    let mut reached = vec![false; filter.len() + 1];
    reached[0] = true;
    for (at, instruction) in filter.iter().enumerate() {
        assert!(reached[at], "instruction {at} of {} is dead", filter.len());
        let mut reach = |skip: usize| reached[at + 1 + skip] = true;
        match instruction.code {
            op::RETURN => {}
            op::JUMP => reach(instruction.k as usize),
            op::EQ | op::GT | op::GE => {
                reach(instruction.jt.into());
                reach(instruction.jf.into());
            }
            op::LOAD => {
                assert!(instruction.k % 4 == 0 && instruction.k < 64);
                reach(0);
            }
            _ => reach(0),
        }
    }
    assert!(!reached[filter.len()], "a path runs off the end");
}

//! The system calls to try a filter with.

use std::collections::BTreeSet;

use creel_plan::spec::Seccomp;

use super::machine::Call;
use crate::arch::Arch;

/// Numbers that are the same for every profile: all small ones of each numbering, and the borders of x32.
fn numbers() -> Vec<u32> {
    let bases = [0, 1 << 30, 4000, 5000, 6000];
    let borders = [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, 0xffff_fffe, 0xffff_ffff];
    bases.into_iter().flat_map(|base| base..base + 1024).chain(borders).collect()
}

/// Numbers that argument checks may decide on.
fn checked(profile: &Seccomp, arch: &Arch) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::from([102, 117, 4102, 4117]);
    for name in profile.syscalls.iter().filter(|rule| !rule.args.is_empty()).flat_map(|rule| &rule.names) {
        match arch.resolve(name).map(u32::try_from) {
            Some(Ok(number)) => numbers.extend([number]),
            Some(Err(_)) => numbers.extend((326..374).chain(392..403)),
            None => {}
        }
    }
    numbers
}

/// Values around every constant of the profile, in each half.
fn values(profile: &Seccomp) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, u64::MAX, 1 << 32, u64::from(u32::MAX)]);
    // What socketcall(2) and ipc(2) are told to do.
    values.extend(1..25);
    for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
        for value in [arg.value, arg.value_two, arg.value & arg.value_two, !arg.value | arg.value_two] {
            let (high, low) = (value >> 32 << 32, value & 0xffff_ffff);
            values.extend([value, value.wrapping_add(1), value.wrapping_sub(1), high, low, !value]);
            values.extend([value.wrapping_add(1 << 32), value.wrapping_sub(1 << 32), value.rotate_left(32)]);
            values.extend([high | low.wrapping_add(1) & 0xffff_ffff, high | 0xffff_ffff]);
        }
    }
    values.into_iter().collect()
}

/// xorshift64*, for argument values without a pattern.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Calls `visit` for the calls of one architecture: every number a few times, numbers with argument
/// checks `rounds` times and once for each value in each argument alone.
pub fn each(profile: &Seccomp, arch: &Arch, rounds: u32, mut visit: impl FnMut(&Call)) {
    let values = values(profile);
    let checked = checked(profile, arch);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let numbers: BTreeSet<u32> = numbers().into_iter().chain(checked.iter().copied()).collect();
    for nr in numbers {
        let mut call = Call { nr, audit: arch.audit, big_endian: arch.big_endian, args: [0; 6] };
        visit(&call);
        let rounds = if checked.contains(&nr) { rounds } else { 2 };
        for _ in 0..rounds {
            call.args = std::array::from_fn(|_| match noise.next() % 8 {
                0 => noise.next(),
                _ => values[noise.next() as usize % values.len()],
            });
            visit(&call);
        }
        if rounds > 2 {
            for (arg, &value) in (0..6).flat_map(|arg| values.iter().map(move |value| (arg, value))) {
                call.args = [0; 6];
                call.args[arg] = value;
                visit(&call);
            }
        }
    }
}

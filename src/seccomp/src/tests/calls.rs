//! The system calls to try a filter with.

use std::collections::BTreeSet;

use creel_plan::spec::Seccomp;

use super::machine::Call;
use crate::arch::Arch;

/// How many numbers are tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// The first 1024 of the architecture's numbering, of x32's, and the borders.
    All,
    /// Those that the profile names, their neighbours, and the borders.
    Near,
}

fn numbers(profile: &Seccomp, arch: &Arch, which: Numbers) -> BTreeSet<u32> {
    const BORDERS: [u32; 8] =
        [0x3fff_ffff, 1 << 30, 0x7fff_ffff, 1 << 31, 0xbfff_ffff, 0xc000_0000, 0xffff_fffe, 0xffff_ffff];
    let base = match arch.name {
        "SCMP_ARCH_MIPS" | "SCMP_ARCH_MIPSEL" => 4000,
        "SCMP_ARCH_MIPS64" | "SCMP_ARCH_MIPSEL64" => 5000,
        "SCMP_ARCH_MIPS64N32" | "SCMP_ARCH_MIPSEL64N32" => 6000,
        "SCMP_ARCH_X32" => 1 << 30,
        _ => 0,
    };
    let mut numbers = BTreeSet::from(BORDERS);
    if which == Numbers::All {
        numbers.extend((0..1024).chain(base..base + 1024).chain((1 << 30)..(1 << 30) + 1024));
    } else {
        let named =
            profile.syscalls.iter().flat_map(|rule| &rule.names).filter_map(|name| arch.resolve(name));
        for number in named.filter_map(|number| u32::try_from(number).ok()).chain([base, 102, 117]) {
            numbers.extend([number.saturating_sub(1), number, number + 1, number ^ 1 << 30]);
        }
        numbers.extend((326..374).chain(392..403).map(|number| number + base));
    }
    numbers
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
/// checks `rounds` times and once for each value, up to 200, in each argument alone.
pub fn each(profile: &Seccomp, arch: &Arch, which: Numbers, rounds: u32, mut visit: impl FnMut(&Call)) {
    let values = values(profile);
    let checked = checked(profile, arch);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let numbers: BTreeSet<u32> = &numbers(profile, arch, which) | &checked;
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
            let alone = values.iter().step_by(values.len() / 200 + 1);
            for (arg, &value) in (0..6).flat_map(|arg| alone.clone().map(move |value| (arg, value))) {
                call.args = [0; 6];
                call.args[arg] = value;
                visit(&call);
            }
        }
    }
}

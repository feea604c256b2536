//! One profile through creel, libseccomp and the model.

use creel_plan::spec::Seccomp;

use super::calls::{self, Numbers};
use super::machine::{run, verify};
use super::model::Model;
use super::oracle::Oracle;
use crate::arch::Arch;
use crate::{Error, compile_on};

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Tally {
    /// Calls tried.
    pub tried: usize,
    /// Of these, calls that the rules alone decide.
    pub modelled: usize,
    /// The first call for which libseccomp's filter does something else.
    pub difference: Option<String>,
    /// libseccomp refuses the profile.
    pub refused: bool,
}

pub fn arch(name: &str) -> &'static Arch {
    Arch::by_name(&format!("SCMP_ARCH_{name}")).unwrap()
}

/// Compiles for `native` and tries the filter on every architecture of the profile and on one that it
/// has not. Panics where the filter departs from the rules, the rule on newer calls included.
pub fn compare(
    profile: &Seccomp,
    native: &'static Arch,
    which: Numbers,
    rounds: u32,
) -> Result<Tally, Error> {
    let filter = compile_on(profile, native)?.filter;
    verify(&filter);
    let oracle = Oracle::new(profile, native);
    let mut archs: Vec<_> = profile.architectures.iter().map(|name| Arch::by_name(name).unwrap()).collect();
    if archs.iter().all(|arch| arch.name != native.name) {
        archs.push(native);
    }
    archs.push(arch(if native.big_endian { "MIPS64N32" } else { "LOONGARCH64" }));
    let (known, foreign) = archs.split_at(archs.len() - 1);
    let newer = Oracle::newer(profile, native);
    let mut tally = Tally { refused: oracle.is_none(), ..Tally::default() };
    for arch in known.iter().chain(foreign) {
        let model = known.iter().any(|known| known.name == arch.name).then(|| Model::new(profile, arch));
        calls::each(profile, arch, which, rounds, |call| {
            tally.tried += 1;
            let got = run(&filter, call);
            if let Some(meant) = model.as_ref().and_then(|model| model.outcome(call)) {
                let meant = newer.answer(call).unwrap_or(meant);
                assert_eq!(
                    got, meant,
                    "{}: {got:#x}, meant is {meant:#x}: {call:x?}\n{profile:?}",
                    arch.name
                );
                tally.modelled += 1;
            }
            let Some(oracle) = oracle.as_ref() else { return };
            let expected = newer.answer(call).unwrap_or_else(|| oracle.run(call));
            if got != expected && tally.difference.is_none() {
                tally.difference = Some(format!("{}: {got:#x}, not {expected:#x}: {call:x?}", arch.name));
            }
        });
    }
    Ok(tally)
}

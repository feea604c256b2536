//! Profiles of engines, and one for each word of the specification.

use creel_plan::spec::Seccomp;
use serde_json::{Value, from_value, json};

use super::calls;
use super::machine::{run, verify};
use super::oracle::Oracle;
use crate::arch::Arch;
use crate::compile_on;

pub fn arch(name: &str) -> &'static Arch {
    Arch::by_name(&format!("SCMP_ARCH_{name}")).unwrap()
}

/// Compiles for `native` and compares with the oracle on every architecture of the profile and on one
/// that it has not. Returns the number of calls tried.
pub fn compare(profile: &Seccomp, native: &'static Arch, rounds: u32) -> Result<usize, String> {
    let filter = compile_on(profile, native).map_err(|error| error.to_string())?.filter;
    verify(&filter);
    let oracle = Oracle::new(profile, native).ok_or("libseccomp refuses the profile")?;
    let named = profile.architectures.iter().map(|name| Arch::by_name(name).unwrap());
    let foreign = arch(if native.big_endian { "MIPS64N32" } else { "MIPSEL64N32" });
    let mut tried = 0;
    let mut first_difference = None;
    for arch in named.chain([native, foreign]) {
        calls::each(profile, arch, rounds, |call| {
            tried += 1;
            let (got, expected) = (run(&filter, call), oracle.run(call));
            if got != expected && first_difference.is_none() {
                first_difference =
                    Some(format!("{}: {got:#x} instead of {expected:#x} for {call:x?}", arch.name));
            }
        });
    }
    first_difference.map_or(Ok(tried), Err)
}

pub fn profile(value: Value) -> Seccomp {
    from_value(value).unwrap()
}

fn check(value: Value, native: &str) {
    let tried =
        compare(&profile(value.clone()), arch(native), 300).unwrap_or_else(|why| panic!("{why}\n{value}"));
    assert!(tried > 10_000);
}

fn engine(name: &str) -> Value {
    let text = match name {
        "k8s" => include_str!("../../tests/data/k8s.json"),
        _ => include_str!("../../tests/data/podman.json"),
    };
    serde_json::from_str(text).unwrap()
}

#[test]
fn profiles_of_engines() {
    for name in ["k8s", "podman"] {
        check(engine(name), "X86_64");
    }
}

//! One program for all targets: libFuzzer's own main, with the target's name in `CREEL_FUZZ`.
#![no_main]
#![allow(unsafe_code, reason = "libFuzzer calls a function of a fixed C name")]

use std::sync::OnceLock;

use creel_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

fn target() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("CREEL_FUZZ").unwrap_or_default();
        let found = TARGETS.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("CREEL_FUZZ={name:?} is none of the targets"))
    })
}

fuzz_target!(|data: &[u8]| (target().run)(data));

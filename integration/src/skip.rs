//! Tests that cannot run here say so, once each, where `make test` counts them.

use std::io::Write;

/// Prints `skip: <test>: <reason>` and returns from the test.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        fn here() {}
        $crate::skip::report(std::any::type_name_of_val(&here), &format!($($reason)+));
        return;
    }};
}

/// Skips the test under a runc that is older than 1.`$minor`.
#[macro_export]
macro_rules! needs_runc {
    ($minor:literal, $feature:literal) => {
        if !$crate::Runtime::under_test().has_runc($minor) {
            $crate::skip!("{} came with runc 1.{}", $feature, $minor);
        }
    };
}

/// Skips the test where systemd makes the cgroups (`CREEL_TEST_CGROUP`).
#[macro_export]
macro_rules! needs_cgroupfs {
    () => {
        if $crate::Owner::under_test() == $crate::Owner::Systemd {
            $crate::skip!("cgroups are systemd's here");
        }
    };
}

/// Skips the test where an ordinary user runs the tests.
#[macro_export]
macro_rules! needs_root {
    ($why:literal) => {
        if !$crate::ids::are_roots() {
            $crate::skip!("root {}", $why);
        }
    };
}

/// Prints one skip. Lines go to the file descriptor, because libtest hides what the print macros of
/// passing tests write.
///
/// # Panics
/// When stderr is closed.
pub fn report(here: &str, reason: &str) {
    let test = here.trim_end_matches("::here");
    say(&format!("skip: {test}: {reason}"));
}

/// Prints a line that a passing test has to say.
///
/// # Panics
/// When stderr is closed.
pub fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Version and patch level of the machine's Linux.
///
/// # Panics
/// When it does not say.
pub fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

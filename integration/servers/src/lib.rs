//! Servers that tests of registries talk to, all on loopback: a real `docker-registry`, a token server for
//! it, certificates, and a small HTTP server whose answers a test chooses, which is also the proxy that
//! makes a real registry misbehave.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(missing_docs, reason = "the names say it, and tests are its only readers")]

pub mod certs;
pub mod registry;
pub mod server;
pub mod token;

use std::time::Duration;

/// How long anything on loopback may take before it counts as hung.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Tells why a case does not run. Past the capture of standard error by the test runner, so that it is
/// seen and counted although the case passes.
pub fn skip(test: &str, reason: &str) {
    let line = format!("skip: {test}: {reason}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}

/// Bytes that differ from place to place, so that a piece at the wrong place shows.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

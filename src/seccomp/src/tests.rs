//! Proof: creel's filter and runc's, run side by side.
#![allow(clippy::unwrap_used, reason = "a failure is the test's failure")]

mod calls;
mod compare;
mod machine;
mod model;
mod oracle;
mod profiles;
mod random;
mod refused;

//! Proof: creel's filter and runc's, run side by side.
#![allow(clippy::unwrap_used, reason = "a failure is the test's failure")]

mod calls;
mod machine;
mod oracle;
mod profiles;

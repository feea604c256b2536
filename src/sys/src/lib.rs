//! creel-sys
pub mod bpf;

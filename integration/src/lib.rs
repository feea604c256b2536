//! End-to-end tests of creel.

pub mod engine;

//! creel-plan
pub mod spec;

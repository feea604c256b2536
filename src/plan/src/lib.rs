//! creel-plan
pub mod check;
pub mod invalid;
pub mod names;
pub mod options;
pub mod parse;
pub mod spec;

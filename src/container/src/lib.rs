//! creel-container
mod api;
pub use api::*;

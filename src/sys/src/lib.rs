//! creel-sys

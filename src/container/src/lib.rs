//! creel-container

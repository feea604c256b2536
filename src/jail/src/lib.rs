//! creel-jail

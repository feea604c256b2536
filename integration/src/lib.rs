//! End-to-end tests of creel.

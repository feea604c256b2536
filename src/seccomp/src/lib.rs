//! creel-seccomp

//! creel-cgroup

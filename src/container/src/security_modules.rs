//! Which of the kernel's security modules there are. Nothing is opened for a config without labels.

use creel_plan::facts::{AppArmor, SecurityModules};
use creel_plan::spec::Process;

/// Those that `process` and `.linux.mountLabel` ask for.
pub fn of(process: Option<&Process>, mount_label: &str) -> SecurityModules {
    let label = process.is_some_and(|process| !process.selinux_label.is_empty());
    let profile = process.is_some_and(|process| !process.apparmor_profile.is_empty());
    SecurityModules {
        selinux: (label || !mount_label.is_empty()) && has_selinux(),
        apparmor: if profile { apparmor() } else { AppArmor::Off },
    }
}

/// Its file system is mounted and a policy loaded: until then every process is `kernel`. Read-only, as in a
/// container, it means that SELinux is not for those in there (libselinux's is_selinux_enabled(3)).
fn has_selinux() -> bool {
    const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
    const ST_RDONLY: i64 = 1;
    let mounted = |fs: rustix::fs::StatFs| fs.f_type == SELINUX_MAGIC && fs.f_flags & ST_RDONLY == 0;
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(mounted)
        && attribute("attr/current").is_some_and(|label| label != "kernel")
}

/// A module that is off answers EINVAL. What cannot be read otherwise is a profile.
fn apparmor() -> AppArmor {
    match attribute("attr/apparmor/current").as_deref() {
        None => AppArmor::Off,
        Some("unconfined") => AppArmor::Unconfined,
        Some(_) => AppArmor::Confined,
    }
}

fn attribute(name: &str) -> Option<String> {
    let text = crate::store::read_proc(&format!("/proc/self/{name}")).ok()?;
    Some(text.trim_end_matches(['\n', '\0']).to_owned())
}

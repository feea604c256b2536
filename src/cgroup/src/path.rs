//! Where the container's cgroup lies in each hierarchy.
//!
//! Pure. A path is cleaned as text before it meets a mount point, so `..` cannot leave the
//! hierarchy; cgroup file systems hold no symbolic links.

use crate::error::Error;
use crate::host::{Host, Mount, OwnCgroups};
use crate::systemd::{Systemd, Unit};

/// The configured cgroup, not yet bound to a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPath {
    /// Clean, without a leading slash; never empty unless the path was `/`.
    inner: String,
    /// Below the root of each hierarchy, else below this process's own cgroups.
    absolute: bool,
    /// From the configuration, not made up from the container id.
    explicit: bool,
    /// The unit whose cgroup this is.
    scope: Option<Scope>,
}

/// A scope, and who is asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Whose systemd.
    pub systemd: Systemd,
    /// The scope.
    pub unit: Unit,
    /// Cgroup below the scope's that holds the container (`run.oci.systemd.subgroup`); may be empty.
    pub below: String,
}

/// The container's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// v1 controllers; empty for the unified hierarchy.
    pub controllers: Vec<String>,
    /// Mount point.
    pub mount: String,
    /// Path below the mount point, without a leading slash.
    pub inner: String,
}

impl CgroupPath {
    /// Reads `.linux.cgroupsPath`; an empty one means `id`, relative.
    pub fn parse(cgroups_path: &str, id: &str) -> CgroupPath {
        let explicit = !cgroups_path.is_empty();
        let text = if explicit { cgroups_path } else { id };
        CgroupPath { inner: clean(text), absolute: text.starts_with('/'), explicit, scope: None }
    }

    /// Reads `.linux.cgroupsPath` as `slice:prefix:name`. A user's systemd is asked where its slices
    /// are. `below` is the name of a cgroup in the scope's that is to hold the container, or empty.
    pub fn parse_scope(
        cgroups_path: &str,
        id: &str,
        below: &str,
        systemd: Systemd,
    ) -> Result<CgroupPath, Error> {
        let unit = Unit::parse(cgroups_path, id)?;
        let below = clean(below);
        let inner = join(&systemd.place(&unit)?, &below);
        Ok(CgroupPath { inner, absolute: true, explicit: true, scope: Some(Scope { systemd, unit, below }) })
    }

    /// The scope, when systemd makes the cgroup.
    pub(crate) fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref()
    }

    /// Whether [`CgroupPath::layouts`] needs the cgroups of this process.
    pub fn is_relative(&self) -> bool {
        !self.absolute
    }

    /// Whether the configuration named the path. A rootless container may go without a cgroup
    /// only when it did not.
    pub fn is_explicit(&self) -> bool {
        self.explicit
    }

    /// The directory in every hierarchy: v1 first, the unified one last.
    ///
    /// Relative paths follow runc: on v1 below the own cgroup of each controller, on v2 below the
    /// parent of the own cgroup (which holds this process, so it cannot delegate controllers), in
    /// the v2 tree of a hybrid host below its root.
    pub fn layouts(&self, host: &Host, own: &OwnCgroups) -> Vec<Layout> {
        let v1 = host.v1.iter().filter_map(|mount| {
            let base = if self.absolute {
                String::new()
            } else {
                below_root(mount, mount.controllers.iter().find_map(|c| own.v1(c))?)
            };
            Some(self.layout(mount, &base))
        });
        let v2 = host.v2.iter().map(|mount| {
            let base = if self.absolute || !host.v1.is_empty() {
                String::new()
            } else {
                let own = below_root(mount, own.v2().unwrap_or("/"));
                own.rsplit_once('/').map(|(parent, _)| parent.to_owned()).unwrap_or_default()
            };
            self.layout(mount, &base)
        });
        v1.chain(v2).collect()
    }

    fn layout(&self, mount: &Mount, base: &str) -> Layout {
        Layout {
            controllers: mount.controllers.clone(),
            mount: mount.point.clone(),
            inner: join(base, &self.inner),
        }
    }
}

impl Host {
    /// The directories that this process is in, one for each hierarchy.
    pub fn own_layouts(&self) -> Result<Vec<Layout>, Error> {
        let own = OwnCgroups::read()?;
        if self.v1.iter().chain(&self.v2).all(|mount| mount.root.is_some()) {
            return Ok(own_layouts(self, &own));
        }
        Ok(own_layouts(&Host::from_own_mountinfo()?, &own))
    }
}

fn own_layouts(host: &Host, own: &OwnCgroups) -> Vec<Layout> {
    let v1 = host.v1.iter().filter_map(|mount| {
        Some((mount, mount.controllers.iter().find_map(|controller| own.v1(controller))?))
    });
    let v2 = host.v2.iter().filter_map(|mount| Some((mount, own.v2()?)));
    v1.chain(v2)
        .map(|(mount, own)| Layout {
            controllers: mount.controllers.clone(),
            mount: mount.point.clone(),
            inner: below_root(mount, own),
        })
        .collect()
}

/// `own` as seen below the mount point. /proc/self/cgroup is relative to the cgroup namespace,
/// the mount may show a part of the hierarchy only (docker in docker).
fn below_root(mount: &Mount, own: &str) -> String {
    let root = clean(mount.root.as_deref().unwrap_or_default());
    let own = clean(own);
    match own.strip_prefix(&root) {
        _ if root.is_empty() => own,
        Some("") => String::new(),
        Some(rest) => rest.strip_prefix('/').map(str::to_owned).unwrap_or_default(),
        None => String::new(),
    }
}

/// Joins two clean paths.
pub(crate) fn join(base: &str, rest: &str) -> String {
    match (base, rest) {
        ("", rest) => rest.to_owned(),
        (base, "") => base.to_owned(),
        (base, rest) => format!("{base}/{rest}"),
    }
}

/// Drops empty and `.` components and resolves `..` at the text level, never above the start.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;
    use crate::systemd::Instance;

    fn mount(controllers: &[&str], point: &str, root: &str) -> Mount {
        Mount {
            controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
            point: point.to_owned(),
            root: Some(root.to_owned()),
        }
    }

    fn hybrid() -> Host {
        Host::from_mountinfo(
            "1 2 0:3 / /cg/cpu rw - cgroup c rw,cpu,cpuacct\n\
             1 2 0:4 /docker/x /cg/memory rw - cgroup c rw,memory\n\
             1 2 0:5 / /cg/unified rw - cgroup2 c rw\n",
        )
        .unwrap()
    }

    fn dirs(path: &str, host: &Host) -> Vec<String> {
        let own = OwnCgroups::from_text("2:cpu,cpuacct:/user/me\n3:memory:/docker/x/y\n0::/a/b\n");
        let path = CgroupPath::parse(path, "web");
        path.layouts(host, &own).iter().map(|l| format!("{}/{}", l.mount, l.inner)).collect()
    }

    #[test]
    fn absolute_path_is_below_each_mount_point() {
        assert_eq!(
            dirs("/kube/pod", &hybrid()),
            ["/cg/cpu/kube/pod", "/cg/memory/kube/pod", "/cg/unified/kube/pod"]
        );
    }

    #[test]
    fn relative_path_is_below_the_own_cgroup_of_each_controller() {
        assert_eq!(
            dirs("pod/c", &hybrid()),
            ["/cg/cpu/user/me/pod/c", "/cg/memory/y/pod/c", "/cg/unified/pod/c"]
        );
    }

    #[test]
    fn own_directory_is_found_in_each_hierarchy() {
        let own = OwnCgroups::from_text("2:cpu,cpuacct:/user/me\n3:memory:/docker/x/y\n0::/a/b\n");
        let found: Vec<String> =
            own_layouts(&hybrid(), &own).iter().map(|l| format!("{}/{}", l.mount, l.inner)).collect();
        assert_eq!(found, ["/cg/cpu/user/me", "/cg/memory/y", "/cg/unified/a/b"]);
    }

    #[test]
    fn empty_path_is_the_container_id() {
        assert_eq!(dirs("", &hybrid()), ["/cg/cpu/user/me/web", "/cg/memory/y/web", "/cg/unified/web"]);
        assert!(!CgroupPath::parse("", "web").is_explicit());
    }

    #[test]
    fn relative_path_on_v2_is_beside_the_own_cgroup() {
        let host = Host::from_mountinfo("1 2 0:5 / /cg rw - cgroup2 c rw\n").unwrap();
        assert_eq!(dirs("", &host), ["/cg/a/web"]);
        assert_eq!(dirs("/x", &host), ["/cg/x"]);
    }

    #[test]
    fn dot_dot_cannot_escape() {
        assert_eq!(dirs("/../../etc/../x", &hybrid())[0], "/cg/cpu/x");
        assert_eq!(dirs("../../../x", &hybrid())[0], "/cg/cpu/user/me/x");
    }

    #[test]
    fn own_cgroup_outside_the_mounted_part_falls_back_to_its_top() {
        assert_eq!(below_root(&mount(&["pids"], "/cg/pids", "/docker/x"), "/docker/xy"), "");
        assert_eq!(below_root(&mount(&["pids"], "/cg/pids", "/docker/x"), "/other"), "");
        assert_eq!(below_root(&mount(&["pids"], "/cg/pids", "/.."), "/me"), "me");
    }

    #[test]
    fn a_scope_lies_in_its_slice() {
        let inner = |path: &str, below: &str| {
            let systemd = Systemd::of(Instance::System);
            CgroupPath::parse_scope(path, "web", below, systemd).map(|path| path.inner)
        };
        assert_eq!(inner("", "").unwrap(), "system.slice/creel-web.scope");
        assert_eq!(inner("a-b.slice:x:y", "").unwrap(), "a.slice/a-b.slice/x-y.scope");
        assert_eq!(inner("-.slice:x:y", "/in/../inner").unwrap(), "x-y.scope/inner");
        assert!(inner("/a", "").is_err());
    }
}

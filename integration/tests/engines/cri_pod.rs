//! A containerd with its CRI plugin, and pods and containers made as a kubelet makes them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use creel_integration::engine::harness::{Engine, Ground};
use creel_integration::engine::image::BUSYBOX;
use creel_integration::engine::sandbox::Sandbox;

use crate::containerd::Containerd;
use crate::cri_api::*;
use crate::cri_client::Client;

pub const DEADLINE: Duration = Duration::from_secs(20);
const BRIDGE: &str = "creel0";

/// containerd, and a connection to its CRI plugin.
pub struct Cri {
    /// Where it runs, and the recorder.
    pub containerd: Containerd,
    /// The connection.
    pub client: Client,
}

/// A pod sandbox that is ready.
pub struct Pod<'a> {
    cri: &'a Cri,
    id: String,
    config: PodSandboxConfig,
}

impl Cri {
    /// The CNI configuration is there before containerd, which otherwise reports its network as not ready.
    pub fn start(ground: &Ground) -> Result<Self> {
        let sandbox = Sandbox::start("cri")?;
        let network = sandbox.inside("cni");
        fs::create_dir(sandbox.outside(&network))?;
        let text = serde_json::json!({
            "cniVersion": "0.4.0",
            "name": "creel",
            "plugins": [{
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/engine/addresses",
                    "ranges": [[{ "subnet": "10.99.0.0/24" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            }],
        });
        fs::write(sandbox.outside(&network.join("10-creel.conflist")), text.to_string())?;
        let containerd = Containerd::start(ground, sandbox, "k8s.io")?;
        let client = Client::connect(containerd.sandbox.outside(&containerd.socket()))?;
        let up = Self { containerd, client };
        up.sandbox().until("runtime and network ready", DEADLINE, || {
            let status: StatusResponse = up.client.call("Status", Empty {})?;
            let conditions = status.status.unwrap_or_default().conditions;
            Ok(!conditions.is_empty() && conditions.iter().all(|condition| condition.status))
        })?;
        Ok(up)
    }

    /// What a kubelet gives as the parent of a pod's cgroups: a path, or a slice.
    fn parent(&self) -> String {
        let top = self.sandbox().cgroup();
        match top.strip_suffix(".slice") {
            Some(slice) => format!("{slice}-burstable.slice"),
            None => format!("/{top}/{PARENT}"),
        }
    }

    /// Where the cgroup of a container lies.
    pub fn cgroup_of(&self, id: &str) -> String {
        if self.sandbox().has_systemd() {
            return format!("/{}/{}/cri-containerd-{id}.scope", self.sandbox().cgroup(), self.parent());
        }
        format!("{}/{id}", self.parent())
    }

    pub fn pod_with(
        &self,
        handler: &str,
        name: &str,
        edit: impl FnOnce(&mut LinuxPodSandboxConfig),
    ) -> Result<Pod<'_>> {
        let mut linux = LinuxPodSandboxConfig {
            cgroup_parent: self.parent(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(
                    NamespaceMode::Pod,
                    NamespaceMode::Container,
                    NamespaceMode::Pod,
                )),
                seccomp: Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into() }),
            }),
            sysctls: HashMap::new(),
        };
        edit(&mut linux);
        // A kubelet gives no host name to a pod that has the host's network.
        let options = linux.security_context.as_ref().and_then(|context| context.namespace_options.as_ref());
        let on_host = options.is_some_and(|options| options.network() == NamespaceMode::Node);
        let hostname = if on_host { String::new() } else { name.to_owned() };
        let logs = self.sandbox().inside("logs").join(name);
        fs::create_dir_all(self.sandbox().outside(&logs))?;
        let config = PodSandboxConfig {
            metadata: Some(Metadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "test".to_owned(),
            }),
            hostname,
            log_directory: logs.display().to_string(),
            linux: Some(linux),
        };
        let request =
            RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        let answer: PodSandboxId = self.client.call("RunPodSandbox", request)?;
        Ok(Pod { cri: self, id: answer.pod_sandbox_id, config })
    }

    /// A pod whose namespaces are its own.
    pub fn pod(&self, name: &str) -> Result<Pod<'_>> {
        self.pod_with("tested", name, |_| {})
    }

    /// A pod whose namespaces are as given.
    pub fn pod_in(&self, name: &str, options: NamespaceOption) -> Result<Pod<'_>> {
        self.pod_with("tested", name, |linux| {
            linux.security_context.get_or_insert_default().namespace_options = Some(options);
        })
    }

    pub fn start_container(&self, id: &str) -> Result<()> {
        let _: Empty = self.client.call("StartContainer", ContainerId { container_id: id.to_owned() })?;
        Ok(())
    }

    pub fn exec(&self, id: &str, command: &[&str], timeout: i64) -> Result<ExecSyncResponse> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        self.client.call("ExecSync", ExecSyncRequest { container_id: id.to_owned(), cmd, timeout })
    }

    /// Standard output of a command that ends with exit code 0.
    pub fn exec_ok(&self, id: &str, command: &[&str]) -> Result<String> {
        let answer = self.exec(id, command, 10)?;
        let stderr = String::from_utf8_lossy(&answer.stderr);
        ensure!(answer.exit_code == 0, "{command:?}: exit code {}, stderr {stderr:?}", answer.exit_code);
        Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    }

    pub fn status(&self, id: &str) -> Result<ContainerStatus> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer: ContainerStatusResponse = self.client.call("ContainerStatus", request)?;
        answer.status.context("no status")
    }

    /// The first process, as the sandbox counts; containerd tells it in the verbose status.
    pub fn pid(&self, id: &str) -> Result<u32> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let answer: ContainerStatusResponse = self.client.call("ContainerStatus", request)?;
        let info: serde_json::Value = serde_json::from_str(answer.info.get("info").context("no info")?)?;
        let pid = info.get("pid").and_then(serde_json::Value::as_u64).context("no pid in info")?;
        Ok(u32::try_from(pid)?)
    }

    pub fn wait_for_exit(&self, id: &str) -> Result<ContainerStatus> {
        self.sandbox()
            .until("container exit", DEADLINE, || Ok(self.status(id)?.state() == ContainerState::Exited))?;
        self.status(id)
    }

    pub fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        let _: Empty = self
            .client
            .call("StopContainer", StopContainerRequest { container_id: id.to_owned(), timeout })?;
        Ok(())
    }

    pub fn remove_container(&self, id: &str) -> Result<()> {
        let _: Empty = self.client.call("RemoveContainer", ContainerId { container_id: id.to_owned() })?;
        Ok(())
    }
}

/// What a kubelet makes for pods of one class; the runtime makes missing parents and leaves them.
const PARENT: &str = "kubepods/burstable";

pub fn namespaces(network: NamespaceMode, pid: NamespaceMode, ipc: NamespaceMode) -> NamespaceOption {
    NamespaceOption { network: network.into(), pid: pid.into(), ipc: ipc.into(), target_id: String::new() }
}

impl Pod<'_> {
    /// What a kubelet sends for a container without settings of its own.
    pub fn config(&self, name: &str, command: &[&str]) -> ContainerConfig {
        let pod = self.config.linux.clone().unwrap_or_default().security_context.unwrap_or_default();
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let security_context = LinuxContainerSecurityContext {
            namespace_options: pod.namespace_options,
            seccomp: pod.seccomp,
            masked_paths: strings(&["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]),
            readonly_paths: strings(&[
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ]),
            ..Default::default()
        };
        let resources = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 64 << 20,
            oom_score_adj: 999,
        };
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: BUSYBOX.to_owned() }),
            command: strings(command),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(resources),
                security_context: Some(security_context),
            }),
            ..Default::default()
        }
    }

    pub fn create(&self, config: ContainerConfig) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let answer: ContainerId = self.cri.client.call("CreateContainer", request)?;
        Ok(answer.container_id)
    }

    pub fn run(&self, config: ContainerConfig) -> Result<String> {
        let id = self.create(config)?;
        self.cri.start_container(&id)?;
        Ok(id)
    }

    /// A container that only waits.
    pub fn sleeper(&self, name: &str) -> Result<String> {
        let id = self.run(self.config(name, &["sleep", "1000"]))?;
        self.cri.sandbox().until_running(self.cri.pid(&id)?, "sleep")?;
        Ok(id)
    }

    /// The lines of a container's log: time, stream, tag and text, by the CRI's log format.
    pub fn log(&self, name: &str) -> Result<Vec<(String, String)>> {
        let path = Path::new(&self.config.log_directory).join(format!("{name}.log"));
        let text = fs::read_to_string(self.cri.sandbox().outside(&path))?;
        text.lines()
            .map(|line| {
                let mut fields = line.splitn(4, ' ').skip(1);
                let stream = fields.next().with_context(|| line.to_owned())?;
                Ok((stream.to_owned(), fields.nth(1).with_context(|| line.to_owned())?.to_owned()))
            })
            .collect()
    }

    pub fn address(&self) -> Result<String> {
        let request = PodSandboxId { pod_sandbox_id: self.id.clone() };
        let answer: PodSandboxStatusResponse = self.cri.client.call("PodSandboxStatus", request)?;
        let status = answer.status.context("no status")?;
        ensure!(status.state() == PodSandboxState::Ready, "pod is {:?}", status.state());
        Ok(status.network.unwrap_or_default().ip)
    }

    /// Stop and remove it with all its containers.
    pub fn remove(self) -> Result<()> {
        let request = PodSandboxId { pod_sandbox_id: self.id };
        let _: Empty = self.cri.client.call("StopPodSandbox", request.clone())?;
        let _: Empty = self.cri.client.call("RemovePodSandbox", request)?;
        Ok(())
    }
}

impl Engine for Cri {
    fn sandbox(&self) -> &Sandbox {
        &self.containerd.sandbox
    }

    fn state_roots(&self) -> Vec<PathBuf> {
        self.containerd.state_roots()
    }

    /// The parents of the pods' cgroups and the bridge.
    fn keeps(&self, line: &str) -> bool {
        let top = self.sandbox().cgroup();
        let parents = [top.to_owned(), format!("{top}/kubepods"), self.parent()];
        line.starts_with("cgroup ") && parents.iter().any(|parent| line.ends_with(parent.as_str()))
            || line == format!("link {BRIDGE}")
    }

    fn log(&self) -> String {
        self.containerd.log()
    }

    fn stop(self) -> Result<()> {
        drop(self.client);
        self.containerd.stop()
    }
}

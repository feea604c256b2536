//! The part of the Kubernetes CRI v1 API that these tests speak.
//!
//! Field numbers are those of `runtime.v1` in kubernetes/cri-api; messages leave out fields that are
//! neither sent nor read here, which protobuf allows in both directions.

use std::collections::HashMap;

use prost::Message;

/// Declare messages: each field is `type name = number`, in protobuf's words.
macro_rules! messages {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            #[derive(Clone, PartialEq, Message)]
            pub struct $name {
                $($(#[$attribute])* pub $field: $kind,)*
            }
        )*
    };
}

messages! {
    Empty {}
    VersionRequest {
        #[prost(string, tag = "1")] version: String,
    }
    VersionResponse {
        #[prost(string, tag = "2")] runtime_name: String,
        #[prost(string, tag = "4")] runtime_api_version: String,
    }
    StatusResponse {
        #[prost(message, optional, tag = "1")] status: Option<RuntimeStatus>,
    }
    RuntimeStatus {
        #[prost(message, repeated, tag = "1")] conditions: Vec<RuntimeCondition>,
    }
    RuntimeCondition {
        #[prost(string, tag = "1")] kind: String,
        #[prost(bool, tag = "2")] status: bool,
        #[prost(string, tag = "4")] message: String,
    }

    Metadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
    }
    PodSandboxConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<Metadata>,
        #[prost(string, tag = "2")] hostname: String,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxPodSandboxConfig>,
    }
    LinuxPodSandboxConfig {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxSandboxSecurityContext>,
        #[prost(map = "string, string", tag = "3")] sysctls: HashMap<String, String>,
    }
    LinuxSandboxSecurityContext {
        #[prost(message, optional, tag = "1")] namespace_options: Option<NamespaceOption>,
        #[prost(message, optional, tag = "9")] seccomp: Option<SecurityProfile>,
    }
    NamespaceOption {
        #[prost(enumeration = "NamespaceMode", tag = "1")] network: i32,
        #[prost(enumeration = "NamespaceMode", tag = "2")] pid: i32,
        #[prost(enumeration = "NamespaceMode", tag = "3")] ipc: i32,
        #[prost(string, tag = "4")] target_id: String,
    }
    SecurityProfile {
        #[prost(enumeration = "ProfileType", tag = "1")] profile_type: i32,
    }
    RunPodSandboxRequest {
        #[prost(message, optional, tag = "1")] config: Option<PodSandboxConfig>,
        #[prost(string, tag = "2")] runtime_handler: String,
    }
    PodSandboxId {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
    }
    PodSandboxStatusResponse {
        #[prost(message, optional, tag = "1")] status: Option<PodSandboxStatus>,
    }
    PodSandboxStatus {
        #[prost(enumeration = "PodSandboxState", tag = "3")] state: i32,
        #[prost(message, optional, tag = "5")] network: Option<PodSandboxNetworkStatus>,
    }
    PodSandboxNetworkStatus {
        #[prost(string, tag = "1")] ip: String,
    }

    ImageSpec {
        #[prost(string, tag = "1")] image: String,
    }
    ContainerMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(uint32, tag = "2")] attempt: u32,
    }
    KeyValue {
        #[prost(string, tag = "1")] key: String,
        #[prost(string, tag = "2")] value: String,
    }
    Mount {
        #[prost(string, tag = "1")] container_path: String,
        #[prost(string, tag = "2")] host_path: String,
        #[prost(bool, tag = "3")] readonly: bool,
        #[prost(enumeration = "MountPropagation", tag = "5")] propagation: i32,
    }
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<ImageSpec>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(string, tag = "5")] working_dir: String,
        #[prost(message, repeated, tag = "6")] envs: Vec<KeyValue>,
        #[prost(message, repeated, tag = "7")] mounts: Vec<Mount>,
        #[prost(string, tag = "11")] log_path: String,
        #[prost(bool, tag = "14")] tty: bool,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainerConfig>,
    }
    LinuxContainerConfig {
        #[prost(message, optional, tag = "1")] resources: Option<LinuxContainerResources>,
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxContainerSecurityContext>,
    }
    LinuxContainerResources {
        #[prost(int64, tag = "1")] cpu_period: i64,
        #[prost(int64, tag = "2")] cpu_quota: i64,
        #[prost(int64, tag = "3")] cpu_shares: i64,
        #[prost(int64, tag = "4")] memory_limit_in_bytes: i64,
        #[prost(int64, tag = "5")] oom_score_adj: i64,
    }
    Int64Value {
        #[prost(int64, tag = "1")] value: i64,
    }
    UInt64Value {
        #[prost(uint64, tag = "1")] value: u64,
    }
    Capability {
        #[prost(string, repeated, tag = "1")] add_capabilities: Vec<String>,
        #[prost(string, repeated, tag = "2")] drop_capabilities: Vec<String>,
    }
    LinuxContainerSecurityContext {
        #[prost(message, optional, tag = "1")] capabilities: Option<Capability>,
        #[prost(message, optional, tag = "3")] namespace_options: Option<NamespaceOption>,
        #[prost(message, optional, tag = "5")] run_as_user: Option<Int64Value>,
        #[prost(bool, tag = "7")] readonly_rootfs: bool,
        #[prost(int64, repeated, tag = "8")] supplemental_groups: Vec<i64>,
        #[prost(bool, tag = "11")] no_new_privs: bool,
        #[prost(message, optional, tag = "12")] run_as_group: Option<Int64Value>,
        #[prost(string, repeated, tag = "13")] masked_paths: Vec<String>,
        #[prost(string, repeated, tag = "14")] readonly_paths: Vec<String>,
        #[prost(message, optional, tag = "15")] seccomp: Option<SecurityProfile>,
    }
    CreateContainerRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] sandbox_config: Option<PodSandboxConfig>,
    }
    ContainerId {
        #[prost(string, tag = "1")] container_id: String,
    }
    StopContainerRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(int64, tag = "2")] timeout: i64,
    }
    ContainerStatusRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(bool, tag = "2")] verbose: bool,
    }
    ContainerStatusResponse {
        #[prost(message, optional, tag = "1")] status: Option<ContainerStatus>,
        #[prost(map = "string, string", tag = "2")] info: HashMap<String, String>,
    }
    ContainerStatus {
        #[prost(enumeration = "ContainerState", tag = "3")] state: i32,
        #[prost(int32, tag = "7")] exit_code: i32,
        #[prost(string, tag = "10")] reason: String,
    }
    ListContainersResponse {
        #[prost(message, repeated, tag = "1")] containers: Vec<Container>,
    }
    Container {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, tag = "2")] pod_sandbox_id: String,
    }
    ExecSyncRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, repeated, tag = "2")] cmd: Vec<String>,
        #[prost(int64, tag = "3")] timeout: i64,
    }
    ExecSyncResponse {
        #[prost(bytes = "vec", tag = "1")] stdout: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] stderr: Vec<u8>,
        #[prost(int32, tag = "3")] exit_code: i32,
    }
    UpdateContainerResourcesRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(message, optional, tag = "2")] linux: Option<LinuxContainerResources>,
    }
    ContainerStatsResponse {
        #[prost(message, optional, tag = "1")] stats: Option<ContainerStats>,
    }
    ContainerStats {
        #[prost(message, optional, tag = "2")] cpu: Option<CpuUsage>,
        #[prost(message, optional, tag = "3")] memory: Option<MemoryUsage>,
    }
    CpuUsage {
        #[prost(message, optional, tag = "2")] usage_core_nano_seconds: Option<UInt64Value>,
    }
    MemoryUsage {
        #[prost(message, optional, tag = "2")] working_set_bytes: Option<UInt64Value>,
    }
}

/// Whose namespace a pod or container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    Pod = 0,
    Container = 1,
    Node = 2,
    Target = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ProfileType {
    RuntimeDefault = 0,
    Unconfined = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum MountPropagation {
    Private = 0,
    HostToContainer = 1,
    Bidirectional = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    Ready = 0,
    NotReady = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    Created = 0,
    Running = 1,
    Exited = 2,
    Unknown = 3,
}

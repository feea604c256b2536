//! What the figures were measured on.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

/// The machine before the first round.
#[derive(Debug)]
pub struct Machine {
    /// Kernel release and build.
    pub kernel: String,
    /// CPUs this process may use.
    pub cpus: usize,
    pub cpu_model: String,
    pub memory_kib: u64,
    /// `v1`, `v2` or `hybrid`, as the peers see it.
    pub cgroup: &'static str,
    pub load: String,
}

pub fn describe() -> Result<Machine> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = ["model name", "CPU part"].iter().find_map(|key| field(&cpuinfo, key));
    let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal").unwrap_or_default();
    Ok(Machine {
        kernel: format!(
            "{} {}",
            one_line("/proc/sys/kernel/osrelease")?,
            one_line("/proc/sys/kernel/version")?
        ),
        cpus: std::thread::available_parallelism()?.get(),
        cpu_model: model.unwrap_or_else(|| "unknown".into()),
        memory_kib: memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or_default(),
        cgroup: cgroup(),
        load: load_average()?,
    })
}

/// The 1, 5 and 15 minute averages.
pub fn load_average() -> Result<String> {
    let text = one_line("/proc/loadavg")?;
    Ok(text.splitn(4, ' ').take(3).collect::<Vec<_>>().join(" "))
}

impl Machine {
    /// For people.
    pub fn lines(&self, load_after: &str) -> Vec<String> {
        vec![
            format!("{:12} {}", "kernel", self.kernel),
            format!("{:12} {} x {}, {} MiB", "machine", self.cpus, self.cpu_model, self.memory_kib / 1024),
            format!("{:12} {}", "cgroup", self.cgroup),
            format!("{:12} {} before, {load_after} after", "load", self.load),
        ]
    }

    pub fn json(&self, load_after: &str) -> Value {
        json!({
            "kernel": self.kernel,
            "cpus": self.cpus,
            "cpuModel": self.cpu_model,
            "memoryKiB": self.memory_kib,
            "cgroup": self.cgroup,
            "loadBefore": self.load,
            "loadAfter": load_after,
        })
    }
}

fn cgroup() -> &'static str {
    let root = Path::new("/sys/fs/cgroup");
    match (root.join("cgroup.controllers").exists(), root.join("unified").exists()) {
        (true, _) => "v2",
        (false, true) => "hybrid",
        (false, false) => "v1",
    }
}

fn one_line(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

fn field(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

//! Cases for podman and docker: what a container's options become inside it.

use std::fs;

use anyhow::{Result, ensure};
use creel_integration::engine::cgroup::{self, CPUS, MEMORY, OOM_KILLS, PIDS, REFUSED_FORKS, THROTTLED};

use crate::client::{Client, DEADLINE};

pub fn limits(up: &impl Client) -> Result<()> {
    for controller in ["memory", "cpu", "pids", "cpuset"] {
        cgroup::need(controller)?;
    }
    let options = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "33", "--cpuset-cpus", "0"];
    let pid = up.sleeper("limits", &options)?;
    let process = up.sandbox().process(pid);
    cgroup::expect(&process, MEMORY, "67108864")?;
    cgroup::expect(&process, PIDS, "33")?;
    cgroup::expect(&process, CPUS, "0")?;
    let quota = cgroup::cpu_max(&process)?;
    ensure!(quota == "50000 100000", "cpu quota and period: {quota}");
    up.remove("limits")
}

/// The kernel enforces each limit, and counts it.
pub fn limits_hold(up: &impl Client) -> Result<()> {
    for controller in ["memory", "cpu", "pids"] {
        cgroup::need(controller)?;
    }
    let options = ["--memory", "32m", "--memory-swap", "32m", "--cpus", "0.1", "--pids-limit", "6"];
    let pid = up.sleeper("hold", &options)?;
    let process = up.sandbox().process(pid);
    cgroup::expect(&process, MEMORY, "33554432")?;
    up.exec("hold", &[], &["tail", "-c", "100000000", "/dev/zero"]).exits(137)?;
    cgroup::has_happened(&process, OOM_KILLS)?;

    ensure!(cgroup::cpu_max(&process)? == "10000 100000", "cpu quota and period");
    up.exec("hold", &[], &["timeout", "1", "sh", "-c", "while true; do true; done"]).exits(143)?;
    cgroup::has_happened(&process, THROTTLED)?;

    cgroup::expect(&process, PIDS, "6")?;
    let fork = "for number in 1 2 3 4 5 6; do sleep 1 & done";
    up.exec("hold", &[], &["sh", "-c", fork]).output()?.mentions("fork")?;
    cgroup::has_happened(&process, REFUSED_FORKS)?;
    up.remove("hold")
}

pub fn update(up: &impl Client) -> Result<()> {
    cgroup::need("memory")?;
    let pid = up.sleeper("update", &["--memory", "64m"])?;
    let process = up.sandbox().process(pid);
    up.client(&["update", "--memory", "32m", "--memory-swap", "64m", "--cpus", "0.25", "update"]).ok()?;
    cgroup::expect(&process, MEMORY, "33554432")?;
    let quota = cgroup::cpu_max(&process)?;
    ensure!(quota == "25000 100000", "cpu quota and period: {quota}");
    up.remove("update")
}

pub fn read_only(up: &impl Client) -> Result<()> {
    let options = ["--read-only", "--tmpfs", "/scratch:size=1m,mode=1750", "--shm-size", "2m"];
    let script = "touch /file; touch /scratch/file; stat -c %a /scratch; \
                  df -k /scratch /dev/shm | awk 'NR > 1 { print $2 }'";
    let output = up.run_once(&options, &["sh", "-c", script]).ok()?.says("1750\n1024\n2048")?;
    output.mentions("/file: Read-only file system")?;
    Ok(())
}

pub fn volume(up: &impl Client) -> Result<()> {
    let source = up.sandbox().inside("volume");
    fs::create_dir(up.sandbox().outside(&source))?;
    fs::write(up.sandbox().outside(&source.join("file")), "from outside\n")?;
    let option = format!("{}:/mnt/volume", source.display());
    let script = "cat /mnt/volume/file; touch /mnt/volume/new";
    let read_only = format!("{option}:ro");
    let output =
        up.run_once(&["--volume", &read_only], &["sh", "-c", script]).exits(1)?.says("from outside")?;
    output.mentions("Read-only file system")?;
    up.run_once(&["--volume", &option], &["sh", "-c", script]).ok()?;
    ensure!(up.sandbox().outside(&source.join("new")).exists(), "nothing written through the volume");
    up.run_once(&["--volume", "named:/data"], &["sh", "-c", "echo kept > /data/file"]).ok()?;
    up.run_once(&["--volume", "named:/data"], &["cat", "/data/file"]).ok()?.says("kept")?;
    Ok(())
}

pub fn capabilities(up: &impl Client) -> Result<()> {
    let fields = "awk '/^(CapEff|CapBnd|CapAmb|NoNewPrivs):/ { print $2 }' /proc/self/status";
    let none = "0000000000000000";
    let options = ["--cap-drop", "all", "--security-opt", "no-new-privileges"];
    up.run_once(&options, &["sh", "-c", fields]).ok()?.says(&format!("{none}\n{none}\n{none}\n1"))?;
    let options = ["--cap-drop", "all", "--cap-add", "NET_RAW"];
    let raw = "0000000000002000";
    up.run_once(&options, &["sh", "-c", fields]).ok()?.says(&format!("{raw}\n{raw}\n{none}\n0"))?;
    Ok(())
}

pub fn seccomp(up: &impl Client) -> Result<()> {
    let mode = "awk '/^Seccomp:/ { print $2 }' /proc/self/status";
    let script = format!("{mode}; unshare -m true 2>&1 | grep -o 'Operation not permitted'");
    up.run_once(&[], &["sh", "-c", &script]).ok()?.says("2\nOperation not permitted")?;
    up.run_once(&["--security-opt", "seccomp=unconfined"], &["sh", "-c", mode]).ok()?.says("0")?;
    Ok(())
}

pub fn user(up: &impl Client) -> Result<()> {
    up.run_once(&["--user", "user"], &["id", "-G"]).ok()?.says("1000 2000")?;
    let options = ["--user", "77:88", "--group-add", "99"];
    let output = up.run_once(&options, &["sh", "-c", "id -u; id -g; id -G"]).ok()?;
    output.says("77\n88\n88 99")?;
    Ok(())
}

/// podman drops its configured limits when one is given, and its built-in ones are above what root may set here.
pub fn process_settings(up: &impl Client) -> Result<()> {
    let limits = ["--ulimit", "nofile=100:200", "--ulimit", "nproc=1024:1024"];
    let options = ["--hostname", "creel-host", "--workdir", "/tmp"];
    let more =
        ["--sysctl", "net.ipv4.ip_default_ttl=77", "--device", "/dev/null:/dev/x", "--env", "COLOUR=green"];
    let script = "hostname; pwd; ulimit -Sn; ulimit -Hn; cat /proc/sys/net/ipv4/ip_default_ttl; \
                  stat -c %t:%T /dev/x; echo > /dev/x; echo $COLOUR";
    let call = up.run_once(&[&limits[..], &options[..], &more[..]].concat(), &["sh", "-c", script]);
    call.ok()?.says("creel-host\n/tmp\n100\n200\n77\n1:3\ngreen")?;
    Ok(())
}

pub fn host_namespaces(up: &impl Client) -> Result<()> {
    let names = ["net", "pid", "ipc", "uts"];
    let expected: Result<Vec<String>> = names.iter().map(|name| up.sandbox().own_namespace(name)).collect();
    let options = ["--rm", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"];
    let script = "for name in net pid ipc uts; do readlink /proc/self/ns/$name; done";
    up.run(&options, &["sh", "-c", script]).ok()?.says(&expected?.join("\n"))?;
    Ok(())
}

pub fn shared_namespaces(up: &impl Client) -> Result<()> {
    let pid = up.sleeper("shared", &["--ipc", "shareable"])?;
    let names = ["net", "pid", "ipc"];
    let expected: Result<Vec<String>> = names.iter().map(|name| up.sandbox().namespace(pid, name)).collect();
    let options =
        ["--rm", "--network", "container:shared", "--pid", "container:shared", "--ipc", "container:shared"];
    let script = "for name in net pid ipc; do readlink /proc/self/ns/$name; done; cat /proc/1/comm";
    up.run(&options, &["sh", "-c", script]).ok()?.says(&format!("{}\nsleep", expected?.join("\n")))?;
    up.remove("shared")
}

/// A private cgroup namespace shows the container's cgroup as the root, the host's shows its path.
pub fn cgroup_namespace(up: &impl Client) -> Result<()> {
    let script = "cut -d: -f3 /proc/self/cgroup | sort -u; ls /sys/fs/cgroup | head -n 1 | wc -l";
    up.run_once(&["--cgroupns", "private"], &["sh", "-c", script]).ok()?.says("/\n1")?;
    let output = up.run_once(&["--cgroupns", "host"], &["cat", "/proc/self/cgroup"]).ok()?;
    output.mentions(up.sandbox().cgroup())?;
    Ok(())
}

/// One container serves, another fetches by address, the host fetches through the published port.
pub fn bridge(up: &impl Client) -> Result<()> {
    let serve = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    let options = ["--detach", "--name", "bridge", "--publish", "127.0.0.1:18080:80"];
    up.run(&options, &["sh", "-c", serve]).ok()?;
    let fetch = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:18080/"];
    up.sandbox()
        .until("published port", DEADLINE, || Ok(up.sandbox().call(&fetch).output()?.said() == "page"))?;
    let address = up.inspect("bridge", "{{.NetworkSettings.IPAddress}}")?;
    up.run(&["--rm"], &["wget", "-q", "-O", "-", &format!("http://{address}/")]).ok()?.says("page")?;
    up.exec("bridge", &[], &["hostname", "-i"]).ok()?.mentions(&address)?;
    up.remove("bridge")
}

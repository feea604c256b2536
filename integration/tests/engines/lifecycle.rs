//! Cases for podman and docker: a container's life, from run to rm.

use anyhow::{Result, ensure};
use creel_integration::engine::cgroup;
use creel_integration::engine::command::Call;
use creel_integration::engine::daemon::Daemon;

use crate::client::{Client, DEADLINE};

pub fn foreground(up: &impl Client) -> Result<()> {
    let output = up.run_once(&[], &["sh", "-c", "echo out; echo err >&2; exit 7"]).exits(7)?.says("out")?;
    ensure!(output.stderr.contains("err"), "standard error: {output}");
    Ok(())
}

/// Both engines tell the three apart by the runtime's words in its JSON log.
pub fn start_failures(up: &impl Client) -> Result<()> {
    up.run_once(&[], &["no-such-program"]).exits(127)?.mentions("no-such-program")?;
    up.run_once(&[], &["/etc/passwd"]).exits(126)?.mentions("/etc/passwd")?;
    let mount = "type=bind,source=/no/such/source,target=/mnt";
    up.run_once(&["--mount", mount], &["true"]).exits(125)?.mentions("/no/such/source")?;
    let output = up.run_once(&["--workdir", "/etc/passwd"], &["true"]).output()?;
    ensure!(output.code != 0, "a file as working directory: {output}");
    Ok(())
}

/// A command for a terminal: it shows that it has one and its size, answers a line and ends at the next.
pub const TALK: &str = "tty; until stty size 2>/dev/null | grep .; do :; done; \
                        read line; echo got $line; read line; exit 5";

/// Hold that conversation. Each line is awaited before the next is sent: ctr throws away what it has not
/// yet copied when a process ends.
pub fn talk(call: Call, terminal: &str) -> Result<()> {
    let mut talk = Daemon::start("terminal", &call.on_terminal().keep_input())?;
    talk.line_with(terminal, DEADLINE)?;
    talk.line_with("33 77", DEADLINE)?;
    talk.send("some input\n")?;
    talk.line_with("got some input", DEADLINE)?;
    talk.send("bye\n")?;
    talk.exits(5, DEADLINE)
}

pub fn terminal(up: &impl Client) -> Result<()> {
    talk(up.run_once(&["--interactive", "--tty"], &["sh", "-c", TALK]), "/dev/pts/0")
}

pub fn logs(up: &impl Client) -> Result<()> {
    up.run_detached("logs", &[], &["sh", "-c", "echo one; echo two >&2; exit 9"])?;
    up.client(&["wait", "logs"]).ok()?.says("9")?;
    let output = up.client(&["logs", "logs"]).ok()?.says("one")?;
    ensure!(output.stderr.trim() == "two", "standard error's log: {output}");
    ensure!(up.inspect("logs", "{{.State.ExitCode}}")? == "9", "exit code in inspect");
    up.client(&["rm", "logs"]).ok()?;
    Ok(())
}

/// docker made 126 of a missing executable in exec until it learnt podman's 127.
pub fn exec(up: &impl Client) -> Result<()> {
    let pid = up.sleeper("exec", &[])?;
    let expected = format!("sleep\n{}", up.sandbox().namespace(pid, "mnt")?);
    let script = "cat /proc/1/comm; readlink /proc/self/ns/mnt; exit 4";
    up.exec("exec", &[], &["sh", "-c", script]).exits(4)?.says(&expected)?;
    let missing = up.exec("exec", &[], &["no-such-program"]).output()?;
    ensure!(missing.code == 126 || missing.code == 127, "{missing}");
    missing.mentions("no-such-program")?;
    up.exec("exec", &[], &["/etc/passwd"]).exits(126)?;
    up.exec("exec", &["--detach"], &["touch", "/tmp/detached"]).ok()?;
    up.sandbox().until("detached exec", DEADLINE, || {
        Ok(up.exec("exec", &[], &["test", "-e", "/tmp/detached"]).output()?.code == 0)
    })?;
    up.remove("exec")
}

pub fn exec_terminal(up: &impl Client) -> Result<()> {
    up.sleeper("exec-tty", &[])?;
    talk(up.exec("exec-tty", &["--interactive", "--tty"], &["sh", "-c", TALK]), "/dev/pts/")?;
    up.remove("exec-tty")
}

pub fn exec_settings(up: &impl Client) -> Result<()> {
    up.sleeper("exec-set", &[])?;
    let options = ["--user", "user", "--workdir", "/tmp", "--env", "COLOUR=green"];
    up.exec("exec-set", &options, &["sh", "-c", "id -u; pwd; echo $COLOUR"])
        .ok()?
        .says("1000\n/tmp\ngreen")?;
    up.remove("exec-set")
}

/// The trap is set once the shell has said so.
pub fn stop(up: &impl Client) -> Result<()> {
    up.run_detached("stop", &[], &["sh", "-c", "trap 'exit 42' TERM; echo ready; sleep 1000 & wait"])?;
    up.until_logged("stop", "ready")?;
    up.client(&["stop", "--time", "15", "stop"]).ok()?;
    ensure!(up.inspect("stop", "{{.State.ExitCode}}")? == "42", "not ended by the trap");
    up.client(&["rm", "stop"]).ok()?;

    up.sleeper("insist", &[])?;
    up.client(&["stop", "--time", "1", "insist"]).ok()?;
    ensure!(up.inspect("insist", "{{.State.ExitCode}}")? == "137", "not ended by SIGKILL");
    up.client(&["rm", "insist"]).ok()?;
    Ok(())
}

pub fn restart(up: &impl Client) -> Result<()> {
    let first = up.run_detached("restart", &[], &["sh", "-c", "echo started; exec sleep 1000"])?;
    up.client(&["restart", "--time", "0", "restart"]).ok()?;
    ensure!(
        up.inspect("restart", "{{.State.Pid}}")? != first.to_string(),
        "the same process after a restart"
    );
    up.until_logged("restart", "started\nstarted")?;
    up.remove("restart")
}

pub fn kill(up: &impl Client) -> Result<()> {
    up.run_detached("kill", &[], &["sh", "-c", "trap 'exit 43' USR1; echo ready; sleep 1000 & wait"])?;
    up.until_logged("kill", "ready")?;
    up.client(&["kill", "--signal", "USR1", "kill"]).ok()?;
    up.client(&["wait", "kill"]).ok()?.says("43")?;
    up.client(&["rm", "kill"]).ok()?;
    Ok(())
}

pub fn pause(up: &impl Client) -> Result<()> {
    let pid = up.sleeper("pause", &[])?;
    let process = up.sandbox().process(pid);
    up.client(&["pause", "pause"]).ok()?;
    ensure!(up.inspect("pause", "{{.State.Status}}")? == "paused", "status");
    ensure!(cgroup::frozen(&process)?, "paused but not frozen");
    up.client(&["unpause", "pause"]).ok()?;
    ensure!(!cgroup::frozen(&process)?, "unpaused but frozen");
    up.exec("pause", &[], &["true"]).ok()?;
    // rm --force must thaw what it kills.
    up.client(&["pause", "pause"]).ok()?;
    up.remove("pause")
}

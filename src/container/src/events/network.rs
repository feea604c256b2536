//! Counters of the network interfaces that a container has of its own (proc_pid_net(5), dev).

use std::path::Path;

use serde::Serialize;

/// An interface as the container sees it, under runc's names for the counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the columns of /proc/PID/net/dev")]
pub struct NetworkInterface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// The interfaces of a process in another network namespace than ours; nothing for one in ours, and
/// for one that has only `lo`, which tells nothing and which runc does not show either.
pub(super) fn of_process(pid: i32) -> Option<Vec<NetworkInterface>> {
    let namespace = |process: &str| std::fs::read_link(Path::new("/proc").join(process).join("ns/net")).ok();
    if namespace(&pid.to_string())? == namespace("self")? {
        return None;
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    Some(interfaces(&text)).filter(|interfaces| !interfaces.is_empty())
}

/// Two lines of headings, then `name: ` with eight columns received and eight sent.
fn interfaces(text: &str) -> Vec<NetworkInterface> {
    let parse = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let name = name.trim();
        let mut counters = counters.split_whitespace().map(|word| word.parse().ok());
        let mut four = || Some([counters.next()??, counters.next()??, counters.next()??, counters.next()??]);
        let [rx_bytes, rx_packets, rx_errors, rx_dropped] = four()?;
        // fifo, frame, compressed, multicast
        four()?;
        let [tx_bytes, tx_packets, tx_errors, tx_dropped] = four()?;
        let name = (name != "lo").then(|| name.to_owned())?;
        Some(NetworkInterface {
            name,
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    text.lines().skip(2).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    2856      51    0    0    0     0          0         0     2856      51    0    0    0     0       0          0
  eth0: 1000       11    1    2    3     4          5         6     2000      22    7    8    9     10       11          12
";

    #[test]
    fn interfaces_are_told_under_runcs_names_and_without_lo() {
        let interfaces = interfaces(DEV);
        assert_eq!(
            serde_json::to_string(&interfaces).unwrap(),
            r#"[{"Name":"eth0","RxBytes":1000,"RxPackets":11,"RxErrors":1,"RxDropped":2,"TxBytes":2000,"TxPackets":22,"TxErrors":7,"TxDropped":8}]"#
        );
    }

    #[test]
    fn a_process_in_our_own_namespace_has_none_of_its_own() {
        assert_eq!(of_process(std::process::id() as i32), None);
        assert_eq!(interfaces("a\nb\n"), []);
    }
}

//! `events`: one JSON object a line, in runc's shape.

use std::time::Duration;

use creel_container::{ContainerStats, Event, Events, Runtime};
use serde::Serialize;

use crate::flags::Words;
use crate::output;

/// Time between two reports unless `--interval` says another.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a ContainerStats>,
}

/// `events`: reports once, or until the container's cgroup is gone.
pub fn print(runtime: &Runtime, id: &str, words: &Words<'_>) -> Result<(), String> {
    let interval = words.duration("interval").unwrap_or(INTERVAL);
    if interval.is_zero() {
        return Err("duration interval must be greater than 0".to_owned());
    }
    let one_line = |error: creel_container::Error| error.to_string();
    if words.has("stats") {
        let stats = creel_container::stats(runtime, id).map_err(one_line)?;
        return output::write(&line(id, &Event::Stats(Box::new(stats))));
    }
    for event in Events::open(runtime, id, interval).map_err(one_line)? {
        output::write(&line(id, &event.map_err(one_line)?))?;
    }
    Ok(())
}

fn line(id: &str, event: &Event) -> String {
    let line = match event {
        Event::Stats(stats) => Line { r#type: "stats", id, data: Some(stats) },
        Event::Oom => Line { r#type: "oom", id, data: None },
    };
    output::json(&line, None) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_used_nothing_reads_as_runcs() {
        let stats = Event::Stats(Box::default());
        let cpuset = concat!(
            r#"{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"#,
            r#""memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0}"#
        );
        let expected = format!(
            r#"{{"type":"stats","id":"a","data":{{"cpu":{{}},"cpuset":{cpuset},"memory":{{}},"pids":{{}},"blkio":{{}},"hugetlb":{{}},"intel_rdt":{{}},"network_interfaces":null}}}}"#
        );
        assert_eq!(line("a", &stats), expected + "\n");
        assert_eq!(line("a", &Event::Oom), "{\"type\":\"oom\",\"id\":\"a\"}\n");
    }
}

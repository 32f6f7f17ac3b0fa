//! `events`: what a container uses, as runc says it.

use std::thread;
use std::time::Duration;

use berth_cgroup::{Cgroup, DeviceIo, Memory};
use serde_json::{Value, json};

use crate::arguments::{self, Until, flag, value};
use crate::fault::{Fault, Outcome};
use crate::global::Global;
use crate::state::{self, Status};
use crate::store::Store;

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &[flag("stats", ""), value("interval", "")], Until::End)?;
    let id = given.id("events")?;
    let pause = interval(given.value("interval").unwrap_or("5s"))?;
    let (folder, record) = Store::new(&global.root).open(id)?;
    if Status::of(&folder, &record) == Status::Stopped {
        return Err(Fault::new(format!("container with id {id} is not running")));
    }
    let cgroup = state::cgroup(&record)?;
    let mut killed = cgroup.oom_kills().unwrap_or(0);
    loop {
        println!("{}", json!({ "type": "stats", "id": id, "data": stats(&cgroup)? }));
        if given.flag("stats") {
            return Ok(0);
        }
        thread::sleep(pause);
        let now = cgroup.oom_kills().unwrap_or(killed);
        if now > killed {
            println!("{}", json!({ "type": "oom", "id": id }));
            killed = now;
        }
        if Status::of(&folder, &record) == Status::Stopped {
            return Ok(0);
        }
    }
}

/// A duration in Go's form, of one unit.
fn interval(text: &str) -> Outcome<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().unwrap_or(0);
    let duration = match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => Duration::ZERO,
    };
    if duration.is_zero() {
        return Err(Fault::new(format!("--interval: {text:?} is no duration above 0; use the form 5s")));
    }
    Ok(duration)
}

fn stats(cgroup: &Cgroup) -> Outcome<Value> {
    let cpu = cgroup.cpu()?.unwrap_or_default();
    let memory = cgroup.memory()?.unwrap_or_default();
    let tasks = cgroup.tasks();
    let io = cgroup.io();
    let mut pages = serde_json::Map::new();
    for size in cgroup.huge_pages() {
        pages.insert(size.size, json!({ "usage": size.bytes, "max": size.peak.unwrap_or(0), "failcnt": 0 }));
    }
    Ok(json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_ns,
                "kernel": cpu.system_ns.unwrap_or(0),
                "user": cpu.user_ns.unwrap_or(0),
            },
            "throttling": {
                "periods": cpu.periods.unwrap_or(0),
                "throttledPeriods": cpu.throttled_periods.unwrap_or(0),
                "throttledTime": cpu.throttled_ns.unwrap_or(0),
            },
        },
        "cpuset": {},
        "memory": memory_stats(&memory),
        "pids": {
            "current": tasks.map_or(0, |tasks| tasks.now),
            "limit": tasks.and_then(|tasks| tasks.limit).unwrap_or(0),
        },
        "blkio": {
            "ioServiceBytesRecursive": entries(&io, |one| [one.read_bytes, one.written_bytes]),
            "ioServicedRecursive": entries(&io, |one| [one.reads, one.writes]),
        },
        "hugetlb": pages,
        "intel_rdt": {},
        "network_interfaces": null,
    }))
}

fn memory_stats(memory: &Memory) -> Value {
    // What is not limited is shown as the largest number.
    let limit = memory.limit.unwrap_or(u64::MAX);
    let swap_limit = memory.swap_limit.map_or(u64::MAX, |swap| swap.saturating_add(limit));
    json!({
        "cache": memory.cache.unwrap_or(0),
        "usage": {
            "limit": limit,
            "usage": memory.usage,
            "max": memory.peak.unwrap_or(0),
            "failcnt": memory.limit_hits.unwrap_or(0),
        },
        "swap": {
            "limit": swap_limit,
            "usage": memory.usage.saturating_add(memory.swap.unwrap_or(0)),
            "failcnt": 0,
        },
        "kernel": { "limit": 0, "usage": memory.kernel.unwrap_or(0), "failcnt": 0 },
        "kernelTCP": { "limit": 0, "failcnt": 0 },
        "raw": {
            "rss": memory.rss.unwrap_or(0),
            "mapped_file": memory.mapped_file.unwrap_or(0),
            "inactive_file": memory.usage.saturating_sub(memory.working_set),
        },
    })
}

fn entries(io: &[DeviceIo], pick: fn(&DeviceIo) -> [u64; 2]) -> Value {
    let one = |device: &DeviceIo| {
        let (major, minor) = (device.major, device.minor);
        let [read, written] = pick(device);
        [("Read", read), ("Write", written)]
            .map(|(op, value)| json!({ "major": major, "minor": minor, "op": op, "value": value }))
    };
    io.iter().flat_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(interval("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "0s", "1h", "s"] {
            interval(bad).expect_err(bad);
        }
    }
}

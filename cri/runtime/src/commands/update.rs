//! `update`.

use std::fs;
use std::io::Read;

use berth_cgroup::Host;
use berth_cri_core::bundle::resources;
use berth_cri_core::host::CgroupLayout;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use crate::arguments::{self, Given, Known, Until, value};
use crate::fault::{During, Fault, Outcome};
use crate::global::Global;
use crate::state::{self, Status};
use crate::store::{MAX_CONFIGURATION, Store};
use crate::{configuration, limits};

const KNOWN: [Known; 21] = [
    value("resources", "r"),
    value("blkio-weight", ""),
    value("cpu-period", ""),
    value("cpu-quota", ""),
    value("cpu-burst", ""),
    value("cpu-share", ""),
    value("cpu-rt-period", ""),
    value("cpu-rt-runtime", ""),
    value("cpuset-cpus", ""),
    value("cpuset-mems", ""),
    value("kernel-memory", ""),
    value("kernel-memory-tcp", ""),
    value("memory", "m"),
    value("memory-reservation", ""),
    value("memory-swap", ""),
    value("pids-limit", ""),
    value("l3-cache-schema", ""),
    value("mem-bw-schema", ""),
    value("cpu-idle", ""),
    value("env", ""),
    value("cpu-shares", ""),
];

/// Options and where in `linux.resources` they belong: plain numbers.
const NUMBERS: [(&str, [&str; 2]); 10] = [
    ("blkio-weight", ["blockIO", "weight"]),
    ("cpu-period", ["cpu", "period"]),
    ("cpu-quota", ["cpu", "quota"]),
    ("cpu-burst", ["cpu", "burst"]),
    ("cpu-share", ["cpu", "shares"]),
    ("cpu-shares", ["cpu", "shares"]),
    ("cpu-rt-period", ["cpu", "realtimePeriod"]),
    ("cpu-rt-runtime", ["cpu", "realtimeRuntime"]),
    ("cpu-idle", ["cpu", "idle"]),
    ("pids-limit", ["pids", "limit"]),
];
const BYTES: [(&str, [&str; 2]); 5] = [
    ("memory", ["memory", "limit"]),
    ("memory-reservation", ["memory", "reservation"]),
    ("memory-swap", ["memory", "swap"]),
    ("kernel-memory", ["memory", "kernel"]),
    ("kernel-memory-tcp", ["memory", "kernelTCP"]),
];
const TEXTS: [(&str, [&str; 2]); 2] = [("cpuset-cpus", ["cpu", "cpus"]), ("cpuset-mems", ["cpu", "mems"])];

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &KNOWN, Until::End)?;
    let (folder, record) = Store::new(&global.root).open(given.id("update")?)?;
    if Status::of(&folder, &record) == Status::Stopped {
        return Err(Fault::new("container not running"));
    }
    for option in ["l3-cache-schema", "mem-bw-schema"] {
        if given.value(option).is_some() {
            return Err(Fault::new(format!("--{option}: not supported")));
        }
    }
    let wanted: LinuxResources = match given.value("resources") {
        Some(path) => {
            configuration::parse(&read(path)?).map_err(|fault| fault.during(format!("--resources {path}")))?
        }
        None => configuration::parse(options(&given)?.to_string().as_bytes())?,
    };
    let host = Host::detect()?;
    let compiled = resources::update(Some(&wanted), &CgroupLayout::from(&host))?;
    limits::change(&state::cgroup(&record)?, &compiled, &record.unit)?;
    Ok(0)
}

fn read(path: &str) -> Outcome<Vec<u8>> {
    let mut text = Vec::new();
    let read = if path == "-" {
        std::io::stdin().take(MAX_CONFIGURATION).read_to_end(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_CONFIGURATION).read_to_end(&mut text))
    };
    read.during(|| format!("--resources {path}")).map(|_| text)
}

fn options(given: &Given) -> Outcome<Value> {
    let mut value = json!({});
    for (option, [group, field]) in NUMBERS {
        if let Some(number) = given.number::<i64>(option)? {
            value[group][field] = json!(number);
        }
    }
    for (option, [group, field]) in BYTES {
        if let Some(text) = given.value(option) {
            let bytes = bytes(text).ok_or_else(|| Fault::new(format!("--{option}: {text:?} is no number of bytes")))?;
            value[group][field] = json!(bytes);
        }
    }
    for (option, [group, field]) in TEXTS {
        if let Some(text) = given.value(option) {
            value[group][field] = json!(text);
        }
    }
    Ok(value)
}

/// `-1`, a number, or one with a unit of 1024 (`k`, `m`, `g`, `t`, also as `KiB` or `kb`).
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = lower[digits.len()..].trim();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    i64::try_from(digits.parse::<u64>().ok()?).ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_units() {
        assert_eq!(
            ["-1", "7", "2k", "3M", "1GiB", "1 tb"].map(|text| bytes(text).unwrap_or(0)),
            [-1, 7, 2048, 3 << 20, 1 << 30, 1 << 40]
        );
        assert_eq!(["", "x", "1x", "-2", "9999999999g"].map(bytes), [None; 5]);
    }
}

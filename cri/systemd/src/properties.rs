//! Limits in the words of systemd, for cgroup v2: runc's table (docs/systemd.md).
//!
//! What is limited here is written to the cgroup's files as well, exactly and with what systemd has no words for. systemd
//! must know all the same: it writes what it believes at every `daemon-reload`.

use berth_cgroup::{CgroupError, swap_max, weight};
use berth_cri_core::systemd::{Property, Value};
use berth_plan::resources::{Resources, Setting};

use crate::error::SystemdError;

/// The kernel's period of a quota where nobody says another, microseconds.
const PERIOD: u64 = 100_000;
/// systemd rounds quotas to percents of a CPU: 10 ms of each second.
const PERCENT: u64 = 10_000;
/// The largest number of a CPU or memory node that is taken.
const MOST_BITS: usize = 8192;

/// The first versions that know these.
const PERIODS: u32 = 242;
const SETS: u32 = 244;
const IDLE: u32 = 252;
const OOM_POLICY: u32 = 253;

/// The properties of a unit with limits, for a systemd of that version. A property is named once.
///
/// # Errors
/// A value that systemd can't be told, by its field.
pub fn of_limits(resources: &Resources, settings: &[Setting], version: u32) -> Result<Vec<Property>, SystemdError> {
    let mut out = Out { version, properties: Vec::new() };
    out.memory(resources)?;
    let file = |field: &str| {
        let setting = settings.iter().find(|setting| setting.field == format!("linux.resources.{field}"));
        setting.and_then(|setting| setting.files.first()).map(|(_, value)| value.as_str())
    };
    if let Some(low) = file("memory.reservation") {
        out.amount("MemoryLow", "memory.reservation", low)?;
    }
    if let Some(shares) = resources.cpu_shares {
        out.put("CPUWeight", weight(shares));
    }
    if let Some(idle) = file("cpu.idle") {
        out.idle(idle);
    }
    if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
        let quota = resources.cpu_quota.and_then(|quota| u64::try_from(quota).ok()).filter(|quota| *quota > 0);
        out.quota(quota, resources.cpu_period);
    }
    if let Some(limit) = resources.pids_limit {
        out.put("TasksMax", u64::try_from(limit).unwrap_or(u64::MAX));
    }
    out.set("AllowedCPUs", "cpu.cpus", &resources.cpuset_cpus)?;
    out.set("AllowedMemoryNodes", "cpu.mems", &resources.cpuset_mems)?;
    // Last, as its files are written last.
    for (file, value) in &resources.unified {
        out.unified(file, value.trim())?;
    }
    Ok(out.properties)
}

/// What a scope can be told at its start alone.
pub(crate) fn at_start(resources: &Resources, version: u32) -> Option<Property> {
    let group = resources.unified.iter().find(|(file, _)| file == "memory.oom.group")?;
    let policy = if group.1.trim() == "1" { "kill" } else { "continue" };
    (version >= OOM_POLICY).then(|| Property::new("OOMPolicy", policy))
}

struct Out {
    version: u32,
    properties: Vec<Property>,
}

impl Out {
    /// The last word counts.
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.properties.retain(|property| property.name != name);
        self.properties.push(Property::new(name, value));
    }

    fn memory(&mut self, resources: &Resources) -> Result<(), CgroupError> {
        if let Some(limit) = resources.memory_limit {
            self.put("MemoryMax", u64::try_from(limit).unwrap_or(u64::MAX));
        }
        if let Some(swap) = swap_max(resources.memory_limit, resources.memory_swap)? {
            self.put("MemorySwapMax", swap.parse().unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn idle(&mut self, value: &str) {
        // There is no word for "not idle" but another weight.
        if value == "1" && self.version >= IDLE {
            self.put("CPUWeight", 0_u64);
        }
    }

    fn quota(&mut self, quota: Option<u64>, period: Option<u64>) {
        if let Some(period) = period
            && self.version >= PERIODS
        {
            self.put("CPUQuotaPeriodUSec", period);
        }
        let period = u128::from(period.unwrap_or(PERIOD).max(1));
        let per_second = quota.map_or(u64::MAX, |quota| {
            // Rounded up: what a child may be given must fit.
            let exact = u128::from(quota) * 1_000_000 / period;
            u64::try_from(exact.next_multiple_of(PERCENT.into())).unwrap_or(u64::MAX)
        });
        self.put("CPUQuotaPerSecUSec", per_second);
    }

    /// Bytes or `max`.
    fn amount(&mut self, name: &str, field: &str, text: &str) -> Result<(), SystemdError> {
        let number = if text == "max" { Some(u64::MAX) } else { text.parse().ok() };
        self.put(name, number.ok_or_else(|| wrong(field, text, "a number or max"))?);
        Ok(())
    }

    fn set(&mut self, name: &str, field: &str, list: &str) -> Result<(), SystemdError> {
        if !list.is_empty() && self.version >= SETS {
            self.put(name, bits(list).ok_or_else(|| wrong(field, list, "a list like 0-2,7"))?);
        }
        Ok(())
    }

    fn unified(&mut self, file: &str, value: &str) -> Result<(), SystemdError> {
        let field = format!("unified[{file:?}]");
        match file {
            "cpu.idle" => self.idle(value),
            "cpu.max" => {
                let (quota, period) = value.split_once(char::is_whitespace).unwrap_or((value, "100000"));
                let bad = || wrong(&field, value, "the form QUOTA PERIOD");
                let quota = if quota == "max" { None } else { Some(quota.parse().map_err(|_| bad())?) };
                self.quota(quota, Some(period.trim().parse().map_err(|_| bad())?));
            }
            "cpu.weight" => {
                let idle = self.properties.iter().any(|one| one.name == "CPUWeight" && one.value == Value::U64(0));
                if !idle {
                    self.put("CPUWeight", value.parse::<u64>().map_err(|_| wrong(&field, value, "a number"))?);
                }
            }
            "cpuset.cpus" => self.set("AllowedCPUs", &field, value)?,
            "cpuset.mems" => self.set("AllowedMemoryNodes", &field, value)?,
            "memory.high" => self.amount("MemoryHigh", &field, value)?,
            "memory.low" => self.amount("MemoryLow", &field, value)?,
            "memory.max" => self.amount("MemoryMax", &field, value)?,
            "memory.min" => self.amount("MemoryMin", &field, value)?,
            "memory.swap.max" => self.amount("MemorySwapMax", &field, value)?,
            "pids.max" => self.amount("TasksMax", &field, value)?,
            // Written to its file alone.
            _ => {}
        }
        Ok(())
    }
}

fn wrong(field: &str, value: &str, form: &str) -> SystemdError {
    let value: String = value.chars().take(64).collect();
    SystemdError::Value { field: format!("linux.resources.{field}"), reason: format!("{value:?} is not {form}") }
}

/// A list of numbers as systemd takes it: a bit for each, the lowest first.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST_BITS {
            return None;
        }
        if bits.len() <= last / 8 {
            bits.resize(last / 8 + 1, 0);
        }
        for number in first..=last {
            bits[number / 8] |= 1 << (number % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(resources: &Resources) -> Vec<(String, Value)> {
        told_to(resources, &[], 252)
    }

    fn told_to(resources: &Resources, settings: &[Setting], version: u32) -> Vec<(String, Value)> {
        let properties = of_limits(resources, settings, version).expect("limits");
        properties.into_iter().map(|property| (property.name, property.value)).collect()
    }

    fn pair(name: &str, value: impl Into<Value>) -> (String, Value) {
        (name.to_owned(), value.into())
    }

    #[test]
    fn limits_have_systemds_names() {
        let resources = Resources {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            cpuset_cpus: "0-1,9".to_owned(),
            cpuset_mems: "0".to_owned(),
            memory_limit: Some(64 << 20),
            memory_swap: Some(96 << 20),
            pids_limit: Some(100),
            ..Resources::default()
        };
        let expected = [
            pair("MemoryMax", 64_u64 << 20),
            pair("MemorySwapMax", 32_u64 << 20),
            pair("CPUWeight", 100_u64),
            pair("CPUQuotaPeriodUSec", 100_000_u64),
            pair("CPUQuotaPerSecUSec", 500_000_u64),
            pair("TasksMax", 100_u64),
            pair("AllowedCPUs", vec![3_u8, 2]),
            pair("AllowedMemoryNodes", vec![1_u8]),
        ];
        assert_eq!(told(&resources), expected);
        let old: Vec<String> = told_to(&resources, &[], 241).into_iter().map(|(name, _)| name).collect();
        assert_eq!(old, ["MemoryMax", "MemorySwapMax", "CPUWeight", "CPUQuotaPerSecUSec", "TasksMax"]);
        assert_eq!(told(&Resources::default()), []);
    }

    #[test]
    fn what_has_no_limit_is_infinite() {
        let resources =
            Resources { memory_limit: Some(-1), cpu_quota: Some(-1), pids_limit: Some(-1), ..Resources::default() };
        let names = ["MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax"];
        assert_eq!(told(&resources), names.map(|name| pair(name, u64::MAX)));
    }

    #[test]
    fn quotas_are_rounded_up_to_percents() {
        let quota = |quota, period| {
            let resources = Resources { cpu_quota: Some(quota), cpu_period: period, ..Resources::default() };
            told_to(&resources, &[], 241)
        };
        assert_eq!(quota(1_001, None), [pair("CPUQuotaPerSecUSec", 20_000_u64)]);
        assert_eq!(quota(10_000, Some(30_000)), [pair("CPUQuotaPerSecUSec", 340_000_u64)]);
        assert_eq!(quota(i64::MAX, Some(1)), [pair("CPUQuotaPerSecUSec", u64::MAX)]);
        assert_eq!(quota(5, Some(0)), [pair("CPUQuotaPerSecUSec", 5_000_000_u64)]);
    }

    #[test]
    fn files_that_are_named_count_last() {
        let unified = |files: &[(&str, &str)]| Resources {
            memory_limit: Some(1 << 20),
            unified: files.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect(),
            ..Resources::default()
        };
        let resources =
            unified(&[("cpu.max", " max 50000\n"), ("memory.max", "max"), ("pids.max", "7"), ("io.max", "x")]);
        let expected = [
            pair("CPUQuotaPeriodUSec", 50_000_u64),
            pair("CPUQuotaPerSecUSec", u64::MAX),
            pair("MemoryMax", u64::MAX),
            pair("TasksMax", 7_u64),
        ];
        assert_eq!(told(&resources), expected);
        let idle = told(&unified(&[("cpu.idle", "1"), ("cpu.weight", "50")]));
        assert_eq!(idle[1], pair("CPUWeight", 0_u64));
        for bad in
            [("memory.max", "lots"), ("cpu.max", "a b"), ("cpu.max", ""), ("cpuset.cpus", "9-1"), ("cpu.weight", "x")]
        {
            let error = of_limits(&unified(&[bad]), &[], 252).expect_err(bad.1).to_string();
            assert!(error.contains(bad.0), "{error}");
        }
    }

    #[test]
    fn settings_that_systemd_knows_are_told() {
        let setting = |field: &str, file: &str, value: &str| Setting {
            field: format!("linux.resources.{field}"),
            controller: String::new(),
            files: vec![(file.to_owned(), value.to_owned())],
        };
        let settings = [setting("memory.reservation", "memory.low", "4096"), setting("cpu.idle", "cpu.idle", "1")];
        let told = told_to(&Resources { cpu_shares: Some(2), ..Resources::default() }, &settings, 252);
        assert_eq!(told, [pair("MemoryLow", 4096_u64), pair("CPUWeight", 0_u64)]);
    }

    #[test]
    fn a_scope_that_dies_as_one_is_told_so_at_its_start() {
        let group = |value: &str| Resources {
            unified: vec![("memory.oom.group".to_owned(), value.to_owned())],
            ..Resources::default()
        };
        assert_eq!(at_start(&group("1\n"), 253), Some(Property::new("OOMPolicy", "kill")));
        assert_eq!(at_start(&group("0"), 253), Some(Property::new("OOMPolicy", "continue")));
        assert_eq!((at_start(&group("1"), 252), at_start(&Resources::default(), 253)), (None, None));
    }

    #[test]
    fn sets_are_bits() {
        assert_eq!(bits("0-7, 8"), Some(vec![255, 1]));
        assert_eq!(bits("17"), Some(vec![0, 0, 2]));
        for bad in ["", ",", "x", "2-1", "0-", "-1", "8192", "0-99999999999999999999"] {
            assert_eq!(bits(bad), None, "{bad}");
        }
    }
}

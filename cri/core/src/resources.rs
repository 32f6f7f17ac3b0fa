//! Limits of a container: the CRI's message to the cgroup crate's type.

use berth_cri_proto::v1 as cri;
use berth_plan::resources::Resources;

use crate::error::{ConfigError, no_nul};

/// Converts limits for a new container or an update; 0 and the empty string mean "not specified" in the CRI.
///
/// As with containerd, a memory limit without a swap limit forbids swapping: memory and swap together get the same
/// bytes. A kernel without swap accounting has no file for it, which `cri/cgroup` tolerates.
pub fn from_cri(limits: &cri::LinuxContainerResources) -> Result<Resources, ConfigError> {
    let memory_limit = memory("memory_limit_in_bytes", limits.memory_limit_in_bytes)?;
    let memory_swap = memory("memory_swap_limit_in_bytes", limits.memory_swap_limit_in_bytes)?;
    if let (Some(memory), Some(swap)) = (memory_limit, memory_swap)
        && swap != -1
        && (memory == -1 || swap < memory)
    {
        return Err(ConfigError::new(
            field("memory_swap_limit_in_bytes"),
            format!("{swap} is below the memory limit, which it includes"),
            "raise it to the memory limit at least",
        ));
    }
    Ok(Resources {
        cpu_shares: shares(limits.cpu_shares)?,
        cpu_quota: quota(limits.cpu_quota)?,
        cpu_period: period(limits.cpu_period)?,
        cpuset_cpus: list("cpuset_cpus", &limits.cpuset_cpus)?,
        cpuset_mems: list("cpuset_mems", &limits.cpuset_mems)?,
        memory_limit,
        memory_swap: memory_swap.or(memory_limit),
        pids_limit: None,
        hugepage_limits: limits.hugepage_limits.iter().map(hugepages).collect::<Result<_, _>>()?,
        unified: unified(limits)?,
    })
}

fn field(name: &str) -> String {
    format!("linux.resources.{name}")
}

fn shares(shares: i64) -> Result<Option<u64>, ConfigError> {
    if shares == 0 {
        return Ok(None);
    }
    let shares = u64::try_from(shares)
        .map_err(|_| ConfigError::new(field("cpu_shares"), format!("{shares} is negative"), "use 2 to 262144"))?;
    Ok(Some(shares.clamp(2, 262_144)))
}

fn quota(quota: i64) -> Result<Option<i64>, ConfigError> {
    match quota {
        0 => Ok(None),
        // The kernel takes no quota below a millisecond.
        -1 | 1000.. => Ok(Some(quota)),
        _ => Err(ConfigError::new(
            field("cpu_quota"),
            format!("{quota} is not a quota"),
            "use -1 for none, or at least 1000 microseconds",
        )),
    }
}

fn period(period: i64) -> Result<Option<u64>, ConfigError> {
    match u64::try_from(period) {
        Ok(0) => Ok(None),
        Ok(period @ 1000..=1_000_000) => Ok(Some(period)),
        _ => Err(ConfigError::new(
            field("cpu_period"),
            format!("{period} is not a period"),
            "use 1000 to 1000000 microseconds",
        )),
    }
}

fn memory(name: &str, bytes: i64) -> Result<Option<i64>, ConfigError> {
    match bytes {
        0 => Ok(None),
        -1.. => Ok(Some(bytes)),
        _ => {
            Err(ConfigError::new(field(name), format!("{bytes} is negative"), "use -1 for none, or a number of bytes"))
        }
    }
}

/// A list of the kernel's form, `0-2,7`.
fn list(name: &str, text: &str) -> Result<String, ConfigError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b',' || b == b'-');
    if !plain || text.len() > 4096 {
        return Err(ConfigError::new(field(name), format!("{text:?} is not a list of numbers"), "use the form 0-2,7"));
    }
    Ok(text.to_owned())
}

fn hugepages(limit: &cri::HugepageLimit) -> Result<(String, u64), ConfigError> {
    let size = &limit.page_size;
    let digits = size.strip_suffix("KB").or_else(|| size.strip_suffix("MB")).or_else(|| size.strip_suffix("GB"));
    // It becomes part of a file name.
    if digits.is_none_or(|digits| digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit())) {
        return Err(ConfigError::new(
            field("hugepage_limits.page_size"),
            format!("{size:?} is not a page size"),
            "use the kernel's form, 2MB",
        ));
    }
    Ok((size.clone(), limit.limit))
}

fn unified(limits: &cri::LinuxContainerResources) -> Result<Vec<(String, String)>, ConfigError> {
    let mut files: Vec<_> = limits.unified.iter().map(|(file, value)| (file.clone(), value.clone())).collect();
    files.sort();
    for (file, value) in &files {
        let name = field(&format!("unified[{file:?}]"));
        no_nul(&name, value)?;
        let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        // Only a controller's files: `cgroup.*` moves processes and kills them.
        let controller = file.split_once('.').is_some_and(|(controller, rest)| {
            !controller.is_empty() && controller != "cgroup" && !rest.is_empty() && !rest.starts_with('.')
        });
        if !plain || !controller {
            return Err(ConfigError::new(name, "it is not a file of a controller", "use names like memory.high"));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;

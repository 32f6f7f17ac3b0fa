//! What the machine is.

use std::fs;
use std::path::Path;

/// Facts about the machine that a Node shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that this process may use.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the file system that holds the pods' folders.
    pub storage: u64,
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release(5).
    pub os_image: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: &'static str,
    /// machine-id(5).
    pub machine_id: String,
    /// From DMI; the machine's id where there is none.
    pub system_uuid: String,
    /// New at every boot.
    pub boot_id: String,
}

impl Machine {
    /// Reads them; `root` is a path on the file system that holds the pods' folders. What can't be read stays empty.
    pub fn read(root: &Path) -> Self {
        let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid").to_lowercase();
        let storage = root.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(&line("/proc/meminfo")).unwrap_or(0),
            storage: storage.map_or(0, |fs| fs.f_blocks.saturating_mul(fs.f_frsize)),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            os_image: os_image(&line("/etc/os-release")).unwrap_or_else(|| "Linux".to_owned()),
            architecture: architecture(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn os_image(release: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_every_machine_has() {
        let machine = Machine::read(Path::new("/nowhere/yet"));
        assert!(machine.cpus > 0 && machine.memory > 1 << 20 && machine.storage > 0);
        assert!(!machine.kernel.is_empty() && !machine.boot_id.is_empty());
    }

    #[test]
    fn the_files_are_understood() {
        assert_eq!(memory("MemTotal:       16384 kB\nMemFree: 1 kB"), Some(16_777_216));
        assert_eq!(memory("nonsense"), None);
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian 12\"\n").as_deref(), Some("Debian 12"));
    }
}

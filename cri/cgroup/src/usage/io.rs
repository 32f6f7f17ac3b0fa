//! Block devices (`blkio.throttle.*` of v1, `io.stat` of v2) and huge pages.

use std::collections::BTreeMap;
use std::path::Path;

use super::number;
use crate::files::optional;

/// What went to and from one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceIo {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugePages {
    /// As the kernel names it, `2MB`.
    pub size: String,
    pub bytes: u64,
    /// The greatest use so far: v1 only.
    pub peak: Option<u64>,
}

pub(super) fn v1(bytes: &str, operations: &str) -> Vec<DeviceIo> {
    let mut devices = BTreeMap::new();
    let mut take = |text: &str, set: fn(&mut DeviceIo, bool, u64)| {
        for line in text.lines() {
            let mut parts = line.split(' ');
            let (Some(device), Some(what), Some(count)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let (Some((major, minor)), Some(count)) = (numbers(device), number(count)) else { continue };
            let write = match what {
                "Read" => false,
                "Write" => true,
                _ => continue,
            };
            let entry = devices.entry((major, minor));
            set(entry.or_insert(DeviceIo { major, minor, ..DeviceIo::default() }), write, count);
        }
    };
    take(bytes, |device, write, count| if write { device.written_bytes = count } else { device.read_bytes = count });
    take(operations, |device, write, count| if write { device.writes = count } else { device.reads = count });
    devices.into_values().collect()
}

pub(super) fn v2(text: &str) -> Vec<DeviceIo> {
    let line = |line: &str| {
        let (device, fields) = line.split_once(' ')?;
        let (major, minor) = numbers(device)?;
        let field =
            |name: &str| fields.split(' ').find_map(|field| number(field.strip_prefix(name)?.strip_prefix('=')?));
        // A device that nobody has used since boot is listed without numbers.
        Some(DeviceIo {
            major,
            minor,
            read_bytes: field("rbytes")?,
            written_bytes: field("wbytes")?,
            reads: field("rios")?,
            writes: field("wios")?,
        })
    };
    text.lines().filter_map(line).collect()
}

fn numbers(device: &str) -> Option<(u32, u32)> {
    let (major, minor) = device.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

pub(super) fn huge_pages(folder: &Path) -> Vec<HugePages> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut sizes: Vec<HugePages> = names
        .filter_map(|name| {
            let rest = name.strip_prefix("hugetlb.")?;
            let size = rest.strip_suffix(".usage_in_bytes").or_else(|| rest.strip_suffix(".current"))?;
            // `2MB.rsvd` counts reservations.
            if size.contains('.') {
                return None;
            }
            let peak = optional(folder, &format!("hugetlb.{size}.max_usage_in_bytes"));
            let bytes = number(&optional(folder, &name)?)?;
            Some(HugePages { size: size.to_owned(), bytes, peak: peak.and_then(|text| number(&text)) })
        })
        .collect();
    sizes.sort_by(|one, other| one.size.cmp(&other.size));
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    const VDA: DeviceIo = DeviceIo { major: 254, minor: 0, read_bytes: 8192, written_bytes: 4096, reads: 2, writes: 1 };

    #[test]
    fn v1_has_a_line_for_each_operation() {
        let bytes = "254:0 Read 8192\n254:0 Write 4096\n254:0 Sync 4096\n254:0 Async 8192\n254:0 Discard 0\n254:0 Total 12288\nTotal 12288\n";
        let operations = "254:0 Read 2\n254:0 Write 1\n254:0 Total 3\nTotal 3\n";
        assert_eq!(v1(bytes, operations), [VDA]);
        assert_eq!(v1("Total 0\n", "Total 0\n"), []);
    }

    #[test]
    fn v2_has_a_line_for_each_device() {
        let text = "7:0 \n254:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n253:1\nx y=1\n";
        assert_eq!(v2(text), [VDA]);
    }

    #[test]
    fn huge_pages_have_their_sizes() {
        let folder = std::env::temp_dir().join(format!("berth-test-hugetlb-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for (file, text) in [
            ("hugetlb.2MB.usage_in_bytes", "4194304\n"),
            ("hugetlb.2MB.max_usage_in_bytes", "6291456\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "1\n"),
            ("hugetlb.1GB.current", "0\n"),
            ("hugetlb.1GB.max", "max\n"),
        ] {
            std::fs::write(folder.join(file), text).expect("a file");
        }
        let found = huge_pages(&folder);
        std::fs::remove_dir_all(&folder).expect("removed");
        let small = HugePages { size: "2MB".to_owned(), bytes: 4 << 20, peak: Some(6 << 20) };
        assert_eq!(found, [HugePages { size: "1GB".to_owned(), bytes: 0, peak: None }, small]);
    }
}

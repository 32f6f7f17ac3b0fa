//! The leak check: a picture of everything that a node changes, taken before and after, and their difference.

mod files;
mod network;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait;

/// How long the machine may take to settle: orphans are reaped and links disappear a moment after their owner.
const SETTLE: Duration = Duration::from_secs(10);

/// Everything that was seen at one moment: how often each line was seen, by section.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    sections: BTreeMap<&'static str, BTreeMap<String, usize>>,
}

/// Where to look for files beside the places that are always looked at.
#[derive(Clone, Debug, Default)]
pub struct Folders(Vec<PathBuf>);

impl Folders {
    /// These folders, and the ones that the CNI convention and the container log format fix.
    pub fn new(own: &[&Path]) -> Self {
        let fixed = ["/var/lib/cni", "/etc/cni", "/var/log/pods", "/var/log/containers", "/run/netns", "/run/berth"];
        let mut folders: Vec<PathBuf> = fixed.iter().map(PathBuf::from).collect();
        folders.extend(own.iter().map(|path| path.to_path_buf()));
        folders.sort();
        folders.dedup();
        Self(folders)
    }
}

impl Picture {
    /// Looks at this process's namespaces and `folders`.
    ///
    /// # Errors
    /// Something can't be read.
    pub fn take(folders: &Folders) -> Result<Self> {
        let mut picture = Self::default();
        picture.put("process", processes()?);
        picture.put("mount", mounts()?);
        picture.put("network namespace", network::namespaces()?);
        picture.put("link", network::links()?);
        picture.put("address", network::addresses()?);
        picture.put("route", network::routes()?);
        picture.put("firewall rule", network::firewall()?);
        picture.put("sysctl", files::sysctls());
        picture.put("cgroup", files::tree(Path::new("/sys/fs/cgroup"), &|path| path.is_dir()));
        for folder in &folders.0 {
            picture.put("file", files::tree(folder, &|_| true));
        }
        Ok(picture)
    }

    /// Fails when `later` differs from this picture in any section but those of `except`.
    ///
    /// # Errors
    /// The difference.
    pub fn compare(&self, later: &Self, except: &[&str]) -> Result<()> {
        let mut lines = Vec::new();
        let sections: Vec<&&str> = self.sections.keys().chain(later.sections.keys()).collect();
        let mut seen = Vec::new();
        for section in sections {
            if seen.contains(section) || except.contains(section) {
                continue;
            }
            seen.push(*section);
            difference(section, self.sections.get(section), later.sections.get(section), &mut lines);
        }
        if lines.is_empty() {
            return Ok(());
        }
        bail!("{} differences from the picture before:\n  {}", lines.len(), lines.join("\n  "))
    }

    /// Takes pictures until one equals this one.
    ///
    /// # Errors
    /// The difference that is still there after 10 s.
    pub fn await_equal(&self, folders: &Folders, except: &[&str]) -> Result<()> {
        wait::until_true("nothing is left behind", SETTLE, || {
            self.compare(&Self::take(folders)?, except)?;
            Ok(true)
        })
    }

    fn put(&mut self, section: &'static str, lines: Vec<String>) {
        let entry = self.sections.entry(section).or_default();
        for line in lines {
            *entry.entry(line).or_default() += 1;
        }
    }
}

impl fmt::Display for Picture {
    /// How many things of each kind were seen.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self
            .sections
            .iter()
            .map(|(section, lines)| format!("{} {section}", lines.values().sum::<usize>()))
            .collect();
        formatter.write_str(&counts.join(", "))
    }
}

fn difference(
    section: &str,
    before: Option<&BTreeMap<String, usize>>,
    after: Option<&BTreeMap<String, usize>>,
    lines: &mut Vec<String>,
) {
    let none = BTreeMap::new();
    let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
    for (line, count) in after {
        let more = count.saturating_sub(before.get(line).copied().unwrap_or(0));
        lines.extend((0..more).map(|_| format!("left behind: {section} {line}")));
    }
    for (line, count) in before {
        let fewer = count.saturating_sub(after.get(line).copied().unwrap_or(0));
        lines.extend((0..fewer).map(|_| format!("gone: {section} {line}")));
    }
}

/// The processes of this PID namespace, without their numbers: a program that is started again is the same to us.
fn processes() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().to_str().is_none_or(|name| name.parse::<u32>().is_err()) {
            continue;
        }
        // It may end while we look.
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        lines.push(format!("{} ({})", name.trim(), command.trim()));
    }
    Ok(lines)
}

/// Mounts by where and what, without the numbers that the kernel gives them.
fn mounts() -> Result<Vec<String>> {
    // A thread may be in a mount namespace of its own.
    let text = fs::read_to_string("/proc/thread-self/mountinfo").context("mountinfo")?;
    Ok(text.lines().filter_map(mount_line).collect())
}

fn mount_line(line: &str) -> Option<String> {
    let (head, tail) = line.split_once(" - ")?;
    let fields: Vec<&str> = head.split(' ').collect();
    Some(format!("{} from {} ({}) {tail}", fields.get(4)?, fields.get(3)?, fields.get(5)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_is_new_and_what_is_gone_and_counts_repetitions() {
        let mut before = Picture::default();
        before.put("mount", vec!["/a".into(), "/b".into(), "/b".into()]);
        let mut after = Picture::default();
        after.put("mount", vec!["/b".into(), "/c".into()]);
        let text = before.compare(&after, &[]).expect_err("they differ").to_string();
        for expected in ["left behind: mount /c", "gone: mount /a", "gone: mount /b"] {
            assert!(text.contains(expected), "{text}");
        }
        before.compare(&after, &["mount"]).expect("mounts are excepted");
        before.compare(&before.clone(), &[]).expect("equal");
    }

    #[test]
    fn a_mount_is_known_by_place_and_kind() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_line(line).as_deref(), Some("/mnt2 from /mnt1 (rw,noatime) ext3 /dev/root rw"));
    }
}

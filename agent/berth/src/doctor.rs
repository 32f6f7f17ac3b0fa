//! `berth doctor`: what this machine lacks, what that costs, and what to do about it.
//!
//! Facts are read first ([`Facts::read`]), then judged without touching the machine ([`judge`]), then shown.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What was read from the machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Effective user id.
    euid: u32,
    /// Major and minor of the running kernel.
    kernel: (u32, u32),
    /// Names in /proc/filesystems.
    filesystems: Vec<String>,
    /// Names in /proc/self/ns.
    namespaces: Vec<String>,
    /// Effective capabilities.
    capabilities: u64,
    /// Whether /sys/fs/cgroup is a cgroup v2 mount.
    cgroup_v2: bool,
    /// Controllers, of v2 or as v1 mounts.
    controllers: Vec<String>,
    seccomp: bool,
    nf_tables: bool,
    pressure: bool,
    cni_configuration: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    /// Works, with something less.
    Less,
    /// Pods can't run.
    Missing,
}

/// One line of the report.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    what: &'static str,
    detail: String,
    /// What it costs and what to do; empty when all is well.
    remedy: &'static str,
}

const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

impl Facts {
    pub(crate) fn read() -> Self {
        let status = text("/proc/self/status");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let cgroup_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Facts {
            euid: field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok()).unwrap_or(u32::MAX),
            kernel: kernel_version(&text("/proc/sys/kernel/osrelease")),
            filesystems: text("/proc/filesystems")
                .lines()
                .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
                .collect(),
            namespaces: names("/proc/self/ns"),
            capabilities: field("CapEff:").and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0),
            cgroup_v2,
            controllers: if cgroup_v2 {
                text("/sys/fs/cgroup/cgroup.controllers").split_whitespace().map(str::to_owned).collect()
            } else {
                names("/sys/fs/cgroup")
                    .into_iter()
                    .flat_map(|n| n.split(',').map(str::to_owned).collect::<Vec<_>>())
                    .collect()
            },
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            nf_tables: berth_net::nft::Nft::open().is_ok(),
            pressure: Path::new("/proc/pressure/cpu").exists(),
            cni_configuration: names("/etc/cni/net.d").iter().any(|n| n.ends_with(".conflist") || n.ends_with(".conf")),
        }
    }
}

/// Judges facts; the order is that of the report.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |ok: bool, otherwise: Verdict, what, detail: String, remedy| {
        let verdict = if ok { Verdict::Good } else { otherwise };
        findings.push(Finding { verdict, what, detail, remedy: if ok { "" } else { remedy } });
    };
    say(
        facts.euid == 0,
        Verdict::Missing,
        "root",
        format!("effective user id {}", facts.euid),
        "run berth as root (sudo)",
    );
    say(
        facts.capabilities & (CAP_SYS_ADMIN | CAP_NET_ADMIN) == CAP_SYS_ADMIN | CAP_NET_ADMIN,
        Verdict::Missing,
        "capabilities",
        format!("{:#x}", facts.capabilities),
        "CAP_SYS_ADMIN and CAP_NET_ADMIN are needed: mounts, namespaces and links can't be made without them",
    );
    say(
        facts.capabilities & CAP_SYS_RESOURCE != 0,
        Verdict::Less,
        "CAP_SYS_RESOURCE",
        "to lower oom_score_adj and raise hard limits".into(),
        "oom_score_adj stays at berth's own value at the least, and raised hard limits are refused",
    );
    let (major, minor) = facts.kernel;
    say(
        facts.kernel >= (5, 15),
        Verdict::Missing,
        "kernel",
        format!("{major}.{minor} (5.15 or newer)"),
        "boot a newer kernel: the new mount calls and openat2 are used throughout",
    );
    let missing: Vec<&str> = ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .filter(|n| !facts.namespaces.iter().any(|have| have == n))
        .collect();
    say(
        missing.is_empty(),
        Verdict::Missing,
        "namespaces",
        if missing.is_empty() { "mnt pid net ipc uts cgroup".into() } else { format!("without {}", missing.join(" ")) },
        "the kernel was built without them (CONFIG_*_NS)",
    );
    say(
        facts.filesystems.iter().any(|f| f == "overlay"),
        Verdict::Missing,
        "overlayfs",
        "for the containers' root file systems".into(),
        "modprobe overlay (CONFIG_OVERLAY_FS)",
    );
    let wanted = ["cpu", "memory", "pids"];
    let missing: Vec<&str> = wanted.into_iter().filter(|c| !facts.controllers.iter().any(|have| have == c)).collect();
    say(
        missing.is_empty(),
        Verdict::Missing,
        "cgroups",
        format!(
            "{}{}",
            if facts.cgroup_v2 { "v2" } else { "v1 or hybrid" },
            if missing.is_empty() { String::new() } else { format!(", without {}", missing.join(" ")) }
        ),
        "mount cgroup2 on /sys/fs/cgroup and enable the controllers (kernel command line: cgroup_enable=…)",
    );
    say(
        facts.cgroup_v2,
        Verdict::Less,
        "cgroup v2",
        "one hierarchy".into(),
        "works on v1 too, with a slower kill; systemd.unified_cgroup_hierarchy=1 gives v2",
    );
    say(
        facts.nf_tables,
        Verdict::Less,
        "nf_tables",
        "for masquerading and host ports".into(),
        "modprobe nf_tables: without it ipMasq and hostPort of the bridge network fail",
    );
    say(
        facts.seccomp,
        Verdict::Less,
        "seccomp",
        "filters".into(),
        "pods that ask for RuntimeDefault or Localhost fail (CONFIG_SECCOMP_FILTER)",
    );
    say(
        facts.pressure,
        Verdict::Less,
        "pressure stall information",
        "/proc/pressure".into(),
        "no PSI metrics; boot with psi=1",
    );
    say(
        facts.cni_configuration,
        Verdict::Less,
        "CNI configuration",
        "/etc/cni/net.d".into(),
        "install a network add-on, or start with --pod-network=bridge",
    );
    findings
}

/// The report, at most 80 columns wide.
pub(crate) fn report(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok     ",
            Verdict::Less => "less   ",
            Verdict::Missing => "MISSING",
        };
        let _ = writeln!(out, "{mark} {:<27} {}", finding.what, finding.detail);
        for line in wrap(finding.remedy, 70) {
            let _ = writeln!(out, "        {line}");
        }
    }
    out
}

/// Reads, judges and prints; whether pods can run here.
pub(crate) fn run() -> bool {
    let findings = judge(&Facts::read());
    print!("{}", report(&findings));
    let missing = findings.iter().filter(|f| f.verdict == Verdict::Missing).count();
    match missing {
        0 => println!("\nPods can run here."),
        1 => println!("\n1 thing is missing: pods can't run here."),
        n => println!("\n{n} things are missing: pods can't run here."),
    }
    missing == 0
}

/// The first thing that keeps pods from running, as one line, for commands that are about to start.
pub(crate) fn first_obstacle() -> Option<String> {
    let findings = judge(&Facts::read());
    let finding = findings.into_iter().find(|f| f.verdict == Verdict::Missing)?;
    Some(format!("{}: {}: {} (`berth doctor` shows all)", finding.what, finding.detail, finding.remedy))
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn names(path: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            euid: 0,
            kernel: (6, 1),
            filesystems: vec!["overlay".into()],
            namespaces: ["mnt", "pid", "net", "ipc", "uts", "cgroup"].map(String::from).to_vec(),
            capabilities: u64::MAX,
            cgroup_v2: true,
            controllers: ["cpu", "memory", "pids"].map(String::from).to_vec(),
            seccomp: true,
            nf_tables: true,
            pressure: true,
            cni_configuration: true,
        }
    }

    #[test]
    fn a_whole_machine_has_no_remedies() {
        assert!(judge(&good()).iter().all(|f| f.verdict == Verdict::Good && f.remedy.is_empty()));
    }

    #[test]
    fn each_thing_that_is_missing_is_named_with_a_remedy() {
        type Damage = fn(&mut Facts);
        let cases: [(Damage, &str); 6] = [
            (|f| f.euid = 1000, "root"),
            (|f| f.capabilities = 0, "capabilities"),
            (|f| f.kernel = (5, 4), "kernel"),
            (|f| f.namespaces.retain(|n| n != "cgroup"), "namespaces"),
            (|f| f.filesystems.clear(), "overlayfs"),
            (|f| f.controllers.retain(|c| c != "memory"), "cgroups"),
        ];
        for (damage, what) in cases {
            let mut facts = good();
            damage(&mut facts);
            let findings = judge(&facts);
            let finding = findings.iter().find(|f| f.verdict == Verdict::Missing).expect("a finding");
            assert_eq!(finding.what, what);
            assert!(!finding.remedy.is_empty());
        }
    }

    #[test]
    fn the_report_fits_eighty_columns() {
        let report = report(&judge(&Facts::default()));
        assert!(report.lines().all(|line| line.chars().count() <= 80), "{report}");
    }

    #[test]
    fn kernel_releases_of_distributions_are_understood() {
        assert_eq!(kernel_version("6.1.0-28-cloud-amd64"), (6, 1));
        assert_eq!(kernel_version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(kernel_version(""), (0, 0));
    }
}

//! What running pods needs of the machine.

use std::fs;
use std::path::Path;

use berth_cni_plugins::Trial;

use super::finding::{Finding, Subject, Verdict};

/// What was read from the machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    /// Effective user id.
    pub(super) euid: u32,
    /// Major and minor of the running kernel.
    pub(super) kernel: (u32, u32),
    /// Names in /proc/filesystems.
    pub(super) filesystems: Vec<String>,
    /// Names in /proc/self/ns.
    pub(super) namespaces: Vec<String>,
    /// Effective capabilities.
    pub(super) capabilities: u64,
    /// Whether /sys/fs/cgroup is a cgroup v2 mount.
    pub(super) cgroup_v2: bool,
    /// Controllers, of v2 or as v1 mounts.
    pub(super) controllers: Vec<String>,
    pub(super) seccomp: bool,
    pub(super) nf_tables: bool,
    pub(super) pressure: bool,
    pub(super) cni_configuration: bool,
    /// What the kernel did when it was asked for a pod's network; `None`: it was not.
    pub(super) network: Option<Network>,
}

/// What of a pod's network the kernel refused, in its words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) veth: Option<String>,
    pub(super) bridge: Option<String>,
    pub(super) rules: Option<String>,
}

const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

impl Machine {
    /// Reads; nothing is changed or tried.
    pub(super) fn read() -> Self {
        let status = text("/proc/self/status");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let cgroup_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Self {
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
            network: None,
        }
    }

    /// Whether a network namespace can be made.
    fn has_rights(&self) -> bool {
        self.euid == 0 && self.capabilities & (CAP_SYS_ADMIN | CAP_NET_ADMIN) == CAP_SYS_ADMIN | CAP_NET_ADMIN
    }

    /// Tries a pod's network, in a network namespace that is gone afterwards.
    pub(super) fn try_network(&mut self) {
        if !self.has_rights() {
            return;
        }
        self.network = Some(match berth_cni_plugins::try_kernel() {
            Err(error) => Network { veth: Some(format!("no network namespace: {error}")), ..Network::default() },
            Ok(Trial { veth, bridge, rules }) => {
                let said = |tried: Result<(), _>| tried.err().map(|error: berth_cni::CniError| error.msg);
                Network { veth: said(veth), bridge: said(bridge), rules: said(rules) }
            }
        });
    }
}

/// Judges; the order is that of the report.
pub(super) fn judge(machine: &Machine) -> Vec<Finding> {
    let mut findings = rights(machine);
    findings.extend(kernel(machine));
    findings.extend(cgroups(machine));
    findings.extend(network(machine));
    findings
}

fn found(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding::good(Subject::Pods, what, detail)
}

fn rights(machine: &Machine) -> Vec<Finding> {
    let needed = CAP_SYS_ADMIN | CAP_NET_ADMIN;
    vec![
        found("root", format!("effective user id {}", machine.euid)).unless(
            machine.euid == 0,
            Verdict::Missing,
            "no mounts, namespaces or cgroups",
            "run berth as root (sudo)",
        ),
        found("capabilities", format!("{:#x}", machine.capabilities)).unless(
            machine.capabilities & needed == needed,
            Verdict::Missing,
            "mounts, namespaces and links can't be made",
            "give CAP_SYS_ADMIN and CAP_NET_ADMIN: this root is a container's",
        ),
        found("CAP_SYS_RESOURCE", "to lower oom_score_adj and raise hard limits").unless(
            machine.capabilities & CAP_SYS_RESOURCE != 0,
            Verdict::Less,
            "oom_score_adj stays at berth's own value at the least, and raised hard limits are refused",
            "give CAP_SYS_RESOURCE",
        ),
    ]
}

fn kernel(machine: &Machine) -> Vec<Finding> {
    let (major, minor) = machine.kernel;
    let missing = missing(&["mnt", "pid", "net", "ipc", "uts", "cgroup"], &machine.namespaces);
    let namespaces = match missing.is_empty() {
        true => "mnt pid net ipc uts cgroup".to_owned(),
        false => format!("without {missing}"),
    };
    vec![
        found("kernel", format!("{major}.{minor} (5.15 or newer)")).unless(
            machine.kernel >= (5, 15),
            Verdict::Missing,
            "the new mount calls and openat2 are used throughout",
            "boot a newer kernel",
        ),
        found("namespaces", namespaces).unless(
            missing.is_empty(),
            Verdict::Missing,
            "containers can't be kept apart",
            "boot a kernel with CONFIG_*_NS",
        ),
        found("overlayfs", "for the containers' root file systems").unless(
            machine.filesystems.iter().any(|f| f == "overlay"),
            Verdict::Missing,
            "images can't be mounted",
            "modprobe overlay (CONFIG_OVERLAY_FS)",
        ),
        found("seccomp", "filters").unless(
            machine.seccomp,
            Verdict::Less,
            "pods that ask for RuntimeDefault or Localhost fail",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        ),
        found("pressure stalls", "/proc/pressure").unless(
            machine.pressure,
            Verdict::Less,
            "no PSI metrics",
            "boot with psi=1",
        ),
    ]
}

fn cgroups(machine: &Machine) -> Vec<Finding> {
    let missing = missing(&["cpu", "memory", "pids"], &machine.controllers);
    let layout = if machine.cgroup_v2 { "v2" } else { "v1 or hybrid" };
    let detail = if missing.is_empty() { layout.to_owned() } else { format!("{layout}, without {missing}") };
    vec![
        found("cgroups", detail).unless(
            missing.is_empty(),
            Verdict::Missing,
            "requests and limits can't be kept",
            "mount cgroup2 on /sys/fs/cgroup and enable the controllers (kernel command line: cgroup_enable=…)",
        ),
        found("cgroup v2", "one hierarchy").unless(
            machine.cgroup_v2,
            Verdict::Less,
            "a slower kill, and no memory.high or PSI of pods",
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
    ]
}

fn network(machine: &Machine) -> Vec<Finding> {
    let tried = machine.network.clone().unwrap_or_default();
    let refused = |what: &str, words: &Option<String>| words.clone().unwrap_or_else(|| what.to_owned());
    let mut findings = Vec::new();
    if machine.network.is_some() {
        findings.push(found("veth", refused("a pair across namespaces, tried", &tried.veth)).unless(
            tried.veth.is_none(),
            Verdict::Missing,
            "only pods with hostNetwork can start",
            "modprobe veth (CONFIG_VETH)",
        ));
        findings.push(found("bridge", refused("a link, tried", &tried.bridge)).unless(
            tried.bridge.is_none(),
            Verdict::Less,
            "CNI configurations with a bridge fail, Berth's own included",
            "modprobe bridge (CONFIG_BRIDGE)",
        ));
    }
    findings.push(found("nf_tables", refused("for masquerading and host ports", &tried.rules)).unless(
        machine.nf_tables && tried.rules.is_none(),
        Verdict::Less,
        "ipMasq and hostPort fail",
        "modprobe -a nf_tables nft_masq nft_fib_inet nft_ct",
    ));
    findings.push(found("CNI configuration", "/etc/cni/net.d").unless(
        machine.cni_configuration,
        Verdict::Less,
        "pods wait for a network",
        "let the cluster's network add-on install one, or start with --pod-network=bridge",
    ));
    findings
}

/// Those of the wanted names that are not there, in one text.
fn missing(wanted: &[&str], there: &[String]) -> String {
    wanted.iter().filter(|name| !there.iter().any(|have| have == *name)).copied().collect::<Vec<_>>().join(" ")
}

pub(super) fn text(path: &str) -> String {
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

    fn good() -> Machine {
        Machine {
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
            network: Some(Network::default()),
        }
    }

    fn refused() -> Option<String> {
        Some("link add: Operation not supported".into())
    }

    #[test]
    fn a_whole_machine_has_no_remedies() {
        assert!(judge(&good()).iter().all(|f| f.verdict == Verdict::Good && f.remedy.is_empty() && f.cost.is_empty()));
    }

    #[test]
    fn each_thing_that_is_missing_is_named_with_its_cost_and_a_remedy() {
        type Damage = fn(&mut Machine);
        let cases: [(Damage, &str, Verdict); 12] = [
            (|m| m.euid = 1000, "root", Verdict::Missing),
            (|m| m.capabilities = 0, "capabilities", Verdict::Missing),
            (|m| m.kernel = (5, 4), "kernel", Verdict::Missing),
            (|m| m.namespaces.retain(|n| n != "cgroup"), "namespaces", Verdict::Missing),
            (|m| m.filesystems.clear(), "overlayfs", Verdict::Missing),
            (|m| m.controllers.retain(|c| c != "memory"), "cgroups", Verdict::Missing),
            (|m| m.cgroup_v2 = false, "cgroup v2", Verdict::Less),
            (|m| m.nf_tables = false, "nf_tables", Verdict::Less),
            (|m| m.cni_configuration = false, "CNI configuration", Verdict::Less),
            (|m| m.network = Some(Network { veth: refused(), ..Network::default() }), "veth", Verdict::Missing),
            (|m| m.network = Some(Network { bridge: refused(), ..Network::default() }), "bridge", Verdict::Less),
            (|m| m.network = Some(Network { rules: refused(), ..Network::default() }), "nf_tables", Verdict::Less),
        ];
        for (damage, what, verdict) in cases {
            let mut machine = good();
            damage(&mut machine);
            let findings = judge(&machine);
            let finding = findings.iter().find(|f| f.verdict != Verdict::Good).expect("a finding");
            assert_eq!((finding.what, finding.verdict), (what, verdict));
            assert!(!finding.remedy.is_empty() && !finding.cost.is_empty());
        }
    }

    #[test]
    fn what_was_not_tried_is_not_told() {
        let machine = Machine { network: None, ..good() };
        assert!(judge(&machine).iter().all(|finding| finding.what != "veth" && finding.what != "bridge"));
    }

    #[test]
    fn kernel_releases_of_distributions_are_understood() {
        assert_eq!(kernel_version("6.1.0-28-cloud-amd64"), (6, 1));
        assert_eq!(kernel_version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(kernel_version(""), (0, 0));
    }
}

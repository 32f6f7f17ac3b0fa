//! What being a cluster's node needs: ports, a name, name servers, room, and nobody else in its place.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::finding::{Finding, Subject, Verdict};
use super::machine::text;
use super::sockets::{self, Listener, Process};
use crate::host;

/// The node's HTTPS port, and its health endpoint's.
const PORTS: [u16; 2] = [10250, 10248];
/// Programs in whose place Berth would be, or beside whom.
const KUBELET: &str = "kubelet";
const RUNTIMES: [&str; 3] = ["containerd", "dockerd", "crio"];
/// Images, containers' layers and volumes.
const FOLDERS: [&str; 2] = ["/var/lib/berth", "/var/lib/kubelet"];
/// Below this share of free space the kubelet evicts pods (`imagefs.available` and `nodefs.inodesFree` by default).
const EVICTED_BELOW: u64 = 15;
/// With less than this not even small images fit.
const LEAST_BYTES: u64 = 256 << 20;
/// RFC 1123 names a whole, and each of its parts.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// What was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) listeners: Vec<Listener>,
    /// Kubelets and runtimes that are not Berth.
    pub(super) others: Vec<Process>,
    /// Names of swap devices and files.
    pub(super) swap: Vec<String>,
    /// `net.ipv4.ip_forward`.
    pub(super) forwards: bool,
    /// `net.bridge.bridge-nf-call-iptables`; `None`: br_netfilter is not loaded.
    pub(super) bridge_netfilter: Option<bool>,
    /// Of /etc/resolv.conf.
    pub(super) name_servers: Vec<String>,
    pub(super) address: Option<IpAddr>,
    pub(super) disks: Vec<Disk>,
}

/// The room of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    /// Of Berth's folder on it.
    pub(super) folder: PathBuf,
    pub(super) bytes: Room,
    pub(super) inodes: Room,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) free: u64,
    pub(super) all: u64,
}

impl Room {
    /// Rounded down; a file system without a limit (0 inodes) is empty.
    fn percent(self) -> u64 {
        if self.all == 0 {
            100
        } else {
            u64::try_from(u128::from(self.free) * 100 / u128::from(self.all)).unwrap_or(100)
        }
    }
}

impl Node {
    pub(super) fn read(name: Option<&str>) -> Self {
        let is_other = |process: &Process| {
            (process.name == KUBELET || RUNTIMES.contains(&process.name.as_str())) && !process.is_berth()
        };
        let servers = text("/etc/resolv.conf");
        let server = |line: &str| line.strip_prefix("nameserver")?.split_whitespace().next().map(str::to_owned);
        Self {
            name: name.map_or_else(host::name, str::to_owned),
            listeners: sockets::listeners(&PORTS),
            others: sockets::processes().into_iter().filter(is_other).collect(),
            swap: text("/proc/swaps")
                .lines()
                .skip(1)
                .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
                .collect(),
            forwards: text("/proc/sys/net/ipv4/ip_forward").trim() == "1",
            bridge_netfilter: std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
                .ok()
                .map(|value| value.trim() == "1"),
            name_servers: servers.lines().filter_map(server).collect(),
            address: host::address(),
            disks: FOLDERS.iter().filter_map(|folder| disk(Path::new(folder))).collect(),
        }
    }
}

/// The room where the folder is, or will be.
fn disk(folder: &Path) -> Option<Disk> {
    let there = folder.ancestors().find(|folder| folder.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(Disk {
        folder: folder.to_owned(),
        bytes: Room {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            all: stat.f_blocks.saturating_mul(stat.f_frsize),
        },
        inodes: Room { free: stat.f_favail, all: stat.f_files },
    })
}

/// Judges; the order is that of the report.
pub(super) fn judge(node: &Node) -> Vec<Finding> {
    let mut findings = vec![name(&node.name), address(node.address)];
    findings.extend(PORTS.iter().map(|port| free_port(*port, &node.listeners)));
    findings.push(kubelet(&node.others));
    findings.extend(runtimes(&node.others));
    findings.extend(settings(node));
    findings.push(name_servers(&node.name_servers));
    findings.extend(node.disks.iter().map(room));
    findings
}

fn found(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding::good(Subject::Node, what, detail)
}

fn name(name: &str) -> Finding {
    let finding = found("node name", name);
    let remedy = "hostnamectl set-hostname NAME, or join with --node-name NAME";
    if let Some(fault) = fault_of_name(name) {
        return finding.bad(Verdict::Missing, format!("the API server refuses a node of this name: {fault}"), remedy);
    }
    finding.unless(
        name != "localhost",
        Verdict::Less,
        "the next machine that is called so can't join, or takes this one's place",
        remedy,
    )
}

/// What keeps a text from being a node's name (a DNS subdomain by RFC 1123).
fn fault_of_name(name: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Some(format!("it must have 1 to {LONGEST_NAME} characters"));
    }
    if let Some(wrong) = name.chars().find(|c| !is_part(*c) && *c != '.') {
        return Some(format!("{wrong:?} is neither a lower-case letter nor a digit, \"-\" or \".\""));
    }
    let bad = |label: &str| label.is_empty() || label.starts_with('-') || label.ends_with('-');
    if name.split('.').any(bad) {
        return Some("each part must begin and end with a letter or digit".to_owned());
    }
    let long = name.split('.').find(|label| label.len() > LONGEST_LABEL)?;
    Some(format!("{long:?} has more than {LONGEST_LABEL} characters"))
}

fn address(address: Option<IpAddr>) -> Finding {
    match address {
        Some(address) => found("node address", format!("{address}, that of the default route")),
        None => found("node address", "none: there is no default route").bad(
            Verdict::Less,
            "the node does not know its own address",
            "ip route add default via GATEWAY, or join with --node-ip IP",
        ),
    }
}

fn free_port(port: u16, listeners: &[Listener]) -> Finding {
    let (what, use_of_it) = match port {
        10250 => ("port 10250", "the node's API"),
        _ => ("port 10248", "the health endpoint"),
    };
    let Some(Listener { holder, .. }) = listeners.iter().find(|listener| listener.port == port) else {
        return found(what, format!("free, for {use_of_it}"));
    };
    let held_by = match holder {
        Some(process) if process.is_berth() => return found(what, format!("held by berth itself ({})", process.pid)),
        Some(process) => format!("{} (pid {})", process.name, process.pid),
        None => "somebody".to_owned(),
    };
    let end = match holder {
        Some(process) if process.name == KUBELET => "systemctl disable --now kubelet".to_owned(),
        Some(process) => format!("end {}, or let it listen elsewhere", process.name),
        None => "ss -ltnp shows whom to end (as root)".to_owned(),
    };
    let finding = found(what, format!("held by {held_by}"));
    match port {
        10250 => finding.bad(Verdict::Missing, "the agent can't serve its API and does not start", end),
        _ => finding.bad(Verdict::Less, "no health endpoint on this node, which kubeadm join waits for", end),
    }
}

fn kubelet(others: &[Process]) -> Finding {
    match others.iter().find(|process| process.name == KUBELET) {
        None => found("other kubelets", "none is running"),
        Some(process) => found("other kubelets", format!("one is running (pid {})", process.pid)).bad(
            Verdict::Missing,
            "two agents would fight for the node and its pods",
            "systemctl disable --now kubelet, and kubeadm reset if it has joined a cluster",
        ),
    }
}

fn runtimes(others: &[Process]) -> Option<Finding> {
    let mut runtimes: Vec<_> = others.iter().filter(|process| process.name != KUBELET).collect();
    runtimes.sort_by_key(|process| process.pid);
    runtimes.dedup_by_key(|process| process.name.clone());
    let names: Vec<_> = runtimes.iter().map(|process| format!("{} (pid {})", process.name, process.pid)).collect();
    if names.is_empty() {
        return None;
    }
    let finding = found("other runtimes", names.join(", "));
    Some(finding.bad(
        Verdict::Less,
        "its containers share memory, disk and firewall with the pods, unseen by the scheduler",
        "leave it if you need it; kubectl drain and stop it if it ran this node's pods",
    ))
}

fn settings(node: &Node) -> Vec<Finding> {
    let swap = match node.swap.is_empty() {
        true => "off".to_owned(),
        false => format!("on: {}", node.swap.join(", ")),
    };
    let filter = match node.bridge_netfilter {
        None => "br_netfilter is not loaded",
        Some(false) => "bridge-nf-call-iptables is 0",
        Some(true) => "bridge-nf-call-iptables is 1",
    };
    vec![
        found("swap", swap).unless(
            node.swap.is_empty(),
            Verdict::Less,
            "a pod may swap beyond its memory limit, and kubeadm join refuses",
            "swapoff -a, and take swap out of /etc/fstab",
        ),
        found("forwarding", format!("net.ipv4.ip_forward is {}", u8::from(node.forwards))).unless(
            node.forwards,
            Verdict::Less,
            "kubeadm join refuses; pods reach other machines only once a network plugin has set it",
            "sysctl -w net.ipv4.ip_forward=1, and a line for it in /etc/sysctl.d",
        ),
        found("bridge netfilter", filter).unless(
            node.bridge_netfilter == Some(true),
            Verdict::Less,
            "on a bridge network, Services that lead to a pod on the same bridge time out",
            "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1",
        ),
    ]
}

fn name_servers(servers: &[String]) -> Finding {
    let what = "name servers";
    if servers.is_empty() {
        return found(what, "none in /etc/resolv.conf").bad(
            Verdict::Less,
            "registries and API servers are found by address only",
            "write a nameserver line to /etc/resolv.conf",
        );
    }
    let is_local = |server: &String| server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    found(what, servers.join(", ")).unless(
        !servers.iter().any(is_local),
        Verdict::Less,
        "pods with dnsPolicy Default ask themselves: CoreDNS sees a loop and ends",
        "resolvConf of the kubelet's configuration: /run/systemd/resolve/resolv.conf",
    )
}

fn room(disk: &Disk) -> Finding {
    let what = if disk.folder == Path::new(FOLDERS[0]) { "room for images" } else { "room for volumes" };
    let (bytes, inodes) = (disk.bytes.percent(), disk.inodes.percent());
    let free = disk.bytes.free >> 20;
    let free = if free >= 10 << 10 { format!("{} GiB", free >> 10) } else { format!("{free} MiB") };
    let detail = format!("{free} ({bytes} %), {inodes} % of the inodes: {}", disk.folder.display());
    let remedy = "free some, or mount another file system there";
    let finding = found(what, detail);
    if disk.bytes.free < LEAST_BYTES || inodes == 0 {
        return finding.bad(Verdict::Missing, "images and records can't be written", remedy);
    }
    let plenty = bytes >= EVICTED_BELOW && inodes >= EVICTED_BELOW / 3;
    finding.unless(plenty, Verdict::Less, "the node is short of room from the beginning: pods will be refused", remedy)
}

#[cfg(test)]
mod tests;

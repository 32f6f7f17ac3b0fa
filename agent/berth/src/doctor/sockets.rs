//! Who listens on which port.

use std::collections::BTreeMap;
use std::fs;

use super::machine::text;

/// `TCP_LISTEN` in /proc/net/tcp.
const LISTEN: &str = "0A";

/// A port that somebody listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) port: u16,
    /// The process, as far as we may know it.
    pub(super) holder: Option<Process>,
}

/// A running program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// What it is called, up to 15 bytes.
    pub(super) name: String,
    /// The last part of its program's path; empty when we may not know.
    pub(super) program: String,
}

impl Process {
    /// Whether it is Berth, by whatever name.
    pub(super) fn is_berth(&self) -> bool {
        self.program == "berth" || (self.program.is_empty() && self.name == "berth")
    }
}

/// Who listens on any of the ports in this network namespace.
pub(super) fn listeners(ports: &[u16]) -> Vec<Listener> {
    let tables = [text("/proc/self/net/tcp"), text("/proc/self/net/tcp6")];
    let inodes: BTreeMap<u64, u16> =
        tables.iter().flat_map(|table| listening(table)).filter(|(_, port)| ports.contains(port)).collect();
    let mut holders: BTreeMap<u16, Option<Process>> = inodes.values().map(|port| (*port, None)).collect();
    if !inodes.is_empty() {
        for process in processes() {
            for inode in sockets_of(process.pid) {
                if let Some(port) = inodes.get(&inode) {
                    holders.insert(*port, Some(process.clone()));
                }
            }
        }
    }
    holders.into_iter().map(|(port, holder)| Listener { port, holder }).collect()
}

/// Inode and port of each listening socket in a table such as /proc/net/tcp.
fn listening(table: &str) -> Vec<(u64, u16)> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (*state == LISTEN).then_some((inode.parse().ok()?, port))
    };
    table.lines().skip(1).filter_map(entry).collect()
}

/// The processes in this network namespace: those in a container's are not this machine's.
pub(super) fn processes() -> Vec<Process> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let process = |pid: u32| {
        let here = fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        if here.is_none() || here != own {
            return None;
        }
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
        let program = program.as_deref().and_then(|path| path.file_name()?.to_str()).unwrap_or_default();
        // The kernel says so of a program that was replaced while it ran.
        let program = program.trim_end_matches(" (deleted)").to_owned();
        Some(Process { pid, name: text(&format!("/proc/{pid}/comm")).trim_end().to_owned(), program })
    };
    pids.filter_map(process).collect()
}

fn sockets_of(pid: u32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    entries.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:280A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0\n   \
            1: 0100007F:280B 0200007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0 100 0\n";
        assert_eq!(listening(table), [(12345, 10250)]);
        let six = "header\n 0: 00000000000000000000000001000000:2808 00000000000000000000000000000000:0000 0A \
            0:0 00:0 0 0 0 77 1\n broken";
        assert_eq!(listening(six), [(77, 10248)]);
    }

    #[test]
    fn a_listener_is_found_with_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("address").port();
        let found = listeners(&[port]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].holder.as_ref().map(|process| process.pid), Some(std::process::id()));
        drop(listener);
        assert_eq!(listeners(&[port]), []);
    }
}

//! Our plugins beside the reference's: the same configuration and environment, each in network namespaces of its own,
//! give the same results, the same links, addresses, routes and settings, and let the same traffic through.
//!
//! What is left out of the comparison, and why: hardware addresses, indices and the names of veth pairs (made up);
//! link-local addresses (from those); aliases (ours say whose a link is); rules (another table: judged by traffic);
//! `mtu` of a result's interfaces (CNI 1.1 has it, the reference does not fill it in); and as whom a pod sees another that
//! comes by a host port (the gateway with ours, as with the reference's iptables backend).

mod picture;
mod side;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{cni, paths};
use side::Side;

/// The programs that are compared.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "portmap", "ptp"];
/// The versions of the specification that have another form of results or other verbs.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The fewest cases that are worth a green line.
const ENOUGH: usize = 40;

/// One network: a plugin with host-local, and portmap behind it.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    version: &'static str,
    /// The first plugin's options, without `ipam.dataDir`.
    plugin: Value,
}

/// Compares; call it in a house. `reference` holds the reference's programs.
///
/// # Errors
/// The cases in which the two differ.
pub fn play(reference: &Path) -> Result<()> {
    let start = Instant::now();
    let dir = paths::scratch("cni")?;
    let ours = cni::ours(&dir, &PLUGINS)?;
    for plugin in PLUGINS {
        ensure!(reference.join(plugin).is_file(), "the reference has no {plugin} in {}", reference.display());
    }
    let cases = cases();
    let mut wrong = Vec::new();
    for case in &cases {
        let seen = |bin: &PathBuf, name: &str| {
            let store = dir.join(format!("{name}-{}", case.name.replace(' ', "-")));
            side::play(&Side { bin, store: &store }, case).with_context(|| format!("{name}: {}", case.name))
        };
        let (theirs, ours) = (seen(&reference.to_path_buf(), "reference")?, seen(&ours, "ours")?);
        ensure!(theirs.len() == ours.len(), "{}: not the same number of observations", case.name);
        for ((what, theirs), (_, ours)) in theirs.iter().zip(&ours).filter(|(theirs, ours)| theirs != ours) {
            wrong.push(format!("{}: {what}\n  reference {theirs}\n  ours      {ours}", case.name));
        }
    }
    ensure!(wrong.is_empty(), "{} observations differ:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(cases.len() >= ENOUGH, "only {} cases", cases.len());
    fs::remove_dir_all(dir)?;
    println!("{:>6.1} s  cni: {} configurations are as the reference's", start.elapsed().as_secs_f64(), cases.len());
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut cases = vec![kindnet(&["10.244.1.0/24"]), kindnet(&["10.244.1.0/24", "fd00:10:244:1::/64"])];
    for version in VERSIONS {
        for kind in ["bridge", "ptp"] {
            for (families, masquerades) in [("v4", false), ("v4", true), ("v6", false), ("dual", false), ("dual", true)]
            {
                let subnets: &[&str] = match families {
                    "v4" => &["10.88.0.0/24"],
                    "v6" => &["fd88::/64"],
                    _ => &["10.88.0.0/24", "fd88::/64"],
                };
                let mut plugin = json!({"type": kind, "ipMasq": masquerades, "ipMasqBackend": "nftables"});
                plugin["ipam"] = ipam(subnets);
                if kind == "bridge" {
                    plugin["bridge"] = "br-pods".into();
                    plugin["isGateway"] = true.into();
                    plugin["hairpinMode"] = true.into();
                }
                if masquerades {
                    plugin["mtu"] = 1400.into();
                    plugin["dns"] = json!({"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]});
                }
                let masquerades = if masquerades { " masquerading" } else { "" };
                cases.push(Case { name: format!("{kind} {version} {families}{masquerades}"), version, plugin });
            }
        }
    }
    let gateway = json!({"type": "bridge", "bridge": "br-pods", "isDefaultGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.88.0.0/24"}});
    cases.push(Case { name: "bridge default gateway".to_owned(), version: "1.0.0", plugin: gateway });
    let routes = json!({"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.88.0.0/24", "gateway": "10.88.0.254",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.96.0.0/12", "gw": "10.88.0.7", "priority": 5}]}});
    cases.push(Case { name: "ptp routes".to_owned(), version: "1.1.0", plugin: routes });
    cases
}

/// What kindnetd writes, but for the folder; portmap's backend is in [`side`].
fn kindnet(subnets: &[&str]) -> Case {
    let plugin = json!({"type": "ptp", "ipMasq": false, "ipam": ipam(subnets), "mtu": 1500});
    Case { name: format!("kindnet of {} families", subnets.len()), version: "0.3.1", plugin }
}

fn ipam(subnets: &[&str]) -> Value {
    let all = |subnet: &&str| json!({"dst": if subnet.contains(':') { "::/0" } else { "0.0.0.0/0" }});
    json!({
        "type": "host-local",
        "routes": subnets.iter().map(all).collect::<Vec<_>>(),
        "ranges": subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect::<Vec<_>>(),
    })
}

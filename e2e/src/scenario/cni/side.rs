//! One implementation carries a case out, as a runtime would have it do.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_sys::netns::NetNs;
use serde_json::{Value, json};

use super::{Case, picture};
use crate::{cni, ip};

/// The host's own address, on `lo`.
const HOST: &str = "192.0.2.1";
const HOST_PORT: u16 = 8080;
/// Loopback traffic answers within microseconds; what is dropped is not answered at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// An implementation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    /// The folder of its programs.
    pub(super) bin: &'a Path,
    /// Where it keeps addresses.
    pub(super) store: &'a Path,
}

/// What was looked at, and what was seen.
pub(super) type Observation = (String, String);

/// Two pods come, talk and go.
pub(super) fn play(side: &Side<'_>, case: &Case) -> Result<Vec<Observation>> {
    NetNs::fresh()?.run(|| in_host(side, case))?
}

fn in_host(side: &Side<'_>, case: &Case) -> Result<Vec<Observation>> {
    prepare()?;
    ip::run(&["address", "add", &format!("{HOST}/32"), "dev", "lo"])?;
    let mut seen: Vec<Observation> = Vec::new();
    let pods = [NetNs::fresh()?, NetNs::fresh()?];
    let mut chains = Vec::new();
    for (index, pod) in pods.iter().enumerate() {
        pod.run(prepare)??;
        let mut chain = Chain::new(side, case, index, pod);
        let added = chain.add()?;
        seen.push((format!("result of pod {index}"), added));
        if case.version != "0.3.1" {
            seen.push((format!("check of pod {index}"), chain.call_all("CHECK", false)?));
        }
        chains.push(chain);
    }
    see(&mut seen, "host", picture::take()?);
    for (index, pod) in pods.iter().enumerate() {
        see(&mut seen, &format!("pod {index}"), pod.run(picture::take)??);
    }
    seen.push(("addresses".to_owned(), stored(side.store)?));
    pods[0].run(serve)??;
    for address in chains[0].addresses() {
        let ask_pod = || ask(SocketAddr::new(address, 80));
        seen.push((format!("host to pod {address}"), ask_pod()));
        seen.push((format!("pod to pod {address}"), pods[1].run(ask_pod)?));
    }
    if chains[0].addresses().iter().any(std::net::IpAddr::is_ipv4) {
        for to in [HOST, "127.0.0.1"] {
            let ask_host = || ask(SocketAddr::new(to.parse().unwrap_or(Ipv4Addr::LOCALHOST.into()), HOST_PORT));
            seen.push((format!("host to host port of {to}"), ask_host()));
            if to == HOST {
                // By another address in ours: without br_netfilter the answer would take the short way over a bridge.
                let reached = pods[1].run(ask_host)?.parse::<std::net::IpAddr>().is_ok();
                seen.push((format!("pod to host port of {to}"), reached.to_string()));
                seen.push((format!("pod to its own host port of {to}"), pods[0].run(ask_host)?));
            }
        }
    }
    for chain in &mut chains {
        for _ in 0..2 {
            seen.push(("del".to_owned(), chain.call_all("DEL", true)?));
        }
    }
    see(&mut seen, "host afterwards", picture::take()?);
    for pod in &pods {
        see(&mut seen, "pod afterwards", pod.run(picture::take)??);
    }
    seen.push(("addresses afterwards".to_owned(), stored(side.store)?));
    Ok(seen)
}

fn see(seen: &mut Vec<Observation>, what: &str, picture: picture::Picture) {
    for (part, lines) in picture {
        seen.push((format!("{part} of {what}"), lines));
    }
}

/// A namespace as a runtime hands it over; addresses of IPv6 are good at once, for either side.
fn prepare() -> Result<()> {
    fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")?;
    ip::run(&["link", "set", "lo", "up"])
}

/// The plugins of a case for one pod.
struct Chain<'a> {
    side: &'a Side<'a>,
    container: String,
    netns: String,
    configs: Vec<Value>,
    result: Value,
}

impl<'a> Chain<'a> {
    fn new(side: &'a Side<'a>, case: &Case, index: usize, pod: &NetNs) -> Self {
        let mut first = case.plugin.clone();
        first["ipam"]["dataDir"] = json!(side.store);
        let mut portmap = json!({"type": "portmap", "backend": "nftables"});
        if index == 0 {
            let mapping = json!({"hostPort": HOST_PORT, "containerPort": 80, "protocol": "tcp"});
            portmap["runtimeConfig"] = json!({"portMappings": [mapping]});
        }
        let mut configs = vec![first, portmap];
        for config in &mut configs {
            config["cniVersion"] = case.version.into();
            config["name"] = "pods".into();
        }
        Self { side, container: format!("pod{index}"), netns: cni::path_of(pod), configs, result: Value::Null }
    }

    fn add(&mut self) -> Result<String> {
        for config in self.configs.clone() {
            let mut config = config;
            if !self.result.is_null() {
                config["prevResult"] = self.result.clone();
            }
            let (exit, answer) = self.call("ADD", &config)?;
            if exit != 0 {
                return Ok(format!("exit {exit}: {}", answer["code"]));
            }
            self.result = answer;
        }
        Ok(self.shown(&self.result))
    }

    /// Calls each plugin with the result of ADD; tells codes only, since texts may differ.
    fn call_all(&mut self, verb: &str, backwards: bool) -> Result<String> {
        let mut configs = self.configs.clone();
        if backwards {
            configs.reverse();
        }
        let mut told = Vec::new();
        for mut config in configs {
            config["prevResult"] = self.result.clone();
            let (exit, answer) = self.call(verb, &config)?;
            told.push(format!("{} {exit} {}", config["type"], answer["code"]));
        }
        Ok(told.join(", "))
    }

    fn call(&self, verb: &str, config: &Value) -> Result<(i32, Value)> {
        let container = cni::Container { id: &self.container, netns: &self.netns };
        let answer = cni::call(self.side.bin, verb, container, config)?;
        Ok((answer.status.code().context("it was killed")?, answer.json()))
    }

    fn addresses(&self) -> Vec<std::net::IpAddr> {
        let ips = self.result["ips"].as_array().into_iter().flatten();
        ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
    }

    /// The result without what is made up.
    fn shown(&self, result: &Value) -> String {
        let mut result = result.clone();
        let mut names = Vec::new();
        for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
            names.push(interface["name"].as_str().unwrap_or_default().to_owned());
            if let Some(fields) = interface.as_object_mut() {
                fields.remove("mtu");
                if let Some(mac) = fields.get_mut("mac") {
                    *mac = mac.as_str().is_some_and(|mac| mac.len() == 17).into();
                }
            }
        }
        picture::named(&sorted(&result).to_string(), &names).replace(&self.netns, "NETNS")
    }
}

/// With the keys of all objects in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<_> = fields.keys().collect();
            keys.sort();
            keys.into_iter().map(|key| (key.clone(), sorted(&fields[key]))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// host-local's files with their content.
fn stored(store: &Path) -> Result<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(store.join("pods"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push(format!("{name} {:?}", fs::read_to_string(&path)?));
    }
    files.sort();
    Ok(files.join(", "))
}

/// Tells each client the address that it was seen with.
fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80))?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical().to_string()).unwrap_or_default();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
    Ok(())
}

fn ask(address: SocketAddr) -> String {
    let asked = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    asked.unwrap_or_else(|error| format!("{:?}", error.kind()))
}

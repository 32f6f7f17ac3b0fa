//! A host, pods and an outside, each a network namespace of the test's own.

#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use berth_cni::{Attachment, NetworkList, Plugins, Runtime};
use berth_net::{Address, Link, Mac, NewVeth, Route};
use berth_sys::netns::NetNs;
use serde_json::{Value, json};

/// Runs a test with a namespace of its own as the host's: no test sees the machine's network.
pub(crate) fn on_host<T: Send>(test: impl FnOnce(&Stage) -> T + Send) -> T {
    let stage = Stage { dir: tempfile::tempdir().expect("a folder") };
    NetNs::fresh()
        .expect("root")
        .run(|| {
            up("lo");
            test(&stage)
        })
        .expect("a thread in the host's namespace")
}

pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
}

/// A pod: only a namespace.
pub(crate) struct Pod {
    pub(crate) namespace: NetNs,
    pub(crate) attachment: Attachment,
}

impl Stage {
    pub(crate) fn runtime(&self) -> Runtime {
        let plugins = Plugins {
            builtin: berth_cni_plugins::builtin,
            bin_dirs: vec![self.dir.path().join("bin")],
            running_dir: Some(self.dir.path().join("running")),
            timeout: Duration::from_secs(60),
        };
        Runtime::new(plugins, &self.dir.path().join("cni"))
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("networks")
    }

    /// The names of the addresses that are reserved on the network `pods`.
    pub(crate) fn reserved(&self) -> Vec<String> {
        let Ok(listing) = std::fs::read_dir(self.data_dir().join("pods")) else { return Vec::new() };
        let names = listing.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        names.sort();
        names
    }

    /// The network of Berth's own bridge configuration.
    pub(crate) fn network(&self) -> NetworkList {
        self.network_with(&json!({}))
    }

    pub(crate) fn network_with(&self, changes: &Value) -> NetworkList {
        let mut bridge = json!({
            "type": "bridge", "bridge": "br-pods", "isDefaultGateway": true, "ipMasq": true,
            "ipam": {"type": "host-local", "dataDir": self.data_dir(), "ranges": [[{"subnet": "10.88.0.0/24"}]]},
        });
        for (key, value) in changes.as_object().expect("an object") {
            bridge[key] = value.clone();
        }
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [bridge, portmap]});
        NetworkList::parse(list.to_string().as_bytes()).expect("valid")
    }
}

impl Pod {
    pub(crate) fn new(id: &str) -> Self {
        Self::with_ports(id, &json!([]))
    }

    pub(crate) fn with_ports(id: &str, ports: &Value) -> Self {
        let namespace = NetNs::fresh().expect("namespace");
        let capabilities = json!({"portMappings": ports}).as_object().expect("an object").clone();
        let attachment = Attachment {
            container_id: id.to_owned(),
            netns: Some(path_of(&namespace)),
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            capabilities,
        };
        Self { namespace, attachment }
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work).expect("a thread in the pod")
    }
}

/// A path to the namespace that works in this process and in its children.
pub(crate) fn path_of(namespace: &NetNs) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd()))
}

pub(crate) fn up(link: &str) {
    let mut route = Route::open().expect("socket");
    let index = route.link(link).expect("get").expect("there").index;
    route.change(&[Link::set_up(index, true)]).expect("up");
}

/// A machine beyond the host: 192.0.2.2, behind the host's 192.0.2.1; it knows no way to the pods.
pub(crate) fn outside() -> NetNs {
    let namespace = NetNs::fresh().expect("namespace");
    let mut route = Route::open().expect("socket");
    let veth = NewVeth {
        name: "uplink",
        mac: Mac::random(),
        master: None,
        peer_name: "eth0",
        peer_mac: Mac::random(),
        peer_namespace: namespace.as_fd(),
        mtu: None,
    };
    route.change(&[Link::create_veth(&veth)]).expect("veth");
    let index = route.link("uplink").expect("get").expect("there").index;
    route.change(&[Address::add(index, "192.0.2.1/24".parse().expect("net"))]).expect("address");
    let configured = namespace.run(|| {
        let mut route = Route::open().expect("socket");
        let index = route.link("eth0").expect("get").expect("there").index;
        let address = Address::add(index, "192.0.2.2/24".parse().expect("net"));
        route.change(&[Link::set_up(index, true), address]).expect("configure");
    });
    configured.expect("enter");
    namespace
}

/// A server in the calling thread's namespace that tells each client the address it saw it with, and its own name.
pub(crate) fn serve(address: &str, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("bind");
    let bound = listener.local_addr().expect("address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Ok(peer) = stream.peer_addr() else { continue };
            let _ = stream.write_all(format!("{name} {}", peer.ip()).as_bytes());
        }
    });
    bound
}

/// Whom the server answers to, and as whom it sees us: `name address`.
pub(crate) fn ask(address: &str) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect_timeout(&address.parse().expect("address"), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Everything about the calling thread's namespace that an attachment may change.
pub(crate) fn picture() -> String {
    let show = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("program");
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let mut picture = show("ip", &["-o", "link"]);
    picture += &show("ip", &["-o", "addr"]);
    picture += &show("ip", &["route", "show", "table", "all"]);
    picture += &show("nft", &["list", "ruleset"]);
    for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/route_localnet"] {
        picture += &format!("{setting} {}\n", berth_net::sysctl::read(setting).expect("setting"));
    }
    picture
}

pub(crate) fn rules() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft(8)");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}

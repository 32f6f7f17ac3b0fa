//! Asking the kernel for what the plugins need, where nothing is at stake.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use berth_cni::CniError;
use berth_net::{Link, Mac, NewVeth, Route};
use berth_sys::netns::NetNs;
use ipnet::{IpNet, Ipv4Net};

use crate::hostport::{self, HostPort, SourceNat};
use crate::identity::Identity;
use crate::masquerade;

/// What the kernel answered to each.
#[derive(Debug)]
pub struct Trial {
    /// A veth pair between two network namespaces.
    pub veth: Result<(), CniError>,
    /// A bridge.
    pub bridge: Result<(), CniError>,
    /// The rules of masquerading and of host ports.
    pub rules: Result<(), CniError>,
}

/// Makes a veth pair, a bridge and rules in a network namespace that ends with the call. Needs CAP_SYS_ADMIN and
/// CAP_NET_ADMIN.
///
/// # Errors
/// There is no such namespace to be had.
pub fn try_kernel() -> io::Result<Trial> {
    let pod = NetNs::fresh()?;
    NetNs::fresh()?.run(|| Trial { veth: try_veth(&pod), bridge: try_bridge(), rules: try_rules() })
}

fn try_veth(pod: &NetNs) -> Result<(), CniError> {
    let pair = NewVeth {
        name: "veth0",
        mac: Mac::random(),
        master: None,
        peer_name: "eth0",
        peer_mac: Mac::random(),
        peer_namespace: pod.as_fd(),
        mtu: None,
    };
    let made = Route::open().and_then(|mut route| route.change(&[Link::create_veth(&pair)]));
    made.map_err(|error| CniError::io("veth", error))
}

fn try_bridge() -> Result<(), CniError> {
    let made = Route::open().and_then(|mut route| route.change(&[Link::create_bridge("br0", Mac::random(), None)]));
    made.map_err(|error| CniError::io("bridge", error))
}

fn try_rules() -> Result<(), CniError> {
    let identity = Identity::new("trial", "pod", "eth0");
    let pod = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 2), 24));
    masquerade::add(&identity, &[pod])?;
    let port = HostPort { address: None, protocol: 6, port: 80, pod_port: 80 };
    // The namespace is new: nobody holds the port.
    hostport::add(&identity, pod, &[port], SourceNat::Needed, None)?.or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_the_plugins_need() {
        let Trial { veth, bridge, rules } = try_kernel().expect("root");
        assert_eq!((veth, bridge, rules), (Ok(()), Ok(()), Ok(())));
    }
}

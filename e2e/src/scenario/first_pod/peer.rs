//! Another machine on the node's network: a network namespace with a cable to the control plane's bridge.

use std::fs;
use std::process::Command;

use anyhow::Result;
use nix::mount::{MntFlags, umount2};

use crate::controlplane::BRIDGE;
use crate::{command, ip};

const NAME: &str = "berth-peer";
const CABLE: &str = "berth-peer0";
const FOLDER: &str = "/run/netns";
const ADDRESS: &str = "10.251.0.9/24";

/// The other machine. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Peer;

impl Peer {
    pub(super) fn attach() -> Result<Self> {
        ip::run(&["netns", "add", NAME])?;
        // From here on the drop cleans up.
        let peer = Self;
        ip::run(&["link", "add", CABLE, "type", "veth", "peer", "name", "eth0", "netns", NAME])?;
        ip::run(&["link", "set", CABLE, "master", BRIDGE, "up"])?;
        ip::run(&["-netns", NAME, "address", "add", ADDRESS, "dev", "eth0"])?;
        ip::run(&["-netns", NAME, "link", "set", "eth0", "up"])?;
        Ok(peer)
    }

    pub(super) fn fetch(&self, url: &str) -> Result<String> {
        command::output(Command::new("ip").args(["netns", "exec", NAME]).args(super::FETCH).arg(url))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // They fail only when the attachment did.
        let _ = ip::run(&["link", "delete", CABLE]);
        let _ = ip::run(&["netns", "delete", NAME]);
        // The tool makes a mount of its own for its namespaces and leaves it.
        let _ = umount2(FOLDER, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(FOLDER);
    }
}

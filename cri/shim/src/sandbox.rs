//! The sandbox's namespaces, which the shim itself is in: its containers inherit them.

use std::os::fd::{AsFd, OwnedFd};

use berth_oci::sysctl;
use berth_plan::message::{Failure, Reply, Stage};
use berth_sys::namespace::{self, Namespaces};

use crate::answer::{failed, refused};
use crate::shim::Shim;

/// As in [`berth_plan::message::Request::Sandbox`].
pub(crate) struct Wanted {
    pub(crate) join_network: bool,
    pub(crate) new_ipc: bool,
    pub(crate) new_uts: bool,
    pub(crate) hostname: String,
    pub(crate) sysctls: Vec<(String, String)>,
}

impl Shim {
    pub(crate) fn make_sandbox(&mut self, wanted: &Wanted, descriptors: &[OwnedFd]) -> Result<Reply, Failure> {
        if self.sandbox_ready {
            return Err(refused(Stage::AlreadyExists, "the sandbox is made already"));
        }
        match (wanted.join_network, descriptors) {
            (false, []) => {}
            (true, [network]) => {
                namespace::enter(network.as_fd(), Namespaces::NET)
                    .map_err(failed(Stage::Namespace, "enter the network namespace"))?;
            }
            _ => {
                return Err(refused(Stage::Protocol, "one descriptor is needed to join a network, and none otherwise"));
            }
        }
        let new = Namespaces::NONE.and_if(wanted.new_ipc, Namespaces::IPC).and_if(wanted.new_uts, Namespaces::UTS);
        if !new.is_none() {
            namespace::unshare(new).map_err(failed(Stage::Namespace, "make namespaces"))?;
        }
        if wanted.new_uts && !wanted.hostname.is_empty() {
            namespace::set_hostname(&wanted.hostname).map_err(failed(Stage::Namespace, "set the host name"))?;
        }
        sysctl::write(&wanted.sysctls)?;
        self.sandbox_ready = true;
        self.start_logger();
        Ok(Reply::Done)
    }
}

//! The sandbox's namespaces, which the shim itself is in: its containers inherit them.

use std::os::fd::{AsFd, OwnedFd};

use berth_oci::sysctl;
use berth_plan::container::IdRange;
use berth_plan::message::{Failure, Reply, Stage};
use berth_sys::credentials;
use berth_sys::namespace::{self, Namespaces};

use crate::answer::{failed, refused};
use crate::pod;
use crate::shim::Shim;

/// As in [`berth_plan::message::Request::Sandbox`].
pub(crate) struct Wanted {
    pub(crate) join_network: bool,
    pub(crate) new_network: bool,
    pub(crate) new_ipc: bool,
    pub(crate) new_uts: bool,
    pub(crate) shared_pid: bool,
    pub(crate) user: Option<IdRange>,
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
        // Before process 1 is born, which has them as the containers have.
        if wanted.user.is_none() {
            let new = Namespaces::NONE.and_if(wanted.new_ipc, Namespaces::IPC).and_if(wanted.new_uts, Namespaces::UTS);
            if !new.is_none() {
                namespace::unshare(new).map_err(failed(Stage::Namespace, "make namespaces"))?;
            }
        }
        if pod::needed(wanted)? {
            self.make_pod(wanted)?;
        }
        if wanted.new_uts && !wanted.hostname.is_empty() {
            namespace::set_hostname(&wanted.hostname).map_err(failed(Stage::Namespace, "set the host name"))?;
        }
        match wanted.user {
            None => sysctl::write(&wanted.sysctls)?,
            Some(ids) => write_as(ids.host, &wanted.sysctls)?,
        }
        self.sandbox_ready = true;
        self.start_logger();
        Ok(Reply::Done)
    }
}

/// Sysctls of an IPC namespace obey user 0 of its user namespace alone, where the kernel is new enough to tell (6.2); those
/// of a network namespace obey capabilities, which the node's user 0 has.
fn write_as(user: u32, sysctls: &[(String, String)]) -> Result<(), Failure> {
    const EACCES: i32 = 13;
    for sysctl in sysctls {
        let one = std::slice::from_ref(sysctl);
        match sysctl::write(one) {
            Err(failure) if failure.errno == EACCES => credentials::as_user(user, || sysctl::write(one))
                .map_err(failed(Stage::Sysctl, "become user 0 of the pod's user namespace"))??,
            other => other?,
        }
    }
    Ok(())
}

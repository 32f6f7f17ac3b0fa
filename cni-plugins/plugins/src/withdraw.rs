//! Giving a network up: what the plugins leave for the next pod, when there is none to come.

use berth_cni::{CniError, NetworkList};
use serde_json::Value;

use crate::{bridge, host_local};

/// Removes the bridge and the folder of addresses of a network that has no pods left, and restores the host's settings
/// that the bridge plugin changed. Whether everything is gone: what is in use, or not ours, stays.
///
/// # Errors
/// The first thing that failed; the rest was tried.
pub fn withdraw(list: &NetworkList) -> Result<bool, CniError> {
    let mut gone = true;
    let mut outcome = Ok(());
    let mut note = |withdrawn: Result<bool, CniError>| match withdrawn {
        Ok(all) => gone &= all,
        Err(error) => {
            if outcome.is_ok() {
                outcome = Err(error);
            }
        }
    };
    for plugin in &list.plugins {
        let ipam = plugin.raw.get("ipam");
        if text(ipam.and_then(|ipam| ipam.get("type"))) == Some("host-local") {
            let data_dir = text(ipam.and_then(|ipam| ipam.get("dataDir"))).map(Into::into);
            note(host_local::withdraw(data_dir, &list.name));
        }
        if plugin.kind == "bridge" {
            note(bridge::withdraw(text(plugin.raw.get("bridge")).unwrap_or("cni0")));
        }
    }
    outcome.map(|()| gone)
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty())
}

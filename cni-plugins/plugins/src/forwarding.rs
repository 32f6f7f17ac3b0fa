//! Whether the host forwards between its links.

use std::net::IpAddr;

use berth_cni::CniError;
use berth_net::sysctl;

pub(crate) const V4: &str = "net/ipv4/ip_forward";
pub(crate) const V6: &str = "net/ipv6/conf/all/forwarding";

/// Makes the host forward for the families that the addresses are of.
pub(crate) fn enable(addresses: &[IpAddr]) -> Result<(), CniError> {
    for (setting, wanted) in [(V4, addresses.iter().any(IpAddr::is_ipv4)), (V6, addresses.iter().any(IpAddr::is_ipv6))]
    {
        if wanted && sysctl::read(setting).is_ok_and(|value| value == "0") {
            let failed = |error| CniError::io(setting, error);
            berth_effect::run("sysctl-write", || sysctl::write(setting, "1")).map_err(failed)?;
        }
    }
    Ok(())
}

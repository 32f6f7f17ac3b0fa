//! Options that several plugins have in common.

use berth_cni::{CniError, CniResult, Dns, Request};
use serde_json::Value;

/// The type of the IPAM plugin, also of a configuration that is otherwise wrong.
pub(crate) fn ipam_of(request: &Request) -> Option<String> {
    let kind = request.config.get("ipam")?.get("type")?.as_str()?;
    (!kind.is_empty()).then(|| kind.to_owned())
}

/// Refuses what `ipMasqBackend` may ask for and is not there.
pub(crate) fn check_masquerade_backend(request: &Request) -> Result<(), CniError> {
    match request.config.get("ipMasqBackend") {
        Some(backend) if is_set(backend) && *backend != "nftables" => {
            Err(CniError::unsupported("ipMasqBackend", "only \"nftables\" is"))
        }
        _ => Ok(()),
    }
}

/// The plugin's own name servers go before those of its IPAM plugin.
pub(crate) fn set_dns(result: &mut CniResult, dns: &Dns) {
    if !dns.is_empty() {
        result.dns = dns.clone();
    }
}

/// Whether an option asks for something: zero, empty and false do not.
pub(crate) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

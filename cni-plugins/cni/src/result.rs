//! Results of ADD, in one form in memory and in each version's form on the wire.
//!
//! In memory a result has everything that 1.1.0 can say. Writing an older version leaves out what that version has no
//! word for; reading one fills in what follows from the rest.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Version, VersionError};

mod wire;

/// What an attachment consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    pub interfaces: Vec<Interface>,
    pub ips: Vec<IpConfig>,
    pub routes: Vec<Route>,
    pub dns: Dns,
}

/// An interface that a plugin made, in the host or (with a sandbox) in the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    /// Hardware address, colon-separated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Bytes; from 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of the network namespace that holds it; empty in the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// From 1.1.0.
    #[serde(rename = "socketPath", default, skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// From 1.1.0.
    #[serde(rename = "pciID", default, skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address of the attachment, with the prefix length of its subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    pub address: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into [`CniResult::interfaces`]; IPAM plugins have none to point to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route in the pod. The keys after `gw` exist from 1.1.0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub dst: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// Name resolution for the attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Why a result can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    #[error("the result is not what CNI {version} describes: {source}")]
    Shape { version: Version, source: serde_json::Error },
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error("CNI version {0} of the result is not supported")]
    Unsupported(Version),
    #[error("a CNI {0} result needs at least one address")]
    NoAddress(Version),
}

impl Route {
    /// A route to `dst`, with everything else left to the plugin.
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl Dns {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CniResult {
    /// Reads a result in the form of the version it names (none: 0.1.0).
    ///
    /// # Errors
    /// When the version is unknown or the value has another form.
    pub fn from_value(value: &Value) -> Result<Self, ResultError> {
        let version: Version = value.get("cniVersion").and_then(Value::as_str).unwrap_or_default().parse()?;
        if !version.is_supported() {
            return Err(ResultError::Unsupported(version));
        }
        wire::read(value, version).map_err(|source| ResultError::Shape { version, source })
    }

    /// Writes the result in the form of a version.
    ///
    /// # Errors
    /// Versions before 0.3.0 can't describe a result without an address.
    pub fn to_value(&self, version: Version) -> Result<Value, ResultError> {
        if !version.is_supported() {
            return Err(ResultError::Unsupported(version));
        }
        if version < Version::V0_3_0 && self.ips.is_empty() {
            return Err(ResultError::NoAddress(version));
        }
        wire::write(self, version).map_err(|source| ResultError::Shape { version, source })
    }

    /// The addresses of the pod itself, not those that a plugin gave to an interface in the host.
    pub fn pod_ips(&self) -> impl Iterator<Item = &IpConfig> {
        self.ips.iter().filter(|ip| match ip.interface {
            None => true,
            Some(index) => self.interfaces.get(index).is_none_or(|interface| !interface.sandbox.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests;

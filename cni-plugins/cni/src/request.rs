//! One call of a plugin, as the plugin sees it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{CniError, CniResult, Plugins, Version, code};

/// The verbs of SPEC 1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    /// As in `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The verb that `CNI_COMMAND` names.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version]
            .into_iter()
            .find(|command| command.as_str() == name)
    }
}

/// One call of a plugin. In-process it is passed as it is; an exec'd plugin gets it through the environment and stdin.
#[derive(Clone, Debug)]
pub struct Request {
    pub command: Command,
    /// Empty for GC, STATUS and VERSION.
    pub container_id: String,
    /// Path of the pod's network namespace. `None` when the runtime no longer has one (DEL).
    pub netns: Option<PathBuf>,
    /// Name of the interface in the pod; empty for GC, STATUS and VERSION.
    pub ifname: String,
    /// `CNI_ARGS` as sent: `K=V;K=V`.
    pub args: String,
    /// The version that configuration and result are written in.
    pub cni_version: Version,
    /// Name of the network.
    pub network: String,
    /// The plugin's configuration with `cniVersion`, `name`, `runtimeConfig`; without `prevResult`.
    pub config: Map<String, Value>,
    /// What the plugins before this one, or the ADD that is now checked or deleted, have made.
    pub prev_result: Option<CniResult>,
    /// How this plugin delegates to another (IPAM).
    pub plugins: Plugins,
}

/// One attachment that is still wanted, in a GC call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// One element of the `portMappings` capability (CNI CONVENTIONS.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    /// "tcp", "udp" or "sctp"; empty means tcp.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Only connections to this address of the host; `None` for all of them.
    #[serde(rename = "hostIP", default, with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

impl Request {
    /// The list of attachments to keep, in a GC call; `None` when the runtime sent none, which must not be read as
    /// "keep nothing". Both names of the key are accepted (containernetworking/cni#1101).
    ///
    /// # Errors
    /// When the value is not a list of attachments.
    pub fn valid_attachments(&self) -> Result<Option<Vec<ValidAttachment>>, CniError> {
        let value = self.config.get("cni.dev/valid-attachments").or_else(|| self.config.get("cni.dev/attachments"));
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                Vec::deserialize(value).map(Some).map_err(|error| CniError::decode("cni.dev/valid-attachments", error))
            }
        }
    }

    /// The value of one argument of `CNI_ARGS`.
    pub fn arg(&self, name: &str) -> Option<&str> {
        self.args.split(';').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    }

    /// The configuration in the plugin's own type.
    ///
    /// # Errors
    /// Names the field that can't be decoded.
    pub fn config<'a, T: Deserialize<'a>>(&'a self) -> Result<T, CniError> {
        T::deserialize(&self.config).map_err(|error| CniError::decode(format!("network {}", self.network), error))
    }

    /// The namespace's path of an ADD or CHECK.
    ///
    /// # Errors
    /// When the runtime sent none.
    pub fn netns(&self) -> Result<&PathBuf, CniError> {
        self.netns.as_ref().ok_or_else(|| {
            CniError::new(code::INVALID_ENVIRONMENT, "required env variables [CNI_NETNS] missing".to_owned())
        })
    }
}

mod empty_is_none {
    use std::net::IpAddr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(address: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        address.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
        match Option::<String>::deserialize(deserializer)?.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| D::Error::custom(format!("\"{text}\" is not an address"))),
        }
    }
}

//! What is written down about sandboxes and containers.

use std::collections::BTreeMap;

use berth_cri_core::compile::SandboxPlan;
use berth_cri_core::state::{RecordError, SandboxState, Stamped};
use berth_cri_proto::v1 as cri;
use prost::Message;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::handlers::OciRuntime;
use crate::rules::Rules;

/// No record is larger: a configuration arrives in one message of at most 16 MiB, and is written in hex.
pub(crate) const LIMIT: u64 = 40 << 20;

/// `STATE/sandboxes/ID/sandbox.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    pub(crate) phase: Phase,
    pub(crate) config: Encoded<cri::PodSandboxConfig>,
    /// As asked for.
    pub(crate) handler: String,
    /// What that was when the sandbox was made; `None` for the built-in runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) runtime: Option<OciRuntime>,
    /// Nanoseconds since the epoch.
    pub(crate) created_at: i64,
    pub(crate) plan: SandboxPlan,
    /// Cgroups above the containers' that were not there before, topmost first.
    pub(crate) made_cgroups: Vec<String>,
    /// Told later than the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<PodResources>,
}

/// What UpdatePodSandboxResources said last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodResources {
    pub(crate) overhead: Encoded<cri::LinuxContainerResources>,
    /// The sum of the containers'.
    pub(crate) resources: Encoded<cri::LinuxContainerResources>,
}

/// What is being done, so that another life of the runtime finishes or undoes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Written before anything is made: undo whatever is there.
    Creating,
    Live(SandboxState),
    /// Written before anything is taken down: go on.
    Removing,
}

/// `ROOT/containers/ID/container.json`, written when everything that the container is made of is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    /// The sandbox's, which is gone after a reboot.
    pub(crate) sandbox_config: Encoded<cri::PodSandboxConfig>,
    pub(crate) config: Encoded<cri::ContainerConfig>,
    pub(crate) created_at: i64,
    pub(crate) image_id: String,
    /// The ids of the images that are mounted, by the names that the configuration gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) volume_images: BTreeMap<String, String>,
    pub(crate) log_path: String,
    pub(crate) cgroup: String,
    /// systemd's unit, where it makes the cgroup; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) unit: String,
    pub(crate) stop_signal: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) devices: Rules,
}

pub(crate) fn encode<T: Serialize>(boot_id: &str, record: T) -> Result<Vec<u8>, RecordError> {
    Stamped::new(boot_id, record).to_bytes()
}

/// A protobuf message inside a JSON record, in hex.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Encoded<M>(pub(crate) M);

impl<M: Message> Serialize for Encoded<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0.encode_to_vec()))
    }
}

impl<'de, M: Message + Default> Deserialize<'de> for Encoded<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = unhex(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("not hexadecimal"))?;
        M::decode(bytes.as_slice()).map(Self).map_err(D::Error::custom)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|n| char::from(DIGITS[usize::from(n)])).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_record() {
        let config = cri::ContainerConfig { working_dir: "/ä".into(), tty: true, ..Default::default() };
        let text = serde_json::to_string(&Encoded(config.clone())).expect("encode");
        let back: Encoded<cri::ContainerConfig> = serde_json::from_str(&text).expect("decode");
        assert_eq!(back.0, config);
        for bad in ["\"0\"", "\"zz\"", "\"ff\"", "3"] {
            assert!(serde_json::from_str::<Encoded<cri::ContainerConfig>>(bad).is_err(), "{bad}");
        }
    }
}

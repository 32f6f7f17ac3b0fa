//! Device rules of an OCI configuration, as the cgroup takes them.

use berth_cgroup::{DeviceRule, Devices};
use berth_cri_core::device_filter;
use berth_plan::container::DeviceKind;
use oci_spec::runtime::{LinuxDeviceType, Spec};
use serde::{Deserialize, Serialize};

/// The rules of a container, in its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rules {
    All,
    /// (block device, major, minor, access).
    Listed(Vec<(bool, Option<u32>, Option<u32>, String)>),
}

impl Rules {
    pub(crate) fn devices(&self) -> Devices {
        match self {
            Self::All => Devices::All,
            Self::Listed(rules) => {
                let rule = |(block, major, minor, access): &(bool, Option<u32>, Option<u32>, String)| DeviceRule {
                    block: *block,
                    major: *major,
                    minor: *minor,
                    access: access.clone(),
                };
                Devices::Listed(rules.iter().map(rule).collect())
            }
        }
    }
}

impl Rules {
    /// As a program for cgroup v2 is made from them.
    pub(crate) fn filter(&self) -> Vec<device_filter::Rule> {
        let all = device_filter::Rule { allow: true, kind: None, major: None, minor: None, access: "rwm".to_owned() };
        let Self::Listed(listed) = self else { return vec![all] };
        let rule = |(block, major, minor, access): &(bool, Option<u32>, Option<u32>, String)| device_filter::Rule {
            allow: true,
            kind: Some(if *block { DeviceKind::Block } else { DeviceKind::Character }),
            major: *major,
            minor: *minor,
            access: access.clone(),
        };
        listed.iter().map(rule).collect()
    }
}

/// What the configuration allows; it denies the rest.
pub(crate) fn of(spec: &Spec) -> Rules {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let mut listed = Vec::new();
    for rule in rules.iter().filter(|rule| rule.allow()) {
        let block = match rule.typ() {
            Some(LinuxDeviceType::B) => true,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => false,
            None | Some(LinuxDeviceType::A) => return Rules::All,
            Some(LinuxDeviceType::P) => continue,
        };
        let access = rule.access().clone().unwrap_or_else(|| "rwm".to_owned());
        listed.push((block, number(rule.major()), number(rule.minor()), access));
    }
    Rules::Listed(listed)
}

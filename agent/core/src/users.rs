//! User namespaces of pods (`hostUsers: false`): which ids of the node are whose.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/userns/userns_manager.go`, whose record is kept, so that a node can change
//! between the kubelet and Berth without two pods getting the same ids.

use berth_cri_proto::v1 as cri;
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

/// How many ids a pod has, as many as every image needs.
pub const LENGTH: u32 = 65_536;

/// The ids of a pod: 0 to [`LENGTH`] - 1 inside are `host` and up on the node, for users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Users {
    host: u32,
}

/// Whether a pod asks for users of its own.
pub fn wanted(spec: Option<&PodSpec>) -> bool {
    spec.is_some_and(|spec| spec.host_users == Some(false))
}

impl Users {
    /// The first ids that nobody has. The node's own are never given away.
    pub fn free(taken: &[Self]) -> Option<Self> {
        let starts = (1..u32::MAX / LENGTH).map(|number| number * LENGTH);
        starts.map(|host| Self { host }).find(|new| taken.iter().all(|old| old.host.abs_diff(new.host) >= LENGTH))
    }

    /// Reads a pod's record.
    ///
    /// # Errors
    /// What is not as the kubelet writes it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let start = |field: &str| match value[field].as_array().map(Vec::as_slice) {
            Some([one]) if one["containerId"] == 0 && one["length"] == LENGTH => {
                let host = one["hostId"].as_u64().and_then(|host| u32::try_from(host).ok());
                let host = host.filter(|host| *host >= LENGTH && host.checked_add(LENGTH).is_some());
                host.ok_or_else(|| format!("{field}[0].hostId: {} is out of range", one["hostId"]))
            }
            _ => Err(format!("{field}: it is not one mapping of {LENGTH} ids from 0 on")),
        };
        let (host, groups) = (start("uidMappings")?, start("gidMappings")?);
        if host == groups { Ok(Self { host }) } else { Err("users and groups differ".to_owned()) }
    }

    /// A pod's record.
    pub fn text(self) -> String {
        let mapping = json!([{"hostId": self.host, "containerId": 0, "length": LENGTH}]);
        json!({"uidMappings": mapping, "gidMappings": mapping}).to_string()
    }

    pub(crate) fn mapping(self) -> cri::IdMapping {
        cri::IdMapping { host_id: self.host, container_id: 0, length: LENGTH }
    }

    pub(crate) fn to_cri(self) -> cri::UserNamespace {
        cri::UserNamespace {
            mode: cri::NamespaceMode::Pod.into(),
            uids: vec![self.mapping()],
            gids: vec![self.mapping()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u32) -> Users {
        Users { host }
    }

    #[test]
    fn ids_are_nobody_elses() {
        assert_eq!(Users::free(&[]), Some(at(65_536)));
        assert_eq!(Users::free(&[at(65_536), at(196_608)]), Some(at(131_072)));
        // A record that is not aligned takes parts of two.
        assert_eq!(Users::free(&[at(100_000)]), Some(at(196_608)));
        let mut all: Vec<Users> = Vec::new();
        while let Some(next) = (all.len() < 65_534).then(|| at((u32::try_from(all.len()).expect("few") + 1) * LENGTH)) {
            all.push(next);
        }
        assert_eq!(Users::free(&all), None);
        let last = all.pop().expect("many");
        assert!(last.host.checked_add(LENGTH - 1).is_some_and(|end| end < u32::MAX), "-1 is no id");
    }

    #[test]
    fn records_are_the_kubelets() {
        let text = r#"{"uidMappings":[{"hostId":131072,"containerId":0,"length":65536}],"gidMappings":[{"hostId":131072,"containerId":0,"length":65536}]}"#;
        assert_eq!(Users::parse(text), Ok(at(131_072)));
        assert_eq!(Users::parse(&at(131_072).text()), Ok(at(131_072)));
        for (from, to) in [
            ("131072", "0"),
            ("131072", "-1"),
            ("131072", "4294967295"),
            ("65536", "65535"),
            ("\"containerId\":0", "\"containerId\":1"),
            ("uidMappings", "uids"),
            ("}],\"gid", "},{}],\"gid"),
            ("131072,\"containerId\":0,\"length\":65536}]}", "196608,\"containerId\":0,\"length\":65536}]}"),
            ("{\"uid", "\"uid"),
        ] {
            let bad = text.replace(from, to);
            assert!(bad != text && Users::parse(&bad).is_err(), "{bad}");
        }
    }
}

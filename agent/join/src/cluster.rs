//! What the cluster says to a node that is about to join.

use berth_manifest::decode::decode;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::https::{self, Answer, Endpoint, Trust};
use crate::yaml::document;
use crate::{JoinError, Trusted, Version};

/// What kubeadm uploaded for its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// kubeadm's name for it; `kubernetes` unless it was given another.
    pub name: String,
    /// `https://HOST:PORT`.
    pub server: String,
    /// `v1.37.2`.
    pub version: String,
    /// KubeletConfiguration, as uploaded.
    pub kubelet_config: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClusterConfiguration {
    kind: String,
    cluster_name: String,
    kubernetes_version: String,
}

impl Cluster {
    /// Reads kubeadm-config and kubelet-config with the bootstrap credentials, and looks whether the node's name is free.
    ///
    /// # Errors
    /// What keeps the node from joining: [`JoinError::Unauthorized`], [`JoinError::Forbidden`], [`JoinError::Missing`],
    /// [`JoinError::Content`], [`JoinError::NodeExists`], and those about reaching the server.
    pub async fn read(trusted: &Trusted, node: &str) -> Result<Self, JoinError> {
        let endpoint = trusted.endpoint()?;
        let reader = Reader { trusted, endpoint: &endpoint };
        let kubeadm = reader.config_map("kubeadm-config", "ClusterConfiguration").await?;
        let configuration = cluster_configuration(&kubeadm)?;
        let kubelet_config = reader.config_map("kubelet-config", "kubelet").await?;
        if reader.node(node).await?.is_some_and(|node| is_ready(&node)) {
            return Err(JoinError::NodeExists { name: node.to_owned() });
        }
        let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        Ok(Self {
            name: or(configuration.cluster_name, "kubernetes"),
            server: trusted.server.clone(),
            version: configuration.kubernetes_version,
            kubelet_config,
        })
    }

    /// The cluster's version, when it is one that can be compared.
    pub fn version(&self) -> Option<Version> {
        Version::parse(&self.version)
    }
}

fn cluster_configuration(text: &str) -> Result<ClusterConfiguration, JoinError> {
    let wrong = |reason: String| JoinError::Content {
        what: "kube-system/kubeadm-config: ClusterConfiguration".to_owned(),
        reason,
    };
    let document = document(text).map_err(wrong)?;
    let (configuration, _) = decode::<ClusterConfiguration>(&document).map_err(|error| wrong(error.to_string()))?;
    if configuration.kind != "ClusterConfiguration" {
        return Err(wrong(format!("kind {:?} is not ClusterConfiguration", configuration.kind)));
    }
    Ok(configuration)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

struct Reader<'a> {
    trusted: &'a Trusted,
    endpoint: &'a Endpoint,
}

impl Reader<'_> {
    async fn get(&self, path: &str) -> Result<Answer, JoinError> {
        https::get(self.endpoint, Trust::Authority(&self.trusted.authority), &self.trusted.credentials, path).await
    }

    async fn config_map(&self, name: &str, key: &str) -> Result<String, JoinError> {
        let what = format!("kube-system/{name}: {key}");
        let answer = self.get(&format!("/api/v1/namespaces/kube-system/configmaps/{name}")).await?;
        let map: ConfigMap = match answer.status {
            404 => return Err(JoinError::Missing { what }),
            _ => self.decode(&what, &answer)?,
        };
        let text = map.data.unwrap_or_default().remove(key).filter(|text| !text.trim().is_empty());
        text.ok_or(JoinError::Missing { what })
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, JoinError> {
        let answer = self.get(&format!("/api/v1/nodes/{name}")).await?;
        if answer.status == 404 { Ok(None) } else { self.decode(&format!("node {name:?}"), &answer).map(Some) }
    }

    fn decode<T: DeserializeOwned>(&self, what: &str, answer: &Answer) -> Result<T, JoinError> {
        match answer.status {
            200 => serde_json::from_slice(&answer.body)
                .map_err(|error| JoinError::Content { what: what.to_owned(), reason: error.to_string() }),
            401 => Err(JoinError::Unauthorized { endpoint: self.endpoint.to_string() }),
            403 => {
                let words = answer.words("");
                let words = if words.is_empty() { words } else { format!(" ({words})") };
                Err(JoinError::Forbidden { what: what.to_owned(), words })
            }
            _ => Err(answer.unexpected(what, self.endpoint)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_configuration_of_any_age_is_understood() {
        let text = "apiServer: {}\napiVersion: kubeadm.k8s.io/v1beta4\nclusterName: kind\nkind: ClusterConfiguration\n\
                    kubernetesVersion: v1.37.2\nnetworking: {dnsDomain: cluster.local}\nfromTheFuture: 1\n";
        let read = cluster_configuration(text).expect("reads");
        assert_eq!((read.cluster_name.as_str(), read.kubernetes_version.as_str()), ("kind", "v1.37.2"));
        for bad in ["", "a: [", "kind: InitConfiguration\n", "clusterName: [a]\nkind: ClusterConfiguration\n"] {
            cluster_configuration(bad).expect_err(bad);
        }
    }

    #[test]
    fn only_ready_true_is_ready() {
        let node = |status: &str| {
            let conditions =
                serde_json::json!([{"type": "DiskPressure", "status": "True"}, {"type": "Ready", "status": status}]);
            serde_json::from_value::<Node>(serde_json::json!({"status": {"conditions": conditions}})).expect("a node")
        };
        assert!(is_ready(&node("True")));
        assert!(!is_ready(&node("False")) && !is_ready(&node("Unknown")) && !is_ready(&Node::default()));
    }
}

//! What will be written, decided before anything is.

use std::path::{Path, PathBuf};

use berth_manifest::{Data, Node, config, to_json};
use serde_json::Value;

use crate::journal::Journal;
use crate::yaml::document;
use crate::{Cluster, JoinError, Paths, Request, Trusted, Version};

/// The last minor release that knows kubeadm.k8s.io/v1beta3.
const LAST_WITH_OLD_FORMAT: Version = Version { major: 1, minor: 35 };

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub content: String,
    /// Whether everybody may read it; else root alone.
    pub public: bool,
    /// For people, as kubeadm says it.
    pub what: &'static str,
}

/// Everything that a join writes before it asks for the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub files: Vec<File>,
    /// What is to be said about the cluster's configuration, one line each.
    pub warnings: Vec<String>,
    pub(crate) journal: Journal,
}

impl Plan {
    /// Decides. Nothing is read or written.
    ///
    /// # Errors
    /// [`JoinError::Content`] for a kubelet-config that Berth can't work with, [`JoinError::OldConfiguration`].
    pub fn new(paths: &Paths, request: &Request, trusted: &Trusted, cluster: &Cluster) -> Result<Self, JoinError> {
        if let Some(version) =
            cluster.version().filter(|version| request.is_old_format && *version > LAST_WITH_OLD_FORMAT)
        {
            return Err(JoinError::OldConfiguration { cluster: version });
        }
        let wrong =
            |reason: String| JoinError::Content { what: "kube-system/kubelet-config: kubelet".to_owned(), reason };
        let endpoint = request.cri_socket.as_deref().unwrap_or_default();
        let config_path = paths.config();
        let text = with_endpoint(&cluster.kubelet_config, endpoint).map_err(wrong)?;
        let loaded = config::load(&config_path, &text).map_err(|problem| wrong(problem.to_string()))?;

        let file =
            |path: PathBuf, content: String, public: bool, what: &'static str| File { path, content, public, what };
        let files = vec![
            file(paths.bootstrap_kubeconfig(), trusted.kubeconfig(), false, "bootstrap kubeconfig"),
            file(
                paths.place(&request.authority),
                String::from_utf8_lossy(&trusted.authority).into_owned(),
                true,
                "CA certificate",
            ),
            file(paths.instance_config(), instance(endpoint), true, "kubelet instance configuration"),
            file(config_path, text, true, "kubelet configuration"),
            file(paths.flags(), flags(&request.flags()), true, "kubelet environment file with flags"),
        ];
        let journal = Journal::new(&cluster.name, &cluster.server, &request.node);
        Ok(Self { files, warnings: loaded.warnings, journal })
    }
}

/// kubeadm's instance-config.yaml: what this node adds to the cluster's configuration.
fn instance(endpoint: &str) -> String {
    format!("containerRuntimeEndpoint: {}\n", Value::from(endpoint))
}

/// kubeadm-flags.env (`kubernetes@v1.37.2:cmd/kubeadm/app/phases/kubelet/flags.go#WriteKubeletArgsToFile`).
fn flags(flags: &[String]) -> String {
    format!("KUBELET_KUBEADM_ARGS=\"{}\"\n", flags.join(" "))
}

/// The flags in a kubeadm-flags.env.
///
/// # Errors
/// What is wrong with the file's content.
pub fn read_flags(text: &str) -> Result<Vec<String>, String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("KUBELET_KUBEADM_ARGS="));
    let line = line.ok_or("it has no line KUBELET_KUBEADM_ARGS=")?;
    Ok(line.trim_matches('"').split_whitespace().map(str::to_owned).collect())
}

/// The configuration with `containerRuntimeEndpoint` set, which kubeadm does by a patch
/// (`kubernetes@v1.37.2:cmd/kubeadm/app/phases/kubelet/config.go#applyKubeletConfigPatchFromFile`).
///
/// Comments and order stay where the text can be edited; where it can't, the same is written as JSON, which YAML is.
fn with_endpoint(text: &str, endpoint: &str) -> Result<String, String> {
    let document = document(text)?;
    let Data::Mapping(_) = document.data else { return Err("is no mapping".to_owned()) };
    let now = document.get("containerRuntimeEndpoint").and_then(Node::as_str).unwrap_or_default();
    if now == endpoint {
        return Ok(text.to_owned());
    }
    let mut wanted = document.to_value();
    wanted["containerRuntimeEndpoint"] = endpoint.into();
    let mut edited: String = text
        .lines()
        .filter(|line| !line.starts_with("containerRuntimeEndpoint:"))
        .flat_map(|line| [line, "\n"])
        .collect();
    edited.push_str(&instance(endpoint));
    // Key order aside: what was edited must mean what was wanted.
    match to_json(&edited) {
        Ok(value) if value == wanted => Ok(edited),
        _ => serde_json::to_string_pretty(&wanted).map(|json| json + "\n").map_err(|error| error.to_string()),
    }
}

/// Where an existing file is kept while the join's own stands in its place.
pub(crate) fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".before-berth-join");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;
    use crate::request::Options;

    const CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\n# kept\nkind: KubeletConfiguration\n\
                          containerRuntimeEndpoint: \"\"\nclusterDNS: [10.96.0.10]\n";

    fn request() -> Request {
        let options = Options {
            endpoint: Some("10.0.0.1:6443".into()),
            token: Some("abcdef.0123456789abcdef".into()),
            skip_verification: true,
            node_ip: Some("10.0.0.7".parse().expect("an address")),
            ..Options::default()
        };
        Request::from_options(&options, "host").expect("a request")
    }

    fn plan(request: &Request, config: &str, version: &str) -> Result<Plan, JoinError> {
        let server = "https://10.0.0.1:6443".to_owned();
        let credentials = Credentials::Bearer("abcdef.0123456789abcdef".into());
        let trusted = Trusted { server: server.clone(), authority: b"PEM\n".to_vec(), credentials };
        let (name, version) = ("kubernetes".to_owned(), version.to_owned());
        let cluster = Cluster { name, server, version, kubelet_config: config.to_owned() };
        Plan::new(&Paths::default(), request, &trusted, &cluster)
    }

    #[test]
    fn the_files_are_kubeadm_s() {
        let plan = plan(&request(), CONFIG, "v1.37.2").expect("a plan");
        let at = |path: &str| plan.files.iter().find(|file| file.path == Path::new(path)).expect(path);
        assert_eq!(at("/etc/kubernetes/pki/ca.crt").content, "PEM\n");
        let bootstrap = at("/etc/kubernetes/bootstrap-kubelet.conf");
        assert!(bootstrap.content.contains("token: \"abcdef.0123456789abcdef\"") && !bootstrap.public);
        assert_eq!(at("/var/lib/kubelet/config.yaml").content, CONFIG);
        assert_eq!(at("/var/lib/kubelet/instance-config.yaml").content, "containerRuntimeEndpoint: \"\"\n");
        let flags = &at("/var/lib/kubelet/kubeadm-flags.env").content;
        assert_eq!(flags, "KUBELET_KUBEADM_ARGS=\"--node-ip=10.0.0.7\"\n");
        assert_eq!(read_flags(flags).expect("flags"), ["--node-ip=10.0.0.7"]);
        assert_eq!(read_flags("KUBELET_KUBEADM_ARGS=\"\"\n").expect("none"), Vec::<String>::new());
        read_flags("").expect_err("no line");
    }

    #[test]
    fn another_runtime_s_socket_is_set_where_it_stands() {
        let mut request = request();
        request.cri_socket = Some("unix:///run/a.sock".into());
        let plan = plan(&request, CONFIG, "v1.37.2").expect("a plan");
        let config = &plan.files.iter().find(|file| file.path.ends_with("config.yaml")).expect("config").content;
        assert!(config.contains("# kept\n") && config.ends_with("containerRuntimeEndpoint: \"unix:///run/a.sock\"\n"));
        assert!(!config.contains("containerRuntimeEndpoint: \"\""));
    }

    #[test]
    fn a_text_that_cannot_be_edited_becomes_json() {
        for text in [
            "{a: 1}\n",
            "a: |\n  containerRuntimeEndpoint:\n",
            "containerRuntimeEndpoint:\n  \"x\"\na: 1\n",
            "a: 1\n...\n",
        ] {
            let edited = with_endpoint(text, "unix:///s").expect("edited");
            let value = to_json(&edited).expect(&edited);
            assert_eq!(value["containerRuntimeEndpoint"], "unix:///s", "{edited}");
            assert_eq!(value["a"], to_json(text).expect("yaml")["a"], "{edited}");
        }
        for bad in ["", "- a\n", "a: [", "a: 1\n---\nb: 1\n"] {
            with_endpoint(bad, "unix:///s").expect_err(bad);
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_used_stops_the_join() {
        let error = plan(&request(), &format!("{CONFIG}port: http\n"), "v1.37.2").expect_err("refused").to_string();
        assert!(error.contains("kubelet-config") && error.contains("field port"), "{error}");
        let plan = plan(&request(), &format!("{CONFIG}futureField: 1\n"), "v1.37.2").expect("a plan");
        assert!(plan.warnings.iter().any(|warning| warning.contains("futureField")), "{:?}", plan.warnings);
    }

    #[test]
    fn the_old_format_is_for_old_clusters() {
        let mut request = request();
        request.is_old_format = true;
        plan(&request, CONFIG, "v1.35.9").expect("an old cluster");
        let error = plan(&request, CONFIG, "v1.36.0").expect_err("a new one").to_string();
        assert!(error.contains("kubeadm config migrate") && error.contains("1.36"), "{error}");
    }
}

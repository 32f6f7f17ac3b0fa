//! Talking to the API server as a person does: through `kubectl`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{command, controlplane, wait};

/// How long a pod may take for anything on a busy 2-core machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A user of a cluster.
#[derive(Clone, Debug)]
pub struct Kube {
    kubeconfig: PathBuf,
}

impl Kube {
    /// The user that a kubeconfig names.
    pub fn new(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned() }
    }

    /// `kubectl` as this user.
    pub fn command(&self) -> Command {
        controlplane::kubectl(&self.kubeconfig)
    }

    /// The same as a shell reads it.
    pub fn command_line(&self) -> String {
        let command = self.command();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Runs `kubectl` and returns what it prints.
    ///
    /// # Errors
    /// Its own words.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        command::output(self.command().args(arguments))
    }

    /// `kubectl apply` of a manifest's text.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        command::output_with_input(self.command().args(["apply", "-f", "-"]), manifest).map(drop)
    }

    /// One object, or `None` when there is none.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn get(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self.run(&["get", kind, name, "--ignore-not-found", "-o", "json"])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// The objects of a kind that `selector` (a label selector; empty for all) picks.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn list(&self, kind: &str, selector: &str) -> Result<Vec<Value>> {
        self.list_where(kind, &["--selector", selector])
    }

    /// The objects of a kind that options of `kubectl get` (such as `--all-namespaces`) pick.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn list_where(&self, kind: &str, options: &[&str]) -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.run(&[&["get", kind, "-o", "json"], options].concat())?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until `probe` finds what it wants in pod `name`.
    ///
    /// # Errors
    /// Not within [`PATIENCE`]; the pod's status is shown.
    pub fn await_pod<T>(&self, name: &str, what: &str, probe: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let mut last = Value::Null;
        wait::until(&format!("pod {name} {what}"), PATIENCE, || {
            let Some(pod) = self.get("pod", name)? else { return Ok(None) };
            let found = probe(&pod);
            last = pod;
            Ok(found)
        })
        .with_context(|| format!("pod {name} at last:\n{}", last["status"]))
    }

    /// Waits until pod `name` is Ready and returns it.
    ///
    /// # Errors
    /// Not within [`PATIENCE`].
    pub fn await_ready(&self, name: &str) -> Result<Value> {
        self.await_pod(name, "is Ready", |pod| ready(pod).then(|| pod.clone()))
    }

    /// Deletes objects and waits until they are gone.
    ///
    /// # Errors
    /// The API server refuses, or they do not go.
    pub fn delete(&self, objects: &[&str]) -> Result<()> {
        self.delete_all(objects, PATIENCE, &["--ignore-not-found"])
    }

    /// The same of objects that must be there, within `limit`.
    ///
    /// # Errors
    /// One is not there, the API server refuses, or they do not go.
    pub fn delete_within(&self, objects: &[&str], limit: Duration) -> Result<()> {
        self.delete_all(objects, limit, &[])
    }

    fn delete_all(&self, objects: &[&str], limit: Duration, options: &[&str]) -> Result<()> {
        let limit = format!("--timeout={}s", limit.as_secs());
        self.run(&[&["delete", "--wait=true", &limit], options, objects].concat()).map(drop)
    }
}

/// Whether a pod or node has the condition Ready.
pub fn ready(object: &Value) -> bool {
    readiness(object).is_some_and(|condition| condition["status"] == "True")
}

/// When a pod or node last became Ready or ceased to be; `None` when it has no such condition yet.
pub fn turned(object: &Value) -> Option<&str> {
    readiness(object)?["lastTransitionTime"].as_str()
}

fn readiness(object: &Value) -> Option<&Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")
}

/// The network of a node's pods.
///
/// # Errors
/// It has none.
pub fn pod_cidr(node: &Value) -> Result<&str> {
    node["spec"]["podCIDR"].as_str().context("the node has no pod CIDR")
}

/// The first container's status.
pub fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// The name of an object.
pub fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// The id of the first container, without the runtime's name.
pub fn container_id(pod: &Value) -> Option<String> {
    let id = container(pod)["containerID"].as_str()?;
    Some(id.rsplit("//").next().unwrap_or(id).to_owned())
}

//! What the kubelet says of its pods' consumption.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{REPLICAS, Statistics};
use crate::kube::{self, Kube};
use crate::wait;

/// Metrics that every pod has, whoever measures.
const METRICS: &[&str] = &["container_memory_working_set_bytes", "container_cpu_usage_seconds_total"];

/// `/stats/summary` and `/metrics/cadvisor`, through the API server.
pub(super) fn are_served(kube: &Kube, node: &str, statistics: Statistics) -> Result<()> {
    let raw = |what: &str| kube.run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/{what}")]);
    wait::until_true("stats/summary has the pods", kube::PATIENCE, || {
        let summary: Value = serde_json::from_str(&raw("stats/summary")?)?;
        let pods = summary["pods"].as_array().context("no pods in it")?;
        let web: Vec<&Value> = pods
            .iter()
            .filter(|pod| pod["podRef"]["name"].as_str().is_some_and(|name| name.starts_with("web-")))
            .collect();
        ensure!(web.len() == REPLICAS, "{} of {REPLICAS} pods are in it", web.len());
        for pod in web {
            measured(pod, statistics)?;
        }
        Ok(true)
    })?;
    wait::until_true("metrics/cadvisor has the pods", kube::PATIENCE, || {
        let metrics = raw("metrics/cadvisor")?;
        for name in METRICS {
            let values = values(&metrics, name, statistics);
            ensure!(values >= REPLICAS, "{name} has {values} values for the web servers");
        }
        Ok(true)
    })
}

/// A pod's network is known to who asks the runtime alone: cAdvisor looks for a process of its sandbox, by asking
/// containerd or CRI-O.
fn measured(pod: &Value, statistics: Statistics) -> Result<()> {
    let name = &pod["podRef"]["name"];
    let network = ("received bytes", &pod["network"]["rxBytes"]);
    for (what, value) in [
        ("CPU", &pod["cpu"]["usageCoreNanoSeconds"]),
        ("memory", &pod["memory"]["workingSetBytes"]),
        ("the container's CPU", &pod["containers"][0]["cpu"]["usageCoreNanoSeconds"]),
        ("the container's memory", &pod["containers"][0]["memory"]["workingSetBytes"]),
    ]
    .into_iter()
    .chain((statistics == Statistics::Cri).then_some(network))
    {
        ensure!(value.as_u64().is_some_and(|value| value > 0), "{what} of {name} is {value}: {pod}");
    }
    Ok(())
}

/// How many values of a metric belong to the web servers: by the pod's name where the runtime measures, by its cgroup
/// where cAdvisor does, which asks containerd, CRI-O and Docker alone whose a cgroup is.
fn values(metrics: &str, name: &str, statistics: Statistics) -> usize {
    let marks = match statistics {
        Statistics::Cri => ("pod=\"web-", "container=\"web\""),
        Statistics::Cadvisor => ("id=\"/kubepods/", "pod"),
    };
    let of = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(marks.0) && line.contains(marks.1);
    metrics.lines().filter(of).count()
}

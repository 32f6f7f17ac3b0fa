//! A node under test: `berth agent`, with the runtime in the same process or in one of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::controlplane::{ADDRESS, ControlPlane};
use crate::cri::{Cri, STATE, Start};
use crate::daemon::Daemon;
use crate::kube::{self, Kube};
use crate::{command, http, paths, wait};

/// How many processes the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `berth agent` with its own runtime.
    One,
    /// `berth cri` and `berth agent`.
    Two,
}

/// What every node of a scenario has.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name.
    pub name: String,
    /// Folders of the node are made in here.
    pub dir: PathBuf,
    /// One process or two.
    pub shape: Shape,
}

/// A running node. Dropping it stops its processes, not its pods.
#[derive(Debug)]
pub struct Node {
    options: Options,
    kubeconfig: PathBuf,
    agent: Option<Daemon>,
    cri: Option<Cri>,
}

impl Node {
    /// Starts a node of `plane` and waits until it is Ready.
    ///
    /// # Errors
    /// A process ends or the node does not become Ready.
    pub fn start(plane: &ControlPlane, options: Options) -> Result<Self> {
        fs::create_dir_all(&options.dir)?;
        let kubeconfig = plane.node_kubeconfig(&options.name)?;
        fs::write(options.dir.join("kubelet.yaml"), kubelet_configuration(&plane.ca()))?;
        fs::write(options.dir.join("runtime.toml"), "[handlers.runc]\npath = \"/usr/sbin/runc\"\n")?;
        let mut node = Self { options, kubeconfig, agent: None, cri: None };
        if node.options.shape == Shape::Two {
            node.start_cri()?;
        }
        node.start_agent()?;
        node.await_ready(&Kube::new(&plane.admin()))?;
        Ok(node)
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Where images, layers and container records are.
    pub fn root(&self) -> PathBuf {
        self.options.dir.join("root")
    }

    /// Where pods' volumes are.
    pub fn root_dir(&self) -> PathBuf {
        self.options.dir.join("kubelet")
    }

    /// Where pods' logs are.
    pub fn logs(&self) -> PathBuf {
        self.options.dir.join("logs")
    }

    /// The agent's process id.
    pub fn agent_pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Daemon::pid)
    }

    /// Starts the agent (again).
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_agent(&mut self) -> Result<()> {
        let dir = &self.options.dir;
        let mut command = Command::new(paths::berth("berth"));
        command.arg("agent");
        if self.options.shape == Shape::One {
            command.arg("--root").arg(self.root()).args(["--state", STATE]);
            command.arg("--runtime-config").arg(self.runtime_config());
        }
        command
            .arg("--config")
            .arg(dir.join("kubelet.yaml"))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--hostname-override", &self.options.name, "--node-ip", ADDRESS, "--pod-network=bridge"])
            .arg("--root-dir")
            .arg(self.root_dir())
            .arg("--pod-logs-dir")
            .arg(self.logs());
        if self.options.shape == Shape::Two {
            command.arg("--container-runtime-endpoint").arg(self.endpoint());
        }
        self.agent = Some(Daemon::start("berth agent", &mut command, &dir.join("agent.log"))?);
        Ok(())
    }

    /// Starts the runtime's own process (again) and waits for its socket.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_cri(&mut self) -> Result<()> {
        let start = Start {
            socket: self.socket(),
            // The agent's business.
            network: None,
            log_level: "info",
            config: Some(&self.runtime_config()),
            ..Start::new(&self.options.dir)
        };
        self.cri = Some(Cri::start(start)?);
        Ok(())
    }

    /// SIGKILL to the agent.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent is not running")?.kill()
    }

    /// SIGKILL to the runtime's own process.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill_cri(&mut self) -> Result<()> {
        self.cri.take().context("berth cri is not running")?.kill()
    }

    /// Waits until the agent's health endpoint answers.
    ///
    /// # Errors
    /// The agent ended, or does not answer.
    pub fn await_healthy(&mut self) -> Result<()> {
        let answer = wait::until_true("the agent is healthy", Duration::from_secs(30), || {
            Ok(http::request("127.0.0.1:10248", "GET", "/healthz", &[], b"")?.status == 200)
        });
        self.explain(answer)
    }

    /// Ends the node's processes by SIGTERM.
    ///
    /// # Errors
    /// One does not end.
    pub fn stop(mut self) -> Result<()> {
        // The runtime first: an agent that is connected to it must not keep it from ending.
        if let Some(cri) = self.cri.take() {
            cri.stop()?;
        }
        if let Some(agent) = self.agent.take() {
            agent.stop()?;
        }
        Ok(())
    }

    /// The ends of the node's logs, for an error.
    pub fn end_of_logs(&self) -> String {
        let logs = ["agent.log", "cri.log"].map(|name| self.options.dir.join(name));
        let tails: Vec<String> = logs
            .iter()
            .filter(|log| log.exists())
            .map(|log| format!("the end of {}:\n{}", log.display(), command::tail_of(log)))
            .collect();
        tails.join("\n")
    }

    fn await_ready(&mut self, kube: &Kube) -> Result<()> {
        let name = self.options.name.clone();
        let answer = wait::until_true("the node is Ready and has a pod network", kube::PATIENCE, || {
            let node = kube.get("node", &name)?.unwrap_or_default();
            Ok(kube::ready(&node) && kube::pod_cidr(&node).is_ok())
        });
        self.explain(answer)
    }

    /// Puts a process's own last words beside an error that may follow from them.
    fn explain<T>(&mut self, answer: Result<T>) -> Result<T> {
        let agent = self.agent.as_mut().and_then(|agent| agent.check().err());
        let ended = agent.or_else(|| self.cri.as_mut().and_then(|cri| cri.check().err()));
        answer.map_err(|error| match ended {
            Some(ended) => error.context(ended.to_string()),
            None => error,
        })
    }

    fn runtime_config(&self) -> PathBuf {
        self.options.dir.join("runtime.toml")
    }

    fn socket(&self) -> PathBuf {
        Path::new("/run").join(format!("berth-cri-{}.sock", self.options.name))
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
}

/// The agent's configuration file: clients show a certificate of the cluster's authority.
pub fn kubelet_configuration(ca: &Path) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nauthentication:\n  anonymous: {{enabled: false}}\n  \
         webhook: {{enabled: false}}\n  x509: {{clientCAFile: {}}}\nauthorization: {{mode: AlwaysAllow}}\nclusterDNS: [10.96.0.10]\n\
         clusterDomain: cluster.local\n",
        ca.display()
    )
}

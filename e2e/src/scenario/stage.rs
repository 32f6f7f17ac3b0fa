//! What a scenario plays on: folders, a control plane, a registry, a node, and the pictures for the leak check.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use crate::controlplane::ControlPlane;
use crate::kube::Kube;
use crate::leak::{Folders, Picture};
use crate::node::{Node, Options, Shape};
use crate::paths;
use crate::registry::Registry;

/// A control plane with a registry. The folder is kept when the scenario fails, for its logs.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    dir: PathBuf,
    start: Instant,
    plane: ControlPlane,
    registry: Registry,
}

impl Stage {
    /// Starts the control plane and the registry in an empty folder.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn set(name: &'static str, registry: &str) -> Result<Self> {
        Self::set_signing(name, registry, None)
    }

    /// The same; the cluster issues nodes' certificates for `signing` (such as `3m`).
    ///
    /// # Errors
    /// One of them does not start.
    pub fn set_signing(name: &'static str, registry: &str, signing: Option<&str>) -> Result<Self> {
        let dir = paths::scratch(name)?;
        let start = Instant::now();
        // The control plane brings the bridge, on whose address a registry for a guest listens.
        let plane = ControlPlane::start_signing(&dir.join("plane"), signing)?;
        let registry = Registry::start(&dir.join("registry"), registry)?;
        registry.push_standard()?;
        let stage = Self { name, dir, start, plane, registry };
        stage.say("control plane and registry are up");
        Ok(stage)
    }

    /// Says what has been shown, with the seconds since the start.
    pub fn say(&self, what: &str) {
        println!("{:>6.1} s  {}: {what}", self.start.elapsed().as_secs_f64(), self.name);
    }

    /// The scenario's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The cluster's administrator.
    pub fn kube(&self) -> Kube {
        Kube::new(&self.plane.admin())
    }

    /// Starts a node.
    ///
    /// # Errors
    /// It does not become Ready.
    pub fn node(&self, name: &str, shape: Shape) -> Result<Node> {
        let options = Options { name: name.to_owned(), dir: self.dir.join(name), shape };
        let node = Node::start(&self.plane, options)?;
        self.say("the node is Ready");
        Ok(node)
    }

    /// The folders that the leak check looks into for a node that [`Stage::node`] started.
    pub fn folders(&self, node: &str) -> Folders {
        Folders::new(&[&self.dir.join(node)])
    }

    /// A picture for the leak check.
    ///
    /// # Errors
    /// Something can't be read.
    pub fn picture(&self, node: &str) -> Result<Picture> {
        Picture::take(&self.folders(node))
    }

    /// Stops everything and removes the folder.
    ///
    /// # Errors
    /// Something does not stop.
    pub fn clear(self) -> Result<()> {
        let Self { dir, plane, registry, .. } = self;
        drop(plane);
        registry.stop()?;
        fs::remove_dir_all(dir)?;
        Ok(())
    }
}

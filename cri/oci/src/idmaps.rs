//! Files seen with the ids of a user namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_plan::container::IdRange;
use berth_plan::message::{Failure, Stage};
use berth_sys::mount::Tree;
use berth_sys::{Mode, OFlags, fd, userns};

use crate::failure::At;

/// User namespaces by their ids: the pod's, and those made for single mounts.
#[derive(Default)]
pub(crate) struct IdMaps {
    known: Vec<(IdRange, OwnedFd)>,
}

impl IdMaps {
    /// With the pod's own.
    pub(crate) fn of_pod(ids: IdRange, namespace: OwnedFd) -> Self {
        Self { known: vec![(ids, namespace)] }
    }

    /// A namespace with these ids, made where there is none.
    pub(crate) fn namespace(&mut self, ids: IdRange) -> Result<BorrowedFd<'_>, Failure> {
        let at = match self.known.iter().position(|(known, _)| *known == ids) {
            Some(at) => at,
            None => {
                let made = userns::make(ids.host, ids.length)
                    .at(Stage::Mount, || format!("make a user namespace of {} ids from {}", ids.length, ids.host))?;
                self.known.push((ids, made));
                self.known.len() - 1
            }
        };
        Ok(self.known[at].1.as_fd())
    }

    /// Shows a detached tree with these ids.
    pub(crate) fn apply(&mut self, tree: &Tree, ids: IdRange, what: &str) -> Result<(), Failure> {
        let namespace = self.namespace(ids)?;
        tree.set_ids(namespace, false)
            .at(Stage::Mount, || format!("show {what:?} with the ids of a user namespace (idmap)"))
    }
}

/// Layers as an overlay for a user namespace needs them: each covered by itself with other ids, in this mount namespace.
pub(crate) struct Layers<'a> {
    /// `None` leaves layers as they are.
    namespace: Option<BorrowedFd<'a>>,
    /// What is covered already: a mount can't be given ids twice.
    shown: Vec<String>,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(namespace: Option<BorrowedFd<'a>>) -> Self {
        Self { namespace, shown: Vec::new() }
    }

    /// Has the path of a layer lead to its files with the namespace's ids.
    pub(crate) fn show(&mut self, layer: &str) -> Result<(), Failure> {
        if self.namespace.is_none() || self.shown.iter().any(|shown| shown == layer) {
            return Ok(());
        }
        let tree = self.folder(layer)?;
        let act = || format!("cover the layer {layer:?}");
        // Older kernels (before 6.15) make no overlay of what is attached nowhere.
        let target = fd::open(layer, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).at(Stage::Rootfs, act)?;
        tree.attach(&target).at(Stage::Rootfs, act)?;
        self.shown.push(layer.to_owned());
        Ok(())
    }

    /// A folder with the namespace's ids, attached nowhere.
    pub(crate) fn folder(&self, path: &str) -> Result<Tree, Failure> {
        let tree = Tree::copy_path(path, false).at(Stage::Rootfs, || format!("open the folder {path:?}"))?;
        if let Some(namespace) = self.namespace
            && !self.shown.iter().any(|shown| shown == path)
        {
            tree.set_ids(namespace, false)
                .at(Stage::Rootfs, || format!("show {path:?} with the ids of the user namespace (idmap)"))?;
        }
        Ok(tree)
    }
}

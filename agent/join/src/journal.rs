//! What a join has begun: written before anything is changed, read by whoever comes after.

use std::path::PathBuf;

use berth_effect::record;
use serde::{Deserialize, Serialize};

use crate::{JoinError, Paths};

const VERSION: u32 = 1;
/// A journal names some dozen files.
const LONGEST: u64 = 1 << 20;

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Files are being written and the certificate asked for. Whoever finds this undoes it.
    Joining,
    /// Everything is there but the agent's start. Whoever finds this goes on.
    Starting,
    /// The node is the cluster's.
    Joined,
    /// It is being taken out. Whoever finds this goes on.
    Leaving,
}

/// A file that the join puts in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    /// One was there before; it is kept beside it, and put back when the join is undone.
    pub(crate) kept: bool,
}

/// A systemd unit that runs the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `berth-agent.service`.
    pub name: String,
    /// Its file, when the join installs it; a package's stays where it is.
    pub file: Option<PathBuf>,
}

/// `/var/lib/berth/join.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    pub(crate) version: u32,
    /// How far it has come.
    pub phase: Phase,
    /// The cluster's name.
    pub cluster: String,
    /// Its address.
    pub server: String,
    /// This node's name.
    pub node: String,
    /// The unit that runs the agent; `None` when it runs in the foreground.
    pub unit: Option<Unit>,
    pub(crate) files: Vec<Entry>,
    /// Folders that were not there, outermost first.
    pub(crate) folders: Vec<PathBuf>,
    /// What lay in the folder of certificates before.
    pub(crate) certificates_before: Vec<String>,
}

impl Journal {
    /// For a join that begins.
    pub(crate) fn new(cluster: &str, server: &str, node: &str) -> Self {
        Self {
            version: VERSION,
            phase: Phase::Joining,
            cluster: cluster.to_owned(),
            server: server.to_owned(),
            node: node.to_owned(),
            unit: None,
            files: Vec::new(),
            folders: Vec::new(),
            certificates_before: Vec::new(),
        }
    }

    /// The one on this machine; `None` when nothing was begun.
    ///
    /// # Errors
    /// [`JoinError::Journal`] for one that can't be understood: what it stands for must not be forgotten.
    pub fn load(paths: &Paths) -> Result<Option<Self>, JoinError> {
        let path = paths.journal();
        let wrong = |reason: String| JoinError::Journal { path: path.clone(), reason };
        let Some(bytes) = record::read(&path, LONGEST).map_err(|error| wrong(error.to_string()))? else {
            return Ok(None);
        };
        let journal: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if journal.version != VERSION {
            return Err(wrong(format!("version {}", journal.version)));
        }
        Ok(Some(journal))
    }

    pub(crate) fn save(&self, paths: &Paths) -> Result<(), JoinError> {
        let path = paths.journal();
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| JoinError::Journal { path: path.clone(), reason: error.to_string() })?;
        record::write_durable(&path, &bytes).map_err(JoinError::io("writing", path))
    }

    /// The cluster, for people.
    pub fn describe(&self) -> String {
        format!("cluster {:?} at {}", self.cluster, self.server)
    }
}

//! Keeps the status file true.

use std::convert::Infallible;
use std::path::PathBuf;

use berth_kube::Health;
use berth_kube::certificates::Report;
use tokio::sync::watch;

use crate::state::{self, AgentState};

/// What the file is made of.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) client: watch::Receiver<Report>,
    /// Absent where the cluster issues no serving certificate.
    pub(super) serving: Option<watch::Receiver<Report>>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) registered: watch::Receiver<bool>,
}

/// Writes the file now and at every change, for ever. `fixed` is what does not change.
pub(super) async fn keep(folder: PathBuf, fixed: AgentState, mut sources: Sources) -> Infallible {
    let mut written = None;
    loop {
        let now = now(&fixed, &mut sources);
        if written.as_ref() != Some(&now) {
            // A status file that can't be written keeps no pod from running.
            if let Err(error) = state::write(&folder, &now) {
                tracing::warn!(file = %state::path(&folder).display(), %error, "the status can't be written");
            }
            written = Some(now);
        }
        let serving = async {
            match &mut sources.serving {
                Some(serving) => changed(serving).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed(&mut sources.client) => {}
            () = serving => {}
            () = changed(&mut sources.health) => {}
            () = changed(&mut sources.registered) => {}
        }
    }
}

/// Never returns once nobody sends any more.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending().await
    }
}

fn now(fixed: &AgentState, sources: &mut Sources) -> AgentState {
    let client = sources.client.borrow_and_update().clone();
    let has_certificate = client.not_after.is_some() || client.problem.is_some();
    let unready = sources.health.borrow_and_update().problem.clone();
    AgentState {
        registered: *sources.registered.borrow_and_update(),
        unready,
        client_certificate: has_certificate.then(|| (&client).into()),
        serving_certificate: sources.serving.as_mut().map(|serving| (&*serving.borrow_and_update()).into()),
        ..fixed.clone()
    }
}

//! Carries out the probes of one container instance, at the times that the core says.
//!
//! One task for each instance that has probes; it sleeps until one is due. The worker hears of it only when what the
//! probes say has changed.

use std::sync::Arc;

use berth_agent_core::probe::{self, Health, Kind, Probing};
use berth_agent_core::{Moment, names};
use berth_probes::{Asked, Outcome};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep_until};

use crate::EventKind::Warning;
use crate::shared::{Shared, now};

/// The probes of an instance now say this.
#[derive(Debug)]
pub(crate) struct Report {
    /// The instance.
    pub(crate) id: String,
    pub(crate) health: Health,
}

/// Whose probes are carried out.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    /// The runtime's id of the instance.
    pub(crate) id: String,
    /// The pod's address.
    pub(crate) ip: String,
}

/// Probing under way; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Probes {
    ending: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Probes {
    pub(crate) fn begin(subject: Subject, probing: Probing, reports: mpsc::UnboundedSender<Report>) -> Self {
        let (ending, told) = watch::channel(false);
        let task = tokio::spawn(run(Arc::new(subject), probing, reports, told));
        Self { ending, task }
    }

    /// The pod is to end: only its readiness still matters.
    pub(crate) fn end(&self) {
        self.ending.send_if_modified(|ending| !std::mem::replace(ending, true));
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The wall clock's time at the beginning, and from there on a clock that nobody sets.
struct Clock(Moment, Instant);

impl Clock {
    fn now(&self) -> Moment {
        self.0.plus_millis(i64::try_from(self.1.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn at(&self, moment: Moment) -> Instant {
        self.1 + Duration::from_nanos(moment.since(self.0).max(0).unsigned_abs())
    }
}

async fn run(
    subject: Arc<Subject>,
    mut probing: Probing,
    reports: mpsc::UnboundedSender<Report>,
    mut ending: watch::Receiver<bool>,
) {
    let clock = Clock(now(), Instant::now());
    let mut told = probing.health();
    let mut running: FuturesUnordered<BoxFuture<'_, (Kind, Option<bool>)>> = FuturesUnordered::new();
    loop {
        let now = clock.now();
        let mut next = probing.next();
        while let Some((kind, _)) = next.filter(|(_, due)| *due <= now) {
            probing.begin(kind, now);
            running.push(Box::pin(subject.ask(kind)));
            next = probing.next();
        }
        let due = next.map(|(_, due)| clock.at(due));
        tokio::select! {
            Some((kind, outcome)) = running.next() => probing.end(kind, outcome, clock.now()),
            () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {}
            changed = ending.changed() => {
                // The worker is gone.
                if changed.is_err() {
                    return;
                }
                probing.ending();
            }
        }
        let health = probing.health();
        if health != told {
            told = health;
            let _ = reports.send(Report { id: subject.id.clone(), health });
        }
    }
}

impl Subject {
    /// Runs one probe once and tells what people should know of it.
    async fn ask(&self, kind: Kind) -> (Kind, Option<bool>) {
        let Some(probe) = kind.of(&self.container) else { return (kind, None) };
        let declared = probe.exec.as_ref().and_then(|exec| exec.command.as_deref()).unwrap_or_default();
        let command = probe::command(&self.container, declared);
        let asked = Asked { container: &self.container, id: &self.id, ip: &self.ip };
        let outcome = berth_probes::probe(probe, &command, asked, &self.shared.cri).await;
        let tell = |reason, message: String| {
            tracing::debug!(pod = names::describe(&self.pod), container = self.container.name, message, "probe");
            self.shared.event(&self.pod, Some(&self.container.name), Warning, reason, message);
        };
        let name = kind.as_str();
        let counts = match outcome {
            Outcome::Success => Some(true),
            Outcome::Warning(words) => {
                tell("ProbeWarning", format!("{name} probe warning: {words}"));
                Some(true)
            }
            Outcome::Failure(words) => {
                tell("Unhealthy", format!("{name} probe failed: {words}"));
                Some(false)
            }
            Outcome::Broken(words) => {
                tell("Unhealthy", format!("{name} probe errored and resulted in unknown state: {words}"));
                None
            }
        };
        (kind, counts)
    }
}

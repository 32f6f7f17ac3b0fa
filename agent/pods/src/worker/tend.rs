//! What goes on beside the steps while a container runs: its probes, and hooks that end with it.

use std::collections::BTreeMap;

use berth_agent_core::probe::{Health, Probing};
use berth_agent_core::{Seen, SeenContainer, State, Step, plan};
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::carry::{Hooked, PreStop, declared};
use crate::probing::{Probes, Report, Subject};
use crate::shared::now;

/// By container id.
#[derive(Debug)]
pub(super) struct Tended {
    probes: BTreeMap<String, Probes>,
    pre_stops: BTreeMap<String, PreStop>,
    /// Cancelled when the instance has ended.
    ended: BTreeMap<String, CancellationToken>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Tended {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (reports, receiver) = mpsc::unbounded_channel();
        let tended = Self { probes: BTreeMap::new(), pre_stops: BTreeMap::new(), ended: BTreeMap::new(), reports };
        (tended, receiver)
    }

    /// What is cancelled when the instance that a step is about has ended.
    pub(super) fn ended(&mut self, step: &Step) -> CancellationToken {
        match step {
            Step::PostStart { id, .. } | Step::StopContainer { id, .. } => self.token(id),
            _ => CancellationToken::new(),
        }
    }

    fn token(&mut self, id: &str) -> CancellationToken {
        self.ended.entry(id.to_owned()).or_default().clone()
    }
}

/// The status of the instance `id`, if it was published as running.
fn running<'a>(published: &'a PodStatus, id: &str) -> Option<&'a ContainerStatus> {
    let lists = [&published.init_container_statuses, &published.container_statuses];
    lists.into_iter().flatten().flatten().find(|status| {
        let known = status.container_id.as_deref().and_then(|full| full.split_once("://")).map(|(_, id)| id);
        known == Some(id) && status.state.as_ref().is_some_and(|state| state.running.is_some())
    })
}

/// What the last status tells of hooks: a container shows as running once its postStart hook is through.
pub(super) fn recall(seen: &mut Seen) {
    let lists = [&seen.published.init_container_statuses, &seen.published.container_statuses];
    let statuses = lists.into_iter().flatten().flatten();
    let running = statuses.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let ids = running.filter_map(|status| Some(status.container_id.as_deref()?.split_once("://")?.1.to_owned()));
    seen.memory.hooks = ids.map(|id| (id, true)).collect();
}

/// Probes say something else than before.
pub(super) fn hear(seen: &mut Seen, report: &Report) {
    if let Some(health) = seen.health.get_mut(&report.id) {
        *health = report.health;
    }
}

impl Worker {
    /// Begins the probes of what began to run, and ends what went on for instances that have ended.
    pub(super) fn tend(&mut self, ending: bool) {
        if !self.looked {
            return;
        }
        let seen = &mut self.seen;
        let exists = |id: &String| seen.containers.iter().any(|container| container.id == *id);
        seen.health.retain(|id, _| exists(id));
        seen.memory.hooks.retain(|id, _| exists(id));
        let runs = |id: &String| seen.containers.iter().any(|container| container.id == *id && container.may_run());
        self.tended.probes.retain(|id, _| runs(id));
        self.tended.pre_stops.retain(|id, _| runs(id));
        self.tended.ended.retain(|id, ended| {
            let runs = runs(id);
            if !runs {
                ended.cancel();
            }
            runs
        });
        if ending {
            self.tended.probes.values().for_each(Probes::end);
        }
        let waiting: Vec<SeenContainer> = self
            .seen
            .containers
            .iter()
            .filter(|container| !self.tended.probes.contains_key(&container.id))
            .cloned()
            .collect();
        for container in waiting {
            self.begin_probes(&container, ending);
        }
    }

    fn begin_probes(&mut self, container: &SeenContainer, ending: bool) {
        let State::Running { started } = container.state else { return };
        let Some(spec) = declared(&self.pod, &container.name) else { return };
        if !plan::is_hooked(spec, &container.id, &self.seen) {
            return;
        }
        let known = running(&self.seen.published, &container.id).map(|status| Health {
            started: status.started == Some(true),
            ready: status.ready,
            failed: None,
        });
        let Some(mut probing) = Probing::new(spec, &container.id, started, known, now()) else { return };
        if ending {
            probing.ending();
        }
        self.seen.health.insert(container.id.clone(), probing.health());
        let subject = Subject {
            shared: self.shared.clone(),
            pod: self.pod.clone(),
            container: spec.clone(),
            id: container.id.clone(),
            ip: self.ip_of(container),
        };
        let probes = Probes::begin(subject, probing, self.tended.reports.clone());
        self.tended.probes.insert(container.id.clone(), probes);
    }

    /// The address at which a container is reached.
    fn ip_of(&self, container: &SeenContainer) -> String {
        let sandbox = self.seen.sandboxes.iter().find(|sandbox| sandbox.id == container.sandbox);
        let own = sandbox.and_then(|sandbox| sandbox.ips.first().cloned());
        own.or_else(|| self.host_ips().into_iter().next()).unwrap_or_default()
    }

    /// The preStop hook of a container that is to be stopped; begun once, however often it is stopped.
    pub(super) fn pre_stop(&mut self, name: &str, id: &str) -> Option<PreStop> {
        if let Some(known) = self.tended.pre_stops.get(id) {
            return Some(known.clone());
        }
        let container = self.seen.containers.iter().find(|container| container.id == id)?;
        if !matches!(container.state, State::Running { .. }) {
            return None;
        }
        let hooked = Hooked {
            shared: self.shared.clone(),
            pod: self.pod.clone(),
            container: declared(&self.pod, name)?.clone(),
            id: id.to_owned(),
            ip: self.ip_of(container),
            ended: self.tended.token(id),
        };
        let hook = hooked.pre_stop()?;
        self.tended.pre_stops.insert(id.to_owned(), hook.clone());
        Some(hook)
    }
}

//! Calls as a kubelet makes them, each with a deadline, and what became of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::fate;
use super::plan::{Seen, SeenContainer, SeenSandbox, State};
use super::proxy::MESSAGE;
use crate::cri::config;

/// Per cent of the calls that get a deadline of moments.
const HASTY: u32 = 6;
/// Every other call's deadline: whoever lets it pass hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Answered,
    /// The connection broke.
    Cut,
    /// It had a short deadline, which passed.
    Late,
    /// The runtime said no.
    Refused,
}

/// What became of all calls, and what no call may come to.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    calls: BTreeMap<&'static str, BTreeMap<Outcome, usize>>,
    refusals: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn count(&self, call: &'static str, outcome: Outcome) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *inner.calls.entry(call).or_default().entry(outcome).or_default() += 1;
    }

    fn refusal(&self, call: &'static str, status: &Status) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Without ids and names, the same ones are the same.
        let words: Vec<&str> =
            status.message().split(' ').filter(|word| !word.chars().any(|c| c.is_ascii_digit())).collect();
        *inner.refusals.entry(format!("{call}: {:?}: {}", status.code(), words.join(" "))).or_default() += 1;
    }

    fn wrong(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wrong.push(what);
    }

    /// What must never happen, and did.
    pub(super) fn wrongs(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wrong.clone()
    }

    /// How many calls ended so.
    pub(super) fn sum(&self, outcome: Outcome) -> usize {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.calls.values().filter_map(|outcomes| outcomes.get(&outcome)).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(formatter, "{:<20} {:>9} {:>6} {:>6} {:>8}", "", "answered", "cut", "late", "refused")?;
        for (call, outcomes) in &inner.calls {
            let of = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
            writeln!(
                formatter,
                "{call:<20} {:>9} {:>6} {:>6} {:>8}",
                of(Outcome::Answered),
                of(Outcome::Cut),
                of(Outcome::Late),
                of(Outcome::Refused)
            )?;
        }
        for (refusal, count) in &inner.refusals {
            writeln!(formatter, "{count:>4} x {refusal}")?;
        }
        Ok(())
    }
}

/// A client with a connection of its own, which it makes again whenever it is cut.
#[derive(Debug)]
pub(super) struct Caller {
    runtime: RuntimeServiceClient<Channel>,
    /// Deals deadlines; `None` gives each call all the time.
    dice: Option<fastrand::Rng>,
    tally: Arc<Tally>,
}

macro_rules! calls {
    ($($name:literal $call:ident($request:ident) -> $response:ident;)*) => {
        impl Caller {
            $(pub(super) async fn $call(&mut self, message: cri::$request) -> Result<cri::$response, Status> {
                let (request, limit) = self.request(message);
                let answer = self.runtime.$call(request).await;
                self.heard($name, limit, answer)
            })*
        }
    };
}

calls! {
    "RunPodSandbox" run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    "StopPodSandbox" stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    "RemovePodSandbox" remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    "PodSandboxStatus" pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    "ListPodSandbox" list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
    "CreateContainer" create_container(CreateContainerRequest) -> CreateContainerResponse;
    "StartContainer" start_container(StartContainerRequest) -> StartContainerResponse;
    "StopContainer" stop_container(StopContainerRequest) -> StopContainerResponse;
    "RemoveContainer" remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    "ContainerStatus" container_status(ContainerStatusRequest) -> ContainerStatusResponse;
    "ListContainers" list_containers(ListContainersRequest) -> ListContainersResponse;
    "ExecSync" exec_sync(ExecSyncRequest) -> ExecSyncResponse;
}

impl Caller {
    pub(super) fn new(socket: &Path, dice: Option<fastrand::Rng>, tally: &Arc<Tally>) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("unix:{}", socket.display()))?.connect_lazy();
        let runtime = RuntimeServiceClient::new(channel).max_decoding_message_size(MESSAGE);
        Ok(Self { runtime, dice, tally: Arc::clone(tally) })
    }

    /// What the lists say, of one pod or of all.
    pub(super) async fn look(&mut self, uid: Option<&str>) -> Result<Seen, Status> {
        let labels = || uid.map(|uid| (config::UID.to_owned(), uid.to_owned())).into_iter().collect();
        let filter = cri::PodSandboxFilter { label_selector: labels(), ..Default::default() };
        let sandboxes = self.list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(filter) }).await?.items;
        let filter = cri::ContainerFilter { label_selector: labels(), ..Default::default() };
        let containers = self.list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?.containers;
        let sandboxes = sandboxes.into_iter().map(|sandbox| SeenSandbox {
            ready: sandbox.state() == cri::PodSandboxState::SandboxReady,
            attempt: sandbox.metadata.map_or(0, |metadata| metadata.attempt),
            id: sandbox.id,
        });
        let containers = containers.into_iter().map(|container| SeenContainer {
            state: state(container.state()),
            attempt: container.metadata.map_or(0, |metadata| metadata.attempt),
            id: container.id,
            sandbox: container.pod_sandbox_id,
        });
        Ok(Seen { sandboxes: sandboxes.collect(), containers: containers.collect() })
    }

    /// With a deadline that is told to the server, too; whether it is a short one.
    fn request<T>(&mut self, message: T) -> (Request<T>, Option<Duration>) {
        let short = self.dice.as_mut().and_then(|dice| (dice.u32(0..100) < HASTY).then(|| fate::moment(dice)));
        let mut request = Request::new(message);
        request.set_timeout(short.unwrap_or(PATIENCE));
        (request, short)
    }

    fn heard<T>(
        &self,
        call: &'static str,
        short: Option<Duration>,
        answer: Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let status = match answer {
            Ok(response) => {
                self.tally.count(call, Outcome::Answered);
                return Ok(response.into_inner());
            }
            Err(status) => status,
        };
        let late = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
        // What the runtime says has no cause here.
        let outcome = match (short, status.source()) {
            (Some(_), _) if late => Outcome::Late,
            (_, Some(_)) if !late => Outcome::Cut,
            (None, Some(_)) if status.code() == Code::Cancelled => Outcome::Cut,
            _ => Outcome::Refused,
        };
        self.tally.count(call, outcome);
        if outcome == Outcome::Refused {
            self.tally.refusal(call, &status);
            if matches!(status.code(), Code::Internal | Code::DeadlineExceeded | Code::Cancelled) {
                self.tally.wrong(format!("{call}: {:?}: {}", status.code(), status.message()));
            }
        }
        Err(status)
    }
}

fn state(state: cri::ContainerState) -> State {
    match state {
        cri::ContainerState::ContainerCreated => State::Created,
        cri::ContainerState::ContainerRunning => State::Running,
        cri::ContainerState::ContainerExited => State::Exited,
        cri::ContainerState::ContainerUnknown => State::Unknown,
    }
}

//! Plans against a model of a runtime in which anything may fail, end or be forgotten at any time: afterwards the pod
//! reaches its goal, and on the way no rule is broken.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::*;

/// What happens between two plans.
#[derive(Debug, Clone)]
enum Chance {
    /// One of the steps under way ends well.
    Succeed(usize),
    /// Or fails.
    Fail(usize),
    /// A running container ends.
    Exit(usize, i32),
    /// The sandbox and all in it die.
    Lose,
    /// The agent is killed and started again: what it remembers is gone, what it was doing is half done or not.
    Restart(bool),
    /// A probe of a running container fails for good.
    Unhealthy(usize),
    /// Time passes.
    Pass(i64),
    /// The pod is deleted.
    Delete(i64),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        8 => (0..4usize).prop_map(Chance::Succeed),
        2 => (0..4usize).prop_map(Chance::Fail),
        2 => (0..4usize, 0..3i32).prop_map(|(which, code)| Chance::Exit(which, code)),
        1 => (0..4usize).prop_map(Chance::Unhealthy),
        1 => Just(Chance::Lose),
        1 => any::<bool>().prop_map(Chance::Restart),
        3 => (0..400i64).prop_map(Chance::Pass),
        1 => (0..40i64).prop_map(Chance::Delete),
    ]
}

struct Model {
    desired: Desired,
    seen: Seen,
    now: Moment,
    made: u32,
    under_way: Vec<Step>,
}

impl Model {
    fn new(policy: &str, init: bool, sidecar: bool) -> Self {
        let mut list = Vec::new();
        if sidecar {
            list.push(json!({"name": "s", "image": "s:1", "restartPolicy": "Always", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}));
        }
        if init {
            list.push(json!({"name": "i", "image": "i:1"}));
        }
        let spec = json!({"restartPolicy": policy, "initContainers": list,
            "containers": [
                {"name": "a", "image": "a:1", "livenessProbe": {}, "lifecycle": {"postStart": {"sleep": {"seconds": 1}}}},
                {"name": "b", "image": "b:1"}]});
        Self { desired: desired(spec), seen: Seen::default(), now: NOW, made: 0, under_way: Vec::new() }
    }

    /// Asks for a plan, checks it, and begins its steps. `true` when it asked for anything but to wait.
    fn advance(&mut self) -> Result<bool, TestCaseError> {
        if end(&self.desired, &self.seen, self.now).is_some() && self.seen.memory.ending_since.is_none() {
            self.seen.memory.ending_since = Some(self.now);
        }
        let plan = plan(&self.desired, &self.seen, self.now);
        let mut acts = false;
        for planned in plan.steps {
            self.check(&planned.step)?;
            match planned.step {
                Step::Wait { until } => prop_assert!(until > self.now, "a wait that is over: {}", planned.why),
                Step::Refuse { .. } => {}
                Step::PreStop { id, .. } => {
                    prop_assert!(self.seen.memory.pre_stopped.insert(id), "a hook twice");
                }
                Step::Abandon(target) => {
                    acts = true;
                    self.under_way.retain(|step| step.target() != target);
                    self.seen.busy.remove(&target);
                }
                Step::ReportGone => {
                    acts = true;
                    self.seen.memory.gone = true;
                }
                step => {
                    acts = true;
                    self.seen.busy.insert(step.target(), step.clone());
                    self.under_way.push(step);
                }
            }
        }
        self.seen.published = crate::status(&self.desired, &self.seen, self.now);
        Ok(acts)
    }

    /// Rules that no step may break.
    fn check(&self, step: &Step) -> TestCaseResult {
        let overtakes = matches!(
            step,
            Step::StopContainer { .. }
                | Step::PreStop { .. }
                | Step::Abandon(_)
                | Step::Wait { .. }
                | Step::Refuse { .. }
        );
        prop_assert!(overtakes || !self.seen.is_busy(&step.target()), "{step:?} twice at once");
        match step {
            Step::CreateContainer { container, sandbox, .. } => {
                let runs = self.seen.containers.iter().any(|c| c.name == *container && c.may_run());
                prop_assert!(!runs, "{container} would run twice");
                let ready = self.seen.ready_sandbox().map(|ready| ready.id.as_str());
                prop_assert_eq!(ready, Some(sandbox.as_str()), "a container in a dead sandbox");
                prop_assert!(self.seen.volumes == Presence::Present, "a container without its volumes");
            }
            Step::StopContainer { container, .. }
                if container == "s" && end(&self.desired, &self.seen, self.now).is_some() =>
            {
                let serves = self.seen.containers.iter().any(|c| c.name != "s" && c.name != "i" && c.may_run());
                prop_assert!(!serves, "a sidecar ends before those that it serves");
            }
            Step::CreateSandbox { .. } => {
                prop_assert!(
                    !self.seen.containers.iter().any(SeenContainer::may_run),
                    "an old sandbox still has containers"
                );
            }
            Step::ClearVolumes | Step::ClearCgroup => {
                prop_assert!(!self.seen.containers.iter().any(SeenContainer::may_run), "{step:?} under a container");
            }
            Step::ClearFiles | Step::ReportGone => {
                let left = self.seen.containers.len() + self.seen.sandboxes.len();
                prop_assert!(left == 0 && self.seen.volumes == Presence::Absent, "{step:?} while something is left");
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, which: usize) -> Option<Step> {
        if self.under_way.is_empty() {
            return None;
        }
        let step = self.under_way.remove(which % self.under_way.len());
        if !self.under_way.iter().any(|other| other.target() == step.target()) {
            self.seen.busy.remove(&step.target());
        }
        Some(step)
    }

    fn succeed(&mut self, step: &Step) {
        self.seen.memory.succeeded(step);
        match step {
            Step::PrepareHost => {
                self.seen.files = Presence::Present;
                self.seen.cgroup = Presence::Present;
            }
            Step::PrepareVolumes => self.seen.volumes = Presence::Present,
            Step::CreateSandbox { attempt } => {
                self.seen.sandboxes.insert(0, SeenSandbox { created: self.now, ..sandbox(*attempt, true) });
            }
            Step::PullImage { container, .. } => pulled(&mut self.seen, container),
            Step::CreateContainer { container: name, sandbox, attempt, backoff, .. } => {
                self.made += 1;
                let mut made = container(name, sandbox, *attempt, State::Created);
                made.id = format!("{name}-{}", self.made);
                made.created = self.now;
                made.backoff = *backoff;
                self.seen.containers.insert(0, made);
            }
            Step::StartContainer { id, .. } => {
                let ready = self.seen.ready_sandbox().map(|sandbox| sandbox.id.clone());
                let now = self.now;
                // What has died with its sandbox is not started, whichever sandbox has come since.
                let starts = |c: &SeenContainer| {
                    c.id == *id && matches!(c.state, State::Created) && ready.as_ref() == Some(&c.sandbox)
                };
                for container in self.seen.containers.iter_mut().filter(|c| starts(c)) {
                    container.state = State::Running { started: now };
                }
            }
            Step::PostStart { .. } | Step::PreStop { .. } => {}
            Step::StopContainer { id, .. } => self.end(|c| c.id == *id, 143),
            Step::StopSandbox { id } => {
                self.end(|c| c.sandbox == *id, 137);
                for sandbox in self.seen.sandboxes.iter_mut().filter(|s| s.id == *id) {
                    sandbox.ready = false;
                }
            }
            Step::RemoveContainer { id, .. } => self.seen.containers.retain(|c| c.id != *id),
            Step::RemoveSandbox { id } => {
                self.seen.containers.retain(|c| c.sandbox != *id);
                self.seen.sandboxes.retain(|s| s.id != *id);
            }
            Step::ClearVolumes => self.seen.volumes = Presence::Absent,
            Step::ClearCgroup => self.seen.cgroup = Presence::Absent,
            Step::ClearFiles => self.seen.files = Presence::Absent,
            Step::Abandon(_) | Step::ReportGone | Step::Wait { .. } | Step::Refuse { .. } => {}
        }
    }

    fn end(&mut self, which: impl Fn(&SeenContainer) -> bool, code: i32) {
        let now = self.now;
        for container in self.seen.containers.iter_mut().filter(|c| c.may_run() && which(c)) {
            let started = container.created;
            container.state =
                State::Exited { started, finished: now, code, reason: String::new(), message: String::new() };
        }
    }

    fn happen(&mut self, chance: &Chance) {
        match chance {
            Chance::Succeed(which) => {
                if let Some(step) = self.finish(*which) {
                    self.succeed(&step);
                }
            }
            Chance::Fail(which) => {
                if let Some(step) = self.finish(*which) {
                    if let Step::PostStart { id, .. } = &step {
                        self.seen.memory.hooks.insert(id.clone(), false);
                    }
                    let reason = if matches!(step, Step::PullImage { .. }) { "ErrImagePull" } else { "Failed" };
                    self.seen.memory.failed(step.target(), reason, "by chance".into(), false, self.now);
                }
            }
            Chance::Exit(which, code) => {
                let running: Vec<String> =
                    self.seen.containers.iter().filter(|c| c.may_run()).map(|c| c.id.clone()).collect();
                if let Some(id) = running.get(*which % running.len().max(1)) {
                    self.end(|c| c.id == *id, *code);
                }
            }
            Chance::Unhealthy(which) => {
                let running: Vec<String> = self
                    .seen
                    .containers
                    .iter()
                    .filter(|c| matches!(c.state, State::Running { .. }))
                    .map(|c| c.id.clone())
                    .collect();
                if let Some(id) = running.get(*which % running.len().max(1)) {
                    let failed = Some(crate::probe::Kind::Liveness);
                    let health = crate::probe::Health { started: true, ready: false, failed };
                    self.seen.health.insert(id.clone(), health);
                }
            }
            Chance::Lose => {
                self.end(|_| true, 137);
                for sandbox in &mut self.seen.sandboxes {
                    sandbox.ready = false;
                }
            }
            Chance::Restart(done) => {
                for step in std::mem::take(&mut self.under_way) {
                    // A call that was under way may have been carried out all the same.
                    if *done {
                        self.succeed(&step);
                    }
                }
                let gone = self.seen.memory.gone;
                self.seen.busy = BTreeMap::new();
                self.seen.health = BTreeMap::new();
                self.seen.memory = crate::Memory { gone, ..crate::Memory::default() };
                (self.seen.files, self.seen.cgroup, self.seen.volumes) = Default::default();
            }
            Chance::Pass(seconds) => self.now = self.now.plus_seconds(*seconds),
            Chance::Delete(grace) => self.desired = delete(&self.desired, *grace),
        }
    }

    /// Runs on without mishaps; `Err` when it does not come to rest.
    fn settle(&mut self) -> TestCaseResult {
        for _ in 0..400 {
            let acted = self.advance()?;
            if let Some(step) = self.finish(0) {
                self.succeed(&step);
            } else if !acted {
                let wake = plan(&self.desired, &self.seen, self.now).wake();
                match wake {
                    Some(until) => self.now = until,
                    None => return Ok(()),
                }
            }
        }
        Err(TestCaseError::fail(format!("no rest: {:?}", plan(&self.desired, &self.seen, self.now))))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_pod_reaches_its_goal(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        (init, sidecar) in any::<(bool, bool)>(),
        chances in prop::collection::vec(chance(), 0..60),
    ) {
        let mut model = Model::new(policy, init, sidecar);
        for chance in &chances {
            model.advance()?;
            model.happen(chance);
        }
        // Init containers would run for ever: they end well now.
        for _ in 0..8 {
            model.settle()?;
            model.end(|c| c.name == "i", 0);
        }
        model.settle()?;
        let phase = model.seen.published.phase.clone().unwrap_or_default();
        if model.desired.pod.metadata.deletion_timestamp.is_some() {
            prop_assert!(model.seen.memory.gone, "deleted, and not gone");
        } else if policy == "Always" {
            prop_assert_eq!(&phase, "Running");
            for name in ["a", "b"].into_iter().chain(sidecar.then_some("s")) {
                prop_assert!(model.seen.latest(name).is_some_and(SeenContainer::may_run), "{} does not run", name);
            }
        } else {
            prop_assert!(matches!(phase.as_str(), "Running" | "Succeeded" | "Failed"), "phase {}", phase);
        }
        for name in ["s", "i", "a", "b"] {
            let kept = model.seen.containers.iter().filter(|c| c.name == name).count();
            prop_assert!(kept <= 2, "{} instances of {} are kept", kept, name);
        }
    }
}

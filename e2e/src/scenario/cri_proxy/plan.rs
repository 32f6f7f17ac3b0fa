//! What a kubelet does next for a pod of one container, from what the runtime's lists say: nothing is remembered of
//! calls whose answers were lost.

/// What shall become of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Run,
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenSandbox {
    pub(super) id: String,
    pub(super) attempt: u32,
    pub(super) ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenContainer {
    pub(super) id: String,
    pub(super) sandbox: String,
    pub(super) attempt: u32,
    pub(super) state: State,
}

/// What the lists say of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) sandboxes: Vec<SeenSandbox>,
    pub(super) containers: Vec<SeenContainer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    RunSandbox {
        attempt: u32,
    },
    /// CreateContainer, and StartContainer of what it answers.
    Begin {
        sandbox: String,
        attempt: u32,
    },
    Probe {
        container: String,
    },
    /// The container has ended by itself.
    Finished,
    StopContainer(String),
    StopSandbox(String),
    RemoveContainer(String),
    RemoveSandbox(String),
    /// Nothing of it is listed.
    Nothing,
}

/// The next step (kubernetes@v1.37.2:pkg/kubelet/kuberuntime/kuberuntime_manager.go#computePodActions,
/// killPodWithSyncResult; kuberuntime_gc.go).
pub(super) fn next(goal: Goal, seen: &Seen) -> Step {
    match goal {
        Goal::Run => run(seen),
        Goal::Gone => kill(seen).or_else(|| remove(seen)).unwrap_or(Step::Nothing),
    }
}

fn run(seen: &Seen) -> Step {
    let newest = seen.sandboxes.iter().max_by_key(|sandbox| sandbox.attempt);
    let ready = seen.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let Some(sandbox) = newest.filter(|newest| newest.ready && ready == 1) else {
        // The pod begins anew, and what it was is ended first.
        let attempt = newest.map_or(0, |newest| newest.attempt + 1);
        return kill(seen).unwrap_or(Step::RunSandbox { attempt });
    };
    let newest = seen.containers.iter().max_by_key(|container| container.attempt);
    let again = newest.map_or(0, |newest| newest.attempt + 1);
    let begin = Step::Begin { sandbox: sandbox.id.clone(), attempt: again };
    match newest {
        Some(container) if container.sandbox == sandbox.id => match container.state {
            State::Running => Step::Probe { container: container.id.clone() },
            State::Exited => Step::Finished,
            // Whether it was about to be started is not known: another one is made (ShouldContainerBeRestarted).
            State::Created | State::Unknown => begin,
        },
        _ => begin,
    }
}

/// What runs is ended: containers, then sandboxes.
fn kill(seen: &Seen) -> Option<Step> {
    let running = seen.containers.iter().find(|container| matches!(container.state, State::Running | State::Unknown));
    let ready = || seen.sandboxes.iter().find(|sandbox| sandbox.ready);
    running
        .map(|container| Step::StopContainer(container.id.clone()))
        .or_else(|| ready().map(|sandbox| Step::StopSandbox(sandbox.id.clone())))
}

fn remove(seen: &Seen) -> Option<Step> {
    let container = seen.containers.first().map(|container| Step::RemoveContainer(container.id.clone()));
    container.or_else(|| seen.sandboxes.first().map(|sandbox| Step::RemoveSandbox(sandbox.id.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(attempt: u32, ready: bool) -> SeenSandbox {
        SeenSandbox { id: format!("s{attempt}"), attempt, ready }
    }

    fn container(attempt: u32, sandbox: u32, state: State) -> SeenContainer {
        SeenContainer { id: format!("c{attempt}"), sandbox: format!("s{sandbox}"), attempt, state }
    }

    #[test]
    fn a_pod_runs_by_what_is_listed() {
        let next = |sandboxes: &[SeenSandbox], containers: &[SeenContainer]| {
            next(Goal::Run, &Seen { sandboxes: sandboxes.to_vec(), containers: containers.to_vec() })
        };
        let begin = |sandbox: &str, attempt| Step::Begin { sandbox: sandbox.into(), attempt };
        assert_eq!(next(&[], &[]), Step::RunSandbox { attempt: 0 });
        // Found by the list alone: the answer to RunPodSandbox was lost.
        assert_eq!(next(&[sandbox(0, true)], &[]), begin("s0", 0));
        assert_eq!(next(&[sandbox(0, true)], &[container(0, 0, State::Created)]), begin("s0", 1));
        assert_eq!(
            next(&[sandbox(0, true)], &[container(0, 0, State::Created), container(1, 0, State::Running)]),
            Step::Probe { container: "c1".into() }
        );
        assert_eq!(next(&[sandbox(0, true)], &[container(0, 0, State::Exited)]), Step::Finished);
        // A sandbox that is not ready, or two that are: the pod begins anew.
        assert_eq!(next(&[sandbox(0, false)], &[]), Step::RunSandbox { attempt: 1 });
        assert_eq!(next(&[sandbox(0, false)], &[container(0, 0, State::Running)]), Step::StopContainer("c0".into()));
        assert_eq!(next(&[sandbox(0, true), sandbox(1, true)], &[]), Step::StopSandbox("s0".into()));
        assert_eq!(next(&[sandbox(0, false), sandbox(1, true)], &[container(0, 0, State::Exited)]), begin("s1", 1));
    }

    #[test]
    fn a_pod_goes_from_the_inside_out() {
        let mut seen = Seen {
            sandboxes: vec![sandbox(0, true)],
            containers: vec![container(0, 0, State::Created), container(1, 0, State::Running)],
        };
        assert_eq!(next(Goal::Gone, &seen), Step::StopContainer("c1".into()));
        seen.containers[1].state = State::Exited;
        assert_eq!(next(Goal::Gone, &seen), Step::StopSandbox("s0".into()));
        seen.sandboxes[0].ready = false;
        assert_eq!(next(Goal::Gone, &seen), Step::RemoveContainer("c0".into()));
        seen.containers.clear();
        assert_eq!(next(Goal::Gone, &seen), Step::RemoveSandbox("s0".into()));
        seen.sandboxes.clear();
        assert_eq!(next(Goal::Gone, &seen), Step::Nothing);
    }
}

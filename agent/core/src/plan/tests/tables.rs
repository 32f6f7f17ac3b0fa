//! What is planned in each situation.

use super::*;
use crate::probe::{Health, Kind};

fn one(policy: &str) -> Desired {
    desired(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "a:1"}]}))
}

fn two() -> Desired {
    desired(json!({"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}))
}

fn with_init(policy: &str) -> Desired {
    desired(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "a:1"}],
        "initContainers": [{"name": "i", "image": "i:1"}, {"name": "j", "image": "j:1"}]}))
}

fn of(desired: &Desired, seen: &Seen) -> Vec<String> {
    steps(&plan(desired, seen, NOW))
}

#[test]
fn a_new_pod_is_prepared_and_then_made_in_parallel() {
    assert_eq!(of(&one("Always"), &Seen::default()), ["prepare-host"]);
    let mut known = seen(vec![], vec![]);
    known.volumes = Presence::Unknown;
    assert_eq!(of(&one("Always"), &known), ["sandbox 0", "prepare-volumes", "pull a"]);
    known.busy.insert(Target::Sandbox, Step::CreateSandbox { attempt: 0 });
    assert_eq!(of(&one("Always"), &known), ["prepare-volumes", "pull a"]);
}

#[test]
fn containers_begin_in_order() {
    let mut known = seen(vec![sandbox(0, true)], vec![]);
    assert_eq!(of(&two(), &known), ["pull a"]);
    pulled(&mut known, "a");
    assert_eq!(of(&two(), &known), ["create a 0 b0"]);
    known.containers = vec![container("a", "s0", 0, State::Created)];
    assert_eq!(of(&two(), &known), ["start a0"]);
    known.containers = vec![container("a", "s0", 0, running())];
    assert_eq!(of(&two(), &known), ["pull b"]);
}

#[test]
fn a_container_that_waits_for_its_image_does_not_hold_up_the_next() {
    let mut known = seen(vec![sandbox(0, true)], vec![]);
    known.memory.failed(Target::Image("a".into()), "ErrImagePull", "no".into(), false, NOW);
    let made = plan(&two(), &known, NOW);
    assert_eq!(steps(&made), ["pull b"]);
    // The status turns from error to back-off before the next try.
    assert_eq!(made.wake(), Some(NOW.plus_seconds(2)));
    assert_eq!(plan(&two(), &known, NOW.plus_seconds(3)).wake(), Some(NOW.plus_seconds(10)));
    assert_eq!(steps(&plan(&two(), &known, NOW.plus_seconds(10))), ["pull a"]);
}

#[test]
fn volumes_hold_up_every_container() {
    let mut known = seen(vec![sandbox(0, true)], vec![]);
    known.volumes = Presence::Unknown;
    known.memory.failed(Target::Volumes, "FailedMount", "no".into(), false, NOW);
    pulled(&mut known, "a");
    let made = plan(&one("Always"), &known, NOW);
    assert!(steps(&made).is_empty());
    assert_eq!(made.wake(), Some(NOW.plus_seconds(1)));
}

#[test]
fn restart_policies() {
    let rows: [(&str, i32, &[&str]); 6] = [
        ("Always", 0, &["create a 1 b10"]),
        ("Always", 1, &["create a 1 b10"]),
        ("OnFailure", 0, &["stop-sandbox s0", "clear-volumes"]),
        ("OnFailure", 1, &["create a 1 b10"]),
        ("Never", 0, &["stop-sandbox s0", "clear-volumes"]),
        ("Never", 1, &["stop-sandbox s0", "clear-volumes"]),
    ];
    for (policy, code, expected) in rows {
        let mut known = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, exited(code))]);
        pulled(&mut known, "a");
        assert_eq!(of(&one(policy), &known), expected, "{policy} after {code}");
    }
}

#[test]
fn crash_back_off_counts_from_the_exit() {
    let mut ended = container("a", "s0", 1, exited(1));
    ended.backoff = 10;
    let mut known = seen(vec![sandbox(0, true)], vec![ended]);
    pulled(&mut known, "a");
    let made = plan(&one("Always"), &known, NOW);
    assert!(steps(&made).is_empty());
    // It ended a second ago.
    assert_eq!(made.wake(), Some(NOW.plus_seconds(9)));
    assert_eq!(steps(&plan(&one("Always"), &known, NOW.plus_seconds(9))), ["create a 2 b20"]);
}

#[test]
fn a_pod_at_rest_keeps_nothing_that_costs() {
    let mut known = seen(vec![sandbox(0, false)], vec![container("a", "s0", 0, exited(0))]);
    known.memory.stopped.insert("s0".into());
    assert_eq!(of(&one("Never"), &known), ["clear-volumes", "clear-cgroup"]);
    known.volumes = Presence::Absent;
    known.cgroup = Presence::Absent;
    assert!(plan(&one("Never"), &known, NOW).steps.is_empty());
}

#[test]
fn init_containers_go_first_one_by_one() {
    let pod = with_init("Always");
    let mut known = seen(vec![sandbox(0, true)], vec![]);
    for name in ["i", "j", "a"] {
        pulled(&mut known, name);
    }
    assert_eq!(of(&pod, &known), ["create i 0 b0"]);
    known.containers = vec![container("i", "s0", 0, running())];
    assert!(of(&pod, &known).is_empty());
    known.containers = vec![container("i", "s0", 0, exited(0))];
    assert_eq!(of(&pod, &known), ["create j 0 b0"]);
    known.containers.insert(0, container("j", "s0", 0, exited(1)));
    assert_eq!(of(&pod, &known), ["create j 1 b10"]);
    assert_eq!(of(&with_init("Never"), &known), ["stop-sandbox s0", "clear-volumes"]);
    known.containers[0] = container("j", "s0", 0, exited(0));
    assert_eq!(of(&pod, &known), ["create a 0 b0"]);
    // Once a main container exists, init containers are over.
    known.containers = vec![container("a", "s0", 0, exited(1))];
    assert_eq!(of(&pod, &known), ["create a 1 b10"]);
}

#[test]
fn a_lost_sandbox_is_stopped_and_replaced() {
    let mut known = seen(vec![sandbox(0, false)], vec![container("a", "s0", 0, running())]);
    assert_eq!(of(&one("Always"), &known), ["stop a0 30"]);
    known.containers = vec![container("a", "s0", 0, exited(137))];
    assert_eq!(of(&one("Always"), &known), ["stop-sandbox s0"]);
    known.memory.stopped.insert("s0".into());
    assert_eq!(of(&one("Always"), &known), ["sandbox 1", "pull a"]);
    known.sandboxes.insert(0, sandbox(1, true));
    pulled(&mut known, "a");
    assert_eq!(of(&one("Always"), &known), ["create a 1 b10"]);
    assert_eq!(of(&one("Never"), &known), ["stop-sandbox s1", "clear-volumes"]);
}

#[test]
fn init_containers_run_again_in_a_new_sandbox() {
    let ended = vec![
        container("a", "s0", 0, exited(137)),
        container("j", "s0", 0, exited(0)),
        container("i", "s0", 0, exited(0)),
    ];
    let mut known = seen(vec![sandbox(1, true), sandbox(0, false)], ended);
    known.memory.stopped.insert("s0".into());
    pulled(&mut known, "i");
    assert_eq!(of(&with_init("Always"), &known), ["create i 1 b10"]);
}

#[test]
fn sandboxes_without_address_or_beside_another_are_replaced() {
    let mut bare = sandbox(0, true);
    bare.ips.clear();
    assert_eq!(of(&one("Always"), &seen(vec![bare.clone()], vec![])), ["stop-sandbox s0"]);
    let host = desired(json!({"hostNetwork": true, "containers": [{"name": "a", "image": "a:1"}]}));
    bare.host_network = true;
    assert_eq!(of(&host, &seen(vec![bare], vec![])), ["pull a"]);
    let both = seen(vec![sandbox(1, true), sandbox(0, true)], vec![]);
    assert_eq!(of(&one("Always"), &both), ["stop-sandbox s1", "stop-sandbox s0"]);
}

#[test]
fn old_instances_and_sandboxes_are_collected() {
    let containers = vec![
        container("a", "s1", 3, running()),
        container("a", "s1", 2, exited(1)),
        container("a", "s1", 1, exited(1)),
        container("a", "s1", 0, exited(1)),
    ];
    let known = seen(vec![sandbox(1, true), sandbox(0, false)], containers);
    assert_eq!(of(&one("Always"), &known), ["remove a1", "remove a0", "stop-sandbox s0"]);
}

#[test]
fn an_image_that_changed_replaces_its_container() {
    let changed = desired(json!({"containers": [{"name": "a", "image": "a:2"}]}));
    let known = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, running())]);
    assert_eq!(of(&changed, &known), ["stop a0 30"]);
}

#[test]
fn a_container_that_did_not_start_is_made_anew_later() {
    let mut known = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, State::Created)]);
    known.memory.failed(Target::Container("a".into()), "RunContainerError", "no".into(), false, NOW);
    assert_eq!(of(&one("Always"), &known), ["remove a0"]);
    known.containers.clear();
    pulled(&mut known, "a");
    let made = plan(&one("Always"), &known, NOW);
    assert!(steps(&made).is_empty());
    assert_eq!(made.wake(), Some(NOW.plus_seconds(5)));
    // Made after the failure, it may be started.
    let mut fresh = container("a", "s0", 0, State::Created);
    fresh.created = NOW.plus_seconds(5);
    known.containers = vec![fresh];
    assert_eq!(steps(&plan(&one("Always"), &known, NOW.plus_seconds(5))), ["start a0"]);
}

#[test]
fn the_end_of_a_pod() {
    let pod = delete(&two(), 20);
    let mut known =
        seen(vec![sandbox(0, true)], vec![container("b", "s0", 0, running()), container("a", "s0", 0, running())]);
    known.memory.ending_since = Some(NOW.plus_seconds(-5));
    assert_eq!(of(&pod, &known), ["stop b0 15", "stop a0 15"]);
    known.containers = vec![container("b", "s0", 0, exited(0)), container("a", "s0", 0, exited(0))];
    assert_eq!(of(&pod, &known), ["stop-sandbox s0", "clear-volumes"]);
    known.memory.stopped.insert("s0".into());
    known.volumes = Presence::Absent;
    assert_eq!(of(&pod, &known), ["remove-sandbox s0"]);
    known.sandboxes.clear();
    known.containers.clear();
    assert_eq!(of(&pod, &known), ["clear-cgroup"]);
    known.cgroup = Presence::Absent;
    assert_eq!(of(&pod, &known), ["clear-files"]);
    known.files = Presence::Absent;
    assert_eq!(of(&pod, &known), ["gone"]);
    known.memory.gone = true;
    assert!(plan(&pod, &known, NOW).steps.is_empty());
}

#[test]
fn the_end_gives_up_what_no_longer_makes_sense_and_waits_for_the_rest() {
    let mut known = seen(vec![], vec![]);
    known.busy.insert(Target::Image("a".into()), Step::PullImage { container: "a".into(), image: "a:1".into() });
    known.busy.insert(Target::Sandbox, Step::CreateSandbox { attempt: 0 });
    assert_eq!(of(&delete(&one("Always"), 30), &known), ["abandon Image(\"a\")"]);
}

#[test]
fn grace_is_at_least_two_seconds_and_may_be_shortened() {
    let known = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, running())]);
    assert_eq!(of(&delete(&one("Always"), 0), &known), ["stop a0 2"]);
    let mut stopping = known;
    stopping.memory.ending_since = Some(NOW);
    let step = plan(&delete(&one("Always"), 30), &stopping, NOW).steps.remove(0).step;
    stopping.busy.insert(step.target(), step);
    assert!(of(&delete(&one("Always"), 30), &stopping).is_empty());
    assert_eq!(of(&delete(&one("Always"), 5), &stopping), ["stop a0 5"]);
}

#[test]
fn reasons_to_end_without_removal() {
    let mut late = desired(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "a", "image": "a:1"}]}));
    let mut known = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, running())]);
    known.published.start_time = Some(NOW.plus_seconds(-30).to_api());
    assert_eq!(plan(&late, &known, NOW).wake(), Some(NOW.plus_seconds(30)));
    known.published.start_time = Some(NOW.plus_seconds(-60).to_api());
    assert_eq!(of(&late, &known), ["stop a0 30"]);
    let end = end(&late, &known, NOW).expect("an end");
    assert_eq!((end.remove, end.failed.map(|failed| failed.reason)), (false, Some("DeadlineExceeded".to_owned())));

    late.rejected = Some(Rejection { reason: "SysctlForbidden".into(), message: "no".into() });
    assert_eq!(super::super::end(&late, &Seen::default(), NOW).and_then(|end| end.failed), late.rejected);

    let mut failed = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, running())]);
    failed.published.phase = Some("Failed".into());
    assert_eq!(of(&one("Always"), &failed), ["stop a0 30"]);
}

#[test]
fn a_refused_pod_is_left_alone_until_it_is_deleted() {
    let pod = desired(json!({"containers": [{"name": "a", "volumeDevices": [{"name": "v", "devicePath": "/v"}]}]}));
    assert_eq!(of(&pod, &Seen::default()), ["refuse spec.containers[0].volumeDevices"]);
    let rest = of(&delete(&pod, 30), &Seen::default());
    assert_eq!(rest, ["clear-volumes", "clear-cgroup"]);
}

#[test]
fn sandboxes_that_keep_dying_come_ever_slower() {
    // attempt of the dead one, seconds since it was made, seconds still to wait
    for (attempt, age, left) in [(0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 2), (4, 3, 5), (9, 0, 60), (9, 60, 0)] {
        let mut dead = sandbox(attempt, false);
        dead.created = NOW.plus_seconds(-age);
        let mut known = seen(vec![dead], vec![]);
        known.memory.stopped.insert(format!("s{attempt}"));
        pulled(&mut known, "a");
        let made = plan(&one("Always"), &known, NOW);
        let expected = if left == 0 { vec![format!("sandbox {}", attempt + 1)] } else { Vec::new() };
        assert_eq!(steps(&made), expected, "attempt {attempt}, {age} s old");
        assert_eq!(made.wake(), (left > 0).then(|| NOW.plus_seconds(left)));
    }
}

#[test]
fn a_failed_start_is_shown_before_its_back_off() {
    let mut ended = container("a", "s0", 1, exited(128));
    ended.backoff = 10;
    let mut known = seen(vec![sandbox(0, true)], vec![ended]);
    known.memory.failed(Target::Container("a".into()), "RunContainerError", "no".into(), false, NOW);
    assert_eq!(plan(&one("Always"), &known, NOW).wake(), Some(NOW.plus_seconds(2)));
    let reason = |now| {
        let status = crate::status(&one("Always"), &known, now);
        let waiting = status.container_statuses.expect("containers").remove(0).state.and_then(|state| state.waiting);
        waiting.and_then(|waiting| waiting.reason).unwrap_or_default()
    };
    assert_eq!(reason(NOW), "RunContainerError");
    assert_eq!(reason(NOW.plus_seconds(3)), "CrashLoopBackOff");
}

fn probed(policy: &str) -> Desired {
    desired(
        json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 20, "containers": [{"name": "a", "image": "a:1",
        "startupProbe": {}, "livenessProbe": {"terminationGracePeriodSeconds": 5}}]}),
    )
}

#[test]
fn a_failed_probe_ends_the_container_with_its_own_grace_period() {
    let rows = [
        ("Always", Kind::Liveness, "stop a0 5", "Container a failed liveness probe, will be restarted"),
        ("Always", Kind::Startup, "stop a0 20", "Container a failed startup probe, will be restarted"),
        ("Never", Kind::Liveness, "stop a0 5", "Container a failed liveness probe"),
    ];
    for (policy, kind, expected, message) in rows {
        let mut known = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, running())]);
        let failed = |failed| Health { started: true, ready: true, failed };
        known.health.insert("a0".into(), failed(None));
        assert!(of(&probed(policy), &known).is_empty());
        known.health.insert("a0".into(), failed(Some(kind)));
        let made = plan(&probed(policy), &known, NOW);
        assert_eq!(steps(&made), [expected], "{policy} {kind:?}");
        let Step::StopContainer { message: said, .. } = &made.steps[0].step else { panic!("{made:?}") };
        assert_eq!(said, message);
        known.busy.insert(made.steps[0].step.target(), made.steps[0].step.clone());
        assert!(of(&probed(policy), &known).is_empty(), "it is being stopped");
    }
}

#[test]
fn obeying_a_failed_probes_stop_is_no_success() {
    for (policy, expected) in [("OnFailure", &["create a 1 b10"][..]), ("Never", &["stop-sandbox s0", "clear-volumes"])]
    {
        let mut known = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, exited(0))]);
        pulled(&mut known, "a");
        known.health.insert("a0".into(), Health { started: true, ready: false, failed: Some(Kind::Liveness) });
        assert_eq!(of(&probed(policy), &known), expected, "{policy}");
        let phase = crate::status(&probed(policy), &known, NOW).phase;
        assert_eq!(phase.as_deref(), Some(if policy == "Never" { "Succeeded" } else { "Running" }));
    }
}

#[test]
fn a_post_start_hook_runs_once_and_its_failure_ends_the_container() {
    let hook = json!({"postStart": {"exec": {"command": ["x"]}}});
    let pod = desired(
        json!({"containers": [{"name": "a", "image": "a:1", "lifecycle": hook}, {"name": "b", "image": "b:1"}]}),
    );
    let mut known = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, running())]);
    assert_eq!(of(&pod, &known), ["post-start a0"]);
    let step = Step::PostStart { container: "a".into(), id: "a0".into() };
    known.busy.insert(step.target(), step.clone());
    assert!(of(&pod, &known).is_empty(), "the next container waits for the hook");
    known.busy.clear();
    known.memory.succeeded(&step);
    assert_eq!(of(&pod, &known), ["pull b"]);
    known.memory.hooks.insert("a0".into(), false);
    assert_eq!(of(&pod, &known), ["stop a0 30", "pull b"]);
}

fn with_sidecars(policy: &str) -> Desired {
    let hook = json!({"preStop": {"sleep": {"seconds": 1}}});
    desired(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "a:1"}],
        "initContainers": [{"name": "s", "image": "s:1", "restartPolicy": "Always", "startupProbe": {}, "lifecycle": hook},
            {"name": "i", "image": "i:1"}, {"name": "t", "image": "t:1", "restartPolicy": "Always"}]}))
}

#[test]
fn a_sidecar_lets_the_next_begin_once_it_has_started() {
    let pod = with_sidecars("Never");
    let mut known = seen(vec![sandbox(0, true)], vec![]);
    for name in ["s", "i", "t", "a"] {
        pulled(&mut known, name);
    }
    assert_eq!(of(&pod, &known), ["create s 0 b0"]);
    known.containers = vec![container("s", "s0", 0, running())];
    known.health.insert("s0".into(), Health { started: false, ready: false, failed: None });
    assert!(of(&pod, &known).is_empty(), "its startup probe has not succeeded");
    known.health.insert("s0".into(), Health { started: true, ready: false, failed: None });
    assert_eq!(of(&pod, &known), ["create i 0 b0"]);
    known.containers.insert(0, container("i", "s0", 0, exited(0)));
    assert_eq!(of(&pod, &known), ["create t 0 b0"]);
    known.containers.insert(0, container("t", "s0", 0, running()));
    assert_eq!(of(&pod, &known), ["create a 0 b0"]);
}

#[test]
fn a_sidecar_starts_again_whatever_the_pods_policy_and_holds_nobody_up() {
    for code in [0, 1] {
        let mut known = seen(vec![sandbox(0, true)], vec![container("s", "s0", 0, exited(code))]);
        for name in ["s", "i"] {
            pulled(&mut known, name);
        }
        assert_eq!(of(&with_sidecars("Never"), &known), ["create s 1 b10"], "after {code}");
        // Its successor goes on beside it.
        known.containers.insert(0, container("i", "s0", 0, exited(0)));
        pulled(&mut known, "t");
        assert_eq!(of(&with_sidecars("Never"), &known), ["create s 1 b10", "create t 0 b0"], "after {code}");
        known.containers.splice(0..0, [container("a", "s0", 0, running()), container("t", "s0", 0, running())]);
        assert_eq!(of(&with_sidecars("Never"), &known), ["create s 1 b10"], "after {code}");
    }
}

#[test]
fn sidecars_end_after_all_others_in_reverse_order() {
    let lives = |names: &[&str]| {
        let containers = names.iter().map(|name| container(name, "s0", 0, running())).collect();
        let mut known = seen(vec![sandbox(0, true)], containers);
        known.memory.ending_since = Some(NOW);
        known
    };
    let pod = delete(&with_sidecars("Always"), 20);
    let mut known = lives(&["a", "t", "s"]);
    assert_eq!(of(&pod, &known), ["stop a0 20", "pre-stop s0"]);
    known.memory.pre_stopped.insert("s0".into());
    assert_eq!(of(&pod, &known), ["stop a0 20"]);
    assert_eq!(of(&pod, &lives(&["t", "s"])), ["stop t0 20", "pre-stop s0"]);
    assert_eq!(of(&pod, &lives(&["s"])), ["stop s0 20"]);
    // What is left of the grace period is shared.
    assert_eq!(steps(&plan(&pod, &lives(&["s"]), NOW.plus_seconds(15))), ["stop s0 5"]);
}

#[test]
fn sidecars_do_not_keep_a_finished_pod_alive() {
    let pod = with_sidecars("Never");
    let running_on = |names: &[&str]| {
        let mut containers = vec![container("a", "s0", 0, exited(0))];
        containers.extend(names.iter().map(|name| container(name, "s0", 0, running())));
        containers.push(container("i", "s0", 0, exited(0)));
        seen(vec![sandbox(0, true)], containers)
    };
    assert_eq!(of(&pod, &running_on(&["t", "s"])), ["stop t0 30"]);
    let phase = |known: &Seen| crate::status(&pod, known, NOW).phase;
    assert_eq!(phase(&running_on(&["s"])).as_deref(), Some("Running"));
    assert_eq!(of(&pod, &running_on(&["s"])), ["stop s0 30"]);
    let mut known = running_on(&[]);
    known.containers.push(container("s", "s0", 0, exited(143)));
    assert_eq!(of(&pod, &known), ["stop-sandbox s0", "clear-volumes"]);
    assert_eq!(phase(&known).as_deref(), Some("Succeeded"));
}

#[test]
fn a_containers_own_restart_policy_wins() {
    for (pods, own, code, expected) in [
        ("Always", "Never", 1, &["stop-sandbox s0", "clear-volumes"][..]),
        ("Never", "OnFailure", 1, &["create a 1 b10"]),
        ("Never", "OnFailure", 0, &["stop-sandbox s0", "clear-volumes"]),
    ] {
        let pod = desired(
            json!({"restartPolicy": pods, "containers": [{"name": "a", "image": "a:1", "restartPolicy": own}]}),
        );
        let mut known = seen(vec![sandbox(0, true)], vec![container("a", "s0", 0, exited(code))]);
        pulled(&mut known, "a");
        assert_eq!(of(&pod, &known), expected, "{pods} {own} {code}");
    }
}

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const BEGUN: Moment = Moment(1_000_000 * 1_000_000_000);

#[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
fn container(probes: Value) -> Container {
    let mut value = json!({"name": "c"});
    for (name, probe) in probes.as_object().expect("an object") {
        value[name] = probe.clone();
    }
    serde_json::from_value(value).expect("a container")
}

fn at(millis: i64) -> Moment {
    BEGUN.plus_millis(millis)
}

fn fresh(probes: Value) -> Probing {
    Probing::new(&container(probes), "id", BEGUN, None, BEGUN).expect("probes")
}

/// Runs whatever is due until `until`, each run taking no time: the runs as `SECONDS KIND`.
fn play(probing: &mut Probing, until: i64, answer: impl Fn(Kind, i64) -> Option<bool>) -> Vec<String> {
    let mut out = Vec::new();
    while let Some((kind, due)) = probing.next().filter(|(_, due)| *due <= at(until * 1000)) {
        let second = due.since(BEGUN) / 1_000_000_000;
        out.push(format!("{second} {}", kind.as_str()));
        probing.begin(kind, due);
        probing.end(kind, answer(kind, second), due);
    }
    out
}

#[test]
fn no_probes_no_probing() {
    assert!(Probing::new(&container(json!({})), "id", BEGUN, None, BEGUN).is_none());
    assert_eq!(Health::unknown(&container(json!({}))), Health { started: true, ready: true, failed: None });
}

#[test]
fn a_probe_that_has_not_run_keeps_the_container_unready() {
    for (probes, started) in [
        (json!({"readinessProbe": {}}), true),
        (json!({"startupProbe": {}}), false),
        (json!({"startupProbe": {}, "readinessProbe": {}}), false),
    ] {
        let expected = Health { started, ready: false, failed: None };
        assert_eq!(Health::unknown(&container(probes.clone())), expected);
        assert_eq!(fresh(probes).health(), expected);
    }
    let alive = fresh(json!({"livenessProbe": {}})).health();
    assert_eq!(alive, Health { started: true, ready: true, failed: None });
}

#[test]
fn delays_and_periods_count_from_the_start() {
    let mut probing = fresh(json!({"livenessProbe": {"initialDelaySeconds": 7, "periodSeconds": 5}}));
    assert_eq!(play(&mut probing, 18, |_, _| Some(true)), ["7 Liveness", "12 Liveness", "17 Liveness"]);
}

#[test]
fn what_takes_longer_than_its_period_runs_again_at_once() {
    let mut probing = fresh(json!({"livenessProbe": {"periodSeconds": 5}}));
    probing.begin(Kind::Liveness, at(0));
    assert_eq!(probing.next(), None, "twice at once");
    probing.end(Kind::Liveness, Some(true), at(8000));
    assert_eq!(probing.next(), Some((Kind::Liveness, at(8000))));
    probing.begin(Kind::Liveness, at(8000));
    probing.end(Kind::Liveness, Some(true), at(8500));
    assert_eq!(probing.next(), Some((Kind::Liveness, at(13_000))));
}

#[test]
fn liveness_fails_at_its_threshold_and_is_asked_no_more() {
    let mut probing = fresh(json!({"livenessProbe": {"periodSeconds": 1, "failureThreshold": 3}}));
    // A success between, and a run that does not count.
    let answers = |_, second| match second {
        0 | 1 => Some(false),
        2 => Some(true),
        4 => None,
        _ => Some(false),
    };
    let runs = play(&mut probing, 5, answers);
    assert_eq!((runs.len(), probing.health().failed), (6, None));
    assert_eq!(play(&mut probing, 60, answers), ["6 Liveness"]);
    assert_eq!(probing.health().failed, Some(Kind::Liveness));
}

#[test]
fn the_others_wait_for_the_startup_probe() {
    let mut probing = fresh(json!({"startupProbe": {"periodSeconds": 2, "failureThreshold": 30},
        "livenessProbe": {"periodSeconds": 5}, "readinessProbe": {"initialDelaySeconds": 6, "periodSeconds": 5}}));
    let runs = play(&mut probing, 12, |kind, second| Some(kind != Kind::Startup || second >= 4));
    let expected = ["0 Startup", "2 Startup", "4 Startup", "4 Liveness", "6 Readiness", "9 Liveness", "11 Readiness"];
    assert_eq!(runs, expected);
    assert_eq!(probing.health(), Health { started: true, ready: true, failed: None });
}

#[test]
fn a_startup_probe_that_keeps_failing_ends_the_container() {
    let mut probing = fresh(json!({"startupProbe": {"periodSeconds": 10, "failureThreshold": 2}, "livenessProbe": {}}));
    assert_eq!(play(&mut probing, 100, |_, _| Some(false)), ["0 Startup", "10 Startup"]);
    assert_eq!(probing.health(), Health { started: false, ready: false, failed: Some(Kind::Startup) });
}

#[test]
fn readiness_is_asked_often_until_it_first_holds_and_falls_at_its_threshold() {
    let mut probing =
        fresh(json!({"readinessProbe": {"periodSeconds": 10, "failureThreshold": 2, "successThreshold": 2}}));
    let well = |second| (7..40).contains(&second) || second > 80;
    let runs = play(&mut probing, 30, |_, second| Some(well(second)));
    assert_eq!(runs, ["0 Readiness", "1 Readiness", "3 Readiness", "7 Readiness", "17 Readiness", "27 Readiness"]);
    assert!(probing.health().ready);
    play(&mut probing, 47, |_, second| Some(well(second)));
    assert!(probing.health().ready, "one failure is below the threshold");
    let runs = play(&mut probing, 87, |_, second| Some(well(second)));
    assert_eq!(runs, ["57 Readiness", "67 Readiness", "77 Readiness", "87 Readiness"], "a lost readiness has no hurry");
    assert!(!probing.health().ready, "one success is below the threshold");
    play(&mut probing, 97, |_, _| Some(true));
    assert!(probing.health().ready);
}

#[test]
fn an_adopted_container_keeps_what_was_known() {
    let probes = container(json!({"startupProbe": {}, "livenessProbe": {}, "readinessProbe": {"periodSeconds": 10}}));
    let now = at(500_000);
    let known = Health { started: true, ready: true, failed: None };
    let probing = Probing::new(&probes, "id", BEGUN, Some(known), now).expect("probes");
    assert_eq!(probing.health(), known);
    let (kind, due) = probing.next().expect("due");
    assert!(kind != Kind::Startup && due >= now && due < now.plus_seconds(10), "{kind:?} {due:?}");
    // Not ready: asked at once.
    let unready = Health { ready: false, ..known };
    let probing = Probing::new(&probes, "id", BEGUN, Some(unready), now).expect("probes");
    assert_eq!((probing.health(), probing.next()), (unready, Some((Kind::Readiness, now))));
    // Not started: the gate is as it was.
    let unstarted = Health { started: false, ready: false, failed: None };
    let probing = Probing::new(&probes, "id", BEGUN, Some(unstarted), now).expect("probes");
    assert_eq!(probing.next(), Some((Kind::Startup, now)));
}

#[test]
fn the_first_runs_of_many_adopted_containers_are_spread() {
    let firsts: std::collections::BTreeSet<i64> =
        (0..100).map(|n| jitter(&format!("c{n}"), Kind::Readiness, 10)).collect();
    assert!(firsts.len() > 90 && firsts.iter().all(|millis| (0..10_000).contains(millis)), "{firsts:?}");
}

#[test]
fn an_ending_pod_is_asked_for_its_readiness_only() {
    let mut probing = fresh(
        json!({"livenessProbe": {"periodSeconds": 1, "failureThreshold": 1}, "readinessProbe": {"periodSeconds": 3}}),
    );
    probing.ending();
    probing.begin(Kind::Readiness, at(0));
    probing.end(Kind::Readiness, Some(true), at(0));
    assert_eq!(play(&mut probing, 5, |_, _| Some(true)), ["3 Readiness"]);
    // A run that was under way when the end began.
    probing.end(Kind::Liveness, Some(false), at(5000));
    assert_eq!(probing.health().failed, None);
}

#[test]
fn exec_probes_know_literal_variables() {
    let container: Container =
        serde_json::from_value(json!({"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}))
        .expect("a container");
    assert_eq!(command(&container, &["$(A)".into(), "$(B)$$(A)".into()]), ["2", "$(B)$(A)"]);
}

proptest! {
    /// Whatever the answers and however long they take: at most one run of a kind at a time, never before the delay,
    /// never two runs closer than a second, and ready only after as many successes in a row as were asked for.
    #[test]
    fn no_rule_is_broken(
        (delay, period, successes, failures) in (0..20i64, 1..12i64, 1..4i64, 1..4i64),
        answers in prop::collection::vec((prop::option::weighted(0.9, any::<bool>()), 0..15_000i64), 1..60),
    ) {
        let probe = json!({"initialDelaySeconds": delay, "periodSeconds": period, "successThreshold": successes, "failureThreshold": failures});
        let mut probing = fresh(json!({"readinessProbe": probe}));
        let (mut now, mut row, mut ready, mut last) = (BEGUN, Vec::new(), false, None::<Moment>);
        for (answer, millis) in answers {
            let (kind, due) = probing.next().expect("always due again");
            now = now.max(due);
            prop_assert!(now >= at(delay * 1000));
            prop_assert!(last.is_none_or(|last| now.since(last) >= 1_000_000_000), "too often");
            last = Some(now);
            probing.begin(kind, now);
            prop_assert_eq!(probing.next(), None);
            now = now.plus_millis(millis);
            probing.end(kind, answer, now);
            if let Some(answer) = answer {
                row.push(answer);
                let tail = |wanted: bool| i64::try_from(row.iter().rev().take_while(|a| **a == wanted).count()).unwrap_or(0);
                if tail(true) >= successes { ready = true }
                if tail(false) >= failures { ready = false }
            }
            prop_assert_eq!(probing.health().ready, ready);
        }
    }
}

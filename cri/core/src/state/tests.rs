use berth_plan::message::Exit;

use super::*;

fn ready() -> SandboxState {
    SandboxState::Ready { shim: 10, shim_started: 99, ips: vec!["10.0.0.2".into()] }
}

fn exit(code: i32) -> Exit {
    Exit { pid: 5, code, signal: 0, started_at: 100, finished_at: 200 }
}

fn all() -> [ContainerState; 3] {
    let mut exited = ContainerState::Created;
    exited.exited(&exit(0), false);
    [ContainerState::Created, ContainerState::Running { started_at: 1, pid: 5 }, exited]
}

#[test]
fn a_container_runs_once() {
    let mut state = ContainerState::Created;
    assert_eq!(state.may_start(&ready()), Ok(()));
    assert_eq!(state.started(5, 100), Ok(Moved::Now));
    assert_eq!(state.may_start(&ready()), Err(Refusal::Running));
    assert_eq!(state.exited(&exit(1), false), Moved::Now);
    assert_eq!(state.may_start(&ready()), Err(Refusal::Exited));
    assert_eq!(state.started(5, 100), Err(Refusal::Exited));
}

#[test]
fn refusals_by_state() {
    // Created, Running, Exited
    let expect = |results: [Result<(), Refusal>; 3], expected: [Result<(), Refusal>; 3]| assert_eq!(results, expected);
    expect(all().map(|state| state.may_remove()), [Ok(()), Err(Refusal::Running), Ok(())]);
    expect(all().map(|state| state.may_exec()), [Err(Refusal::NotStarted), Ok(()), Err(Refusal::Exited)]);
    let mut stopped = ready();
    stopped.stopped("StopPodSandbox");
    expect(
        all().map(|state| state.may_start(&stopped)),
        [Err(Refusal::SandboxNotReady), Err(Refusal::Running), Err(Refusal::Exited)],
    );
}

#[test]
fn the_first_word_on_an_end_stays() {
    let mut state = ContainerState::Running { started_at: 1, pid: 5 };
    assert_eq!(state.exited(&exit(3), false), Moved::Now);
    let before = state.clone();
    assert_eq!(state.lost(500, "shim died"), Moved::Already);
    assert_eq!(state.exited(&exit(0), false), Moved::Already);
    assert_eq!(state, before);
}

#[test]
fn what_is_lost_counts_as_killed() {
    for (mut state, began) in [(ContainerState::Created, 0), (ContainerState::Running { started_at: 77, pid: 5 }, 77)] {
        assert_eq!(state.lost(500, "its shim died"), Moved::Now);
        assert_eq!(
            state,
            ContainerState::Exited {
                started_at: began,
                finished_at: 500,
                code: 137,
                signal: 9,
                reason: ExitReason::Unknown,
                message: "its shim died".into(),
            }
        );
    }
    let mut state = ContainerState::Created;
    assert_eq!(state.start_failed(9, "no such file"), Ok(Moved::Now));
    assert!(matches!(state, ContainerState::Exited { code: 128, started_at: 0, reason: ExitReason::StartError, .. }));
    assert_eq!(ContainerState::Running { started_at: 1, pid: 5 }.start_failed(9, ""), Err(Refusal::Running));
}

#[test]
fn reasons_follow_the_code_and_the_kernel() {
    for (code, oom, expected) in [
        (0, false, "Completed"),
        (1, false, "Error"),
        (137, true, "OOMKilled"),
        (137, false, "Error"),
        // A child was killed for memory and the container went on to its good end.
        (0, true, "Completed"),
    ] {
        assert_eq!(ExitReason::of(code, oom).as_str(), expected, "{code} {oom}");
    }
}

#[test]
fn a_reboot_ends_everything() {
    for mut state in all() {
        state.after_reboot(1000);
        assert!(matches!(state, ContainerState::Exited { .. }), "{state:?}");
    }
    let mut sandbox = ready();
    assert_eq!(sandbox.after_reboot(), Moved::Now);
    assert_eq!(sandbox.after_reboot(), Moved::Already);
    assert_eq!(sandbox.may_create(), Err(Refusal::SandboxNotReady));
    assert!(matches!(sandbox, SandboxState::NotReady { ips, .. } if ips == ["10.0.0.2"]));
}

/// One file a version: what an older Berth wrote must stay readable.
#[test]
fn records_of_version_1_are_read() {
    let bytes = br#"{"version":1,"boot_id":"b","state":"running","started_at":7,"pid":5}"#;
    let record = Stamped::<ContainerState>::from_bytes(bytes).expect("a record");
    assert_eq!(
        record,
        Stamped { version: 1, boot_id: "b".into(), record: ContainerState::Running { started_at: 7, pid: 5 } }
    );
    assert_eq!(record.to_bytes().expect("written"), bytes);
    let bytes = br#"{"version":1,"boot_id":"b","state":"ready","shim":3,"shim_started":4,"ips":[]}"#;
    let record = Stamped::<SandboxState>::from_bytes(bytes).expect("a record");
    assert_eq!(record.record, SandboxState::Ready { shim: 3, shim_started: 4, ips: vec![] });
}

#[test]
fn records_of_the_future_and_rubbish_are_told_apart() {
    let future = br#"{"version":2,"boot_id":"b","state":"levitating"}"#;
    assert!(matches!(Stamped::<ContainerState>::from_bytes(future), Err(RecordError::Newer { found: 2 })));
    for rubbish in
        [&b""[..], b"{", b"{\"version\":1}", b"\0\0\0\0", b"{\"version\":1,\"boot_id\":\"b\",\"state\":\"?\"}"]
    {
        assert!(matches!(Stamped::<ContainerState>::from_bytes(rubbish), Err(RecordError::Malformed(_))));
    }
}

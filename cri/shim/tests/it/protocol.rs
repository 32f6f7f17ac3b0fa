use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::Command;

use berth_plan::container::Container;
use berth_plan::message::{FromShim, Held, Reply, Request, Stage};
use berth_plan::{PROTOCOL, codec};
use berth_sys::pidfd::PidFd;
use berth_sys::signal::SIGSTOP;
use berth_sys::{memfd, seqpacket};

use crate::cgroups::{Cgroups, is_pure_v2};
use crate::client::Client;
use crate::place::{Place, logger, until};

fn memory(plan: &Container) -> OwnedFd {
    memfd::sealed("plan", &codec::encode(plan).expect("it fits")).expect("memfd")
}

#[test]
fn hello_comes_first_and_versions_must_be_near() {
    let place = Place::new();
    let path = place.folder.join("run/shim.sock");
    let mut client = Client::silent(&path);
    assert_eq!(client.ask(Request::Shutdown, &[]).expect_err("no hello").stage, Stage::Protocol);
    assert_eq!(client.ask(Request::Hello { protocol: PROTOCOL + 2 }, &[]).expect_err("too new").stage, Stage::Protocol);
    for near in [PROTOCOL + 1, PROTOCOL - 1] {
        client.ask(Request::Hello { protocol: near }, &[]).expect("one newer, one older");
    }
}

#[test]
fn noise_is_answered_and_forgotten() {
    let mut place = Place::new();
    let path = place.folder.join("run/shim.sock");
    let mut client = Client::silent(&path);
    seqpacket::send(client.socket.as_fd(), b"\x01\x00\x03 noise", &[]).expect("send");
    let FromShim::Reply { number: 0, reply: Reply::Failed(failure) } = client.receive() else { panic!("a refusal") };
    assert_eq!(failure.stage, Stage::Protocol);
    client.ask(Request::Hello { protocol: PROTOCOL }, &[]).expect("it still listens");
    // More descriptors than promised, fewer, and a plan that is not sealed.
    let plan = place.plan("c1", "true");
    let start = |cgroup_tasks| Request::Start { container: "c1".to_owned(), cgroup_tasks, cgroup_v2: false };
    let (good, extra) = (memory(&plan), memory(&plan));
    for (request, descriptors) in
        [(start(0), vec![good.as_fd(), extra.as_fd()]), (start(3), vec![good.as_fd()]), (start(0), vec![])]
    {
        assert_eq!(client.ask(request, &descriptors).expect_err("refused").stage, Stage::Protocol);
    }
    let file: OwnedFd = fs::File::open("/etc/passwd").expect("a file").into();
    assert_eq!(client.ask(start(0), &[file.as_fd()]).expect_err("not sealed").stage, Stage::Protocol);
    let failure =
        client.ask(Request::Start { container: "../x".to_owned(), cgroup_tasks: 0, cgroup_v2: false }, &[good.as_fd()]);
    assert_eq!(failure.expect_err("no name").stage, Stage::Protocol);
    let torn = memfd::sealed("torn", &codec::encode(&plan).expect("it fits")[..200]).expect("memfd");
    assert_eq!(client.ask(start(0), &[torn.as_fd()]).expect_err("torn").stage, Stage::Protocol);
    assert_eq!(place.run(&plan).0.code, 0);
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let mut place = Place::new();
    let (mut deaf, _) = Client::connect(&place.folder.join("run/shim.sock"));
    // Requests whose replies it never takes, until its queue is full and the connection gone.
    let bytes =
        codec::encode(&berth_plan::message::ToShim { number: 1, request: Request::Hello { protocol: PROTOCOL } })
            .expect("it fits");
    while seqpacket::send(deaf.socket.as_fd(), &bytes, &[]).is_ok() {}
    let plan = place.plan("c1", "exit 3");
    assert_eq!(place.run(&plan).0.code, 3);
    // What was queued before is still to be read; then it ends.
    while !matches!(seqpacket::recv_vec(deaf.socket.as_fd(), 65536), Ok((bytes, _)) if bytes.is_empty()) {}
    let (fresh, hello) = Client::connect(&place.folder.join("run/shim.sock"));
    assert!(matches!(hello, Reply::Hello { .. }));
    deaf = fresh;
    drop(deaf);
}

#[test]
fn a_second_start_of_a_name_is_refused() {
    let mut place = Place::new();
    let plan = place.plan("c1", "sleep 1000");
    place.start(&plan).expect("start");
    assert_eq!(place.start(&plan).expect_err("exists").stage, Stage::AlreadyExists);
    let failure = place.client.ask(Request::Forget { container: "c1".to_owned() }, &[]).expect_err("it runs");
    assert_eq!(failure.stage, Stage::Protocol);
    place.signal("c1", 9);
    place.exit_of("c1");
    let mut place = Place::without_sandbox();
    let plan = place.plan("c1", "true");
    assert_eq!(place.start(&plan).expect_err("no sandbox").stage, Stage::Protocol);
}

#[test]
fn a_start_whose_asker_is_gone_before_the_log_is_open_is_forgotten() {
    let mut place = Place::new();
    // Nobody opens its log.
    let logger = PidFd::open(logger(place.shim)).expect("the logger");
    logger.send_signal(SIGSTOP).expect("stop");
    let plan = place.plan("c1", "true");
    let start = Request::Start { container: "c1".to_owned(), cgroup_tasks: 0, cgroup_v2: false };
    place.client.send(start, &[memory(&plan).as_fd()]);
    let path = place.folder.join("run/shim.sock");
    std::mem::replace(&mut place.client, Client::silent(&path)).hang_up();
    // The second hello comes after the first connection's end was seen.
    let (client, hello) = Client::connect(&path);
    place.client = client;
    let Reply::Hello { containers, .. } = hello else { panic!("{hello:?}") };
    assert_eq!(containers, []);
    let mut plan = place.plan("c1", "exit 2");
    plan.log_path = String::new();
    place.start(&plan).expect("the name is free");
    assert_eq!(place.exit_of("c1").code, 2);
}

#[test]
fn a_start_whose_asker_is_gone_half_way_ends_as_an_exit() {
    let mut place = Place::new();
    // A frozen cgroup holds the child where it joins.
    let cgroups = Cgroups::make("start", &["freezer"]);
    cgroups.freeze(true);
    let (tasks, folder) = (cgroups.tasks(), if is_pure_v2() { cgroups.folder() } else { None });
    let plan = place.plan("c1", "true");
    let cgroup_tasks = u8::try_from(tasks.len()).expect("few");
    let start = Request::Start { container: "c1".to_owned(), cgroup_tasks, cgroup_v2: folder.is_some() };
    let memory = memory(&plan);
    let descriptors: Vec<_> = [&memory].into_iter().chain(&tasks).chain(&folder).map(AsFd::as_fd).collect();
    place.client.send(start, &descriptors);
    until(|| cgroups.procs().iter().any(|procs| !procs.is_empty()));
    let (client, hello) = Client::connect(&place.folder.join("run/shim.sock"));
    let Reply::Hello { containers, .. } = hello else { panic!("{hello:?}") };
    assert!(matches!(containers.as_slice(), [Held::Running { container, .. }] if container == "c1"), "{containers:?}");
    std::mem::replace(&mut place.client, client).hang_up();
    place.signal("c1", 9);
    cgroups.freeze(false);
    assert_eq!(place.exit_of("c1").code, 128);
}

#[test]
fn no_secret_of_a_container_stays_in_the_shim() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "exec sleep 1000");
    // Not as one text in this test's own pages that the kernel might share.
    plan.process.env.push(format!("TOKEN={}{}", "hunter2-and", "-swordfish"));
    place.start(&plan).expect("start");
    let needle = b"hunter2-and-swordfish";
    let holds = |pid: i32| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
        let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("mem");
        maps.lines().any(|line| {
            let (range, _) = line.split_once(' ').expect("a range");
            let (from, to) = range.split_once('-').expect("a range");
            let number = |text| u64::from_str_radix(text, 16).expect("an address");
            let (from, to) = (number(from), number(to));
            let mut bytes = vec![0; usize::try_from(to - from).expect("a size")];
            memory
                .read_at(&mut bytes, from)
                .is_ok_and(|length| bytes[..length].windows(needle.len()).any(|window| window == needle))
        })
    };
    let logger = logger(place.shim);
    assert!(!holds(place.shim) && !holds(logger));
    place.signal("c1", 9);
    place.exit_of("c1");
}

#[test]
fn a_shim_that_can_not_start_says_why() {
    let place = Place::new();
    let shim = |arguments: &[&str]| {
        let output = Command::new(place.folder.join("berth-shim")).args(arguments).output().expect("run");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, text) = shim(&["--dir", "/no/such"]);
    assert_eq!(
        (code, text.as_str()),
        (Some(1), "berth-shim: change to its folder: No such file or directory (os error 2)\n")
    );
    fs::create_dir(place.folder.join("bad")).expect("folder");
    fs::create_dir(place.folder.join("bad/.shim.new")).expect("in the way");
    let (code, text) = shim(&["--dir", place.folder.join("bad").to_str().expect("text")]);
    assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
    assert_eq!(shim(&[]), (Some(2), "usage: berth-shim --dir DIR [--tasks FILE]... [--cgroup DIR]\n".to_owned()));
}

#[test]
fn a_shim_enters_the_cgroup_that_it_is_told() {
    let place = Place::new();
    let cgroups = Cgroups::make("own", &["pids"]);
    let home = place.folder.join("other");
    fs::create_dir(&home).expect("folder");
    let mut command = Command::new(place.folder.join("berth-shim"));
    command.arg("--dir").arg(&home);
    for folder in &cgroups.v1 {
        command.arg("--tasks").arg(folder.join("tasks"));
    }
    if let Some(folder) = &cgroups.v2 {
        command.arg("--cgroup").arg(folder);
    }
    assert!(command.status().expect("start").success());
    let (mut client, hello) = Client::connect(&home.join("shim.sock"));
    let Reply::Hello { pid, .. } = hello else { panic!("{hello:?}") };
    let seen = cgroups.procs();
    let shim = PidFd::open(pid).expect("the shim");
    assert_eq!(client.ask(Request::Shutdown, &[]), Ok(Reply::Done));
    assert!(shim.has_ended(10_000).expect("wait"));
    assert_eq!(seen, vec![format!("{pid}\n"); cgroups.folders().count()]);
}

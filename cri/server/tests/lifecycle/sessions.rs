//! Exec, attach and port-forward, as the server of streams asks for them.

use std::io::{self, Cursor};
use std::time::Duration;

use berth_cri::{OpenError, Service};
use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use berth_stream::{AttachRequest, ExecRequest, Failure, Reader, Streams, TerminalSize, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::io::StreamReader;
use tonic::{Code, Request};

use crate::bench::{Bench, Client, hello, pod, script};
use crate::cases::cases;

cases![
    a_command_is_streamed,
    a_command_has_a_terminal,
    a_command_outlives_its_client_or_is_hung_up,
    clients_join_a_container,
    a_container_has_a_terminal,
    an_attached_client_is_told_the_end,
    ports_are_forwarded,
    ports_that_do_not_accept_hold_nobody,
    urls_are_given_for_what_runs,
    a_client_comes_by_a_url,
    sessions_end_with_the_service,
];

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client types: bytes, then nothing (the end of its input) or an error (it is gone).
type Keys = mpsc::UnboundedSender<io::Result<Cursor<Vec<u8>>>>;

pub(crate) fn keyboard() -> (Keys, Reader) {
    let (keys, receiver) = mpsc::unbounded_channel();
    (keys, Box::pin(StreamReader::new(UnboundedReceiverStream::new(receiver))))
}

pub(crate) fn type_in(keys: &Keys, text: &str) {
    keys.send(Ok(Cursor::new(text.into()))).expect("somebody reads");
}

fn leave(keys: &Keys) {
    keys.send(Err(io::ErrorKind::ConnectionAborted.into())).expect("somebody reads");
}

pub(crate) fn screen() -> (DuplexStream, Writer) {
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    (ours, Box::pin(theirs))
}

pub(crate) async fn rest(mut screen: DuplexStream) -> String {
    let mut text = Vec::new();
    screen.read_to_end(&mut text).await.expect("read");
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) async fn shown_until(screen: &mut DuplexStream, end: &str) -> String {
    let mut text = Vec::new();
    let read = async {
        while !text.ends_with(end.as_bytes()) {
            text.push(screen.read_u8().await.expect("more"));
        }
    };
    if tokio::time::timeout(PATIENCE, read).await.is_err() {
        panic!("{end:?} is not shown: {:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn silent() -> Streams {
    Streams { stdin: None, stdout: None, stderr: None, resize: None }
}

pub(crate) fn command(container: &str, text: &str, tty: bool) -> ExecRequest {
    ExecRequest {
        container: container.to_owned(),
        command: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    }
}

fn attach(container: &str, tty: bool) -> AttachRequest {
    AttachRequest { container: container.to_owned(), tty, stdin: true, stdout: true, stderr: !tty }
}

async fn sleeper(client: &Client, name: &str) -> (String, String) {
    let sandbox = client.run(pod(name)).await.expect("a sandbox");
    let container = client.create(&sandbox, script("sleeper", "exec sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    (sandbox, container)
}

async fn a_command_is_streamed(bench: Bench) {
    let client = bench.open().await;
    let (sandbox, container) = sleeper(&client, "exec").await;
    let sessions = client.service.sessions();
    let run = async |text: &str, typed: &str| {
        let (keys, stdin) = keyboard();
        let ((out, stdout), (err, stderr)) = (screen(), screen());
        type_in(&keys, typed);
        drop(keys);
        let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr), resize: None };
        let run = sessions.exec(command(&container, text, false), streams);
        let (code, out, err) =
            tokio::time::timeout(PATIENCE, async { tokio::join!(run, rest(out), rest(err)) }).await.expect("an end");
        (code, out, err)
    };
    // The end of the client's input is the end of the command's.
    let said = |code: i32, out: &str, err: &str| (Ok::<_, Failure>(code), out.to_owned(), err.to_owned());
    assert_eq!(run("cat; echo done >&2; exit 3", "typed\n").await, said(3, "typed\n", "done\n"));
    assert_eq!(run("kill -9 $$", "").await, said(137, "", ""));
    // A client slower than the command gets it all.
    let (code, out, _) = run("head -c 3m /dev/zero | tr '\\0' x", "").await;
    assert_eq!((code, out.len()), (Ok(0), 3 << 20));
    // What the command left behind holds the streams, not the session.
    assert_eq!(run("echo said; sleep 500 & exit 4", "").await, said(4, "said\n", ""));
    // Input that nobody reads.
    assert_eq!(run("exec <&-; sleep 0.1; echo deaf", &"x".repeat(1 << 20)).await, said(0, "deaf\n", ""));
    // Streams that the client does not want go nowhere.
    let code = sessions.exec(command(&container, "echo out; cat; exit 6", false), silent()).await;
    assert_eq!(code, Ok(6));
    let mut missing = command(&container, "", false);
    missing.command = vec!["/no/such".to_owned()];
    let failure = sessions.exec(missing, silent()).await.expect_err("no such program");
    assert!(failure.message.contains("/no/such"), "{failure}");
    client.stop(&container, 0).await.expect("stopped");
    sessions.exec(command(&container, "true", false), silent()).await.expect_err("it does not run");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn a_command_has_a_terminal(bench: Bench) {
    commands_with_terminals(&bench, "").await;
}

/// A container's terminal and a command's, with any handler.
pub(crate) async fn commands_with_terminals(bench: &Bench, handler: &str) {
    let client = bench.open().await;
    let sandbox = client.run_with(handler, pod("tty")).await.expect("a sandbox");
    let config = cri::ContainerConfig { tty: true, ..script("c", "tty; exec sleep 1000") };
    let container = client.create(&sandbox, config).await.expect("created");
    client.start(&container).await.expect("started");
    client.said("c", " stdout F /dev/pts/0").await;
    let sessions = client.service.sessions();
    let (keys, stdin) = keyboard();
    let (mut out, stdout) = screen();
    let (sizes, resize) = mpsc::channel(4);
    sizes.send(TerminalSize { width: 91, height: 17 }).await.expect("a size");
    let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), stderr: None, resize: Some(resize) };
    let text = "read go; echo $go $TERM; stty size; tty; exit 5";
    let session = tokio::spawn(async move { sessions.exec(command(&container, text, true), streams).await });
    type_in(&keys, "go\n");
    // The first one is the container's.
    assert_eq!(shown_until(&mut out, "/dev/pts/1\r\n").await, "go\r\ngo xterm\r\n17 91\r\n/dev/pts/1\r\n");
    assert_eq!(session.await.expect("no panic"), Ok(5));
    assert_eq!(rest(out).await, "");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn a_command_outlives_its_client_or_is_hung_up(bench: Bench) {
    let client = bench.open().await;
    let (sandbox, container) = sleeper(&client, "gone").await;
    let sessions = client.service.sessions();
    // A terminal is closed with its client.
    for _ in 0..20 {
        let (keys, stdin) = keyboard();
        let (_screen, stdout) = screen();
        let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), stderr: None, resize: None };
        let session = sessions.exec(command(&container, "exec sleep 777", true), streams);
        leave(&keys);
        assert_eq!(tokio::time::timeout(PATIENCE, session).await.expect("an end"), Ok(129));
    }
    // One whose session is given up, too: there is nobody else who holds it.
    let (_keys, stdin) = keyboard();
    let (mut out, stdout) = screen();
    let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), stderr: None, resize: None };
    let session = tokio::spawn({
        let (sessions, container) = (client.service.sessions(), container.clone());
        async move { sessions.exec(command(&container, "echo ready; exec sleep 778", true), streams).await }
    });
    shown_until(&mut out, "ready\r\n").await;
    session.abort();
    // Without one, a command ends when it minds that nobody listens.
    let (_keys, stdin) = keyboard();
    let (mut out, stdout) = screen();
    let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), stderr: None, resize: None };
    let text = "while echo on; do sleep 0.05; done; exit 8";
    let session = sessions.exec(command(&container, text, false), streams);
    let watch = async {
        shown_until(&mut out, "on\n").await;
        drop(out);
    };
    let (code, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(session, watch) }).await.expect("an end");
    assert_eq!(code, Ok(141));
    let left = async {
        loop {
            let left = client.exec(&container, &["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline"], 10).await.expect("ran");
            if !String::from_utf8_lossy(&left.stdout).contains("77") {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("nothing of them is left");
    // A shim that dies takes its sessions along.
    let (_keys, stdin) = keyboard();
    let streams = Streams { stdin: Some(stdin), ..silent() };
    let session = sessions.exec(command(&container, "cat; exec sleep 779", false), streams);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        for pid in bench.shims() {
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
        }
    };
    let (outcome, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(session, kill) }).await.expect("an end");
    outcome.expect_err("its end is not known");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn clients_join_a_container(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("attach")).await.expect("a sandbox");
    let mut config = script("echo", "while read line; do echo got $line; echo and >&2; done; echo end");
    (config.stdin, config.stdin_once) = (true, true);
    let container = client.create(&sandbox, config.clone()).await.expect("created");
    let sessions = client.service.sessions();
    let early = sessions.attach(attach(&container, false), silent()).await.expect_err("not running yet");
    assert!(early.message.contains("not running"), "{early}");
    client.start(&container).await.expect("started");

    // One that only looks, and one whose input is the container's once and for all.
    let (mut watched, stdout) = screen();
    let watcher = sessions.attach(attach(&container, false), Streams { stdout: Some(stdout), ..silent() });
    let (keys, stdin) = keyboard();
    let ((mut out, stdout), (err, stderr)) = (screen(), screen());
    let typist = sessions.attach(
        attach(&container, false),
        Streams { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr), resize: None },
    );
    let script = async {
        type_in(&keys, "one\n");
        let seen = shown_until(&mut out, "got one\n").await;
        drop(keys);
        (seen + &rest(out).await, rest(err).await)
    };
    let seen = async { shown_until(&mut watched, "end\n").await };
    let all = async { tokio::join!(watcher, typist, script, seen) };
    let (watcher, typist, (out, err), seen) = tokio::time::timeout(PATIENCE, all).await.expect("an end");
    assert_eq!((watcher, typist), (Ok(()), Ok(())));
    assert_eq!((out.as_str(), err.as_str()), ("got one\nend\n", "and\n"));
    assert!(seen.ends_with("end\n"), "{seen}");

    // Input that stays open: a client is let go at the end of its own, and comes back, also after a restart.
    config.metadata = Some(cri::ContainerMetadata { name: "open".to_owned(), attempt: 0 });
    config.stdin_once = false;
    let container = client.create(&sandbox, config).await.expect("created");
    client.start(&container).await.expect("started");
    let mut client = client;
    for round in ["two", "three"] {
        let sessions = client.service.sessions();
        let (keys, stdin) = keyboard();
        let (mut out, stdout) = screen();
        let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), ..silent() };
        let session = sessions.attach(attach(&container, false), streams);
        let script = async {
            type_in(&keys, &format!("{round}\n"));
            assert_eq!(shown_until(&mut out, &format!("{round}\n")).await, format!("got {round}\n"));
            drop(keys);
        };
        let (session, ()) =
            tokio::time::timeout(PATIENCE, async { tokio::join!(session, script) }).await.expect("let go");
        assert_eq!(session, Ok(()));
        client.service.close().await;
        drop((sessions, client));
        client = bench.open().await;
    }
    assert!(client.status(&container).await.expect("status").state() == cri::ContainerState::ContainerRunning);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn a_container_has_a_terminal(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("console")).await.expect("a sandbox");
    let mut config = script("console", "read go; stty size; stat -c %t:%T /dev/console; read more; exit 6");
    (config.stdin, config.tty) = (true, true);
    let container = client.create(&sandbox, config).await.expect("created");
    client.start(&container).await.expect("started");
    let sessions = client.service.sessions();
    let (keys, stdin) = keyboard();
    let (mut out, stdout) = screen();
    let (sizes, resize) = mpsc::channel(4);
    let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), stderr: None, resize: Some(resize) };
    let session = sessions.attach(attach(&container, true), streams);
    let script = async {
        sizes.send(TerminalSize { width: 80, height: 25 }).await.expect("a size");
        // Taken before what follows is typed.
        while sizes.capacity() < sizes.max_capacity() {
            tokio::task::yield_now().await;
        }
        type_in(&keys, "go\n");
        shown_until(&mut out, "88:0\r\n").await
    };
    let (session, shown) = tokio::time::timeout(PATIENCE, async {
        tokio::join!(session, async {
            let shown = script.await;
            leave(&keys);
            shown
        })
    })
    .await
    .expect("an end");
    assert_eq!((session, shown.as_str()), (Ok(()), "go\r\n25 80\r\n88:0\r\n"));
    // The container has not noticed; the next client ends it.
    let (keys, stdin) = keyboard();
    let (out, stdout) = screen();
    let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), ..silent() };
    let session = sessions.attach(attach(&container, true), streams);
    type_in(&keys, "more\n");
    let both = async { tokio::join!(session, rest(out)) };
    let (session, shown) = tokio::time::timeout(PATIENCE, both).await.expect("an end");
    assert_eq!((session, shown.as_str()), (Ok(()), "more\r\n"));
    assert_eq!(client.exited(&container).await.exit_code, 6);
    assert!(client.log("console").contains(" stdout F 25 80\r\n"), "{}", client.log("console"));
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn an_attached_client_is_told_the_end(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("end")).await.expect("a sandbox");
    let mut config = script("end", "read go; seq 20000; exit 0");
    config.stdin = true;
    let container = client.create(&sandbox, config).await.expect("created");
    client.start(&container).await.expect("started");
    let sessions = client.service.sessions();
    let (keys, stdin) = keyboard();
    let (out, stdout) = screen();
    let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), ..silent() };
    let session = sessions.attach(attach(&container, false), streams);
    // Looks at nothing, and waits for the end all the same.
    let (_idle, stdin) = keyboard();
    let blind = sessions.attach(attach(&container, false), Streams { stdin: Some(stdin), ..silent() });
    let all = async { tokio::join!(session, blind, rest(out), async { type_in(&keys, "go\n") }) };
    let (session, blind, out, ()) = tokio::time::timeout(PATIENCE, all).await.expect("an end");
    let wanted: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert!((session, blind) == (Ok(()), Ok(())) && out == wanted, "all output, then the end");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn ports_are_forwarded(bench: Bench) {
    // In this process's own network namespace, which a host network pod's is.
    std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
    let client = bench.open().await;
    let sessions = client.service.sessions();
    for (name, host) in [("own", false), ("host", true)] {
        let network = if host { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
        let options = Some(cri::NamespaceOption {
            network: network.into(),
            pid: cri::NamespaceMode::Container.into(),
            ..Default::default()
        });
        let mut config = pod(name);
        let security = cri::LinuxSandboxSecurityContext { namespace_options: options.clone(), ..Default::default() };
        config.linux = Some(cri::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() });
        let sandbox = client.run(config).await.expect("a sandbox");
        let mut web = hello("web");
        let security = cri::LinuxContainerSecurityContext { namespace_options: options, ..Default::default() };
        web.linux = Some(cri::LinuxContainerConfig { security_context: Some(security), resources: None });
        let container = client.create(&sandbox, web).await.expect("created");
        client.start(&container).await.expect("started");
        let ready = async {
            while !client.log("web").contains("listening on port 8080") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("a line in the log");
        // Several at once, each half-closed by the client.
        let forward = async || {
            let (keys, reader) = keyboard();
            let (screen, writer) = screen();
            type_in(&keys, "GET / HTTP/1.0\r\n\r\n");
            drop(keys);
            let both = async { tokio::join!(sessions.port_forward(&sandbox, 8080, (reader, writer)), rest(screen)) };
            tokio::time::timeout(PATIENCE, both).await.expect("an end")
        };
        for (outcome, answer) in <[_; 3]>::from(tokio::join!(forward(), forward(), forward())) {
            assert_eq!(outcome, Ok(()));
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("Hello from"), "{answer}");
        }
        let refused = sessions.port_forward(&sandbox, 1, (keyboard().1, screen().1)).await.expect_err("nobody listens");
        assert!(refused.message.contains("localhost:1") && refused.message.contains("refused"), "{refused}");
        if !host {
            // Who listens on the pod's address alone is found, too.
            let ip = client.pod_status(&sandbox).await.expect("a status").network.expect("a network").ip;
            let listener = listen(&bench, &sandbox, ip.parse().expect("an address"), 16);
            let server = std::thread::spawn(move || {
                listener.accept().and_then(|(mut stream, _)| io::Write::write_all(&mut stream, b"by its address"))
            });
            let port = 7070;
            let (screen, writer) = screen();
            let forward = sessions.port_forward(&sandbox, port, (keyboard().1, writer));
            let both = async { tokio::join!(forward, rest(screen)) };
            let (outcome, answer) = tokio::time::timeout(PATIENCE, both).await.expect("an end");
            assert_eq!((outcome, answer.as_str()), (Ok(()), "by its address"));
            server.join().expect("a thread").expect("served");
        }
        client.stop_pod(&sandbox).await.expect("stopped");
        sessions.port_forward(&sandbox, 8080, (keyboard().1, screen().1)).await.expect_err("it is stopped");
        client.remove_pod(&sandbox).await.expect("removed");
        let _ = std::fs::remove_file(client.logs.join("web.log"));
    }
    bench.assert_clean();
}

/// Listens on port 7070 in a sandbox's network.
fn listen(bench: &Bench, sandbox: &str, address: std::net::IpAddr, queue: i32) -> std::net::TcpListener {
    let namespace = berth_sys::netns::open(&bench.path("state/netns").join(sandbox)).expect("a namespace");
    let listen = || -> io::Result<std::net::TcpListener> {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &std::net::SocketAddr::new(address, 7070))?;
        rustix::net::listen(&socket, queue)?;
        Ok(socket.into())
    };
    namespace.run(listen).expect("entered").expect("it listens")
}

/// More connections than there are threads wait for a server whose queue is full; everything else goes on.
async fn ports_that_do_not_accept_hold_nobody(bench: Bench) {
    let client = bench.open().await;
    let (sandbox, container) = sleeper(&client, "full").await;
    let _listener = listen(&bench, &sandbox, std::net::Ipv4Addr::LOCALHOST.into(), 0);
    let sessions = client.service.sessions();
    let mut forwards = tokio::task::JoinSet::new();
    for _ in 0..1200 {
        let (sessions, sandbox) = (sessions.clone(), sandbox.clone());
        forwards.spawn(async move { sessions.port_forward(&sandbox, 7070, (keyboard().1, screen().1)).await });
    }
    // So many wait for the server's answer to their first packet (SYN_SENT) that the others wait for these.
    let namespace = berth_sys::netns::open(&bench.path("state/netns").join(&sandbox)).expect("a namespace");
    let knocking = || {
        let table = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
        let table = table.expect("entered").expect("a table");
        table.lines().filter(|line| line.split_whitespace().nth(3) == Some("02")).count()
    };
    let full = async {
        while knocking() < 60 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, full).await.expect("connections wait");
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Needs threads that may block.
    assert_eq!(client.exec(&container, &["/bin/true"], 0).await.expect("ran").exit_code, 0);
    let ended = forwards.try_join_next();
    assert!(ended.is_none(), "the command had to wait for forwarded connections to be given up: {ended:?}");
    forwards.shutdown().await;
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn urls_are_given_for_what_runs(bench: Bench) {
    let client = bench.open().await;
    let (sandbox, container) = sleeper(&client, "urls").await;
    let exec =
        async |request: cri::ExecRequest| client.service.exec(Request::new(request)).await.map(|r| r.into_inner().url);
    let good = cri::ExecRequest {
        container_id: container.clone(),
        cmd: vec!["true".to_owned()],
        stdout: true,
        ..Default::default()
    };
    for bad in [
        cri::ExecRequest { container_id: String::new(), ..good.clone() },
        cri::ExecRequest { tty: true, stderr: true, ..good.clone() },
        cri::ExecRequest { stdout: false, ..good.clone() },
        cri::ExecRequest { cmd: vec![], ..good.clone() },
    ] {
        assert_eq!(exec(bad).await.expect_err("refused").code(), Code::InvalidArgument);
    }
    let unknown = cri::ExecRequest { container_id: "0".repeat(64), ..good.clone() };
    assert_eq!(exec(unknown).await.expect_err("unknown").code(), Code::NotFound);
    let attach = async |request| client.service.attach(Request::new(request)).await.map(|r| r.into_inner().url);
    let attached = cri::AttachRequest { container_id: container.clone(), stdout: true, ..Default::default() };
    let forward = async |ports: &[i32]| {
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.clone(), port: ports.to_vec() };
        client.service.port_forward(Request::new(request)).await.map(|r| r.into_inner().url)
    };
    assert_eq!(forward(&[70_000]).await.expect_err("no port").code(), Code::InvalidArgument);
    for url in [exec(good.clone()).await, attach(attached.clone()).await, forward(&[80]).await] {
        let url = url.expect("a url");
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    }
    client.stop(&container, 0).await.expect("stopped");
    assert_eq!(exec(good).await.expect_err("ended").code(), Code::FailedPrecondition);
    assert_eq!(attach(attached).await.expect_err("ended").code(), Code::FailedPrecondition);
    client.stop_pod(&sandbox).await.expect("stopped");
    assert_eq!(forward(&[80]).await.expect_err("stopped").code(), Code::FailedPrecondition);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// Asks for a URL and goes there.
async fn by_url(client: &Client, request: cri::ExecRequest) -> tokio::net::TcpStream {
    let url = client.service.exec(Request::new(request)).await.expect("a url").into_inner().url;
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a url");
    let mut socket = tokio::net::TcpStream::connect(host).await.expect("it listens");
    let ask = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    socket.write_all(ask.as_bytes()).await.expect("asked");
    socket
}

/// The whole way, once: berth-stream's own tests have the protocols.
async fn a_client_comes_by_a_url(bench: Bench) {
    std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
    let client = bench.open().await;
    let (sandbox, container) = sleeper(&client, "url").await;
    let request = cri::ExecRequest {
        container_id: container,
        cmd: ["/bin/sh", "-c", "echo by url; exit 3"].map(str::to_owned).to_vec(),
        stdout: true,
        ..Default::default()
    };
    let mut socket = by_url(&client, request).await;
    let mut seen = Vec::new();
    let read = async {
        // A frame of channel 1, standard output, and the status on channel 3.
        while !String::from_utf8_lossy(&seen).contains("ExitCode") {
            assert!(socket.read_buf(&mut seen).await.expect("read") > 0, "{:?}", String::from_utf8_lossy(&seen));
        }
    };
    if tokio::time::timeout(PATIENCE, read).await.is_err() {
        panic!("no status in {:?}", String::from_utf8_lossy(&seen));
    }
    let text = String::from_utf8_lossy(&seen);
    assert!(text.starts_with("HTTP/1.1 101 ") && text.contains("\u{1}by url\n") && text.contains("\"3\""), "{text:?}");
    drop(socket);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// A session may last for days. It must not keep the state folder from the next service.
async fn sessions_end_with_the_service(bench: Bench) {
    std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
    let mut client = bench.open().await;
    let (sandbox, container) = sleeper(&client, "kept").await;
    for closed in [true, false] {
        let (keys, stdin) = keyboard();
        let (mut out, stdout) = screen();
        let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), ..silent() };
        let session = tokio::spawn({
            let (sessions, container) = (client.service.sessions(), container.clone());
            async move { sessions.exec(command(&container, "echo on; exec cat", false), streams).await }
        });
        shown_until(&mut out, "on\n").await;
        let request = cri::ExecRequest {
            container_id: container.clone(),
            cmd: ["/bin/sh", "-c", "echo on; exec cat"].map(str::to_owned).to_vec(),
            stdin: true,
            stdout: true,
            ..Default::default()
        };
        let mut socket = by_url(&client, request).await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"on\n") {
            assert!(socket.read_buf(&mut seen).await.expect("read") > 0, "{:?}", String::from_utf8_lossy(&seen));
        }
        if closed {
            tokio::time::timeout(PATIENCE, client.service.close()).await.expect("the sessions are ended");
        }
        drop(client);
        // Without `close`, nobody has waited for what was under way.
        let reopen = async {
            let service = loop {
                match Service::open(bench.config.clone()).await {
                    Ok(service) => break service,
                    Err(error) => assert!(!closed && matches!(error, OpenError::Locked { .. }), "{error}"),
                }
            };
            service.close().await;
            drop(service);
            bench.open().await
        };
        client = tokio::time::timeout(PATIENCE, reopen).await.expect("the lock is free");
        let outcome = tokio::time::timeout(PATIENCE, session).await.expect("an end").expect("no panic");
        assert!(outcome.expect_err("ended").message.contains("ending"));
        let end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut seen)).await.expect("an end");
        assert!(end.is_ok() || String::from_utf8_lossy(&seen).contains("ending"), "{end:?}");
        drop(keys);
    }
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

//! Probes and hooks against real servers on the loopback.

mod grpc;
mod http;
mod servers;

use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;

/// Where, what, and for how long.
type Call = (String, Vec<String>, Option<Duration>);

/// Answers every command alike.
#[derive(Debug)]
struct Scripted {
    answer: Result<Ran, ExecError>,
    calls: Mutex<Vec<Call>>,
}

impl Scripted {
    fn new(answer: Result<Ran, ExecError>) -> Self {
        Self { answer, calls: Mutex::default() }
    }

    fn calls(&self) -> usize {
        self.calls.lock().expect("calls").len()
    }
}

#[async_trait]
impl Exec for Scripted {
    async fn exec(&self, id: &str, command: &[String], timeout: Option<Duration>) -> Result<Ran, ExecError> {
        self.calls.lock().expect("calls").push((id.to_owned(), command.to_vec(), timeout));
        self.answer.clone()
    }
}

fn no_exec() -> Scripted {
    Scripted::new(Err(ExecError::Failed("no commands here".into())))
}

fn container() -> Container {
    serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 1}]})).expect("a container")
}

async fn run(declared: Value) -> Outcome {
    let container = container();
    let asked = Asked { container: &container, id: "c1", ip: "127.0.0.1" };
    probe(&serde_json::from_value(declared).expect("a probe"), &[], asked, &no_exec()).await
}

async fn run_hook(declared: Value, exec: &Scripted) -> Result<Option<String>, HookError> {
    let container = container();
    let asked = Asked { container: &container, id: "c1", ip: "127.0.0.1" };
    hook(&serde_json::from_value(declared).expect("a handler"), "web_n(u1)", asked, exec).await
}

fn failure(outcome: Outcome) -> String {
    let Outcome::Failure(words) = outcome else { panic!("{outcome:?}") };
    words
}

/// A port on which nobody listens.
async fn dead_port() -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
    listener.local_addr().expect("an address").port()
}

#[tokio::test]
async fn tcp_takes_whoever_listens() {
    let server = servers::Scripted::start("").await;
    assert_eq!(run(json!({"tcpSocket": {"port": server.port}})).await, Outcome::Success);
    let dead = dead_port().await;
    let words = failure(run(json!({"tcpSocket": {"port": dead, "host": "127.0.0.1"}})).await);
    assert_eq!(words, format!("dial tcp 127.0.0.1:{dead}: connect: connection refused"));
}

#[tokio::test]
async fn ports_that_make_no_sense_are_broken_and_not_failed() {
    for (port, words) in [
        (json!("nope"), "port \"nope\" not found"),
        (json!(0), "invalid port number: 0"),
        (json!(70_000), "invalid port number: 70000"),
    ] {
        for handler in ["tcpSocket", "httpGet"] {
            assert_eq!(run(json!({handler: {"port": port}})).await, Outcome::Broken(words.into()));
        }
    }
    assert_eq!(run(json!({})).await, Outcome::Broken("missing probe handler for c".into()));
    // A name is looked up in the container.
    assert!(failure(run(json!({"tcpSocket": {"port": "web"}})).await).starts_with("dial tcp 127.0.0.1:1: "));
}

#[tokio::test]
async fn commands_are_judged_by_their_code() {
    let ran = |code, text: &str| Ok(Ran { code, stdout: text.as_bytes().to_vec(), stderr: b"!".to_vec() });
    let rows = [
        (ran(0, "fine"), Outcome::Success, 1),
        (ran(3, "no"), Outcome::Failure("no!".into()), 1),
        (
            Err(ExecError::TimedOut("\"x\" timed out after 4s".into())),
            Outcome::Failure("command timed out: \"x\" timed out after 4s".into()),
            1,
        ),
        // What could not be run is tried again, and says nothing about the container.
        (Err(ExecError::Failed("no such container".into())), Outcome::Broken("no such container".into()), 3),
    ];
    let container = container();
    let asked = Asked { container: &container, id: "c1", ip: "127.0.0.1" };
    let declared: Probe =
        serde_json::from_value(json!({"exec": {"command": ["$(X)"]}, "timeoutSeconds": 4})).expect("a probe");
    for (answer, expected, calls) in rows {
        let exec = Scripted::new(answer);
        assert_eq!(probe(&declared, &["x".into()], asked, &exec).await, expected);
        assert_eq!(exec.calls(), calls);
        let first = exec.calls.lock().expect("calls")[0].clone();
        assert_eq!(first, ("c1".into(), vec!["x".into()], Some(Duration::from_secs(4))));
    }
    let long = Scripted::new(ran(1, &"x".repeat(3 * ANSWER_LIMIT)));
    assert_eq!(failure(probe(&declared, &["x".into()], asked, &long).await).len(), ANSWER_LIMIT);
}

#[tokio::test]
async fn hooks_run_and_say_what_failed() {
    let fine = Scripted::new(Ok(Ran { code: 0, stdout: Vec::new(), stderr: Vec::new() }));
    let bad = Scripted::new(Ok(Ran { code: 2, stdout: b"out".to_vec(), stderr: b"err".to_vec() }));
    let exec = json!({"exec": {"command": ["sh", "-c", "$(X)"]}});
    assert_eq!(run_hook(exec.clone(), &fine).await, Ok(None));
    assert_eq!(fine.calls.lock().expect("calls")[0].2, None, "a hook's limit is its caller's");
    let words = run_hook(exec, &bad).await.expect_err("code 2").to_string();
    let expected = "Exec lifecycle hook ([sh -c $(X)]) for Container \"c\" in Pod \"web_n(u1)\" failed - \
        error: command 'sh -c $(X)' exited with 2: err, message: \"outerr\"";
    assert_eq!(words, expected);
    assert_eq!(run_hook(json!({"sleep": {"seconds": 0}}), &bad).await, Ok(None));
    assert_eq!(run_hook(json!({"tcpSocket": {"port": 1}}), &bad).await, Err(HookError::Invalid));

    // Any answer will do; none will not.
    let server = servers::Scripted::start("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(run_hook(json!({"httpGet": {"path": "/p", "port": server.port}}), &bad).await, Ok(None));
    let head = server.heads()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /p http/1.1\r\n") && head.contains("user-agent: kube-lifecycle/1.37\r\n"), "{head}");
    let dead = dead_port().await;
    let words = run_hook(json!({"httpGet": {"path": "/p", "port": dead}}), &bad).await.expect_err("dead").to_string();
    assert!(
        words.starts_with("HTTP lifecycle hook (/p) for Container \"c\" in Pod \"web_n(u1)\" failed - error: Get "),
        "{words}"
    );
    // An HTTPS hook that is answered without TLS.
    let told = run_hook(json!({"httpGet": {"path": "/p", "port": server.port, "scheme": "HTTPS"}}), &bad).await;
    assert!(told.expect("a fallback").is_some_and(|words| words.contains("retry with HTTP succeeded")));
}

//! The server by its socket: what it answers, and what clients that die leave behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use berth_stream::{AttachRequest, Backend, ExecRequest, Failure, PortForwardRequest, Reader, Server, Streams, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// Sends back what comes, and counts who is in.
#[derive(Default)]
struct Echo {
    inside: AtomicUsize,
    ever: AtomicUsize,
}

/// One call.
struct Visit<'a>(&'a Echo);

impl Echo {
    fn enter(&self) -> Visit<'_> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        self.ever.fetch_add(1, Ordering::SeqCst);
        Visit(self)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Backend for Echo {
    async fn exec(&self, _: ExecRequest, streams: Streams) -> Result<i32, Failure> {
        let _visit = self.enter();
        if let (Some(mut stdin), Some(mut stdout)) = (streams.stdin, streams.stdout) {
            let _gone = tokio::io::copy(&mut stdin, &mut stdout).await;
        }
        Ok(0)
    }

    async fn attach(&self, _: AttachRequest, streams: Streams) -> Result<(), Failure> {
        let _visit = self.enter();
        // Writes to whoever reads or not, as a chatty container does.
        if let Some(mut stdout) = streams.stdout {
            while stdout.write_all(&[b'x'; 4096]).await.is_ok() {}
        }
        Ok(())
    }

    async fn port_forward(&self, _: &str, port: u16, connection: (Reader, Writer)) -> Result<(), Failure> {
        let _visit = self.enter();
        let (mut reader, mut writer) = connection;
        if port == 1 {
            return Err(Failure::new("connection refused"));
        }
        let _gone = tokio::io::copy(&mut reader, &mut writer).await;
        Ok(())
    }
}

async fn start() -> (Server, Arc<Echo>) {
    let backend = Arc::new(Echo::default());
    let server = Server::start(([127, 0, 0, 1], 0).into(), backend.clone()).await.expect("a listener");
    (server, backend)
}

fn exec() -> ExecRequest {
    ExecRequest {
        container: "c".to_owned(),
        command: vec!["cat".to_owned()],
        tty: false,
        stdin: true,
        stdout: true,
        stderr: false,
    }
}

fn attach() -> AttachRequest {
    AttachRequest { container: "c".to_owned(), tty: false, stdin: false, stdout: true, stderr: false }
}

/// A path of this server.
fn path_of(url: &str, server: &Server) -> String {
    let begin = format!("http://{}", server.address());
    url.strip_prefix(&begin).expect("the server's own address").to_owned()
}

/// Sends a request's head and returns the answer's, with the connection.
async fn ask(server: &Server, method: &str, path: &str, headers: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(server.address()).await.expect("connect");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("the answer's head"));
    }
    (String::from_utf8(answer).expect("text"), stream)
}

const SPDY: &str = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
const SOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn a_url_is_good_once_and_for_its_own_kind() {
    let (server, _) = start().await;
    let path = path_of(&server.exec(exec()).expect("a URL"), &server);
    assert!(path.starts_with("/exec/") && path.len() == 14, "{path}");
    let (first, _session) = ask(&server, "POST", &path, SPDY).await;
    assert!(first.starts_with("HTTP/1.1 101 "), "{first}");
    assert!(first.to_lowercase().contains("x-stream-protocol-version: v4.channel.k8s.io"), "{first}");
    assert!(first.to_lowercase().contains("connection: upgrade\r\n"), "{first}");
    let (second, _) = ask(&server, "POST", &path, SPDY).await;
    assert!(second.starts_with("HTTP/1.1 404 "), "{second}");
    let wrong = path_of(&server.attach(attach()).expect("a URL"), &server).replace("attach", "exec");
    let (third, _) = ask(&server, "POST", &wrong, SPDY).await;
    assert!(third.starts_with("HTTP/1.1 404 "), "{third}");
    for unknown in ["/", "/exec", "/exec/", "/exec/AAAAAAAA", "/metrics"] {
        let (answer, _) = ask(&server, "GET", unknown, "").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{unknown}: {answer}");
    }
}

#[tokio::test]
async fn refusals_say_why() {
    let (server, backend) = start().await;
    let url = || path_of(&server.exec(exec()).expect("a URL"), &server);
    let (answer, mut stream) = ask(&server, "POST", &url(), &SPDY.replace("v4", "v9")).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io"), "{answer}");
    let mut body = String::new();
    stream.read_to_string(&mut body).await.expect("a body and an end");
    assert!(body.contains("v9.channel.k8s.io"), "{body}");
    let (answer, _) = ask(&server, "GET", &url(), "").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // Another method does not use the token up.
    let url = url();
    let (answer, _) = ask(&server, "DELETE", &url, SPDY).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let (answer, _) = ask(&server, "GET", &url, SOCKET).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(backend.ever.load(Ordering::SeqCst) <= 1, "a refused client reached the backend");
}

#[tokio::test]
async fn old_websocket_port_forward_names_its_ports_and_its_errors() {
    let (server, _) = start().await;
    let request = PortForwardRequest { sandbox: "s".to_owned(), ports: vec![80, 1] };
    let url = path_of(&server.port_forward(request).expect("a URL"), &server);
    let protocol = format!("{SOCKET}Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n");
    let (answer, mut stream) = ask(&server, "GET", &url, &protocol).await;
    assert!(answer.contains("sec-websocket-protocol: v4.channel.k8s.io"), "{answer}");
    let mut ports = [0; 20];
    stream.read_exact(&mut ports).await.expect("the ports");
    for (channel, port) in [(0, 80), (1, 80), (2, 1), (3, 1)] {
        let message = [0x82, 3, channel, port, 0];
        assert!(ports.chunks(5).any(|found| found == message), "{message:?} in {ports:?}");
    }
    let mut head = [0; 3];
    stream.read_exact(&mut head).await.expect("a message");
    assert_eq!((head[0], head[2]), (0x82, 3));
    let mut text = vec![0; usize::from(head[1] & 0x7f) - 1];
    stream.read_exact(&mut text).await.expect("the error");
    assert_eq!(String::from_utf8_lossy(&text), "error forwarding port 1 to sandbox s: connection refused");
    stream.write_all(&[0x82, 0x83, 0, 0, 0, 0, 0, b'h', b'i']).await.expect("write");
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.expect("the echo");
    assert_eq!(echo, [0x82, 3, 0, b'h', b'i']);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

/// Waits until everything that clients caused is gone.
async fn settled(what: &str, backend: &Echo, (tasks, open): (usize, usize)) {
    let metrics = Handle::current().metrics();
    for _ in 0..600 {
        // A margin for descriptors: other tests of this program run beside.
        if backend.inside.load(Ordering::SeqCst) == 0
            && metrics.num_alive_tasks() <= tasks
            && descriptors() <= open + 40
        {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!(
        "{what}: {} calls, {} tasks (before {tasks}), {} descriptors (before {open}) are left",
        backend.inside.load(Ordering::SeqCst),
        metrics.num_alive_tasks(),
        descriptors()
    );
}

#[tokio::test]
async fn clients_that_die_leave_nothing() {
    let (server, backend) = start().await;
    let before = (Handle::current().metrics().num_alive_tasks(), descriptors());
    for round in 0..1000 {
        // Before the request, in its middle, after the answer, in a frame, and while output comes.
        let url = match round % 5 {
            4 => server.attach(attach()),
            _ => server.exec(exec()),
        };
        let path = path_of(&url.expect("a URL"), &server);
        match round % 5 {
            0 => drop(TcpStream::connect(server.address()).await.expect("connect")),
            1 => {
                let mut stream = TcpStream::connect(server.address()).await.expect("connect");
                stream.write_all(b"POST /exec/").await.expect("write");
            }
            2 => drop(ask(&server, "POST", &path, SPDY).await),
            3 => {
                let (_, mut stream) = ask(&server, "GET", &path, SOCKET).await;
                stream.write_all(&[0x82, 0xfe, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 2, 3]).await.expect("write");
            }
            _ => {
                let (_, mut stream) = ask(&server, "GET", &path, SOCKET).await;
                let mut some = [0; 100];
                stream.read_exact(&mut some).await.expect("output");
            }
        }
    }
    assert!(backend.ever.load(Ordering::SeqCst) >= 400, "too few calls: {}", backend.ever.load(Ordering::SeqCst));
    settled("after a thousand clients", &backend, before).await;
    // And it still serves.
    let (answer, _) = ask(&server, "POST", &path_of(&server.exec(exec()).expect("a URL"), &server), SPDY).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_its_sessions() {
    let (server, backend) = start().await;
    let (_, mut stream) = ask(&server, "GET", &path_of(&server.exec(exec()).expect("a URL"), &server), SOCKET).await;
    while backend.inside.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    drop(server);
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest).await;
    settled("after the server", &backend, (0, usize::MAX / 2)).await;
}

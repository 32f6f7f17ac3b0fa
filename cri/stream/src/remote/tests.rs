use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::backend::{Failure, Reader, TerminalSize, Writer};
use crate::link::converse;
use crate::spdy::tests::{Client, control, data};
use crate::websocket::Coding;
use crate::websocket::tests::frame;

/// Sends stdin back and leaves with the code that the command names.
struct Echo;

#[async_trait]
impl Backend for Echo {
    async fn exec(&self, request: ExecRequest, mut streams: Streams) -> Result<i32, Failure> {
        if let (Some(stdin), Some(stdout)) = (&mut streams.stdin, &mut streams.stdout) {
            let _gone = tokio::io::copy(stdin, stdout).await;
        }
        if let Some(resize) = &mut streams.resize {
            let mut last = TerminalSize { width: 0, height: 0 };
            while let Some(size) = resize.recv().await {
                last = size;
            }
            let text = format!("{}x{}", last.width, last.height);
            if let Some(stdout) = &mut streams.stdout {
                stdout.write_all(text.as_bytes()).await.map_err(|error| Failure::new(error.to_string()))?;
            }
        }
        request.command[0].parse().map_err(|_| Failure::new("no such program"))
    }

    async fn attach(&self, _: AttachRequest, streams: Streams) -> Result<(), Failure> {
        drop(streams);
        Ok(())
    }

    async fn port_forward(&self, _: &str, _: u16, _: (Reader, Writer)) -> Result<(), Failure> {
        Err(Failure::new("not here"))
    }
}

fn request(command: &str) -> ExecRequest {
    ExecRequest {
        container: "c".to_owned(),
        command: vec![command.to_owned()],
        tty: false,
        stdin: true,
        stdout: true,
        stderr: false,
    }
}

fn session(transport: Transport, version: Version, request: ExecRequest) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = duplex(1 << 20);
    let link = Link::new(transport.protocol(), STREAMS);
    let work = run(link.clone(), (transport, version), Command::Exec(request), Arc::new(Echo), Pace::DEFAULT);
    (client, tokio::spawn(converse(link, server, Pace::DEFAULT, work)))
}

const SUCCESS: &[u8] = br#"{"metadata":{},"status":"Success"}"#;

#[tokio::test(start_paused = true)]
async fn the_outcome_comes_before_the_end_of_the_output() {
    let (mut client, task) = session(Transport::Spdy, Version::V4, request("0"));
    let mut spdy = Client::new();
    let bytes = [
        spdy.open(1, &[("streamtype", "stdout")]),
        spdy.open(3, &[("streamtype", "what")]),
        spdy.open(5, &[("streamtype", "stdin")]),
        spdy.open(7, &[("streamtype", "error")]),
        data(5, true, b"hello"),
    ];
    client.write_all(&bytes.concat()).await.expect("write");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("read");
    drop(client);
    task.await.expect("session");
    let at = |part: &[u8]| answer.windows(part.len()).position(|window| window == part);
    let output = at(&data(1, false, b"hello")).expect("output");
    let status = at(&data(7, false, SUCCESS)).expect("status");
    let end = at(&data(1, true, b"")).expect("end of stdout");
    assert!(output < status && status < end, "{output} {status} {end}");
    assert!(at(&data(7, true, b"")).is_some_and(|error| error < end), "the error stream ends after stdout");
    assert!(at(&control(3, 0, &[0, 0, 0, 3, 0, 0, 0, 5])).is_some(), "an unknown stream is not refused");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_too_few_streams_is_left_after_30_seconds() {
    let (mut client, task) = session(Transport::Spdy, Version::V4, request("0"));
    client.write_all(&Client::new().open(1, &[("streamtype", "error")])).await.expect("write");
    let start = Instant::now();
    client.read_to_end(&mut Vec::new()).await.expect("read");
    assert!(start.elapsed() >= Duration::from_secs(30) && start.elapsed() < Duration::from_secs(31));
    drop(client);
    task.await.expect("session");
}

#[tokio::test(start_paused = true)]
async fn a_websocket_begins_with_an_empty_message_and_ends_with_a_status() {
    for (code, reason) in [("3", "NonZeroExitCode"), ("x", "InternalError")] {
        let (mut client, task) = session(Transport::Channels(Coding::Binary, true), Version::V5, request(code));
        let mut begin = [0; 3];
        client.read_exact(&mut begin).await.expect("begin");
        assert_eq!(begin, [0x82, 1, 1]);
        client.write_all(&[frame(0x82, b"\x00hi"), frame(0x82, &[255, 0])].concat()).await.expect("write");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("read");
        drop(client);
        task.await.expect("session");
        assert!(answer.starts_with(b"\x82\x03\x01hi"), "{answer:?}");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(reason) && text.contains("\u{3}{\"metadata\""), "{text}");
        assert!(answer.ends_with(&[0x88, 2, 3, 232]));
    }
}

#[tokio::test(start_paused = true)]
async fn sizes_come_with_a_terminal_only() {
    let request = ExecRequest { tty: true, stdin: false, stderr: true, ..request("0") };
    let (mut client, task) = session(Transport::Spdy, Version::V3, request.clone());
    let mut spdy = Client::new();
    // With a terminal there is no stderr to wait for, though it was asked for.
    let bytes = [
        spdy.open(1, &[("streamtype", "error")]),
        spdy.open(3, &[("streamtype", "stdout")]),
        spdy.open(5, &[("streamtype", "resize")]),
        data(5, false, br#"{"Width":80,"Height":24}"#),
        data(5, true, br#"{"Width":100,"Height":50}"#),
    ];
    client.write_all(&bytes.concat()).await.expect("write");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("read");
    drop(client);
    task.await.expect("session");
    let wanted = data(3, false, b"100x50");
    assert!(answer.windows(wanted.len()).any(|window| window == wanted), "{answer:?}");
}

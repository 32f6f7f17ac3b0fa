use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;
use crate::backend::{GRACE, Reader, Writer};
use crate::spdy::Connection;
use crate::spdy::tests::{Client, control, data};
use crate::websocket::tests::frame;
use crate::websocket::{Channels, Coding};

/// A session over a pipe of 1 KiB whose work is `work`.
fn session<F, W>(protocol: Box<dyn Protocol>, work: F) -> (DuplexStream, tokio::task::JoinHandle<()>)
where
    F: FnOnce(Link) -> W,
    W: Future<Output = ()> + Send + 'static,
{
    let (client, server) = duplex(1024);
    let link = Link::new(protocol, 8);
    let work = work(link.clone());
    (client, tokio::spawn(converse(link, server, Pace::DEFAULT, work)))
}

fn channels() -> Box<dyn Protocol> {
    Box::new(Channels::new(Coding::Binary, true))
}

fn reader(link: &Link, id: u32) -> Reader {
    link.channel(id).reader()
}

fn writer(link: &Link, id: u32) -> Writer {
    link.channel(id).writer()
}

/// What the client can write of this message, again and again, before the session stops reading.
async fn flood(client: &mut DuplexStream, message: &[u8]) -> usize {
    let all = message.repeat(8 * UNREAD / message.len());
    let mut rest = &all[..];
    while let Ok(Ok(count)) = timeout(Duration::from_secs(1), client.write(rest)).await {
        rest = &rest[count..];
        assert!(!rest.is_empty(), "the session reads without an end");
    }
    all.len() - rest.len()
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_is_not_read_without_an_end() {
    let (release, released) = oneshot::channel::<()>();
    let (mut client, task) = session(channels(), |link| async move {
        let mut stdin = reader(&link, 0);
        let _ = released.await;
        let mut all = Vec::new();
        // The client is gone in the middle of a message: that is no end of file.
        let error = stdin.read_to_end(&mut all).await.expect_err("the client is gone");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
        assert!(all.len() >= UNREAD, "{}", all.len());
    });
    let message = frame(0x82, &[0; 1000]);
    let written = flood(&mut client, &message).await;
    assert!(written >= UNREAD, "{written}");
    release.send(()).expect("the session waits");
    drop(client);
    task.await.expect("session");
}

#[tokio::test(start_paused = true)]
async fn a_backend_waits_for_a_slow_client() {
    let (mut client, task) = session(channels(), |link| async move {
        let mut stdout = writer(&link, 1);
        let mut written = 0;
        while let Ok(count) = timeout(Duration::from_secs(1), stdout.write(&[7; 10_000])).await {
            written += count.expect("write");
            assert!(written < 2 * STUFFED, "the backend writes without an end");
        }
        assert!(written >= UNSENT, "{written}");
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.expect("read");
    // All that was written came, and a close at last.
    assert!(all.len() > UNSENT && all.ends_with(&[0x88, 2, 3, 232]), "{}", all.len());
    drop(client);
    task.await.expect("session");
}

#[tokio::test(start_paused = true)]
async fn pings_of_a_client_that_reads_nothing_stop_being_read() {
    let (mut client, task) = session(channels(), |_| std::future::pending());
    let written = flood(&mut client, &frame(0x89, &[0; 100])).await;
    assert!(written >= STUFFED, "{written}");
    drop(client);
    task.await.expect("session");
}

#[tokio::test(start_paused = true)]
async fn work_that_ignores_a_client_that_is_gone_is_dropped_after_a_grace() {
    struct Flag(Option<oneshot::Sender<()>>);
    impl Drop for Flag {
        fn drop(&mut self) {
            if let Some(sender) = self.0.take() {
                let _nobody = sender.send(());
            }
        }
    }
    let (sender, dropped) = oneshot::channel();
    let (client, task) = session(channels(), |_| async move {
        let _flag = Flag(Some(sender));
        std::future::pending::<()>().await;
    });
    let start = tokio::time::Instant::now();
    drop(client);
    task.await.expect("session");
    dropped.await.expect("the work was dropped");
    assert!(start.elapsed() >= GRACE && start.elapsed() < 2 * GRACE, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_asked_and_left_after_hours() {
    let (mut client, task) = session(channels(), |link| async move {
        let mut stdin = reader(&link, 0);
        assert!(stdin.read_u8().await.is_err());
    });
    let start = tokio::time::Instant::now();
    let mut pings = Vec::new();
    client.read_to_end(&mut pings).await.expect("read");
    task.await.expect("session");
    let pulse = pings.chunks(2).filter(|chunk| *chunk == [0x89, 0]).count();
    assert!(pulse >= 200, "{pulse}");
    assert!(start.elapsed() >= Pace::DEFAULT.idle && start.elapsed() < 2 * Pace::DEFAULT.idle, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_only_is_silent_and_one_that_pings_is_not() {
    for (first, ends) in [(0x8a, true), (0x89, false)] {
        let (client, task) = session(channels(), |_| std::future::pending());
        let (mut read, mut write) = tokio::io::split(client);
        let reading = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let _ = write.write_all(&frame(first, b"")).await;
        }
        assert_eq!(task.is_finished(), ends, "{first:x}");
        task.abort();
        let _ = reading.await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_only_takes_output_is_not_silent() {
    let (mut client, task) = session(channels(), |link| async move {
        let mut stdout = writer(&link, 1);
        while stdout.write_all(b"tick").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    });
    let reading = tokio::spawn(async move { tokio::io::copy(&mut client, &mut tokio::io::sink()).await });
    tokio::time::sleep(3 * Pace::DEFAULT.idle).await;
    assert!(!task.is_finished(), "a session that only has output was cut");
    task.abort();
    let _ = reading.await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_reset_is_no_end_of_file() {
    let (mut client, task) = session(Box::new(Connection::new()), |link| async move {
        let (stream, _) = link.accept().await.expect("a stream");
        let (mut reader, _writer) = stream.split();
        let mut all = Vec::new();
        let error = reader.read_to_end(&mut all).await.expect_err("it was broken off");
        assert_eq!((error.kind(), all.as_slice()), (std::io::ErrorKind::ConnectionReset, &b"ab"[..]));
    });
    // A reset has the stream's number and a reason (5: CANCEL).
    let bytes = [Client::new().open(1, &[]), data(1, false, b"ab"), control(3, 0, &[0, 0, 0, 1, 0, 0, 0, 5])];
    client.write_all(&bytes.concat()).await.expect("write");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("read");
    drop(client);
    task.await.expect("session");
}

#[tokio::test(start_paused = true)]
async fn more_streams_than_allowed_are_refused() {
    let (mut client, task) = session(Box::new(Connection::new()), |link| async move {
        let mut streams = Vec::new();
        while let Some((stream, _)) = link.accept().await {
            streams.push(stream);
        }
        assert_eq!(streams.len(), 8);
    });
    let mut spdy = Client::new();
    for stream in 0..20 {
        client.write_all(&spdy.open(2 * stream + 1, &[("streamtype", "data")])).await.expect("write");
    }
    client.write_all(&control(6, 0, &[0, 0, 0, 1])).await.expect("ping");
    // Twenty replies, of which the first is two bytes longer, a reset after twelve of them, and the ping.
    let mut replies = vec![0; 20 * 26 + 2 + 12 * 16 + 12];
    client.read_exact(&mut replies).await.expect("read");
    assert!(replies.ends_with(&control(6, 0, &[0, 0, 0, 1])));
    drop(client);
    task.await.expect("session");
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_stream_is_read_to_its_end_and_answered() {
    let (mut client, task) = session(Box::new(Connection::new()), |link| async move {
        let (stream, _) = link.accept().await.expect("a stream");
        let (mut reader, mut writer) = stream.split();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.expect("to its end");
        writer.write_all(&all).await.expect("write");
    });
    let bytes = [Client::new().open(1, &[]), data(1, false, b"ab"), data(1, true, b"cd"), data(1, false, b"late")];
    client.write_all(&bytes.concat()).await.expect("write");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("read");
    let wanted = [data(1, false, b"abcd"), data(1, true, b""), control(7, 0, &[0, 0, 0, 1, 0, 0, 0, 0])].concat();
    assert_eq!(answer[28..], wanted);
    drop(client);
    task.await.expect("session");
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_leave_nothing() {
    let link = Link::new(Box::new(Connection::new()), 8);
    let (mut client, server) = duplex(1024);
    let work = {
        let link = link.clone();
        async move {
            for _ in 0..100 {
                let (stream, _) = link.accept().await.expect("a stream");
                drop(stream);
            }
        }
    };
    let task = tokio::spawn(converse(link.clone(), server, Pace::DEFAULT, work));
    let (mut spdy, mut sink) = (Client::new(), Vec::new());
    for stream in 0..100 {
        let bytes = [spdy.open(2 * stream + 1, &[]), data(2 * stream + 1, false, &[0; 500])].concat();
        client.write_all(&bytes).await.expect("write");
        let mut reply = vec![0; 34];
        client.read_exact(&mut reply).await.expect("read");
        sink.extend(reply);
    }
    client.read_to_end(&mut sink).await.expect("read");
    drop(client);
    task.await.expect("session");
    let state = link.lock();
    assert_eq!((state.slots.len(), state.unread, state.arrivals.len()), (0, 0, 0));
}

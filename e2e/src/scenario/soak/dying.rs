//! Clients of attach and exec that die: whatever they had begun, nothing of it stays.
//!
//! They speak WebSocket as far as they live, by hand: what is to be cut must not be tidied up by a library.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cri::Client;

/// Clients at a time.
const AT_ONCE: usize = 16;
/// A client that is not answered by then fails the scenario.
const PATIENCE: Duration = Duration::from_secs(60);
/// One in so many dies before it has asked for its session. The runtime keeps what is asked for by URL for a minute, and
/// refuses more than 1000 at a time.
const SILENT: usize = 40;
/// The longest that a client lives on after its last words.
const LINGER: Duration = Duration::from_millis(8);

/// What is run in a terminal: one that waits, one that reads, one that never stops printing.
const COMMANDS: [&str; 3] =
    ["echo ready; exec sleep 1000", "while read -r line; do echo got $line; done", "while :; do echo chatter; done"];

/// The containers that are attached to: with a terminal, and without.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    pub(super) terminal: String,
    pub(super) pipes: String,
}

/// How far a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Connected.
    Silent,
    /// In the midst of its request.
    Halting,
    /// Before it has read the answer.
    Hasty,
    /// After the answer.
    Answered,
    /// After some keys and sizes.
    Typing,
    /// In the midst of a frame.
    Stammering,
    /// While it reads.
    Reading,
}

/// So many clients, one half of which attach while the other half exec.
pub(super) async fn play(client: &Client, hosts: &Hosts, count: usize, seed: u64) -> Result<()> {
    let hosts = Arc::new(hosts.clone());
    let mut dying = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (mut client, hosts) = (client.clone(), Arc::clone(&hosts));
        let mut dice = Rng::with_seed(seed ^ ((worker as u64) << 32));
        dying.spawn(async move {
            for number in (worker..count).step_by(AT_ONCE) {
                let life = life(&mut client, &hosts, number, &mut dice);
                tokio::time::timeout(PATIENCE, life)
                    .await
                    .context("it is not answered")
                    .flatten()
                    .with_context(|| format!("client {number} of seed {seed}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = dying.join_next().await {
        ended??;
    }
    Ok(())
}

async fn life(client: &mut Client, hosts: &Hosts, number: usize, dice: &mut Rng) -> Result<()> {
    let url = match number % 4 {
        0 => client.attach_url(&hosts.terminal, true).await?,
        1 => client.attach_url(&hosts.pipes, false).await?,
        _ => {
            let script = COMMANDS[dice.usize(..COMMANDS.len())];
            client.exec_url(&hosts.pipes, &["sh", "-c", script]).await?
        }
    };
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("no URL")?;
    let mut socket = TcpStream::connect(host).await.context("the streaming server does not listen")?;
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    let death = death(number, dice);
    speak(&mut socket, &request, death, dice).await?;
    if dice.bool() {
        tokio::time::sleep(LINGER.mul_f64(dice.f64())).await;
    }
    if dice.bool() {
        // The other side is told by RST: what was under way is lost.
        socket.set_zero_linger()?;
    }
    Ok(())
}

fn death(number: usize, dice: &mut Rng) -> Death {
    if number.is_multiple_of(SILENT) {
        return if dice.bool() { Death::Silent } else { Death::Halting };
    }
    let deaths = [Death::Hasty, Death::Answered, Death::Typing, Death::Stammering, Death::Reading];
    deaths[dice.usize(..deaths.len())]
}

/// Says what a client says until its death.
async fn speak(socket: &mut TcpStream, request: &str, death: Death, dice: &mut Rng) -> Result<()> {
    let said = match death {
        Death::Silent => 0,
        Death::Halting => dice.usize(1..request.len()),
        _ => request.len(),
    };
    socket.write_all(&request.as_bytes()[..said]).await?;
    if matches!(death, Death::Silent | Death::Halting | Death::Hasty) {
        return Ok(());
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.context("the answer breaks off")?);
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(head.starts_with("HTTP/1.1 101 "), "a session is refused: {head}");
    match death {
        Death::Typing | Death::Stammering => {
            let mut words = frame(4, br#"{"Width":80,"Height":25}"#);
            for _ in 0..dice.usize(..4) {
                words.extend(frame(0, b"ls\n"));
            }
            let end = if death == Death::Typing { words.len() } else { dice.usize(1..words.len()) };
            // The session may be over: its end is no more certain than ours.
            let _ = socket.write_all(&words[..end]).await;
        }
        Death::Reading => {
            let mut some = vec![0; dice.usize(1..1024)];
            // A container that says nothing for a while is left, too.
            let _ = tokio::time::timeout(LINGER, socket.read(&mut some)).await;
        }
        _ => {}
    }
    Ok(())
}

/// A masked message on a channel.
fn frame(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len() + 1).unwrap_or(0).min(125);
    // Binary and whole; a mask of zeros leaves everything as it is.
    [&[0x82, 0x80 | length, 0, 0, 0, 0, channel], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_how_long_it_is() {
        assert_eq!(frame(0, b"ls\n"), [0x82, 0x84, 0, 0, 0, 0, 0, b'l', b's', b'\n']);
    }

    #[test]
    fn few_clients_leave_a_url_unused() {
        let mut dice = Rng::with_seed(1);
        let unused = (0..10_000).filter(|number| matches!(death(*number, &mut dice), Death::Silent | Death::Halting));
        assert_eq!(unused.count(), 10_000 / SILENT);
    }
}

//! client-go's executors and port-forwarders against our streaming server: what kubectl and a kubelet do to a runtime.

mod backend;
mod client;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_stream::{AttachRequest, ExecRequest, PortForwardRequest, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{self, Handle};
use tokio::task::JoinSet;

use backend::Programs;
use client::Client;

/// The two ways of client-go's own choice: SPDY with version 4, a WebSocket with version 5.
const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];
/// Sessions at once.
const SESSIONS: usize = 200;
/// Connections at once over one port-forward, and what each carries both ways.
const CONNECTIONS: usize = 40;
const MEBIBYTE: usize = 1 << 20;
/// Clients that are killed.
const KILLED: usize = 30;

/// Plays all of it with the client that [`crate::streamclient::build`] made.
///
/// # Errors
/// What differs from what kubectl's user expects.
pub fn play(client: &Path) -> Result<()> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let programs = Arc::new(Programs::default());
        let server = Server::start(([127, 0, 0, 1], 0).into(), programs.clone()).await?;
        let stage = Stage { server, programs, client: Client::new(client), start: Instant::now() };
        let before = Handle::current().metrics().num_alive_tasks();
        for transport in TRANSPORTS {
            stage.exec(transport).await.with_context(|| format!("exec by {transport}"))?;
            stage.terminal(transport).await.with_context(|| format!("a terminal by {transport}"))?;
            stage.attach(transport).await.with_context(|| format!("attach by {transport}"))?;
            stage.many(transport).await.with_context(|| format!("{SESSIONS} sessions by {transport}"))?;
            stage.forward(transport).await.with_context(|| format!("port-forward by {transport}"))?;
            stage.killed(transport).await.with_context(|| format!("killed clients by {transport}"))?;
        }
        stage.old_versions().await?;
        stage.settled(before).await
    })
}

struct Stage {
    server: Server,
    programs: Arc<Programs>,
    client: Client,
    start: Instant,
}

impl Stage {
    fn say(&self, what: &str) {
        println!("{:>6.1} s  stream: {what}", self.start.elapsed().as_secs_f64());
    }

    /// A URL for a program; `streams` names what it has.
    fn url(&self, command: &[&str], streams: &[&str]) -> Result<String> {
        let has = |name| streams.contains(&name);
        Ok(self.server.exec(ExecRequest {
            container: "c".to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            tty: has("tty"),
            stdin: has("stdin"),
            stdout: has("stdout"),
            stderr: has("stderr"),
        })?)
    }

    /// Outputs apart, exit codes, stdin with its end, and a call that fails.
    async fn exec(&self, transport: &str) -> Result<()> {
        let arguments = ["stream", "--transport", transport, "--stderr"];
        let url = self.url(&["say", "to stdout", "to stderr"], &["stdout", "stderr"])?;
        let end = self.client.run(&arguments, &url, b"").await?;
        ensure!((end.code, &*end.stdout, &*end.stderr) == (0, "to stdout", "to stderr"), "{end:?}");
        for code in [0, 1, 137] {
            let url = self.url(&["exit", &code.to_string()], &["stdout", "stderr"])?;
            let end = self.client.run(&arguments, &url, b"").await?;
            ensure!(end.code == code, "exit code {code} became {end:?}");
        }
        let text = "line\n".repeat(100_000);
        let url = self.url(&["cat"], &["stdin", "stdout"])?;
        let end = self.client.run(&["stream", "--transport", transport, "--stdin"], &url, text.as_bytes()).await?;
        ensure!(end.code == 0 && end.stdout == text, "cat: {} {} bytes: {}", end.code, end.stdout.len(), end.stderr);
        // A program that ends without having read what it is sent, and says something.
        let url = self.url(&["exit", "3"], &["stdin", "stdout"])?;
        let end = self.client.run(&["stream", "--transport", transport, "--stdin"], &url, text.as_bytes()).await?;
        ensure!(end.code == 3, "exit code 3 with unread input became {end:?}");
        let url = self.url(&["zeros", "5000000"], &["stdout"])?;
        let end = self.client.run(&["stream", "--transport", transport], &url, b"").await?;
        ensure!(end.code == 0 && end.stdout.len() == 5_000_000, "zeros: {} bytes", end.stdout.len());
        let url = self.url(&["nothing"], &["stdout", "stderr"])?;
        let end = self.client.run(&arguments, &url, b"").await?;
        ensure!(end.code == client::FAILED && end.stderr.contains("no program \"nothing\""), "{end:?}");
        self.say(&format!("{transport}: outputs, exit codes 0, 1, 3 and 137, stdin to its end, errors"));
        Ok(())
    }

    /// Sizes of a terminal; with one there is no stderr.
    async fn terminal(&self, transport: &str) -> Result<()> {
        let url = self.url(&["until", "132x43"], &["tty", "stdin", "stdout"])?;
        let arguments = ["stream", "--transport", transport, "--tty", "--stdin", "--sizes", "80x24,100x50,132x43"];
        let end = self.client.run(&arguments, &url, b"").await?;
        ensure!(end.code == 0 && end.stdout.ends_with("132x43\n"), "{end:?}");
        self.say(&format!("{transport}: a terminal's sizes"));
        Ok(())
    }

    async fn attach(&self, transport: &str) -> Result<()> {
        let request = AttachRequest { container: "c".to_owned(), tty: false, stdin: true, stdout: true, stderr: false };
        let url = self.server.attach(request)?;
        let end = self.client.run(&["stream", "--transport", transport, "--stdin"], &url, b"hello").await?;
        ensure!((end.code, &*end.stdout) == (0, "attached: hello"), "{end:?}");
        self.say(&format!("{transport}: attach"));
        Ok(())
    }

    async fn many(&self, transport: &str) -> Result<()> {
        let urls: Vec<String> =
            (0..SESSIONS).map(|_| self.url(&["cat"], &["stdin", "stdout"])).collect::<Result<_>>()?;
        let end = self.client.run(&["many", "--transport", transport], "", urls.join("\n").as_bytes()).await?;
        ensure!(end.code == 0, "{}", end.stderr);
        self.say(&format!("{transport}: {SESSIONS} sessions at once"));
        Ok(())
    }

    /// Many connections with a MiB both ways, and one that is refused.
    async fn forward(&self, transport: &str) -> Result<()> {
        let url = || self.server.port_forward(PortForwardRequest { sandbox: "s".to_owned(), ports: Vec::new() });
        let (mut process, port) = self.client.forward(transport, &url()?, backend::ECHO).await?;
        let mut connections = JoinSet::new();
        for number in 0..CONNECTIONS {
            connections.spawn(exchange(port, u8::try_from(number % 256).unwrap_or_default()));
        }
        while let Some(result) = connections.join_next().await {
            result??;
        }
        process.end().await?;
        self.say(&format!("{transport}: {CONNECTIONS} forwarded connections, a MiB both ways each"));
        let (process, port) = self.client.forward(transport, &url()?, backend::REFUSED).await?;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut nothing = Vec::new();
        let _reset = stream.read_to_end(&mut nothing).await;
        let said = process.lost().await?;
        ensure!(nothing.is_empty() && said.contains("connection refused"), "{nothing:?} {said}");
        self.say(&format!("{transport}: a refused port is named"));
        Ok(())
    }

    /// Clients that are killed while their program reads, and while it writes.
    async fn killed(&self, transport: &str) -> Result<()> {
        let before = self.programs.inside();
        let mut clients = Vec::new();
        for number in 0..KILLED {
            let command: &[&str] = if number % 2 == 0 { &["cat"] } else { &["zeros", "100000000000"] };
            let url = self.url(command, &["stdin", "stdout"])?;
            clients.push(self.client.start(&["stream", "--transport", transport, "--stdin"], &url)?);
        }
        wait("the programs to run", || self.programs.inside() == before + KILLED).await?;
        for client in &mut clients {
            client.kill().await?;
        }
        wait("the programs to end", || self.programs.inside() == before).await?;
        self.say(&format!("{transport}: {KILLED} killed clients leave nothing"));
        Ok(())
    }

    /// Versions 1 to 3: an exit code is words. Version 1 does not wait for them.
    async fn old_versions(&self) -> Result<()> {
        for (transport, protocols) in [
            ("spdy", "v5.channel.k8s.io,v4.channel.k8s.io"),
            ("spdy", "v3.channel.k8s.io"),
            ("spdy", "v2.channel.k8s.io"),
            ("spdy", "channel.k8s.io"),
            ("websocket", "v4.channel.k8s.io"),
            ("websocket", "channel.k8s.io"),
        ] {
            let arguments = ["stream", "--transport", transport, "--protocols", protocols, "--stderr"];
            let url = self.url(&["say", "out", "err"], &["stdout", "stderr"])?;
            let end = self.client.run(&arguments, &url, b"").await?;
            ensure!((end.code, &*end.stdout, &*end.stderr) == (0, "out", "err"), "{transport} {protocols}: {end:?}");
            let url = self.url(&["exit", "7"], &["stdout", "stderr"])?;
            let end = self.client.run(&arguments, &url, b"").await?;
            let right = match protocols {
                "channel.k8s.io" => true,
                "v2.channel.k8s.io" | "v3.channel.k8s.io" => end.stderr.contains("non-zero exit code: 7"),
                _ => end.code == 7,
            };
            ensure!(right, "{transport} {protocols}: {end:?}");
        }
        self.say("versions 1 to 5 by SPDY, 1 and 4 by WebSocket");
        Ok(())
    }

    async fn settled(&self, tasks: usize) -> Result<()> {
        wait("no call and no task to be left", || {
            self.programs.inside() == 0 && Handle::current().metrics().num_alive_tasks() <= tasks
        })
        .await?;
        self.say("nothing is left");
        Ok(())
    }
}

/// Sends a MiB of `byte` over a forwarded port that echoes, and wants it back.
async fn exchange(port: u16, byte: u8) -> Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        write.write_all(&vec![byte; MEBIBYTE]).await?;
        write.shutdown().await
    });
    let mut back = Vec::new();
    read.read_to_end(&mut back).await?;
    sending.await??;
    ensure!(back.len() == MEBIBYTE && back.iter().all(|found| *found == byte), "{} bytes came back", back.len());
    Ok(())
}

/// Asks until it is so, for a minute.
async fn wait(what: &str, so: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !so() {
        ensure!(start.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

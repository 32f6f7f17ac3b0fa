//! Programs that need no container.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use berth_stream::{AttachRequest, Backend, ExecRequest, Failure, Reader, Streams, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

/// A port that sends back what comes.
pub(super) const ECHO: u16 = 7;
/// A port where nobody listens.
pub(super) const REFUSED: u16 = 1;

/// Counts the calls that are under way.
#[derive(Debug, Default)]
pub(super) struct Programs(AtomicUsize);

struct Call<'a>(&'a Programs);

impl Programs {
    pub(super) fn inside(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn enter(&self) -> Call<'_> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Call(self)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Backend for Programs {
    async fn exec(&self, request: ExecRequest, streams: Streams) -> Result<i32, Failure> {
        let _call = self.enter();
        let words: Vec<&str> = request.command.iter().map(String::as_str).collect();
        let done = match words[..] {
            ["exit", code] => return code.parse().map_err(|_| Failure::new("not a number")),
            ["say", out, err] => say(streams, out, err).await,
            ["cat"] => cat(streams).await,
            ["zeros", count] => zeros(streams, count.parse().unwrap_or_default()).await,
            ["until", size] => until(streams, size).await,
            _ => return Err(Failure::new(format!("no program {:?}", words.first().unwrap_or(&"")))),
        };
        // What a signal that ends a program with a closed output gives.
        Ok(if done.is_ok() { 0 } else { 128 + 13 })
    }

    async fn attach(&self, _: AttachRequest, mut streams: Streams) -> Result<(), Failure> {
        let _call = self.enter();
        let gone = |error: std::io::Error| Failure::new(error.to_string());
        if let Some(stdout) = &mut streams.stdout {
            stdout.write_all(b"attached: ").await.map_err(gone)?;
        }
        cat(streams).await.map_err(gone)
    }

    async fn port_forward(&self, _: &str, port: u16, connection: (Reader, Writer)) -> Result<(), Failure> {
        let _call = self.enter();
        if port != ECHO {
            return Err(Failure::new("connection refused"));
        }
        let (mut reader, mut writer) = connection;
        let _gone = copy(&mut reader, &mut writer).await;
        Ok(())
    }
}

async fn say(streams: Streams, out: &str, err: &str) -> std::io::Result<()> {
    for (stream, text) in [(streams.stdout, out), (streams.stderr, err)] {
        if let Some(mut stream) = stream {
            stream.write_all(text.as_bytes()).await?;
        }
    }
    Ok(())
}

async fn cat(streams: Streams) -> std::io::Result<()> {
    if let (Some(mut stdin), Some(mut stdout)) = (streams.stdin, streams.stdout) {
        copy(&mut stdin, &mut stdout).await?;
    }
    Ok(())
}

async fn zeros(streams: Streams, count: u64) -> std::io::Result<()> {
    if let Some(mut stdout) = streams.stdout {
        copy(&mut tokio::io::repeat(b'0').take(count), &mut stdout).await?;
    }
    Ok(())
}

/// Says every size of the terminal until the one named.
async fn until(streams: Streams, last: &str) -> std::io::Result<()> {
    if let (Some(mut sizes), Some(mut stdout)) = (streams.resize, streams.stdout) {
        while let Some(size) = sizes.recv().await {
            let text = format!("{}x{}", size.width, size.height);
            stdout.write_all(format!("{text}\n").as_bytes()).await?;
            if text == last {
                break;
            }
        }
    }
    Ok(())
}

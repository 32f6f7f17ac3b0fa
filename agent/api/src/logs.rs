//! Container logs, read from the files that the runtime writes.
//!
//! A line of a CRI log is `RFC3339NANO stdout|stderr F|P CONTENT`; `P` says that the line goes on in the next record.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use k8s_openapi::jiff::Timestamp;
use rustix::fs::inotify;
use tokio::fs::File;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use crate::Host;

mod options;

pub(crate) use options::{Options, Which};

/// A runtime writes records of 16 KiB; what is longer than this is no record.
const LONGEST_RECORD: u64 = 256 << 10;
/// How much is read at once while looking for the last lines.
const BLOCK: u64 = 64 << 10;
/// How often a followed container is looked at; what it writes is seen at once.
const LOOK: Duration = Duration::from_millis(500);

/// Whose log.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) path: PathBuf,
}

/// Opens the log and streams what `options` choose. With `follow` the stream ends when the container has.
pub(crate) async fn stream(
    source: Source,
    options: Options,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let mut file = File::open(&source.path).await?;
    if let Some(lines) = options.tail_lines {
        let start = tail_start(&mut file, lines).await?;
        file.seek(io::SeekFrom::Start(start)).await?;
    }
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        if let Err(error) = send(file, &source, &options, &sender).await {
            // Nobody listening is fine.
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok(futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    }))
}

async fn send(file: File, source: &Source, options: &Options, out: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut writer = Writer { options, left: options.limit_bytes, new_line: true, buffer: Vec::new() };
    let follow = options.follow && !options.previous;
    // Watch before reading, so that nothing written between is missed.
    let watch = if follow { Some(Watch::new(source)?) } else { None };
    let mut record = Vec::new();
    // The rest of something too long to be a record is coming.
    let mut oversized = false;
    loop {
        let ended = follow && !is_current(source);
        loop {
            let room = LONGEST_RECORD - record.len() as u64;
            (&mut reader).take(room).read_until(b'\n', &mut record).await?;
            if !record.ends_with(b"\n") {
                if (record.len() as u64) < LONGEST_RECORD {
                    break;
                }
                oversized = true;
                record.clear();
                continue;
            }
            if std::mem::take(&mut oversized) {
                record.clear();
                continue;
            }
            let more = writer.write(&record);
            record.clear();
            let send = !more || writer.buffer.len() >= 32 << 10;
            if send && (out.send(Ok(writer.take())).await.is_err() || !more) {
                return Ok(());
            }
        }
        if !writer.buffer.is_empty() && out.send(Ok(writer.take())).await.is_err() {
            return Ok(());
        }
        match &watch {
            // The end was seen before the last read: everything has been read.
            Some(watch) if !ended => {
                tokio::select! {
                    () = watch.wait() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    () = out.closed() => return Ok(()),
                }
            }
            _ => return Ok(()),
        }
    }
}

/// Whether the container still runs and still writes to this file.
fn is_current(source: &Source) -> bool {
    let Source { host, namespace, pod, container, path } = source;
    host.is_running(namespace, pod, container)
        && host.log_path(namespace, pod, container, false).is_ok_and(|current| current == *path)
}

/// Hears when a file grows.
struct Watch(AsyncFd<rustix::fd::OwnedFd>);

impl Watch {
    fn new(source: &Source) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, &source.path, inotify::WatchFlags::MODIFY)?;
        #[expect(deprecated, reason = "unsound for types that swap their descriptor; an OwnedFd does not")]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    async fn wait(&self) {
        let Ok(mut guard) = self.0.readable().await else { return std::future::pending().await };
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
        let mut reader = inotify::Reader::new(self.0.get_ref(), &mut buffer);
        while reader.next().is_ok() {}
        guard.clear_ready();
    }
}

/// Turns records into what the caller wants.
struct Writer<'a> {
    options: &'a Options,
    left: Option<usize>,
    new_line: bool,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    /// Whether anything may follow.
    fn write(&mut self, record: &[u8]) -> bool {
        let Some((time, which, whole, content)) = parse(record) else { return true };
        if self.options.stream.is_some_and(|wanted| wanted != which) {
            return true;
        }
        if self.options.since.is_some_and(|since| time.parse::<Timestamp>().is_ok_and(|at| at < since)) {
            return true;
        }
        if self.options.timestamps && self.new_line {
            self.push(time.as_bytes());
            self.push(b" ");
        }
        self.push(content);
        if whole {
            self.push(b"\n");
        }
        self.new_line = whole;
        self.left != Some(0)
    }

    fn push(&mut self, bytes: &[u8]) {
        let fits = self.left.map_or(bytes.len(), |left| left.min(bytes.len()));
        self.buffer.extend_from_slice(&bytes[..fits]);
        if let Some(left) = &mut self.left {
            *left -= fits;
        }
    }

    fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.buffer))
    }
}

/// Time, stream, whether the line ends here, content. `None` when it is no record.
fn parse(record: &[u8]) -> Option<(&str, Which, bool, &[u8])> {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    let mut parts = record.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let which = match parts.next()? {
        b"stdout" => Which::Stdout,
        b"stderr" => Which::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; the first one tells.
    let whole = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some((time, which, whole, parts.next().unwrap_or_default()))
}

/// Where the last `lines` records begin.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(io::SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    let mut seen = 0;
    let mut at = end;
    let mut block = Vec::new();
    while at > 0 {
        let from = at.saturating_sub(BLOCK);
        file.seek(io::SeekFrom::Start(from)).await?;
        block.clear();
        (&mut *file).take(at - from).read_to_end(&mut block).await?;
        for (index, byte) in block.iter().enumerate().rev() {
            let behind = from + index as u64 + 1;
            // The newline at the very end closes the last record.
            if *byte == b'\n' && behind != end {
                seen += 1;
                if seen == lines {
                    return Ok(behind);
                }
            }
        }
        at = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;

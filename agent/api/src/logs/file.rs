//! Reading a log file to its end, and on while its container runs.

use std::io::SeekFrom;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use rustix::fs::inotify;
use tokio::fs::File;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::line::Writer;
use super::options::LogOptions;

/// How much is read, and at most sent, at once.
const CHUNK: usize = 32 * 1024;
/// A record is at most 16 KiB and its head; what is longer is no record, and is dropped up to its end.
const LONGEST: usize = 64 * 1024;
/// A container's end is not written to its log: it is looked for this often while a log is followed.
const LOOK: Duration = Duration::from_millis(250);

/// What the client gets, in chunks. With `follow` it ends once `running` says no and everything was read.
///
/// # Errors
/// When the file can't be opened or read the first time.
pub(crate) async fn stream(
    path: &Path,
    options: LogOptions,
    running: impl Fn() -> bool + Send + Sync + 'static,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let mut file = File::open(path).await?;
    if let Some(tail) = options.tail {
        let start = tail_start(&mut file, tail).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    let watch = if options.follow { Some(watch(path)?) } else { None };
    let reader = Reader {
        path: path.to_owned(),
        file,
        options,
        watch,
        running: Box::new(running),
        writer: Writer::default(),
        pending: Vec::new(),
        skipping: false,
        done: false,
    };
    Ok(stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((item, reader))
    }))
}

struct Reader {
    path: PathBuf,
    file: File,
    options: LogOptions,
    watch: Option<AsyncFd<OwnedFd>>,
    running: Box<dyn Fn() -> bool + Send + Sync>,
    writer: Writer,
    /// The beginning of a record whose end was not there yet.
    pending: Vec<u8>,
    /// Inside a record that is too long.
    skipping: bool,
    done: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        while !self.done {
            // Asked before reading: what a container wrote before it ended is then surely read.
            let running = self.watch.is_some() && (self.running)();
            let mut chunk = vec![0; CHUNK];
            let count = match self.file.read(&mut chunk).await {
                Ok(count) => count,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            };
            if count > 0 {
                let out = self.records(&chunk[..count]);
                if !out.is_empty() {
                    return Some(Ok(Bytes::from(out)));
                }
                continue;
            }
            if self.reopen_rotated().await {
                continue;
            }
            if !running {
                return None;
            }
            self.wait().await;
        }
        None
    }

    /// Shows the whole records of `pending` and `chunk`, and keeps the rest.
    fn records(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            if !self.skipping {
                self.pending.extend_from_slice(piece);
            }
            if ends {
                if !self.skipping && !self.writer.write(&self.pending, &self.options, &mut out) {
                    self.done = true;
                    break;
                }
                self.pending.clear();
                self.skipping = false;
            } else if self.pending.len() > LONGEST {
                self.pending.clear();
                self.skipping = true;
            }
        }
        out
    }

    /// Whether a new file stands at the path: then it is read from its start.
    async fn reopen_rotated(&mut self) -> bool {
        if self.watch.is_none() {
            return false;
        }
        let (Ok(open), Ok(now)) = (self.file.metadata().await, fs::metadata(&self.path)) else { return false };
        if (open.dev(), open.ino()) == (now.dev(), now.ino()) {
            return false;
        }
        match File::open(&self.path).await {
            Ok(file) => {
                self.file = file;
                self.pending.clear();
                true
            }
            Err(_) => false,
        }
    }

    /// Until something happens in the log's folder, or it is time to look whether the container still runs.
    async fn wait(&self) {
        let Some(watch) = &self.watch else { return };
        if let Ok(Ok(mut guard)) = tokio::time::timeout(LOOK, watch.readable()).await {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(watch.get_ref(), &mut buffer);
            while events.next().is_ok() {}
            guard.clear_ready();
        }
    }
}

/// Watches the folder, which sees writes and rotations alike.
fn watch(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    inotify::add_watch(&watch, folder, inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
    #[expect(deprecated, reason = "unsound for types that swap their descriptor; an OwnedFd does not")]
    AsyncFd::new(watch)
}

/// Where the last `lines` records begin, read backwards in blocks.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    let mut position = end;
    let mut found = 0;
    let mut block = vec![0; CHUNK];
    while position > 0 {
        let size = position.min(CHUNK as u64);
        position -= size;
        let block = &mut block[..usize::try_from(size).unwrap_or(CHUNK)];
        file.seek(SeekFrom::Start(position)).await?;
        file.read_exact(block).await?;
        for (offset, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = position + offset as u64 + 1;
            // The newline that ends the file ends its last record and begins none.
            if after == end {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(after);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::StreamExt;

    use super::*;

    fn record(text: &str) -> String {
        format!("2026-11-24T04:00:00.000000001Z stdout F {text}\n")
    }

    async fn collect(path: &Path, options: LogOptions) -> String {
        let stream = stream(path, options, || false).await.expect("opened");
        let chunks: Vec<_> = stream.map(|chunk| chunk.expect("read")).collect().await;
        String::from_utf8(chunks.concat()).expect("text")
    }

    #[tokio::test]
    async fn the_tail_is_found_in_any_block() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("0.log");
        // More than one block, so that a record spans two.
        let lines: Vec<String> = (0..2000).map(|n| format!("line {n}")).collect();
        fs::write(&path, lines.iter().map(|l| record(l)).collect::<String>()).expect("written");
        for tail in [0, 1, 3, 700, 2000, 5000] {
            let got = collect(&path, LogOptions { tail: Some(tail), ..LogOptions::default() }).await;
            let skip = lines.len().saturating_sub(usize::try_from(tail).expect("small"));
            let want: String = lines[skip..].iter().map(|l| format!("{l}\n")).collect();
            assert_eq!(got, want, "tail {tail}");
        }
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_through_rotation_and_ends_with_its_container() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("0.log");
        fs::write(&path, record("one")).expect("written");
        let running = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&running);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let stream = stream(&path, options, move || asked.load(Ordering::SeqCst)).await.expect("opened");
        let mut stream = Box::pin(stream);
        assert_eq!(stream.next().await.expect("chunk").expect("read"), "one\n");
        let mut file = fs::File::options().append(true).open(&path).expect("append");
        file.write_all(record("two").as_bytes()).expect("written");
        assert_eq!(stream.next().await.expect("chunk").expect("read"), "two\n");
        fs::rename(&path, folder.path().join("0.log.1")).expect("rotated");
        fs::write(&path, record("three")).expect("written");
        assert_eq!(stream.next().await.expect("chunk").expect("read"), "three\n");
        running.store(false, Ordering::SeqCst);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn an_endless_line_is_bounded_and_passed_over() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("0.log");
        let mut bytes = vec![b'x'; 300_000];
        bytes.extend_from_slice(b"\n");
        bytes.extend_from_slice(record("after").as_bytes());
        fs::write(&path, bytes).expect("written");
        assert_eq!(collect(&path, LogOptions::default()).await, "after\n");
    }
}

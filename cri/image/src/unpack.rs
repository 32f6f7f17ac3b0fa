//! Applying a layer's archive to a folder, in a child that can reach nothing else.
//!
//! The parent (here) streams: it hashes what came from the registry, decompresses, hashes that, and writes it to the
//! child's standard input. The child ([`child`], run by the hidden `berth unpack`) has the target folder as its root,
//! no network, few capabilities and few system calls; it answers on its standard output with a [`Report`]. What only a
//! fully privileged process can do (`trusted.` attributes) the parent does afterwards, on descriptors below the folder.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use berth_guard::Guard;

use crate::decompress;
use crate::digest::{Digest, HashingReader};
use crate::error::PullError;

mod apply;
mod child;
mod confine;
mod entry;
mod filter;
mod finish;
mod report;

pub use child::child;
pub(crate) use finish::finish;
pub use report::Report;
use report::{Answer, REPORT_LIMIT};

/// The program that is run as the child, and its arguments.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Default for Program {
    /// This program itself, as `berth unpack`.
    fn default() -> Self {
        Self { path: "/proc/self/exe".into(), args: vec!["unpack".into()] }
    }
}

/// Bounds of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of its archive.
    pub entries: u64,
    /// Bytes of its archive, unpacked.
    pub bytes: u64,
    /// Unpacked bytes per compressed byte, beyond the first [`Limits::free_bytes`].
    pub ratio: u64,
    /// Unpacked bytes for which the ratio is not looked at.
    pub free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 2_000_000, bytes: 64 << 30, ratio: 200, free_bytes: 1 << 30 }
    }
}

impl Limits {
    /// How many unpacked bytes a layer of `compressed` bytes may have.
    fn bytes_for(&self, compressed: u64) -> u64 {
        if !Guard::RatioBounded.stands() {
            return u64::MAX;
        }
        self.bytes.min(compressed.saturating_mul(self.ratio).max(self.free_bytes))
    }
}

/// What a layer must turn out to be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Digest and size of what is downloaded.
    pub(crate) blob: Digest,
    pub(crate) size: u64,
    /// Digest of the archive in it.
    pub(crate) diff_id: Digest,
}

/// Streams `input` through all checks into `target`, which must be an empty folder. On error what was applied so far is
/// left for the caller to throw away.
pub(crate) fn unpack(
    program: &Program,
    limits: &Limits,
    expected: &Expected,
    target: &Path,
    input: impl Read,
) -> Result<Report, PullError> {
    let layer = expected.blob.to_string();
    let fail = |error: &io::Error| failure(&layer, target, error);
    let limit = limits.bytes_for(expected.size);
    let mut running = Running::start(program, limits, limit, target).map_err(|error| fail(&error))?;

    let mut compressed = HashingReader::new(input, &expected.blob);
    let streamed = stream(&mut compressed, expected, &mut running, limit);
    // Whatever went wrong, a download that broke off or differs explains it: that is named first.
    let (blob, size) = compressed.finish().map_err(|error| fail(&error))?;
    if blob != expected.blob || size != expected.size {
        return Err(PullError::DigestMismatch {
            what: format!("layer {layer}"),
            expected: format!("{} ({} bytes)", expected.blob, expected.size),
            actual: format!("{blob} ({size} bytes)"),
        });
    }
    match streamed.map_err(|error| fail(&error))? {
        Some(diff_id) if diff_id == expected.diff_id => running.answer(&layer, target),
        Some(diff_id) => Err(PullError::DigestMismatch {
            what: format!("content of layer {layer}"),
            expected: expected.diff_id.to_string(),
            actual: diff_id.to_string(),
        }),
        // The child has stopped reading: its answer says why.
        None => running.answer(&layer, target).and_then(|_| Err(bad(&layer, "the unpacker stopped early"))),
    }
}

/// Decompresses to the child. Returns the archive's digest, or none when the child would not take all of it.
fn stream(compressed: impl Read, expected: &Expected, running: &mut Running, limit: u64) -> io::Result<Option<Digest>> {
    let mut plain = HashingReader::new(decompress::reader(compressed)?, &expected.diff_id);
    match send(&mut plain, running, limit) {
        Ok(()) => Ok(Some(plain.finish()?.0)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        Err(error) => Err(error),
    }
}

fn send(plain: &mut impl Read, running: &mut Running, limit: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0u64;
    loop {
        let length = match plain.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += length as u64;
        if total > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("unpacks to more than {limit} bytes")));
        }
        running.input()?.write_all(&buffer[..length])?;
    }
    running.input = None;
    Ok(())
}

/// A child at work; killed when dropped before it answered.
#[derive(Debug)]
struct Running {
    child: Child,
    input: Option<File>,
}

impl Running {
    fn start(program: &Program, limits: &Limits, bytes: u64, target: &Path) -> io::Result<Self> {
        let folder = File::open(target)?;
        let mut child = Command::new(&program.path)
            .args(&program.args)
            .env_clear()
            .envs(berth_guard::environment())
            // By descriptor: what the path names may change, the folder we opened can't. The child's copies of our
            // descriptors are closed at exec, which comes after.
            .current_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().map(|pipe| File::from(std::os::fd::OwnedFd::from(pipe)));
        let mut running = Self { child, input };
        // Fewer switches between the two; a refusal (fs.pipe-max-size) costs only speed.
        let _ = rustix::pipe::fcntl_setpipe_size(running.input()?, 1 << 20);
        let mut header = [0; 16];
        header[..8].copy_from_slice(&limits.entries.to_le_bytes());
        header[8..].copy_from_slice(&bytes.to_le_bytes());
        running.input()?.write_all(&header)?;
        Ok(running)
    }

    fn input(&mut self) -> io::Result<&mut File> {
        self.input.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Closes the child's input and returns its answer.
    fn answer(mut self, layer: &str, target: &Path) -> Result<Report, PullError> {
        self.input = None;
        let mut bytes = Vec::new();
        if let Some(output) = self.child.stdout.take() {
            let read = output.take(REPORT_LIMIT + 1).read_to_end(&mut bytes);
            read.map_err(|error| bad(layer, &format!("the unpacker's answer: {error}")))?;
        }
        let ended = |status: io::Result<ExitStatus>| match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if bytes.len() as u64 > REPORT_LIMIT {
            return Err(bad(layer, "the unpacker's answer is too long"));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Answer::Done(report)) => {
                let status = ended(self.child.wait());
                if status == "exit status: 0" { Ok(report) } else { Err(bad(layer, &format!("unpacker: {status}"))) }
            }
            Ok(Answer::Refused { reason }) => Err(bad(layer, &reason)),
            Ok(Answer::Failed { reason, disk_full: true }) => {
                tracing::debug!(layer, reason, "no space left");
                Err(PullError::DiskFull { what: format!("layer {layer}"), path: target.into() })
            }
            Ok(Answer::Failed { reason, disk_full: false }) => {
                Err(PullError::Store(format!("layer {layer}: {reason}")))
            }
            Err(_) => Err(bad(layer, &format!("the unpacker died: {}", ended(self.child.wait())))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.input = None;
        // It has ended already where it answered; then both calls only collect it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bad(layer: &str, reason: &str) -> PullError {
    PullError::BadLayer { layer: layer.to_owned(), reason: reason.to_owned() }
}

/// The pull's error for a failure in the stream: what the download said, a bomb, damage, or the disk.
fn failure(layer: &str, target: &Path, error: &io::Error) -> PullError {
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<PullError>()) {
        return inner.clone();
    }
    match error.kind() {
        io::ErrorKind::FileTooLarge => {
            PullError::TooLarge { what: format!("layer {layer}"), detail: error.to_string() }
        }
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::Other => bad(layer, &format!("damaged: {error}")),
        _ => PullError::from_io(&format!("layer {layer}"), target, error),
    }
}

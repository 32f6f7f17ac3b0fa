//! The child's side: what `berth unpack` runs.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use berth_guard::Guard;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::apply::{Applier, Refusal};
use super::confine::confine;
use super::report::Answer;

/// Applies the archive on standard input (after 16 bytes: the limits of entries and of bytes, little-endian) to the
/// working folder, confined to it, and writes the answer to standard output. For the hidden `berth unpack` only: the
/// process must have one thread, and keeps nothing of what it could do before.
pub fn child() -> ExitCode {
    let answer = match run() {
        Ok(answer) => answer,
        Err(reason) => Answer::Failed { reason, disk_full: false },
    };
    let done = matches!(answer, Answer::Done(_));
    let written = serde_json::to_vec(&answer)
        .map_err(io::Error::from)
        .and_then(|bytes| io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush()));
    if done && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run() -> Result<Answer, String> {
    berth_sys::fd::close_inherited().map_err(|error| format!("descriptors: {error}"))?;
    let _held = hold().map_err(|error| format!("folder: {error}"))?;
    let mut input = BufReader::with_capacity(256 << 10, standard_input().map_err(|error| format!("input: {error}"))?);
    let mut header = [0; 16];
    input.read_exact(&mut header).map_err(|error| format!("limits: {error}"))?;
    let (entries, bytes) = header.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (entries, bytes) = (number(entries), number(bytes));
    confine(bytes)?;
    // openat, not open: that is the one the filter lets through.
    let root = if Guard::UnpackerPivots.stands() { "/" } else { "." };
    let root = openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|error| format!("root: {error}"))?;
    let applied = Applier::new(root, entries, bytes).apply(&mut input);
    Ok(match applied {
        // The parent hashes what follows the archive as well, so it must be taken.
        Ok(report) => match io::copy(&mut input, &mut io::sink()) {
            Ok(_) => Answer::Done(report),
            Err(error) => Answer::Failed { reason: format!("input: {error}"), disk_full: false },
        },
        Err(Refusal::Archive(reason)) => Answer::Refused { reason },
        Err(Refusal::Io(reason, error)) => {
            let disk_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            Answer::Failed { reason: format!("{reason}: {error}"), disk_full }
        }
    })
}

/// Holds the folder locked as long as this process lives: should the parent die, who cleans up waits for us, and who has
/// cleaned up already does not find us in there.
fn hold() -> io::Result<File> {
    let folder = File::open(".")?;
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockShared)?;
    Ok(folder)
}

/// Standard input without the library's small buffer around it.
fn standard_input() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

//! Plugins of others: exec'd, with the call in the environment and on standard input (SPEC 1.1, section 3).
//!
//! Standard input is a file, not a pipe: the plugin gets its whole configuration even when we die before it reads. Where
//! the caller recovers from crashes, that file lies in a folder and is locked for as long as the plugin, or any child
//! that inherited it, runs; [`wait_for_orphans`] waits for such locks before anything is undone under a plugin's feet.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde_json::Value;

use crate::{CniError, CniResult, Command, Plugins, Request, Version, code};

/// More than this on standard output is no result. Of standard error only the beginning is kept.
const LARGEST_OUTPUT: usize = 1 << 20;
const KEPT_STDERR: usize = 16 << 10;

/// What a plugin that ended has said.
struct Outcome {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

pub(crate) fn call(plugins: &Plugins, kind: &str, request: &Request) -> Result<Option<CniResult>, CniError> {
    let program = find(&plugins.bin_dirs, kind)?;
    let input = stdin_of(request)?;
    let outcome = berth_effect::run("cni-plugin-exec", || run(plugins, &program, request, &input))?;
    answer(kind, request, &outcome)
}

/// Waits until no plugin that an earlier life of this program exec'd is running, and clears the folder they were noted
/// in. Call it before undoing what that life began.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] when a plugin outlasts `timeout`; otherwise what the file system answers.
pub fn wait_for_orphans(running_dir: &Path, timeout: Duration) -> io::Result<()> {
    let listing = match fs::read_dir(running_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listing => listing?,
    };
    let deadline = Instant::now() + timeout;
    for entry in listing {
        let path = entry?.path();
        let file = File::open(&path)?;
        // flock has no timeout of its own, and this runs once per start.
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the plugin noted in {} is still running", path.display()),
                ));
            }
            thread::sleep(Duration::from_millis(5));
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}

fn find(bin_dirs: &[PathBuf], kind: &str) -> Result<PathBuf, CniError> {
    let safe = !kind.is_empty() && !kind.contains('/') && kind != "." && kind != "..";
    let found = bin_dirs.iter().map(|dir| dir.join(kind)).find(|path| safe && path.is_file());
    found.ok_or_else(|| {
        let dirs = bin_dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ");
        CniError::new(code::GENERIC, format!("there is no plugin \"{kind}\" in [{dirs}]"))
    })
}

/// The configuration as the plugin reads it.
fn stdin_of(request: &Request) -> Result<Vec<u8>, CniError> {
    let mut config = request.config.clone();
    if let Some(result) = &request.prev_result {
        let value = result.to_value(request.cni_version).map_err(|error| CniError::decode("prevResult", error))?;
        config.insert("prevResult".to_owned(), value);
    }
    serde_json::to_vec(&config).map_err(|error| CniError::decode("configuration", error))
}

fn run(plugins: &Plugins, program: &Path, request: &Request, input: &[u8]) -> Result<Outcome, CniError> {
    let failed = |error: io::Error| CniError::io(format!("plugin {}", program.display()), error);
    let input = Input::new(plugins.running_dir.as_deref(), input).map_err(failed)?;
    let paths = std::env::join_paths(&plugins.bin_dirs)
        .map_err(|error| CniError::new(code::INVALID_ENVIRONMENT, format!("CNI_PATH: {error}")))?;
    let mut child = std::process::Command::new(program)
        .env("CNI_COMMAND", request.command.as_str())
        .env("CNI_CONTAINERID", &request.container_id)
        .env("CNI_NETNS", request.netns.as_deref().unwrap_or(Path::new("")))
        .env("CNI_IFNAME", &request.ifname)
        .env("CNI_ARGS", &request.args)
        .env("CNI_PATH", paths)
        .stdin(Stdio::from(input.file.try_clone().map_err(failed)?))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that on a timeout its children go with it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let outcome = collect(&mut child, plugins.timeout);
    if outcome.is_err() {
        kill(&mut child);
    }
    let outcome = outcome.map_err(failed)?;
    outcome.ok_or_else(|| {
        let seconds = plugins.timeout.as_secs_f32();
        CniError::new(code::TRY_AGAIN, format!("plugin {} was killed after {seconds} s", program.display()))
    })
}

/// Reads what the child writes until it ends. `None`: it was killed for taking too long.
fn collect(child: &mut Child, timeout: Duration) -> io::Result<Option<Outcome>> {
    let deadline = Instant::now() + timeout;
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut stdout = Stream::new(child.stdout.take().map(OwnedFd::from), LARGEST_OUTPUT)?;
    let mut stderr = Stream::new(child.stderr.take().map(OwnedFd::from), KEPT_STDERR)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            kill(child);
            return Ok(None);
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
        fds.extend(
            [&stdout, &stderr]
                .into_iter()
                .filter_map(|stream| stream.pipe.as_ref())
                .map(|pipe| PollFd::new(pipe, PollFlags::IN)),
        );
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let exited = !fds[0].revents().is_empty();
        stdout.drain()?;
        stderr.drain()?;
        // A child of the plugin may hold the pipes open for long: what was written until the plugin ended counts.
        if exited {
            return Ok(Some(Outcome { status: child.wait()?, stdout: stdout.read, stderr: stderr.read }));
        }
    }
}

fn kill(child: &mut Child) {
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.wait();
}

fn answer(kind: &str, request: &Request, outcome: &Outcome) -> Result<Option<CniResult>, CniError> {
    if !outcome.status.success() {
        return Err(serde_json::from_slice(&outcome.stdout).unwrap_or_else(|_| {
            let said = String::from_utf8_lossy(&outcome.stderr);
            CniError::new(code::GENERIC, format!("{kind} failed ({}): {}", outcome.status, said.trim()))
        }));
    }
    if !outcome.stderr.is_empty() {
        tracing::debug!(plugin = kind, "{}", String::from_utf8_lossy(&outcome.stderr).trim());
    }
    if request.command != Command::Add || outcome.stdout.is_empty() {
        return Ok(None);
    }
    let unreadable = |error: &dyn std::fmt::Display| CniError::decode(format!("result of plugin {kind}"), error);
    let mut value: Value = serde_json::from_slice(&outcome.stdout).map_err(|error| unreadable(&error))?;
    // Plugins that leave the version out mean the one they were asked in.
    if request.cni_version >= Version::V0_3_0
        && let Some(result) = value.as_object_mut()
        && !result.contains_key("cniVersion")
    {
        result.insert("cniVersion".to_owned(), request.cni_version.to_string().into());
    }
    CniResult::from_value(&value).map(Some).map_err(|error| unreadable(&error))
}

/// The file that becomes standard input.
struct Input {
    file: File,
    noted: Option<PathBuf>,
}

impl Input {
    fn new(running_dir: Option<&Path>, text: &[u8]) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut input = match running_dir {
            None => Self { file: memfd_create("cni-stdin", MemfdFlags::CLOEXEC)?.into(), noted: None },
            Some(dir) => {
                fs::create_dir_all(dir)?;
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let path = dir.join(format!("{}-{number}", std::process::id()));
                let file =
                    File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
                flock(&file, FlockOperation::LockShared)?;
                Self { file, noted: Some(path) }
            }
        };
        input.file.write_all(text)?;
        input.file.rewind()?;
        Ok(input)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(path) = &self.noted {
            let _ = fs::remove_file(path);
        }
    }
}

/// One of the child's output pipes, read without blocking up to a limit; what is beyond is thrown away.
struct Stream {
    pipe: Option<File>,
    read: Vec<u8>,
    limit: usize,
}

impl Stream {
    fn new(pipe: Option<OwnedFd>, limit: usize) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe.as_fd(), true)?;
        }
        Ok(Self { pipe: pipe.map(File::from), read: Vec::new(), limit })
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let room = self.limit - self.read.len();
                    self.read.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

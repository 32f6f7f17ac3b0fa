//! Running a runtime's program for its answer.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use berth_sys::pidfd::PidFd;

/// The most that is read of each of its streams; the rest is read and dropped.
const LIMIT: u64 = 1 << 20;

/// How long its streams may stay open after its end: somebody else holds them then.
const DRAIN: Duration = Duration::from_secs(2);

/// What it printed. The error has its own words where it had some.
pub(crate) fn run(command: &[String], patience: Duration) -> Result<Vec<u8>, String> {
    let (program, arguments) = command.split_first().ok_or("there is no program")?;
    let failed = |error: &dyn std::fmt::Display| format!("{program}: {error}");
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let output = collect(child.stdout.take());
    let words = collect(child.stderr.take());
    // Our child and not reaped, so the number is its own.
    let pid = i32::try_from(child.id()).map_err(|error| failed(&error))?;
    let limit = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let ended = PidFd::open(pid).and_then(|process| process.has_ended(limit)).map_err(|error| failed(&error))?;
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    if !ended {
        return Err(failed(&format!("it did not end within {} s and was killed", patience.as_secs())));
    }
    let output = output.recv_timeout(DRAIN).unwrap_or_default();
    if status.success() {
        return Ok(output);
    }
    let words = words.recv_timeout(DRAIN).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    let last: Vec<&str> = words.trim().lines().rev().take(3).collect();
    let words: Vec<&str> = last.into_iter().rev().collect();
    if words.is_empty() {
        return Err(failed(&status));
    }
    Err(failed(&format!("{status}: {}", words.join("; "))))
}

fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(LIMIT).read_to_end(&mut kept);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        let _ = sender.send(kept);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: Duration) -> Result<Vec<u8>, String> {
        run(&["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()], patience)
    }

    #[test]
    fn an_answer_or_a_reason_comes_back() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("echo yes", long), Ok(b"yes\n".to_vec()));
        let error = shell("echo why >&2; exit 3", long).expect_err("it fails");
        assert!(error.contains("/bin/sh") && error.contains('3') && error.contains("why"), "{error}");
        assert_eq!(shell("head -c 3m /dev/zero", long).map(|bytes| bytes.len()), Ok(1 << 20));
        let error = shell("exec sleep 1000", Duration::from_millis(50)).expect_err("it hangs");
        assert!(error.contains("did not end"), "{error}");
        run(&["/no/such".to_owned()], long).expect_err("it is missing");
    }
}

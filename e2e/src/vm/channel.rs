//! Commands for a guest, over a virtio serial port: neither its network nor a daemon of its own has to work, and what is
//! sent before the guest listens is kept by QEMU.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::wait;

/// Starts the line after a command's output that carries its exit status.
const STATUS: &str = "berth-vm: status ";

/// The guest's half: a function for its shell, which ends when the host hangs up. Commands run in that same shell, so
/// that one can wait for what another one started.
pub(super) const GUEST: &str = r#"channel() {
  exec 3<>/dev/vport0p1
  while read -r line <&3; do
    eval "$line" </dev/null >&3 2>&1
    printf '\nberth-vm: status %s\n' "$?" >&3
  done
}
"#;

/// The host's half.
#[derive(Debug)]
pub(super) struct Channel {
    stream: BufReader<UnixStream>,
}

impl Channel {
    /// Connects to the port's socket, which QEMU makes soon after its start.
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = wait::until("QEMU listens", Duration::from_secs(20), || Ok(Some(UnixStream::connect(socket)?)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Runs a shell command of one line and returns what it wrote, to stdout and stderr. `limit` is for the time until
    /// it writes something, and for each pause until it ends.
    pub(super) fn run(&mut self, command: &str, limit: Duration) -> Result<String> {
        self.run_telling(command, limit, &mut |_| ())
    }

    /// As [`Channel::run`], and tells each line of the output as it comes.
    pub(super) fn run_telling(&mut self, command: &str, limit: Duration, tell: &mut dyn FnMut(&str)) -> Result<String> {
        ensure!(!command.contains('\n'), "a command for the guest is one line: {command:?}");
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        let (output, status) = answer(&mut self.stream, tell).with_context(|| format!("in the guest, {command:?}"))?;
        if status != "0" {
            bail!("in the guest, {command:?} ended with {status}: {}", output.trim_end());
        }
        Ok(output)
    }
}

/// Reads up to a line with a status.
fn answer(stream: &mut impl BufRead, tell: &mut dyn FnMut(&str)) -> Result<(String, String)> {
    let mut output = String::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line)? == 0 {
            bail!("the guest hung up after {output:?}");
        }
        let line = String::from_utf8_lossy(&line);
        if let Some(status) = line.strip_prefix(STATUS) {
            // The newline before it is the channel's, for output that ends without one.
            let output = output.strip_suffix('\n').unwrap_or(&output).to_owned();
            return Ok((output, status.trim().to_owned()));
        }
        tell(line.trim_end());
        output.push_str(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_with_a_status() {
        let read = |text: &str| answer(&mut text.as_bytes(), &mut |_| ());
        assert_eq!(read("a\nb\n\nberth-vm: status 0\nmore").expect("whole"), ("a\nb\n".into(), "0".into()));
        assert_eq!(read("no newline\nberth-vm: status 3\n").expect("whole"), ("no newline".into(), "3".into()));
        assert_eq!(read("\nberth-vm: status 1\n").expect("whole"), (String::new(), "1".into()));
        read("a\nberth-vm: ").expect_err("the guest ended");
    }
}

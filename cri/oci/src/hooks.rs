//! Hooks: programs that are run at certain moments of a container's life (OCI runtime specification, config.md, "POSIX-
//! platform Hooks"), with the container's state on standard input. The first that fails ends the row.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use berth_plan::bundle::Hook;
use berth_plan::message::{Failure, Stage};
use berth_sys::pidfd::PidFd;
use berth_sys::{fd, memfd};

use crate::failure::{At, refused};

/// How much of what a hook says is in an error.
const SHOWN: u64 = 2048;

/// Runs hooks in their order. `kind` is their name in the configuration.
///
/// # Errors
/// The hook that failed, by its place and with what it said.
pub fn run(hooks: &[Hook], kind: &str, state: &str) -> Result<(), Failure> {
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, state).map_err(|mut failure| {
            failure.message = format!("error running {kind} hook #{number}: {}", failure.message);
            failure
        })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &str) -> Result<(), Failure> {
    let act = || format!("run {:?}", hook.path);
    let said = memfd::unsealed("hook").map(File::from).at(Stage::Fork, act)?;
    let stream = || fd::duplicate(&said).map(Stdio::from).at(Stage::Fork, act);
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(Stdio::piped()).stdout(stream()?).stderr(stream()?);
    let mut child = command.spawn().at(Stage::Execve, act)?;
    if let Some(mut input) = child.stdin.take() {
        // Who does not read it has no use for it.
        let _ = input.write_all(state.as_bytes());
    }
    wait(&mut child, hook)?;
    let status = child.wait().at(Stage::Fork, act)?;
    if status.success() {
        return Ok(());
    }
    Err(refused(Stage::Delegate, format!("{status}, output: {}", tail(said))))
}

/// Waits until the hook has ended, or ends it when its time is over.
fn wait(child: &mut Child, hook: &Hook) -> Result<(), Failure> {
    let Some(seconds) = hook.timeout else { return Ok(()) };
    let act = || format!("wait for {:?}", hook.path);
    // Our child and not reaped, so the number is its own.
    let pid = i32::try_from(child.id()).map_err(|_| refused(Stage::Fork, "a process's number is out of range"))?;
    let patience = i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX);
    let ended = PidFd::open(pid).and_then(|process| process.has_ended(patience)).at(Stage::Fork, act)?;
    if ended {
        return Ok(());
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(refused(Stage::Delegate, format!("hook ran past specified timeout of {seconds}s")))
}

fn tail(mut said: File) -> String {
    let length = said.as_fd().try_clone_to_owned().ok().and_then(|fd| File::from(fd).metadata().ok());
    let from = length.map_or(0, |facts| facts.len().saturating_sub(SHOWN));
    let mut bytes = Vec::new();
    let _ = said.seek(SeekFrom::Start(from)).and_then(|_| said.take(SHOWN).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Hook {
        let args = ["hook", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".to_owned(), args, env: vec!["WORD=a=b".to_owned()], timeout: None }
    }

    #[test]
    fn a_hook_gets_its_name_environment_and_state() {
        run(&[shell("read line; test \"$line$0$WORD$HOME\" = statehooka=b")], "prestart", "state\n").expect("it holds");
        let failure = run(&[shell("true"), shell("echo no; exit 3")], "poststop", "").expect_err("it fails");
        assert_eq!(failure.message, "error running poststop hook #1: exit status: 3, output: no");
        run(&[shell("exec <&-")], "prestart", &"x".repeat(1 << 20)).expect("nobody has to read");
    }

    #[test]
    fn time_runs_out() {
        let slow = Hook { timeout: Some(1), ..shell("exec sleep 60") };
        let failure = run(&[slow], "prestart", "").expect_err("too slow");
        assert!(failure.message.ends_with("hook ran past specified timeout of 1s"), "{failure:?}");
        run(&[Hook { timeout: Some(60), ..shell("true") }], "prestart", "").expect("in time");
    }
}

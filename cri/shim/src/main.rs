//! `berth-shim --dir DIR`: one per sandbox, for as long as the sandbox lives. It enters the cgroup that it is told.
//!
//! It holds the sandbox's namespaces, forks its containers and exec'd processes, keeps their standard streams, and writes
//! how they ended to `DIR/exits/` before it tells anybody. It outlives the runtime, which finds it again by
//! `DIR/shim.sock` and asks what it holds ([`berth_plan::message`]).
//!
//! One thread, one loop ([`shim`]), no allocation that grows with time. Whatever can hang is done by others: a container's
//! set-up by its own fork, log writing by a forked [`logger`]. A client that does not read is dropped. Its standard error
//! is `DIR/shim.log`, empty unless something is wrong with the shim itself.
//!
//! SIGTERM, SIGINT and SIGHUP are ignored: a shim leaves when it is asked to (`Shutdown`) or killed.

mod answer;
mod attach;
mod clients;
mod containers;
mod execs;
mod heads;
mod logger;
mod pod;
mod probe;
mod records;
mod sandbox;
mod sessions;
mod shim;
mod startup;

use std::env;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use startup::Options;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    if arguments.as_slice() == ["--version"] {
        println!("berth-shim {} (protocol {})", env!("CARGO_PKG_VERSION"), berth_plan::PROTOCOL);
        return ExitCode::SUCCESS;
    }
    if let [flag, folder] = arguments.as_slice()
        && flag == "--probe"
    {
        return match probe::user_namespaces(folder.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if arguments.as_slice() == ["--hold"] {
        return hold();
    }
    let Some(options) = options(&arguments) else {
        eprintln!("usage: berth-shim --dir DIR [--tasks FILE]... [--cgroup DIR]");
        return ExitCode::from(2);
    };
    match startup::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for the end of standard input, which comes when the runtime wants it or is gone: a process that keeps a unit of
/// systemd's while nobody else is in it.
fn hold() -> ExitCode {
    let mut input = [0];
    while matches!(io::stdin().read(&mut input), Ok(count) if count > 0) {}
    ExitCode::SUCCESS
}

fn options(arguments: &[OsString]) -> Option<Options> {
    let mut options = Options::default();
    for pair in arguments.chunks(2) {
        let [flag, value] = pair else { return None };
        let value = PathBuf::from(value);
        match flag.to_str()? {
            "--dir" => options.dir = value,
            "--tasks" => options.tasks.push(value),
            "--cgroup" => options.cgroup = Some(value),
            _ => return None,
        }
    }
    (!options.dir.as_os_str().is_empty()).then_some(options)
}

//! `run`: `create` and `start` in one, and by default the wait for its end and `delete`.

use std::fs;
use std::path::Path;

use berth_sys::signal::SignalFd;

use super::delete;
use crate::arguments::{self, Known, Until, flag, value};
use crate::console::Foreground;
use crate::fault::{During, Fault, Outcome};
use crate::global::Global;
use crate::launch::{self, Request};
use crate::{sealed, signals};

const KNOWN: [Known; 9] = [
    value("bundle", "b"),
    value("console-socket", ""),
    value("pid-file", ""),
    flag("detach", "d"),
    flag("keep", ""),
    flag("no-subreaper", ""),
    flag("no-pivot", ""),
    flag("no-new-keyring", ""),
    value("preserve-fds", ""),
];

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &KNOWN, Until::End)?;
    let id = given.id("run")?;
    sealed::ensure()?;
    let detach = given.flag("detach");
    let request = Request { waits: false, stays: !detach, ..Request::of(&given, id)? };
    // Before there is a process to pass them on to, so that none is lost.
    let passed = if detach { None } else { Some(SignalFd::block(&signals::PASSED_ON)) };
    let passed = passed.transpose().during(|| "watch for signals".to_owned())?;
    let mut made = launch::make(global, &request)?;
    if let Err(fault) = made.start() {
        made.embryo.kill();
        delete::destroy(global, &made.folder, &made.record)?;
        return Err(fault);
    }
    let Some(passed) = passed else { return Ok(0) };
    let process = made.embryo.process().during(|| "open the container's process".to_owned())?;
    let terminal = made.terminal.take();
    let ended = Foreground { process: &process, signals: &passed, terminal }.wait()?;
    if !given.flag("keep") {
        delete::destroy(global, &made.folder, &made.record)?;
        if let Some(path) = request.pid_file {
            let _ = fs::remove_file(Path::new(path));
        }
    }
    u8::try_from(ended.code()).map_err(|_| Fault::new(format!("the process ended with {}", ended.code())))
}

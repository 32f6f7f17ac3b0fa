//! `pause` and `resume`.

use crate::arguments::{self, Until};
use crate::fault::{Fault, Outcome};
use crate::global::Global;
use crate::state::{self, Status};
use crate::store::Store;

pub(super) fn pause(global: &Global, own: &[String]) -> Outcome<u8> {
    freeze(global, own, "pause", true)
}

pub(super) fn resume(global: &Global, own: &[String]) -> Outcome<u8> {
    freeze(global, own, "resume", false)
}

fn freeze(global: &Global, own: &[String], command: &str, frozen: bool) -> Outcome<u8> {
    let given = arguments::parse(own, &[], Until::End)?;
    let (folder, record) = Store::new(&global.root).open(given.id(command)?)?;
    match (Status::of(&folder, &record), frozen) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {}
        (status, true) => return Err(Fault::new(format!("container not running or created: {}", status.name()))),
        (_, false) => return Err(Fault::new("container not paused")),
    }
    state::cgroup(&record)?.freeze(frozen)?;
    Ok(0)
}

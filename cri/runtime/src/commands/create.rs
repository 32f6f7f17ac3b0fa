//! `create`.

use crate::arguments::{self, Known, Until, flag, value};
use crate::fault::Outcome;
use crate::global::Global;
use crate::launch::{self, Request};
use crate::sealed;

const KNOWN: [Known; 6] = [
    value("bundle", "b"),
    value("console-socket", ""),
    value("pid-file", ""),
    flag("no-pivot", ""),
    flag("no-new-keyring", ""),
    value("preserve-fds", ""),
];

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &KNOWN, Until::End)?;
    let id = given.id("create")?;
    sealed::ensure()?;
    launch::make(global, &Request { waits: true, stays: false, ..Request::of(&given, id)? })?;
    Ok(0)
}

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
    let request = Request {
        id,
        bundle: given.value("bundle"),
        pid_file: given.value("pid-file"),
        console_socket: given.value("console-socket"),
        no_pivot: given.flag("no-pivot"),
        no_new_keyring: given.flag("no-new-keyring"),
        preserve_fds: given.number("preserve-fds")?.unwrap_or(0),
        waits: true,
        stays: false,
    };
    launch::make(global, &request)?;
    Ok(0)
}

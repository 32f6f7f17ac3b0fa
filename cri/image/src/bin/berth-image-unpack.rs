//! The unpacking child alone. In Berth it is the hidden `berth unpack`; this crate's tests run it as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_image::unpack::child()
}

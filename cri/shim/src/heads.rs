//! The first part of a plan, all that the shim itself looks at.

use std::os::fd::BorrowedFd;

use berth_plan::MAX_HEAD;
use berth_plan::codec::DecodeError;
use berth_plan::message::{Failure, Stage};
use berth_sys::{memfd, wipe};

use crate::answer::{failed, refused};

/// Reads a plan's head. What was read beyond it may be a part of the environment, so it is wiped: no secret stays in the
/// shim's memory.
pub(crate) fn read<T>(plan: BorrowedFd<'_>, decode: fn(&[u8]) -> Result<T, DecodeError>) -> Result<T, Failure> {
    let mut bytes = memfd::read_head(plan, MAX_HEAD).map_err(failed(Stage::Protocol, "read the plan"))?;
    let head = decode(&bytes);
    wipe::bytes(&mut bytes);
    head.map_err(|error| refused(Stage::Protocol, format!("the plan: {error}")))
}

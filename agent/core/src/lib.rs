//! Decides what happens to a pod; does nothing itself.
//!
//! A pod worker hands in what is [`Desired`] and what was [`Seen`], and the time; [`plan()`] answers with the next
//! [`Step`]s and [`status()`] with the pod's status for the API. Outcomes of steps are folded into [`Memory`]. Beside
//! these: the CRI messages that a pod becomes ([`sandbox`], [`container`]), its environment ([`env`]), its cgroup
//! numbers ([`resources`]), its probes ([`probe`]), and the table of every field of a pod, implemented or refused ([`fields`]).
//!
//! Nothing here knows a clock, a file or a future.

pub mod backoff;
pub mod container;
pub mod dns;
pub mod env;
pub mod expansion;
pub mod fields;
pub mod hosts;
pub mod names;
pub mod plan;
pub mod probe;
pub mod pull_secrets;
pub mod qos;
pub mod quantity;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod seen;
pub mod status;
mod time;
pub mod users;

pub use plan::{Desired, Plan, Planned, Rejection, Step, Target, plan};
pub use seen::{Failure, ImageState, Memory, Presence, Seen, SeenContainer, SeenSandbox, State};
pub use status::status;
pub use time::Moment;

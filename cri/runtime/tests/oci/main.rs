//! The lifecycle suite: every case is a story that is played with `berth-oci`, with crun and with runc. It counts as right
//! where a reference plays it too; `berth-oci` must play all. Needs root, cgroups, busybox, crun and runc (Debian's).
//!
//! What only newer references have, or none, is played with `berth-oci` alone ([`check::alone`]), each with the reason.

mod check;
mod stage;

mod attacks;
mod configuration;
mod execs;
mod hooks;
mod lifecycle;
mod limits;
mod mounts;
mod namespaces;
mod process;
mod records;
mod seccomp;
mod streams;

//! The shim as Berth carries it, on this machine's kernel. Needs root and a Debian-like host, whose `/usr` the test
//! containers use read-only.

mod attach;
mod attacks;
mod bench;
mod cgroups;
mod client;
mod containers;
mod execs;
mod hostile;
mod logs;
mod place;
mod pods;
mod protocol;
mod terminals;

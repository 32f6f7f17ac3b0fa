//! The kernel's network configuration, synchronously: links, addresses and routes by rtnetlink, rules by nf_tables.
//!
//! A socket belongs for ever to the network namespace in which it was opened, whatever thread uses it later. Calls block
//! for as long as the kernel's RTNL lock is taken by others, so they are made on threads that can afford that.
//!
//! - [`Route`]: links ([`link`]), addresses and routes
//! - [`nft`]: rules as plain data ([`nft::Batch`]), and the socket that carries them out atomically ([`nft::Nft`])
//! - [`conntrack`]: forgetting connections that new rules would not reach
//! - [`sysctl`]: `/proc/sys/net` of the calling thread's namespace
//!
//! Nothing is exec'd. Errors carry the kernel's own words where it has some (extended acknowledgements).

pub mod conntrack;
pub mod link;
pub mod nft;
pub mod sysctl;

mod address;
mod error;
mod route;
mod socket;

pub use address::{Address, NewRoute};
pub use error::NetError;
pub use link::{Link, Mac, NewVeth};
pub use route::{Change, Route};

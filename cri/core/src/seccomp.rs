//! System call filters: the runtime's default profile, and a compiler from OCI profiles to BPF.
//!
//! A filter is a list of `sock_filter` instructions, eight bytes each in the machine's byte order, as seccomp(2) takes
//! it. The compiler follows libseccomp as runc uses it, including what runc adds: a call newer than every call that a
//! profile names is answered with ENOSYS, so that a libc falls back to an older one instead of giving up at EPERM.
//! Where a call has several rules with conditions, the first that holds counts; libseccomp 2.5 merges such rules into one
//! tree and sometimes answers what no rule says, which is not imitated. For the default profile both give the same answer
//! to every call.

mod bpf;
mod compiler;
mod default;
mod syscalls;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

pub use compiler::{Installation, compile, installation};
pub use default::runtime_default;

use crate::host::Arch;

/// Compiled filters by [`Key`], so that one profile is compiled once in the runtime's life. Clones share the contents.
#[derive(Debug, Clone, Default)]
pub struct Filters(Arc<Mutex<BTreeMap<Key, Arc<[u8]>>>>);

/// What a compiled filter depends on. A profile is kept by its text, not by a hash of it: people write profiles, and two
/// that collide must not share a filter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The runtime's default profile, by the capabilities that it depends on.
    RuntimeDefault { arch: Arch, capabilities: u64 },
    /// A profile of the node, by its JSON text.
    Localhost { text: String },
}

impl Key {
    /// The key of the default profile for a bounding set.
    pub fn runtime_default(arch: Arch, bounding: u64) -> Self {
        Self::RuntimeDefault { arch, capabilities: bounding & default::relevant_capabilities() }
    }
}

/// Profiles change over the runtime's life, so the number of kept filters is bounded.
const KEPT: usize = 64;

impl Filters {
    /// The filter of `key`, compiled with `compile` if it is not known.
    pub fn get<E>(&self, key: Key, compile: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Arc<[u8]>, E> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let filter: Arc<[u8]> = compile()?.into();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, filter.clone());
        Ok(filter)
    }
}

#[cfg(test)]
mod tests;

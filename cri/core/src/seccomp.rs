//! System call filters.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::host::Arch;

/// Compiled filters by [`Key`], so that one profile is compiled once in the runtime's life. Clones share the contents.
#[derive(Debug, Clone, Default)]
pub struct Filters(Arc<Mutex<BTreeMap<Key, Arc<[u8]>>>>);

/// What a compiled filter depends on. A profile is kept by its text, not by a hash of it: pods write profiles, and two
/// that collide must not share a filter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The runtime's default profile for a bounding set.
    RuntimeDefault { arch: Arch, bounding: u64 },
    /// A profile of the node, by its JSON text.
    Localhost { text: String },
}

/// Localhost profiles come from pods, so the number of kept filters is bounded.
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

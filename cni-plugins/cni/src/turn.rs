//! Whose turn it is: one operation at a time on an attachment, and GC alone on its network.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Turns {
    busy: Mutex<HashSet<Key>>,
    ended: Condvar,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Attachment { network: String, container_id: String, ifname: String },
    Network(String),
}

/// Held while the operation runs.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    key: Key,
}

impl Key {
    fn network(&self) -> &str {
        match self {
            Self::Attachment { network, .. } | Self::Network(network) => network,
        }
    }

    /// Whether the two must not run at the same time.
    fn excludes(&self, other: &Self) -> bool {
        self == other
            || (self.network() == other.network()
                && (matches!(self, Self::Network(_)) || matches!(other, Self::Network(_))))
    }
}

impl Turns {
    /// Waits until nothing else runs on the attachment, nor GC on its network.
    pub(crate) fn attachment(&self, network: &str, container_id: &str, ifname: &str) -> Turn<'_> {
        self.take(Key::Attachment {
            network: network.to_owned(),
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        })
    }

    /// Waits until nothing else runs on the network.
    pub(crate) fn network(&self, network: &str) -> Turn<'_> {
        self.take(Key::Network(network.to_owned()))
    }

    fn take(&self, key: Key) -> Turn<'_> {
        let mut busy = self.lock();
        while busy.iter().any(|other| key.excludes(other)) {
            busy = self.ended.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        busy.insert(key.clone());
        Turn { turns: self, key }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.key);
        self.turns.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_excludes_what() {
        let attachment = |network: &str, container_id: &str| Key::Attachment {
            network: network.to_owned(),
            container_id: container_id.to_owned(),
            ifname: "eth0".to_owned(),
        };
        let network = |name: &str| Key::Network(name.to_owned());
        assert!(attachment("n", "a").excludes(&attachment("n", "a")));
        assert!(!attachment("n", "a").excludes(&attachment("n", "b")));
        assert!(attachment("n", "a").excludes(&network("n")));
        assert!(network("n").excludes(&attachment("n", "a")));
        assert!(!network("n").excludes(&attachment("m", "a")));
    }

    #[test]
    fn a_turn_ends_with_its_holder() {
        let turns = Turns::default();
        drop(turns.attachment("n", "a", "eth0"));
        let _again = turns.attachment("n", "a", "eth0");
        let _other = turns.attachment("n", "b", "eth0");
        assert_eq!(turns.lock().len(), 2);
    }
}

//! What is being done to which sandbox or container.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The changes in flight, at most one per id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operations {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What is done, by id.
    running: Mutex<HashMap<String, &'static str>>,
    ended: Notify,
}

/// A change in flight; it ends with the value.
#[derive(Debug)]
pub(crate) struct Operation {
    inner: Arc<Inner>,
    id: String,
}

impl Operations {
    /// Begins `what` on `id`, once what is done to it now has ended.
    pub(crate) async fn begin(&self, id: &str, what: &'static str) -> Operation {
        loop {
            let mut ended = std::pin::pin!(self.inner.ended.notified());
            // From here on no end is missed.
            ended.as_mut().enable();
            if let Some(operation) = self.try_begin(id, what) {
                return operation;
            }
            ended.await;
        }
    }

    /// Begins `what`, unless something is done to `id` now.
    pub(crate) fn try_begin(&self, id: &str, what: &'static str) -> Option<Operation> {
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(id) {
            return None;
        }
        running.insert(id.to_owned(), what);
        Some(Operation { inner: Arc::clone(&self.inner), id: id.to_owned() })
    }

    /// Whether `id` is being stopped or removed now.
    pub(crate) fn is_ending(&self, id: &str) -> bool {
        matches!(self.current(id), Some("stop" | "remove"))
    }

    /// Waits while `what` is done to `id`.
    pub(crate) async fn pass(&self, id: &str, what: &'static str) {
        while self.current(id) == Some(what) {
            drop(self.begin(id, "wait").await);
        }
    }

    /// What is done to `id` now.
    pub(crate) fn current(&self, id: &str) -> Option<&'static str> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.inner.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_change_at_a_time_and_the_next_one_waits() {
        let operations = Operations::default();
        let first = operations.begin("a", "stop").await;
        assert_eq!(operations.current("a"), Some("stop"));
        assert!(operations.try_begin("a", "remove").is_none());
        assert!(operations.try_begin("b", "remove").is_some());
        let waiting = tokio::spawn({
            let operations = operations.clone();
            async move { operations.begin("a", "remove").await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiting.await.expect("begun");
        assert_eq!(operations.current("a"), Some("remove"));
        assert!(operations.is_ending("a") && !operations.is_ending("b"));
        operations.pass("a", "start").await;
        drop(second);
        operations.pass("a", "remove").await;
        assert_eq!(operations.current("a"), None);
    }
}

//! Exec'd processes that somebody waits for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use berth_plan::message::Exit;
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(crate) struct Execs {
    waiting: Mutex<HashMap<String, oneshot::Sender<Exit>>>,
}

impl Execs {
    /// To be called before the exec is asked for, so that its end is not missed.
    pub(crate) fn expect(&self, id: &str) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), sender);
        receiver
    }

    pub(crate) fn ended(&self, id: &str, exit: Exit) {
        if let Some(sender) = self.forget(id) {
            let _ = sender.send(exit);
        }
    }

    pub(crate) fn forget(&self, id: &str) -> Option<oneshot::Sender<Exit>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }
}

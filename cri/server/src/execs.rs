//! Exec'd processes that somebody waits for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use berth_plan::message::Exit;
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(crate) struct Execs {
    waiting: Mutex<HashMap<String, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    sandbox: String,
    sender: oneshot::Sender<Exit>,
}

impl Execs {
    /// To be called before the exec is asked for, so that its end is not missed.
    pub(crate) fn expect(&self, id: &str, sandbox: &str) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let waiting = Waiting { sandbox: sandbox.to_owned(), sender };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), waiting);
        receiver
    }

    /// Nobody tells any more how the processes of a sandbox end: who waits for them hears that.
    pub(crate) fn lost(&self, sandbox: &str) {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, waiting| waiting.sandbox != sandbox);
    }

    pub(crate) fn ended(&self, id: &str, exit: Exit) {
        if let Some(sender) = self.forget(id) {
            let _ = sender.send(exit);
        }
    }

    pub(crate) fn forget(&self, id: &str) -> Option<oneshot::Sender<Exit>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(id).map(|waiting| waiting.sender)
    }
}

//! Exec'd processes that somebody waits for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_plan::message::Exit;
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(crate) struct Execs {
    waiting: Mutex<HashMap<String, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    sandbox: String,
    /// The shim has said that it runs.
    begun: bool,
    sender: oneshot::Sender<Exit>,
}

impl Execs {
    /// To be called before the exec is asked for, so that its end is not missed.
    pub(crate) fn expect(&self, id: &str, sandbox: &str) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(id.to_owned(), Waiting { sandbox: sandbox.to_owned(), begun: false, sender });
        receiver
    }

    pub(crate) fn begun(&self, id: &str) {
        if let Some(waiting) = self.waiting().get_mut(id) {
            waiting.begun = true;
        }
    }

    /// Those of a sandbox that its shim has, or had.
    pub(crate) fn of(&self, sandbox: &str) -> Vec<String> {
        let waiting = self.waiting();
        let begun = waiting.iter().filter(|(_, waiting)| waiting.begun && waiting.sandbox == sandbox);
        begun.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn ended(&self, id: &str, exit: Exit) {
        if let Some(Waiting { sender, .. }) = self.waiting().remove(id) {
            let _ = sender.send(exit);
        }
    }

    pub(crate) fn forget(&self, id: &str) {
        self.waiting().remove(id);
    }

    /// A sandbox's shim is gone: nobody will tell how its execs end.
    pub(crate) fn lost(&self, sandbox: &str) {
        self.waiting().retain(|_, waiting| waiting.sandbox != sandbox);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

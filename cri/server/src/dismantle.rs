//! Leaving a machine as it was found: for a runtime that does not come back.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::Service;

/// How deep the runtime's folders lie below its own.
const DEPTH: u32 = 3;

impl Service {
    /// Removes what only this runtime needs: the installed shim, the lock, and every folder of its own that is empty.
    /// Whatever still holds something (a sandbox, an image, another runtime's CNI results) stays as it is.
    pub async fn dismantle(self: Arc<Self>) {
        self.close().await;
        let runtime = Arc::clone(&self.runtime);
        if !runtime.sandboxes().is_empty() {
            return;
        }
        let work = tokio::task::spawn_blocking(move || {
            berth_effect::run("runtime-dismantle", || {
                let _ = fs::remove_file(&runtime.shim);
                for folder in [&runtime.config.root, &runtime.config.cni_cache_dir] {
                    remove_empty(folder, DEPTH);
                }
                // The lock goes last: until then nobody else begins here.
                let _ = fs::remove_file(runtime.places.lock());
                remove_empty(&runtime.config.state, DEPTH);
            });
        });
        let _ = work.await;
    }
}

/// Removes `folder` and the folders below it, as far as they are empty.
fn remove_empty(folder: &Path, depth: u32) {
    if depth > 0
        && let Ok(entries) = fs::read_dir(folder)
    {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            remove_empty(&entry.path(), depth - 1);
        }
    }
    // One that holds something refuses, and stays.
    let _ = fs::remove_dir(folder);
}

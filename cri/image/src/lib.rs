//! Registry client, image store, layer application and snapshots.

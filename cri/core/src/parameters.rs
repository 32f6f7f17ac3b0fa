//! Which kernel parameters belong to a namespace.

/// Below /proc/sys, those of the IPC namespace beside POSIX message queues, ipc_namespaces(7).
const OF_IPC: [&str; 9] = [
    "kernel/msg_next_id",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// Whether the parameter at a path below /proc/sys is one of the IPC namespace.
pub(crate) fn is_of_ipc(path: &str) -> bool {
    OF_IPC.contains(&path) || path.starts_with("fs/mqueue/")
}

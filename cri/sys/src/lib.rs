//! Every system call wrapper and owned kernel handle; the only crate with unsafe.

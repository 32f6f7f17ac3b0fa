//! Decides what happens to a pod; does nothing itself.

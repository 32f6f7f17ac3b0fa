//! Executes a compiled container plan.

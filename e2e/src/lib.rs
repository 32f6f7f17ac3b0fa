//! End-to-end scenarios against real programs.

//! Synchronous rtnetlink and nf_tables.

//! Decides how a CRI configuration becomes a compiled plan; does nothing itself.

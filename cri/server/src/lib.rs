//! The CRI service.

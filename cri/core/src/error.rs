//! The refusal of a configuration.

/// A configuration that the runtime will not carry out. It names the CRI field, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}; {remedy}")]
pub struct ConfigError {
    /// Path of the field in the CRI message, `linux.security_context.run_as_group`.
    pub field: String,
    /// What is wrong with it, with the value.
    pub reason: String,
    /// What the caller can do.
    pub remedy: String,
}

impl ConfigError {
    /// All three parts are lower-case clauses without a full stop.
    pub fn new(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), remedy: remedy.into() }
    }
}

/// Refuses a text that cannot be handed to the kernel as a C string.
pub(crate) fn no_nul(field: &str, text: &str) -> Result<(), ConfigError> {
    if text.contains('\0') {
        return Err(ConfigError::new(field, "it contains a NUL byte", "remove the NUL byte"));
    }
    Ok(())
}

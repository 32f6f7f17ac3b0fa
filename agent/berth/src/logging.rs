//! Where log lines go: stderr, as text or JSON.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, LogOptions};

/// Installs the process's one subscriber; `level` is what applies when nothing was asked for.
pub(crate) fn init(options: &LogOptions, level: &str) -> Result<()> {
    let directives = options.log_level.as_deref().unwrap_or(level);
    let filter = EnvFilter::try_new(directives)
        .with_context(|| format!("--log-level {directives:?}: expected a level or module=level directives"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match options.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.with_target(false).with_ansi(io::stderr().is_terminal()).init(),
    }
    Ok(())
}

//! Where log lines go: stderr, as text or JSON.

use std::fmt;
use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::{LogFormat, LogOptions};
use crate::systemd;

/// Installs the process's one subscriber; `level` is what applies when nothing was asked for.
pub(crate) fn init(options: &LogOptions, level: &str) -> Result<()> {
    let directives = options.log_level.as_deref().unwrap_or(level);
    let filter = EnvFilter::try_new(directives)
        .with_context(|| format!("--log-level {directives:?}: expected a level or module=level directives"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match options.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text if systemd::logs_to_journal() => {
            builder.with_ansi(false).event_format(Journal(Format::default().with_target(false).without_time())).init();
        }
        LogFormat::Text => builder.with_target(false).with_ansi(io::stderr().is_terminal()).init(),
    }
    Ok(())
}

/// Lines for systemd's journal: without a time, as it has its own, and with the priority in front that
/// `journalctl -p` selects by (sd-daemon(3)).
struct Journal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// syslog(3)'s number.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_journal_gets_priorities_and_no_times() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Journal(Format::default().with_target(false).without_time()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(pod = "a", "lost");
            tracing::info!("fine");
        });
        let written = lines.0.lock().expect("lines").clone();
        assert_eq!(String::from_utf8_lossy(&written), "<3>ERROR lost pod=\"a\"\n<6> INFO fine\n");
    }
}

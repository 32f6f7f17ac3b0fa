//! The log that callers read back: runc's two forms, a line each.

use std::fs::File;
use std::io::Write;

use crate::clock;
use crate::fault::{During, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
}

impl Log {
    pub(crate) fn open(path: Option<&str>, format: Format, debug: bool) -> Outcome<Self> {
        let open = |path: &str| {
            File::options().create(true).append(true).open(path).during(|| format!("--log: open {path:?}"))
        };
        Ok(Self { file: path.map(open).transpose()?, format, debug })
    }

    /// What ends the command. Without a file it is only what the program says at its end.
    pub(crate) fn error(&self, message: &str) {
        if let Some(file) = &self.file {
            self.write(file, "error", message);
        }
    }

    /// What does not.
    pub(crate) fn warn(&self, message: &str) {
        match &self.file {
            Some(file) => self.write(file, "warning", message),
            None => eprintln!("berth-oci: warning: {message}"),
        }
    }

    pub(crate) fn debug(&self, message: &str) {
        if let Some(file) = self.file.as_ref().filter(|_| self.debug) {
            self.write(file, "debug", message);
        }
    }

    fn write(&self, mut file: &File, level: &str, message: &str) {
        let time = clock::rfc3339(clock::now());
        let line = match self.format {
            Format::Json => serde_json::json!({ "level": level, "msg": message, "time": time }).to_string(),
            Format::Text => format!("time={time:?} level={level} msg={message:?}"),
        };
        // One write, and nobody to tell when it fails.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

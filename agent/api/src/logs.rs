//! Container logs as `kubectl logs` reads them: CRI log files, filtered, cut and followed.

mod file;
mod line;
mod options;

pub(crate) use file::stream;
pub(crate) use options::{LogOptions, LogQuery};

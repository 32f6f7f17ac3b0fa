//! Failures in the words that users know: what was done, and the kernel's answer.

use std::io;

use berth_guard::failing;
use berth_plan::message::{Failure, Stage};

/// Turns an error into the failure of a step.
pub(crate) trait At<T> {
    /// `what` names the act and its object: `mount "/proc"`.
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.and_then(|value| failing::step().map(|()| value)).map_err(|error| Failure {
            stage,
            errno: error.raw_os_error().unwrap_or(0),
            message: format!("{}: {}", what(), describe(&error)),
        })
    }
}

/// A failure that is no system call's.
pub(crate) fn refused(stage: Stage, message: impl Into<String>) -> Failure {
    Failure { stage, errno: 0, message: message.into() }
}

/// The error's text as Go programs write it: lower-case and without "(os error 2)".
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_users_know() {
        let error: io::Result<()> = Err(io::Error::from_raw_os_error(2));
        let failure = error.at(Stage::Mount, || "mount \"/proc\"".to_owned()).expect_err("an error");
        assert_eq!((failure.errno, failure.message.as_str()), (2, "mount \"/proc\": no such file or directory"));
    }
}

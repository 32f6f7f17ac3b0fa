//! What a client is told at the end, on the error stream.

use serde::Serialize;

use crate::negotiate::Version;

/// More of a message than this is no help to anyone, in bytes.
const MESSAGE: usize = 8 * 1024;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Exit(i32),
    Failed(String),
}

/// `metav1.Status`, as far as it is used here.
#[derive(Serialize)]
struct Status<'a> {
    metadata: Nothing,
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Details {
    causes: [Cause; 1],
}

#[derive(Serialize)]
struct Cause {
    reason: &'static str,
    message: String,
}

impl Outcome {
    /// The bytes for the error stream: a Status from version 4 on, before that an error's text or nothing.
    pub(super) fn on(&self, version: Version) -> Vec<u8> {
        let message = match self {
            Outcome::Exit(0) => String::new(),
            Outcome::Exit(code) => format!("command terminated with non-zero exit code: {code}"),
            Outcome::Failed(message) => format!("Internal error occurred: {}", short(message)),
        };
        if version < Version::V4 {
            return message.into_bytes();
        }
        let mut status = Status {
            metadata: Nothing {},
            status: "Failure",
            message: &message,
            reason: "",
            details: None,
            code: None,
        };
        match self {
            Outcome::Exit(0) => status.status = "Success",
            Outcome::Exit(code) => {
                status.reason = "NonZeroExitCode";
                status.details = Some(Details { causes: [Cause { reason: "ExitCode", message: code.to_string() }] });
            }
            Outcome::Failed(_) => {
                status.reason = "InternalError";
                status.code = Some(500);
            }
        }
        serde_json::to_vec(&status).unwrap_or_default()
    }
}

fn short(message: &str) -> &str {
    message.get(..message.floor_char_boundary(MESSAGE)).unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(outcome: &Outcome, version: Version) -> String {
        String::from_utf8(outcome.on(version)).expect("text")
    }

    #[test]
    fn from_version_4_on_it_is_a_status() {
        let success = said(&Outcome::Exit(0), Version::V4);
        assert_eq!(success, r#"{"metadata":{},"status":"Success"}"#);
        let exit: serde_json::Value = serde_json::from_str(&said(&Outcome::Exit(137), Version::V5)).expect("JSON");
        assert_eq!(exit["reason"], "NonZeroExitCode");
        assert_eq!(exit["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(exit["details"]["causes"][0]["message"], "137");
        let failed: serde_json::Value =
            serde_json::from_str(&said(&Outcome::Failed("no \"x\"".into()), Version::V4)).expect("JSON");
        assert_eq!(failed["reason"], "InternalError");
        assert_eq!(failed["message"], "Internal error occurred: no \"x\"");
        assert_eq!(failed["code"], 500);
    }

    #[test]
    fn before_version_4_success_is_silence_and_the_rest_is_text() {
        assert_eq!(said(&Outcome::Exit(0), Version::V3), "");
        assert_eq!(said(&Outcome::Exit(1), Version::V3), "command terminated with non-zero exit code: 1");
        assert_eq!(said(&Outcome::Failed("gone".into()), Version::V1), "Internal error occurred: gone");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let text = said(&Outcome::Failed("é".repeat(MESSAGE)), Version::V1);
        assert!(text.len() <= MESSAGE + 64 && text.ends_with('é'), "{}", text.len());
    }
}

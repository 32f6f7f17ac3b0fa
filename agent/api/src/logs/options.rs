//! What a caller of containerLogs may choose.

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// One of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Stdout,
    Stderr,
}

/// The query, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    pub(crate) since: Option<Timestamp>,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) limit_bytes: Option<usize>,
    /// `None` is both.
    pub(crate) stream: Option<Which>,
}

/// A query that can't be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("Unable to decode query: {0}: {1:?}")]
    Unreadable(&'static str, String),
    #[error("{0}: Invalid value: {1}")]
    Invalid(&'static str, &'static str),
}

impl Refused {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unreadable(..) => StatusCode::BAD_REQUEST,
            Self::Invalid(..) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

impl Options {
    /// Reads a query string. Of a key that is given twice, the first counts; unknown keys are passed over.
    pub(crate) fn parse(query: &str) -> Result<Self, Refused> {
        let get = |key: &str| {
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs.into_iter().find(|(name, _)| *name == key).map(|(_, value)| unescape(value))
        };
        let flag = |key: &'static str| match get(key).as_deref() {
            None | Some("" | "0" | "false" | "False" | "FALSE" | "f" | "F") => Ok(false),
            Some("1" | "true" | "True" | "TRUE" | "t" | "T") => Ok(true),
            Some(other) => Err(Refused::Unreadable(key, other.to_owned())),
        };
        let number = |key: &'static str| match get(key).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => text.parse::<i64>().map(Some).map_err(|_| Refused::Unreadable(key, text)),
        };
        let since_time = match get("sinceTime").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| Refused::Unreadable("sinceTime", text))?),
        };
        let since = match (number("sinceSeconds")?, since_time) {
            (Some(_), Some(_)) => {
                return Err(Refused::Invalid(
                    "sinceSeconds",
                    "at most one of `sinceTime` or `sinceSeconds` may be specified",
                ));
            }
            (Some(seconds), None) if seconds < 1 => {
                return Err(Refused::Invalid("sinceSeconds", "must be greater than 0"));
            }
            (Some(seconds), None) => now().and_then(|now| now.checked_sub(SignedDuration::from_secs(seconds)).ok()),
            (None, time) => time,
        };
        let tail_lines = match number("tailLines")? {
            None => None,
            Some(lines) => {
                let lines = u64::try_from(lines);
                Some(lines.map_err(|_| Refused::Invalid("tailLines", "must be greater than or equal to 0"))?)
            }
        };
        let limit_bytes = match number("limitBytes")? {
            None => None,
            Some(bytes) => {
                let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes > 0);
                Some(bytes.ok_or(Refused::Invalid("limitBytes", "must be greater than 0"))?)
            }
        };
        let stream = match get("stream").as_deref() {
            None | Some("" | "All") => None,
            Some("Stdout") => Some(Which::Stdout),
            Some("Stderr") => Some(Which::Stderr),
            Some(_) => return Err(Refused::Invalid("stream", "supported values: All, Stdout, Stderr")),
        };
        if stream.is_some() && tail_lines.is_some() {
            return Err(Refused::Invalid("tailLines", "may not be used with `stream` other than All"));
        }
        Ok(Self {
            follow: flag("follow")?,
            previous: flag("previous")?,
            timestamps: flag("timestamps")?,
            since,
            tail_lines,
            limit_bytes,
            stream,
        })
    }
}

fn now() -> Option<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Timestamp::from_second(i64::try_from(now.as_secs()).ok()?).ok()
}

/// Undoes `%XX` and `+`.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], code.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_checked() {
        let options =
            Options::parse("follow=true&timestamps=1&tailLines=5&limitBytes=10&sinceTime=2026-11-24T04%3A00%3A00Z");
        let options = options.expect("a good query");
        assert!(options.follow && options.timestamps && !options.previous);
        assert_eq!((options.tail_lines, options.limit_bytes), (Some(5), Some(10)));
        assert_eq!(options.since.map(|at| at.as_second()), Some(1_795_492_800));
        assert_eq!(Options::parse(""), Ok(Options::default()));
        for (query, status) in [
            ("tailLines=x", StatusCode::BAD_REQUEST),
            ("follow=maybe", StatusCode::BAD_REQUEST),
            ("sinceTime=yesterday", StatusCode::BAD_REQUEST),
            ("tailLines=-1", StatusCode::UNPROCESSABLE_ENTITY),
            ("limitBytes=0", StatusCode::UNPROCESSABLE_ENTITY),
            ("sinceSeconds=0", StatusCode::UNPROCESSABLE_ENTITY),
            ("sinceSeconds=1&sinceTime=2026-11-24T04:00:00Z", StatusCode::UNPROCESSABLE_ENTITY),
            ("stream=Both", StatusCode::UNPROCESSABLE_ENTITY),
        ] {
            assert_eq!(Options::parse(query).expect_err(query).status(), status, "{query}");
        }
    }
}

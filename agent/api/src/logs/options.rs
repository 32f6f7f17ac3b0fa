//! What a client may ask of a log (`kubernetes@v1.37.2:pkg/apis/core/validation#ValidatePodLogOptions`).

use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// The query, as typed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LogQuery {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    since_seconds: Option<String>,
    since_time: Option<String>,
    tail_lines: Option<String>,
    limit_bytes: Option<String>,
    stream: Option<String>,
}

/// The query, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    pub(crate) since: Option<Timestamp>,
    /// The last so many records.
    pub(crate) tail: Option<u64>,
    pub(crate) limit: Option<u64>,
    /// `stdout` or `stderr` only.
    pub(crate) only: Option<&'static str>,
}

impl LogOptions {
    pub(crate) fn check(query: &LogQuery) -> Result<Self, String> {
        let since_seconds = number("sinceSeconds", query.since_seconds.as_deref(), 1)?;
        let since_time = match query.since_time.as_deref().filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(
                text.parse::<Timestamp>()
                    .map_err(|_| format!("sinceTime: invalid value {text:?}: must be an RFC 3339 time"))?,
            ),
        };
        let since = match (since_seconds, since_time) {
            (Some(_), Some(_)) => {
                return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into());
            }
            (Some(seconds), None) => {
                // Further back than time goes is everything.
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let from = now.saturating_sub(Duration::from_secs(seconds));
                i64::try_from(from.as_secs()).ok().and_then(|from| Timestamp::from_second(from).ok())
            }
            (None, time) => time,
        };
        let only = match query.stream.as_deref() {
            None | Some("" | "All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(other) => return Err(format!("stream: unsupported value {other:?}: use All, Stdout or Stderr")),
        };
        Ok(Self {
            follow: truth("follow", query.follow.as_deref())?,
            previous: truth("previous", query.previous.as_deref())?,
            timestamps: truth("timestamps", query.timestamps.as_deref())?,
            since,
            tail: number("tailLines", query.tail_lines.as_deref(), 0)?,
            limit: number("limitBytes", query.limit_bytes.as_deref(), 1)?,
            only,
        })
    }
}

/// As the API machinery reads a query's bool: anything but a false word is true.
fn truth(name: &str, text: Option<&str>) -> Result<bool, String> {
    match text {
        None => Ok(false),
        Some(text) if text.len() > 64 => Err(format!("{name}: not a bool")),
        Some(text) => Ok(text != "0" && !text.eq_ignore_ascii_case("false")),
    }
}

fn number(name: &str, text: Option<&str>, least: u64) -> Result<Option<u64>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse::<u64>() {
        Ok(number) if number >= least => Ok(Some(number)),
        _ => Err(format!("{name}: invalid value {text:?}: must be a number of {least} or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &[(&str, &str)]) -> Result<LogOptions, String> {
        let object = text.iter().map(|(k, v)| ((*k).to_owned(), serde_json::Value::from(*v))).collect();
        LogOptions::check(&serde_json::from_value(serde_json::Value::Object(object)).expect("a query"))
    }

    #[test]
    fn what_kubectl_sends_is_understood() {
        let options = query(&[("follow", "true"), ("tailLines", "5"), ("timestamps", "1")]).expect("good");
        assert!(options.follow && options.timestamps && !options.previous);
        assert_eq!(options.tail, Some(5));
        assert_eq!(query(&[("tailLines", "0")]).expect("good").tail, Some(0));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (name, value) in
            [("tailLines", "-1"), ("limitBytes", "0"), ("sinceSeconds", "x"), ("sinceTime", "yesterday"), ("stream", "both")]
        {
            let error = query(&[(name, value)]).expect_err(name);
            assert!(error.starts_with(name), "{error}");
        }
        assert!(query(&[("sinceSeconds", "1"), ("sinceTime", "2026-01-01T00:00:00Z")]).is_err());
    }
}

//! Streaming a blob, going on where a broken transfer ended.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::host::{Host, Query};
use super::retry::{Failure, Tries};
use crate::error::PullError;

/// How much of a blob was handed over, whichever host it came from.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU64);

/// A transfer that breaks this often is given up even if each part brought something.
const PARTS: u32 = 100;

pub(super) async fn stream(
    host: &Host,
    query: &Query<'_>,
    size: u64,
    progress: &Progress,
    to: &mpsc::Sender<Result<Bytes, PullError>>,
    attempts: u32,
) -> Result<(), PullError> {
    let mut tries = Tries::new(attempts);
    for _ in 0..PARTS {
        let before = progress.0.load(Ordering::Relaxed);
        let Err(failure) = part(host, query, size, progress, to).await else { return Ok(()) };
        if progress.0.load(Ordering::Relaxed) > before {
            tries.progressed();
        }
        tries.after(failure).await?;
    }
    Err(PullError::Unreachable {
        what: query.what.to_owned(),
        detail: format!("{}: broke off {PARTS} times", host.authority()),
    })
}

async fn part(
    host: &Host,
    query: &Query<'_>,
    size: u64,
    progress: &Progress,
    to: &mpsc::Sender<Result<Bytes, PullError>>,
) -> Result<(), Failure> {
    let offset = progress.0.load(Ordering::Relaxed);
    if offset == size && size > 0 {
        return Ok(());
    }
    let response = host.get(query, (offset > 0).then_some(offset)).await?;
    // A host that ignores the range sends all of it again: what we have is skipped.
    let mut skip = match response.status() {
        StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), offset) => 0,
        StatusCode::PARTIAL_CONTENT => {
            let detail = format!("{}: another range than asked for", host.authority());
            return Err(PullError::Unreachable { what: query.what.to_owned(), detail }.into());
        }
        _ => {
            if let Some(length) = length(response.headers()).filter(|length| *length != size) {
                return Err(mismatch(query, size, &format!("{length} bytes")).into());
            }
            offset
        }
    };
    let mut body = response.into_body();
    while let Some(frame) = host.within(query.what, body.frame()).await? {
        let frame = frame.map_err(|error| host.unreachable(query.what, &error))?;
        let Ok(mut data) = frame.into_data() else { continue };
        let skipped = skip.min(data.len() as u64);
        skip -= skipped;
        data = data.slice(usize::try_from(skipped).unwrap_or(data.len())..);
        if data.is_empty() {
            continue;
        }
        let length = data.len() as u64;
        let total = progress.0.load(Ordering::Relaxed) + length;
        if total > size {
            return Err(mismatch(query, size, "more").into());
        }
        if to.send(Ok(data)).await.is_err() {
            // The taker has given up and says why itself.
            return Ok(());
        }
        progress.0.store(total, Ordering::Relaxed);
    }
    let total = progress.0.load(Ordering::Relaxed);
    if total == size {
        return Ok(());
    }
    let detail = format!("{}: the transfer ended after {total} of {size} bytes", host.authority());
    Err(PullError::Unreachable { what: query.what.to_owned(), detail }.into())
}

fn mismatch(query: &Query<'_>, size: u64, actual: &str) -> PullError {
    PullError::DigestMismatch {
        what: query.what.to_owned(),
        expected: format!("{size} bytes"),
        actual: actual.to_owned(),
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    range.strip_prefix("bytes ").and_then(|range| range.split('-').next()).and_then(|start| start.parse().ok())
        == Some(offset)
}

//! A client of the OCI distribution protocol, for one pull.
//!
//! Every document is bounded and checked against its digest here; blobs are streamed and checked by who takes them.
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md>)

use std::time::Duration;

use berth_guard::Guard;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::auth::Auth;
use crate::digest::Digest;
use crate::error::PullError;
use crate::hosts::Endpoint;
use crate::reference::{Reference, Wanted};

mod blob;
mod challenge;
mod host;
pub(crate) mod manifest;
mod platform;
mod retry;
mod tls;
mod token;

use host::{Host, Query};
pub(crate) use manifest::{Descriptor, Document};
pub(crate) use platform::{architecture, choose};
use retry::{Failure, Tries};

/// The distribution specification wants manifests of this size accepted; larger ones are refused.
pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;

/// How patient a session is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// No byte for this long: the request is given up.
    pub(crate) stall: Duration,
    /// Tries of one request at the last host; mirrors get two.
    pub(crate) attempts: u32,
}

/// One pull's connections to the hosts of one registry.
#[derive(Debug)]
pub(crate) struct Session {
    reference: Reference,
    hosts: Vec<Host>,
    patience: Patience,
}

impl Session {
    pub(crate) fn new(
        reference: &Reference,
        endpoints: Vec<Endpoint>,
        auth: Option<&Auth>,
        patience: Patience,
    ) -> Result<Self, PullError> {
        let hosts = endpoints.into_iter().map(|endpoint| Host::new(endpoint, auth, patience.stall));
        Ok(Self { reference: reference.clone(), hosts: hosts.collect::<Result<_, _>>()?, patience })
    }

    /// What the reference points to: its digest and its bytes.
    pub(crate) async fn resolve(&self) -> Result<(Digest, Document), PullError> {
        let wanted = match &self.reference.wanted {
            Wanted::Tag(_) => None,
            Wanted::Digest(digest) => Some(digest),
        };
        self.document(self.reference.selector(), wanted).await
    }

    /// A manifest or index by digest.
    pub(crate) async fn manifest(&self, digest: &Digest) -> Result<Document, PullError> {
        Ok(self.document(digest.as_str(), Some(digest)).await?.1)
    }

    async fn document(&self, selector: &str, wanted: Option<&Digest>) -> Result<(Digest, Document), PullError> {
        let what = self.reference.to_string();
        let path = format!("{}/manifests/{selector}", self.reference.repository);
        let query = self.query(&path, manifest::ACCEPT, &what);
        let mut turns = self.turns(wanted.is_none());
        loop {
            let (host, attempts) = turns.next(&what)?;
            let answer = self.small(host, &query, MANIFEST_LIMIT, attempts).await.and_then(|(bytes, headers)| {
                let digest = match wanted {
                    Some(digest) => checked(digest, &bytes, &what)?,
                    None => Digest::sha256(&bytes),
                };
                let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                Ok((digest, Document::parse(&bytes, content_type, &what)?))
            });
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => turns.failed(error),
            }
        }
    }

    /// A small blob, whole.
    pub(crate) async fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, PullError> {
        let what = format!("{} of {}", descriptor.digest, self.reference);
        if descriptor.size > limit {
            let detail = format!("{} bytes, at most {limit} are accepted", descriptor.size);
            return Err(PullError::TooLarge { what, detail });
        }
        let path = self.blob_path(descriptor);
        let query = self.query(&path, "*/*", &what);
        let mut turns = self.turns(false);
        loop {
            let (host, attempts) = turns.next(&what)?;
            let answer = self.small(host, &query, descriptor.size, attempts).await;
            match answer.and_then(|(bytes, _)| checked(&descriptor.digest, &bytes, &what).map(|_| bytes)) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => turns.failed(error),
            }
        }
    }

    /// Streams a blob to `to`. What was sent when a host fails is not sent again: the next try goes on from there, and
    /// the taker checks the whole.
    pub(crate) async fn stream(
        &self,
        descriptor: &Descriptor,
        to: &mpsc::Sender<Result<Bytes, PullError>>,
    ) -> Result<(), PullError> {
        let what = format!("{} of {}", descriptor.digest, self.reference);
        let path = self.blob_path(descriptor);
        let progress = blob::Progress::default();
        let query = self.query(&path, "*/*", &what);
        let mut turns = self.turns(false);
        loop {
            let (host, attempts) = turns.next(&what)?;
            match blob::stream(host, &query, descriptor.size, &progress, to, attempts).await {
                Ok(()) => return Ok(()),
                Err(error) => turns.failed(error),
            }
        }
    }

    fn blob_path(&self, descriptor: &Descriptor) -> String {
        format!("{}/blobs/{}", self.reference.repository, descriptor.digest)
    }

    fn query<'a>(&'a self, path: &'a str, accept: &'a str, what: &'a str) -> Query<'a> {
        Query { registry: &self.reference.registry, repository: &self.reference.repository, path, accept, what }
    }

    async fn small(
        &self,
        host: &Host,
        query: &Query<'_>,
        limit: u64,
        attempts: u32,
    ) -> Result<(Bytes, HeaderMap), PullError> {
        let mut tries = Tries::new(attempts);
        loop {
            match self.small_once(host, query, limit).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    async fn small_once(&self, host: &Host, query: &Query<'_>, limit: u64) -> Result<(Bytes, HeaderMap), Failure> {
        let (head, mut body) = host.get(query, None).await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = host.within(query.what, body.frame()).await? {
            let frame = frame.map_err(|error| host.unreachable(query.what, &error))?;
            let Ok(data) = frame.into_data() else { continue };
            if (bytes.len() + data.len()) as u64 > limit && Guard::DocumentsBounded.stands() {
                let detail = format!("more than {limit} bytes from {}", host.authority());
                return Err(PullError::TooLarge { what: query.what.to_owned(), detail }.into());
            }
            bytes.extend_from_slice(&data);
        }
        Ok((Bytes::from(bytes), head.headers))
    }

    fn turns(&self, resolve: bool) -> Turns<'_> {
        let hosts: Vec<&Host> = self.hosts.iter().filter(|host| host.may(resolve)).collect();
        Turns { hosts: hosts.into_iter(), patience: self.patience, last: None }
    }
}

/// The hosts in order until one answers; the last one's error is the one reported.
struct Turns<'a> {
    hosts: std::vec::IntoIter<&'a Host>,
    patience: Patience,
    last: Option<PullError>,
}

impl<'a> Turns<'a> {
    /// The next host and how often to try it, or why there is none.
    fn next(&mut self, what: &str) -> Result<(&'a Host, u32), PullError> {
        let Some(host) = self.hosts.next() else {
            return Err(self.last.take().unwrap_or_else(|| PullError::Unreachable {
                what: what.to_owned(),
                detail: "no host is configured for this".to_owned(),
            }));
        };
        let is_last = self.hosts.len() == 0;
        Ok((host, if is_last { self.patience.attempts } else { self.patience.attempts.min(2) }))
    }

    fn failed(&mut self, error: PullError) {
        if self.hosts.len() > 0 {
            tracing::warn!(%error, "trying the next host of this registry");
        }
        self.last = Some(error);
    }
}

fn checked(expected: &Digest, bytes: &[u8], what: &str) -> Result<Digest, PullError> {
    if expected.matches(bytes) {
        return Ok(expected.clone());
    }
    Err(PullError::DigestMismatch {
        what: what.to_owned(),
        expected: expected.to_string(),
        actual: format!("{} ({} bytes)", Digest::sha256(bytes), bytes.len()),
    })
}

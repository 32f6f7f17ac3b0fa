//! Who calls, and whether they may.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::Method;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long an answer of the authorizer holds (the kubelet's defaults).
const ALLOWED_FOR: Duration = Duration::from_mins(5);
const DENIED_FOR: Duration = Duration::from_secs(30);
/// How many answers are remembered.
const REMEMBERED: usize = 1024;

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    /// The certificate's common name.
    pub name: String,
    /// The certificate's organisations, and `system:authenticated`.
    pub groups: Vec<String>,
}

impl User {
    /// Who calls without saying who.
    pub(crate) fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] }
    }

    /// Of a certificate that was verified; `None` when it names nobody.
    pub(crate) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let mut groups: Vec<String> =
            subject.iter_organization().filter_map(|part| part.as_str().ok()).map(str::to_owned).collect();
        groups.push("system:authenticated".to_owned());
        Some(Self { name, groups })
    }
}

/// What a caller wants: `VERB` on `nodes/SUBRESOURCE` of this node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ask {
    /// Who.
    pub user: User,
    /// `get`, `create`, …
    pub verb: &'static str,
    /// `proxy`, `pods`, `healthz`, …
    pub subresource: &'static str,
}

/// An authorizer's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go ahead.
    Allowed,
    /// Nothing allows it.
    NoOpinion,
}

/// The authorizer could not answer, which denies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// Why, in its words.
    pub reason: String,
}

/// Decides who may do what.
#[async_trait]
pub trait Authorizer: fmt::Debug + Send + Sync + 'static {
    /// Answers one question. The server remembers answers, so an implementation need not.
    async fn review(&self, ask: &Ask) -> Result<Verdict, Denied>;
}

/// Whoever is known may do everything (`authorization.mode: AlwaysAllow`).
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn review(&self, _: &Ask) -> Result<Verdict, Denied> {
        Ok(Verdict::Allowed)
    }
}

/// An authorizer with a memory.
#[derive(Debug)]
pub(crate) struct Gate {
    authorizer: Arc<dyn Authorizer>,
    answers: Mutex<HashMap<Ask, (Verdict, Instant)>>,
}

impl Gate {
    pub(crate) fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer, answers: Mutex::default() }
    }

    /// Whether any of the subresources that `path` belongs to is allowed; they are tried in order.
    pub(crate) async fn allows(&self, user: &User, verb: &'static str, path: &str) -> Result<bool, Denied> {
        for subresource in subresources(path) {
            let ask = Ask { user: user.clone(), verb, subresource };
            if self.answer(ask).await? == Verdict::Allowed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn answer(&self, ask: Ask) -> Result<Verdict, Denied> {
        let now = Instant::now();
        if let Some((verdict, until)) = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&ask)
            && *until > now
        {
            return Ok(*verdict);
        }
        let verdict = self.authorizer.review(&ask).await?;
        let until = now + if verdict == Verdict::Allowed { ALLOWED_FOR } else { DENIED_FOR };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= REMEMBERED {
            answers.retain(|_, (_, until)| *until > now);
        }
        if answers.len() < REMEMBERED {
            answers.insert(ask, (verdict, until));
        }
        Ok(verdict)
    }
}

/// `kubernetes@v1.37.2:pkg/kubelet/server/auth.go#GetRequestAttributes`.
pub(crate) fn subresources(path: &str) -> &'static [&'static str] {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "statusz" => &["statusz"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

/// The verb that a method is judged as.
pub(crate) fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

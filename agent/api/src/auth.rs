//! Who calls, and whether they may.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{HeaderMap, Method, header};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long an answer of the authorizer holds (the kubelet's defaults).
const ALLOWED_FOR: Duration = Duration::from_mins(5);
const DENIED_FOR: Duration = Duration::from_secs(30);
/// How many answers are remembered.
const REMEMBERED: usize = 1024;

/// How long an answer about a bearer token holds (the kubelet's default), and how long a refusal does.
const KNOWN_FOR: Duration = Duration::from_mins(2);
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// A service account's token has some KiB.
const LONGEST_TOKEN: usize = 16 << 10;

/// A caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// The certificate's common name, or who a token is for.
    pub name: String,
    /// The certificate's organisations and `system:authenticated`, or a token's groups.
    pub groups: Vec<String>,
    /// A token's; empty for a certificate.
    pub uid: String,
    /// A token's: the pod that it was issued to, for example.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Who calls without saying who.
    pub(crate) fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: "system:anonymous".to_owned(), groups, ..Self::default() }
    }

    /// Of a certificate that was verified; `None` when it names nobody.
    pub(crate) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let mut groups: Vec<String> =
            subject.iter_organization().filter_map(|part| part.as_str().ok()).map(str::to_owned).collect();
        groups.push("system:authenticated".to_owned());
        Some(Self { name, groups, ..Self::default() })
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

/// Knows whose bearer tokens are (`authentication.webhook`).
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Whose `token` is; `None` when it is nobody's. The server remembers answers, so an implementation need not.
    async fn review(&self, token: &str) -> Result<Option<User>, Denied>;
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

/// Whose a token is, and until when that holds.
type Owner = (Option<User>, Instant);

/// Who is known, and an authorizer, both with a memory.
#[derive(Debug)]
pub(crate) struct Gate {
    authorizer: Arc<dyn Authorizer>,
    authenticator: Option<Arc<dyn Authenticator>>,
    anonymous: bool,
    answers: Mutex<HashMap<Ask, (Verdict, Instant)>>,
    /// By the token's digest.
    tokens: Mutex<HashMap<[u8; 32], Owner>>,
}

impl Gate {
    pub(crate) fn new(
        authorizer: Arc<dyn Authorizer>,
        authenticator: Option<Arc<dyn Authenticator>>,
        anonymous: bool,
    ) -> Self {
        Self { authorizer, authenticator, anonymous, answers: Mutex::default(), tokens: Mutex::default() }
    }

    /// Who calls: by certificate, else by token, else nobody in particular where that is allowed. A token that is nobody's
    /// is refused also then.
    pub(crate) async fn user(&self, certificate: Option<User>, headers: &HeaderMap) -> Result<Option<User>, Denied> {
        if certificate.is_some() {
            return Ok(certificate);
        }
        match (bearer(headers), &self.authenticator) {
            (Some(token), Some(authenticator)) => self.owner(token, authenticator.as_ref()).await,
            _ => Ok(self.anonymous.then(User::anonymous)),
        }
    }

    async fn owner(&self, token: &str, authenticator: &dyn Authenticator) -> Result<Option<User>, Denied> {
        if token.len() > LONGEST_TOKEN {
            return Ok(None);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let now = Instant::now();
        if let Some((user, until)) = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&digest)
            && *until > now
        {
            return Ok(user.clone());
        }
        let user = authenticator.review(token).await?;
        let until = now + if user.is_some() { KNOWN_FOR } else { UNKNOWN_FOR };
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= REMEMBERED {
            tokens.retain(|_, (_, until)| *until > now);
        }
        if tokens.len() < REMEMBERED {
            tokens.insert(digest, (user.clone(), until));
        }
        Ok(user)
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

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
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

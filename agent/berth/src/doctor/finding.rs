//! What was found, in one form for all checks.

use serde_json::{Value, json};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Good,
    /// Works, with something less.
    Less,
    /// What the finding is about can't work.
    Missing,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Running pods at all.
    Pods,
    /// Being a cluster's node.
    Node,
    /// The API server that was named.
    Server,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) subject: Subject,
    pub(crate) verdict: Verdict,
    pub(crate) what: &'static str,
    pub(crate) detail: String,
    /// What does not work; empty when all is well.
    pub(crate) cost: String,
    /// What to do; empty when all is well.
    pub(crate) remedy: String,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Less => "less",
            Self::Missing => "missing",
        }
    }
}

impl Subject {
    pub(crate) const ALL: [Self; 3] = [Self::Pods, Self::Node, Self::Server];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Node => "node",
            Self::Server => "apiServer",
        }
    }
}

impl Finding {
    /// All is well.
    pub(crate) fn good(subject: Subject, what: &'static str, detail: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: Verdict::Good,
            what,
            detail: detail.into(),
            cost: String::new(),
            remedy: String::new(),
        }
    }

    /// The same, with what it costs and what to do.
    pub(crate) fn bad(self, verdict: Verdict, cost: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict, cost: cost.into(), remedy: remedy.into(), ..self }
    }

    /// Good if `ok`, else bad.
    pub(crate) fn unless(self, ok: bool, verdict: Verdict, cost: &str, remedy: &str) -> Self {
        if ok { self } else { self.bad(verdict, cost, remedy) }
    }

    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "about": self.subject.name(),
            "what": self.what,
            "verdict": self.verdict.name(),
            "detail": self.detail,
        });
        if self.verdict != Verdict::Good {
            value["cost"] = self.cost.as_str().into();
            value["remedy"] = self.remedy.as_str().into();
        }
        value
    }
}

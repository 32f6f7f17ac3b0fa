//! Who asks, and whether they may.

use std::fmt;

use async_trait::async_trait;
use http::Method;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Whom a client certificate names: its common name and organisations, as the API server reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// CN.
    pub name: String,
    /// O, each.
    pub groups: Vec<String>,
}

impl User {
    /// The user of a certificate whose chain was verified already; `None` when it has no common name.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let subject = parsed.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        Some(Self { name, groups })
    }
}

/// Decides whether a user may do `verb` on one of the node's subresources.
#[async_trait]
pub trait Authorizer: fmt::Debug + Send + Sync + 'static {
    /// Whether it is allowed; an error (in words) when nobody could decide.
    async fn allowed(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String>;
}

/// `authorization.mode: AlwaysAllow`.
#[derive(Debug)]
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn allowed(&self, _: &User, _: &str, _: &str) -> Result<bool, String> {
        Ok(true)
    }
}

/// The subresources of `nodes` that open a path, tried in order
/// (`kubernetes@v1.37.2:pkg/kubelet/server/auth.go#GetRequestAttributes`).
pub(crate) fn subresources(path: &str) -> &'static [&'static str] {
    let below = |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if below("/stats") {
        &["stats"]
    } else if below("/metrics") {
        &["metrics"]
    } else if below("/logs") {
        &["log"]
    } else if below("/checkpoint") {
        &["checkpoint"]
    } else if below("/pods") || below("/runningpods") || below("/allocatedPods") {
        &["pods", "proxy"]
    } else if below("/healthz") {
        &["healthz", "proxy"]
    } else if below("/configz") {
        &["configz", "proxy"]
    } else {
        &["proxy"]
    }
}

/// The verb of an HTTP method.
pub(crate) fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_open_by_their_own_subresource_first() {
        assert_eq!(subresources("/containerLogs/ns/pod/c"), ["proxy"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
        assert_eq!(subresources("/metrics/cadvisor"), ["metrics"]);
        // A path that only begins like another is not below it.
        assert_eq!(subresources("/metricsx"), ["proxy"]);
        assert_eq!(subresources("/logsomething"), ["proxy"]);
    }

    #[test]
    fn methods_have_their_verbs() {
        assert_eq!(verb(&Method::GET), "get");
        assert_eq!(verb(&Method::HEAD), "get");
        assert_eq!(verb(&Method::POST), "create");
    }

    #[test]
    fn a_certificate_names_its_user_and_groups() {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver-kubelet-client");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "kubeadm:cluster-admins");
        let certificate = params.self_signed(&key).expect("certificate");
        let user = User::from_certificate(certificate.der()).expect("user");
        assert_eq!(user.name, "kube-apiserver-kubelet-client");
        assert_eq!(user.groups, ["kubeadm:cluster-admins"]);
        assert_eq!(User::from_certificate(&CertificateDer::from(vec![0x30, 0x01])), None);
    }
}

//! One certificate signing request, from the key to the answer.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Error};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{CertificateError, Pair};

/// Is told what is waited for.
pub(crate) type Waits<'a> = &'a (dyn Fn(String) + Send + Sync);

/// After this long it is said that somebody may have to approve.
const PATIENCE_FOR_APPROVAL: Duration = Duration::from_secs(10);

/// What the certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The node as a client of the API server (`kubernetes.io/kube-apiserver-client-kubelet`).
    Client,
    /// The node's own API (`kubernetes.io/kubelet-serving`).
    Serving {
        /// DNS names and addresses of the node; the signer wants at least one.
        names: Vec<String>,
    },
}

/// A certificate to be issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The node's name: the certificate is `CN=system:node:NODE, O=system:nodes`.
    pub node: String,
    /// For what.
    pub kind: Kind,
    /// How long to wait for the answer, approval by a person included.
    pub patience: Duration,
}

impl Wanted {
    fn signer(&self) -> &'static str {
        match self.kind {
            Kind::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Kind::Serving { .. } => "kubernetes.io/kubelet-serving",
        }
    }

    fn usages(&self) -> [&'static str; 2] {
        // Key encipherment is for RSA keys only; the signers refuse it for others.
        ["digital signature", if self.kind == Kind::Client { "client auth" } else { "server auth" }]
    }

    /// The request in PKCS#10, PEM.
    fn pkcs10(&self, key: &KeyPair) -> Result<String, CertificateError> {
        let names = match &self.kind {
            Kind::Client => Vec::new(),
            Kind::Serving { names } => names.clone(),
        };
        let make = |error: rcgen::Error| CertificateError::Make(error.to_string());
        let mut params = CertificateParams::new(names).map_err(make)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", self.node));
        params.serialize_request(key).and_then(|request| request.pem()).map_err(make)
    }
}

/// Makes a key, has the API server of `client` sign it and waits for that. How long the certificate lives is the
/// signer's to say.
///
/// # Errors
/// Why there is none; the request may still lie in the cluster, which forgets it after some hours.
pub async fn request(client: &Client, wanted: &Wanted) -> Result<Pair, CertificateError> {
    request_telling(client, wanted, &|_| {}).await
}

/// As [`request`]; `waits` is told, in words for people, when somebody may have to approve.
pub(crate) async fn request_telling(
    client: &Client,
    wanted: &Wanted,
    waits: Waits<'_>,
) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate().map_err(|error| CertificateError::Make(error.to_string()))?;
    request_with(client, wanted, &key, None, waits).await
}

/// As [`request_telling`] for a key that exists. With a name, a request of that name that is there already is taken up.
pub(crate) async fn request_with(
    client: &Client,
    wanted: &Wanted,
    key: &KeyPair,
    name: Option<String>,
    waits: Waits<'_>,
) -> Result<Pair, CertificateError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let deadline = Instant::now() + wanted.patience;
    let created = timeout_at(deadline, create(&api, wanted, key, name)).await;
    let created = created.map_err(|_| CertificateError::Unreachable("it does not answer".to_owned()))??;
    let csr = created.metadata.name.clone().unwrap_or_default();
    let issued = wait(&api, &created, wanted.patience, deadline, waits).await?;
    let pair = Pair::new(&String::from_utf8_lossy(&issued), &key.serialize_pem())?;
    if pair.public_key().as_deref() != Some(&key.subject_public_key_info()) {
        return Err(CertificateError::Foreign { csr });
    }
    Ok(pair)
}

/// A request's name that only depends on the key and what is wanted, so that one that was begun is found again.
pub(crate) fn name_of(wanted: &Wanted, key: &KeyPair) -> String {
    let mut digest = Sha256::new();
    for part in [&key.subject_public_key_info(), wanted.signer().as_bytes(), wanted.node.as_bytes()] {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("node-csr-{hex}")
}

async fn create(
    api: &Api<CertificateSigningRequest>,
    wanted: &Wanted,
    key: &KeyPair,
    name: Option<String>,
) -> Result<CertificateSigningRequest, CertificateError> {
    let object = CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: name.is_none().then(|| "csr-".to_owned()),
            name: name.clone(),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(wanted.pkcs10(key)?.into_bytes()),
            signer_name: wanted.signer().to_owned(),
            usages: Some(wanted.usages().map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    match (api.create(&PostParams::default(), &object).await, name) {
        (Ok(created), _) => Ok(created),
        (Err(Error::Api(status)), Some(name)) if status.code == 409 => {
            api.get(&name).await.map_err(|error| CertificateError::of_api(&error))
        }
        (Err(error), _) => Err(CertificateError::of_api(&error)),
    }
}

/// Follows the request until it is answered.
async fn wait(
    api: &Api<CertificateSigningRequest>,
    created: &CertificateSigningRequest,
    patience: Duration,
    deadline: Instant,
    waits: Waits<'_>,
) -> Result<Vec<u8>, CertificateError> {
    let csr = created.metadata.name.clone().unwrap_or_default();
    let config = watcher::Config::default().fields(&format!("metadata.name={csr}"));
    let mut events = watch(api.clone(), config).default_backoff().boxed();
    let tell_at = (Instant::now() + PATIENCE_FOR_APPROVAL).min(deadline);
    let mut approved = false;
    let mut told = false;
    let mut seen = false;
    loop {
        let event = tokio::select! {
            event = events.try_next() => event,
            () = sleep_until(tell_at), if !told => {
                told = true;
                let missing = if approved { "to be signed" } else { "for approval" };
                let what = format!("certificate signing request {csr} waits {missing}");
                waits(if approved { what } else { format!("{what}: `kubectl certificate approve {csr}`") });
                continue;
            }
            () = sleep_until(deadline) => return Err(CertificateError::Pending { csr, approved, waited: patience }),
        };
        let object = match event {
            Ok(Some(Event::Apply(object) | Event::InitApply(object))) => object,
            Ok(Some(Event::Delete(_))) => return Err(CertificateError::Deleted { csr }),
            Ok(Some(Event::Init)) => {
                seen = false;
                continue;
            }
            Ok(Some(Event::InitDone)) if !seen => return Err(CertificateError::Deleted { csr }),
            Ok(Some(Event::InitDone) | None) => continue,
            Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) if matches!(&error, Error::Api(status) if matches!(status.code, 401 | 403)) =>
            {
                return Err(CertificateError::of_api(&error));
            }
            Err(error) => {
                tracing::debug!(csr, %error, "the watch of a certificate signing request broke; it is made again");
                continue;
            }
        };
        if object.metadata.uid != created.metadata.uid {
            return Err(CertificateError::Deleted { csr });
        }
        seen = true;
        match answer(&object) {
            Answer::Issued(certificate) => return Ok(certificate),
            Answer::Approved => approved = true,
            Answer::None => {}
            Answer::Denied(reason) => return Err(CertificateError::Denied { csr, reason }),
            Answer::Failed(reason) => return Err(CertificateError::Failed { csr, reason }),
        }
    }
}

/// How far a request has come.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    None,
    Approved,
    Issued(Vec<u8>),
    Denied(String),
    Failed(String),
}

/// `k8s.io/client-go@v0.37.2:util/certificate/csr/csr.go#WaitForCertificate`.
fn answer(object: &CertificateSigningRequest) -> Answer {
    let Some(status) = &object.status else { return Answer::None };
    let condition = |type_: &str| {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == type_)?;
        let words = [condition.reason.as_deref(), condition.message.as_deref()];
        let words: Vec<_> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
        Some(if words.is_empty() { "no reason given".to_owned() } else { words.join(": ") })
    };
    if let Some(reason) = condition("Denied") {
        return Answer::Denied(reason);
    }
    if let Some(reason) = condition("Failed") {
        return Answer::Failed(reason);
    }
    match (&status.certificate, condition("Approved")) {
        (Some(certificate), Some(_)) if !certificate.0.is_empty() => Answer::Issued(certificate.0.clone()),
        (_, Some(_)) => Answer::Approved,
        _ => Answer::None,
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateSigningRequestDer;
    use rustls_pki_types::pem::PemObject;
    use serde_json::json;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::ParsedExtension;
    use x509_parser::prelude::FromDer;

    use super::*;

    fn wanted(kind: Kind) -> Wanted {
        Wanted { node: "worker-1".to_owned(), kind, patience: Duration::from_secs(1) }
    }

    #[test]
    fn a_request_says_what_the_signers_check() {
        let key = KeyPair::generate().expect("a key");
        let client = wanted(Kind::Client);
        assert_eq!(client.usages(), ["digital signature", "client auth"]);
        assert_eq!(
            read(&client.pkcs10(&key).expect("a request")),
            ("O=system:nodes, CN=system:node:worker-1".to_owned(), 0)
        );
        let serving = wanted(Kind::Serving { names: vec!["worker-1".to_owned(), "10.0.0.7".to_owned()] });
        assert_eq!(serving.usages(), ["digital signature", "server auth"]);
        assert_eq!(read(&serving.pkcs10(&key).expect("a request")).1, 2);
    }

    /// Subject, and how many alternative names.
    fn read(pem: &str) -> (String, usize) {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let (_, request) = X509CertificationRequest::from_der(&der).expect("a request");
        let subject = request.certification_request_info.subject.to_string();
        let names = request.requested_extensions().into_iter().flatten().map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => names.general_names.len(),
            _ => 0,
        });
        (subject, names.sum())
    }

    #[test]
    fn a_request_s_name_is_the_same_for_the_same_key() {
        let key = KeyPair::generate().expect("a key");
        let name = name_of(&wanted(Kind::Client), &key);
        assert_eq!(name, name_of(&wanted(Kind::Client), &key));
        assert_ne!(name, name_of(&wanted(Kind::Serving { names: Vec::new() }), &key));
        assert_ne!(name, name_of(&wanted(Kind::Client), &KeyPair::generate().expect("a key")));
        assert_eq!(name.len(), "node-csr-".len() + 64);
    }

    #[test]
    fn answers_are_told_apart() {
        let of = |status: serde_json::Value| {
            let object =
                json!({"metadata": {"name": "c"}, "spec": {"request": "", "signerName": "s"}, "status": status});
            answer(&serde_json::from_value(object).expect("an object"))
        };
        let condition = |type_: &str| json!([{"type": type_, "status": "True", "reason": "R", "message": "M"}]);
        assert_eq!(of(json!({})), Answer::None);
        assert_eq!(of(json!({"conditions": condition("Approved")})), Answer::Approved);
        assert_eq!(of(json!({"certificate": "YWJj"})), Answer::None);
        assert_eq!(
            of(json!({"conditions": condition("Approved"), "certificate": "YWJj"})),
            Answer::Issued(b"abc".to_vec())
        );
        assert_eq!(of(json!({"conditions": condition("Denied")})), Answer::Denied("R: M".to_owned()));
        assert_eq!(
            of(json!({"conditions": condition("Failed"), "certificate": "YWJj"})),
            Answer::Failed("R: M".to_owned())
        );
    }
}

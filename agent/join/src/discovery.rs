//! Whom to trust: from a token or a file to the cluster's address and authority.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::https::{self, Answer, Endpoint, Trust};
use crate::kubeconfig::{self, Files, Kubeconfig};
use crate::{Credentials, Discovery, JoinError, Pins, Request, Token, jws};

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
/// Between attempts. cluster-info can be read, not watched, without credentials.
const RETRY: Duration = Duration::from_secs(1);
/// A token that was made a moment ago is signed within about a second.
const UNSIGNED: Duration = Duration::from_secs(10);
/// How long a server that is away is waited for, unless the configuration says otherwise.
const AWAY: Duration = Duration::from_secs(20);

/// A cluster that has shown who it is, and how to ask it for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// `https://HOST:PORT`, the cluster's own word.
    pub server: String,
    /// Its authority, PEM.
    pub authority: Vec<u8>,
    /// For the bootstrap: a token, or what the discovery file holds.
    pub credentials: Credentials,
}

impl Trusted {
    /// A kubeconfig with all of it, as kubeadm writes bootstrap-kubelet.conf.
    pub fn kubeconfig(&self) -> String {
        kubeconfig::compose(&self.server, &self.authority, &self.credentials)
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint, JoinError> {
        Endpoint::parse(&self.server).map_err(|reason| JoinError::ClusterInfo {
            endpoint: self.server.clone(),
            reason: format!("server: {reason}"),
        })
    }
}

/// Finds out whom to trust, as `kubeadm join` does (`kubernetes@v1.37.2:cmd/kubeadm/app/discovery`). Nothing is written.
///
/// With a token: cluster-info is read without verifying anybody and without showing credentials, its signature checked
/// with the token, its authority with the pins, and then it is read again from a server that this authority vouches for.
///
/// # Errors
/// Every [`JoinError`] about reaching and trusting a cluster.
pub async fn discover(request: &Request) -> Result<Trusted, JoinError> {
    let patience = request.timeouts.discovery;
    match &request.discovery {
        Discovery::Token { endpoint, token, pins } => {
            let found = by_token(endpoint, token, pins, patience).await?;
            let credentials = match &request.tls_bootstrap_token {
                Some(token) => Credentials::Bearer(token.clone()),
                None => Credentials::token(token),
            };
            Ok(Trusted { credentials, ..found })
        }
        Discovery::File { path } => by_file(path, request.tls_bootstrap_token.as_deref(), patience).await,
    }
}

async fn by_token(
    endpoint: &str,
    token: &Token,
    pins: &Pins,
    patience: Option<Duration>,
) -> Result<Trusted, JoinError> {
    let endpoint = Endpoint::parse(endpoint).map_err(|reason| JoinError::request("HOST:PORT", reason))?;
    let (config, signature) = signed_cluster_info(&endpoint, token, patience).await?;
    let info = |reason: String| JoinError::ClusterInfo { endpoint: endpoint.to_string(), reason };
    if !jws::verify(&signature, &config, token) {
        return Err(blame(&endpoint, token, pins, &config).await);
    }
    let parsed = Kubeconfig::parse(&config, Files::Refused).map_err(info)?;
    let found = Trusted { server: parsed.server, authority: parsed.authority, credentials: Credentials::Anonymous };
    found.endpoint()?;
    if pins.is_empty() {
        crate::pin::certificates(&found.authority)?;
        return Ok(found);
    }
    pins.check(&found.authority)?;
    match verified_cluster_info(&endpoint, &found.authority).await? {
        second if second == config => Ok(found),
        _ => Err(JoinError::Tampered),
    }
}

/// cluster-info's kubeconfig and its signature for this token, from whoever answers.
async fn signed_cluster_info(
    endpoint: &Endpoint,
    token: &Token,
    patience: Option<Duration>,
) -> Result<(String, String), JoinError> {
    let begin = Instant::now();
    loop {
        let (error, within) = match cluster_info(endpoint, Trust::Anybody, &Credentials::Anonymous).await {
            Ok((info, answer)) => {
                clock::judge(clock::now(), answer.date, answer.validity)?;
                let mut data = info.data.unwrap_or_default();
                let config = data.remove("kubeconfig").filter(|text| !text.is_empty()).ok_or_else(|| {
                    let reason = "it holds no kubeconfig".to_owned();
                    JoinError::NoClusterInfo { endpoint: endpoint.to_string(), reason }
                })?;
                match data.remove(&format!("jws-kubeconfig-{}", token.id())).filter(|text| !text.is_empty()) {
                    Some(signature) => return Ok((config, signature)),
                    None => (JoinError::TokenUnknown { id: token.id().to_owned() }, patience.unwrap_or(UNSIGNED)),
                }
            }
            Err(error) => {
                let away = matches!(&error, JoinError::Unreachable { .. })
                    || matches!(&error, JoinError::Answer { status, .. } if *status == 429 || *status >= 500);
                if !away {
                    return Err(error);
                }
                (error, patience.unwrap_or(AWAY))
            }
        };
        if begin.elapsed() + RETRY > within {
            return Err(error);
        }
        sleep(RETRY).await;
    }
}

/// What a wrong signature means. With pins, a verified look tells a mistyped secret from a changed cluster-info.
async fn blame(endpoint: &Endpoint, token: &Token, pins: &Pins, config: &str) -> JoinError {
    let id = token.id().to_owned();
    if pins.is_empty() {
        return JoinError::Signature { id };
    }
    let Ok(parsed) = Kubeconfig::parse(config, Files::Refused) else { return JoinError::Signature { id } };
    if let Err(error) = pins.check(&parsed.authority) {
        return error;
    }
    match verified_cluster_info(endpoint, &parsed.authority).await {
        Ok(second) if second == config => JoinError::TokenSecret { id },
        Ok(_) => JoinError::Tampered,
        Err(_) => JoinError::Signature { id },
    }
}

/// cluster-info's kubeconfig, from a server that the authority vouches for.
async fn verified_cluster_info(endpoint: &Endpoint, authority: &[u8]) -> Result<String, JoinError> {
    let (info, _) = cluster_info(endpoint, Trust::Authority(authority), &Credentials::Anonymous).await?;
    Ok(info.data.unwrap_or_default().remove("kubeconfig").unwrap_or_default())
}

async fn cluster_info(
    endpoint: &Endpoint,
    trust: Trust<'_>,
    credentials: &Credentials,
) -> Result<(ConfigMap, Answer), JoinError> {
    let answer = https::get(endpoint, trust, credentials, CLUSTER_INFO).await?;
    let none = |reason: String| JoinError::NoClusterInfo { endpoint: endpoint.to_string(), reason };
    match answer.status {
        200 => {
            let info = serde_json::from_slice(&answer.body).map_err(|error| JoinError::NotTls {
                endpoint: endpoint.to_string(),
                reason: format!("cluster-info is no ConfigMap ({error})"),
            })?;
            Ok((info, answer))
        }
        401 | 403 => Err(none(format!("anonymous requests for it are refused{}", answer.words(": ")))),
        404 => Err(none("it does not exist".to_owned())),
        _ => Err(answer.unexpected("cluster-info", endpoint)),
    }
}

/// A discovery file: a kubeconfig, whose authority is trusted as it is.
async fn by_file(path: &Path, token: Option<&str>, patience: Option<Duration>) -> Result<Trusted, JoinError> {
    let place = || format!("discovery file {}", path.display());
    let wrong = |reason: String| JoinError::request(place(), reason);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let folder: PathBuf = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let parsed = Kubeconfig::parse(&text, Files::In(&folder)).map_err(wrong)?;
    let credentials = match token {
        Some(token) => Credentials::Bearer(token.to_owned()),
        None => parsed.credentials,
    };
    if credentials == Credentials::Anonymous {
        return Err(wrong(
            "holds no credentials: embed a token or a client certificate, or give --tls-bootstrap-token".into(),
        ));
    }
    if parsed.authority.is_empty() {
        return Err(wrong("holds no certificate-authority-data: without it the API server can't be verified".into()));
    }
    let found = Trusted { server: parsed.server, authority: parsed.authority, credentials };
    let endpoint = Endpoint::parse(&found.server).map_err(|reason| wrong(format!("server: {reason}")))?;
    let begin = Instant::now();
    loop {
        // Only to see that the server is up and is the one; that cluster-info can't be read is fine.
        let trust = Trust::Authority(&found.authority);
        match https::get(&endpoint, trust, &found.credentials, CLUSTER_INFO).await {
            Ok(answer) => {
                clock::judge(clock::now(), answer.date, answer.validity)?;
                return Ok(found);
            }
            Err(error @ JoinError::Unreachable { .. }) if begin.elapsed() + RETRY > patience.unwrap_or(AWAY) => {
                return Err(error);
            }
            Err(JoinError::Unreachable { .. }) => sleep(RETRY).await,
            Err(error) => return Err(error),
        }
    }
}

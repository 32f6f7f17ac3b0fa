//! An API server as far as joining looks, with its authority; it can be told to misbehave.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use k8s_openapi::jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) const TOKEN: &str = "abcdef.0123456789abcdef";

pub(crate) struct Authority {
    pem: String,
    pin: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let hash = digest::digest(&digest::SHA256, &key.subject_public_key_info());
        let pin = hash.as_ref().iter().fold(String::from("sha256:"), |text, byte| format!("{text}{byte:02x}"));
        Self { pem, pin, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn pin(&self) -> String {
        self.pin.clone()
    }
}

/// What is bad about it; nothing by default.
pub(crate) struct Behaviour {
    pub(crate) signed: bool,
    /// So many answers come without a signature first.
    pub(crate) unsigned_answers: usize,
    /// The first answer's kubeconfig is another one than the second's.
    pub(crate) tampered: bool,
    pub(crate) foreign_certificate: bool,
    pub(crate) names: Vec<String>,
    /// Days from now.
    pub(crate) begins: i64,
    pub(crate) ends: i64,
    pub(crate) date_offset: i64,
    pub(crate) no_date: bool,
    pub(crate) cluster_info_status: u16,
    pub(crate) body: Option<String>,
    pub(crate) api_status: u16,
    pub(crate) node_ready: Option<&'static str>,
    pub(crate) kubeadm_config: String,
}

pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    pub(crate) async fn start(change: impl FnOnce(&mut Behaviour)) -> Self {
        let mut behaviour = Behaviour {
            signed: true,
            unsigned_answers: 0,
            tampered: false,
            foreign_certificate: false,
            names: vec!["127.0.0.1".into()],
            begins: -1,
            ends: 30,
            date_offset: 0,
            no_date: false,
            cluster_info_status: 200,
            body: None,
            api_status: 200,
            node_ready: None,
            kubeadm_config: "kind: ClusterConfiguration\nclusterName: test\nkubernetesVersion: v1.37.2\n".into(),
        };
        change(&mut behaviour);
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stranger = Authority::new();
        let issuer = if behaviour.foreign_certificate { &stranger.issuer } else { &authority.issuer };
        let acceptor = TlsAcceptor::from(Arc::new(tls(&behaviour, issuer)));
        let kubeconfig = format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://{address}\n  \
             name: \"\"\nkind: Config\n",
            STANDARD.encode(authority.pem())
        );
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.is_ok_and(|read| read > 0) {}
                let number = {
                    let mut seen = seen.lock().expect("not poisoned");
                    seen.push(head.to_owned());
                    seen.len()
                };
                let (status, body) = answer(&behaviour, &kubeconfig, &head, number);
                let date = if behaviour.no_date {
                    String::new()
                } else {
                    format!("Date: {}\r\n", date(behaviour.date_offset))
                };
                let head = format!("HTTP/1.1 {status} X\r\n{date}Content-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(body.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { authority, address, requests }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

fn tls(behaviour: &Behaviour, issuer: &Issuer<'static, KeyPair>) -> ServerConfig {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(behaviour.names.clone()).expect("parameters");
    let day = |days: i64| {
        let now = SystemTime::now();
        let span = Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - span } else { now + span }
    };
    params.not_before = day(behaviour.begins).into();
    params.not_after = day(behaviour.ends).into();
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a configuration")
}

fn answer(behaviour: &Behaviour, kubeconfig: &str, head: &str, number: usize) -> (u16, String) {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let refusal = |status: u16| (status, json!({"kind": "Status", "message": "no luck", "code": status}).to_string());
    if path.starts_with("/api/v1/namespaces/kube-public/") {
        if behaviour.cluster_info_status != 200 {
            return refusal(behaviour.cluster_info_status);
        }
        if let Some(body) = &behaviour.body {
            return (200, body.clone());
        }
        let mut data = json!({"kubeconfig": kubeconfig});
        if behaviour.tampered && number == 1 {
            data["kubeconfig"] = kubeconfig.replace("127.0.0.1", "127.0.0.2").into();
        }
        if behaviour.signed && number > behaviour.unsigned_answers {
            data["jws-kubeconfig-abcdef"] = sign(kubeconfig).into();
        }
        return (200, json!({"kind": "ConfigMap", "apiVersion": "v1", "data": data}).to_string());
    }
    if behaviour.api_status != 200 {
        return refusal(behaviour.api_status);
    }
    let map = |key: &str, value: &str| {
        (200, json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {key: value}}).to_string())
    };
    match path {
        "/api/v1/namespaces/kube-system/configmaps/kubeadm-config" => {
            map("ClusterConfiguration", &behaviour.kubeadm_config)
        }
        "/api/v1/namespaces/kube-system/configmaps/kubelet-config" => map(
            "kubelet",
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nclusterDNS: [10.96.0.10]\n",
        ),
        "/api/v1/nodes/worker" => match behaviour.node_ready {
            None => refusal(404),
            Some(status) => {
                let conditions = json!([{"type": "Ready", "status": status}]);
                let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "worker"},
                    "status": {"conditions": conditions}});
                (200, node.to_string())
            }
        },
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dworker" => {
            let pod = json!({"metadata": {"name": "a", "namespace": "b"}});
            (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [pod]}).to_string())
        }
        _ => refusal(404),
    }
}

fn sign(content: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"abcdef"}"#);
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
    let tag = hmac::sign(&key, format!("{header}.{}", URL_SAFE_NO_PAD.encode(content)).as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

fn date(offset: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let at = Timestamp::from_second(i64::try_from(now).expect("small") + offset).expect("a time");
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Something that answers, and not in TLS.
pub(crate) async fn plain_http() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    address.to_string()
}

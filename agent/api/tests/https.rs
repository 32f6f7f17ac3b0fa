//! The server on loopback: who gets in, and what they are told.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use berth_api::{Ask, Authenticator, Authorizer, Denied, Host, Server, Settings, User, Verdict};
use berth_pods::LogError;
use k8s_openapi::api::core::v1::Pod;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

#[derive(Debug)]
struct Node {
    log: PathBuf,
}

impl Host for Node {
    fn pods(&self) -> Vec<Pod> {
        vec![serde_json::from_value(serde_json::json!({"metadata": {"name": "web"}})).expect("a pod")]
    }

    fn log_path(&self, _: &str, pod: &str, container: &str, previous: bool) -> Result<PathBuf, LogError> {
        match (pod, container, previous) {
            ("web", "c", false) => Ok(self.log.clone()),
            ("web", "c", true) => Err(LogError::NoPrevious { pod: pod.into(), container: container.into() }),
            ("web", _, _) => Err(LogError::NoContainer { pod: pod.into(), container: container.into() }),
            _ => Err(LogError::NoPod(pod.into())),
        }
    }

    fn is_running(&self, _: &str, _: &str, _: &str) -> bool {
        false
    }
}

/// Admins may do everything, readers see pods.
#[derive(Debug)]
struct Rules;

#[async_trait]
impl Authorizer for Rules {
    async fn review(&self, ask: &Ask) -> Result<Verdict, Denied> {
        let admin = ask.user.groups.iter().any(|group| group == "admins");
        let reader = ask.user.name == "reader" && ask.verb == "get" && ask.subresource == "pods";
        if ask.user.name == "unlucky" {
            return Err(Denied { reason: "the API server is away".to_owned() });
        }
        Ok(if admin || reader { Verdict::Allowed } else { Verdict::NoOpinion })
    }
}

/// Two tokens are known.
#[derive(Debug)]
struct Book;

#[async_trait]
impl Authenticator for Book {
    async fn review(&self, token: &str) -> Result<Option<User>, Denied> {
        let user = |name: &str, group: &str| {
            Ok(Some(User { name: name.to_owned(), groups: vec![group.to_owned()], ..User::default() }))
        };
        match token {
            "t-admin" => user("scraper", "admins"),
            "t-reader" => user("reader", "people"),
            "t-away" => Err(Denied { reason: "the API server is away".to_owned() }),
            _ => Ok(None),
        }
    }
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn client(&self, name: &str, group: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (certificate.der().clone(), key)
    }
}

/// Takes the server's certificate as it comes: this test is about the client's.
#[derive(Debug)]
struct Trusting(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

type Identity = Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>;

/// Status line and body.
async fn call(address: SocketAddr, identity: Identity, request: &str) -> String {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)));
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).expect("an identity"),
    };
    let stream = TcpStream::connect(address).await.expect("connects");
    let name = ServerName::try_from("node").expect("a name");
    let mut stream = match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => stream,
        Err(error) => return format!("handshake: {error}"),
    };
    let request = format!("{request} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer).await {
        let _ = write!(String::new(), "{error}");
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    format!("{} {body}", head.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 "))
}

async fn start(folder: &Path, authority: &Authority) -> SocketAddr {
    let log = folder.join("0.log");
    std::fs::write(&log, "2026-11-24T04:00:00Z stdout F hello\n").expect("a log");
    let ca = folder.join("ca.crt");
    std::fs::write(&ca, &authority.certificate).expect("an authority");
    let settings = Settings {
        address: "127.0.0.1:0".parse().expect("address"),
        identity: berth_api::Identity::SelfSigned {
            dir: folder.join("pki"),
            names: vec!["node".to_owned(), "127.0.0.1".to_owned()],
        },
        only_tls13: false,
        client_ca_file: Some(ca),
        tokens: Some(Arc::new(Book)),
        anonymous: false,
    };
    let server = Server::bind(&settings, Arc::new(Node { log }), Arc::new(Rules)).await.expect("listens");
    let address = server.local_addr().expect("an address");
    tokio::spawn(server.run());
    address
}

#[tokio::test]
async fn certificates_decide_who_gets_in_and_rules_what_they_may() {
    let folder = tempfile::tempdir().expect("folder");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let address = start(folder.path(), &ours).await;
    let admin = || Some(ours.client("root", "admins"));
    let reader = || Some(ours.client("reader", "people"));

    let cases = [
        (None, "GET /healthz", "401 Unauthorized", "Unauthorized"),
        (None, "GET /nowhere", "401 Unauthorized", "Unauthorized"),
        (admin(), "GET /healthz", "200 OK", "ok"),
        (admin(), "GET /pods", "200 OK", "\"kind\":\"PodList\""),
        (reader(), "GET /pods", "200 OK", "\"name\":\"web\""),
        (
            reader(),
            "GET /containerLogs/n/web/c",
            "403 Forbidden",
            "Forbidden (user=reader, verb=get, resource=nodes, subresource(s)=[proxy])",
        ),
        (reader(), "POST /pods", "403 Forbidden", "verb=create, resource=nodes, subresource(s)=[pods proxy])"),
        (Some(ours.client("unlucky", "x")), "GET /pods", "500 ", "Authorization error (user=unlucky, verb=get"),
        (admin(), "GET /containerLogs/n/web/c", "200 OK", "hello\n"),
        (admin(), "GET /containerLogs/n/web/c?timestamps=true", "200 OK", "2026-11-24T04:00:00Z hello\n"),
        (admin(), "GET /containerLogs/n/web/c?tailLines=x", "400 ", "Unable to decode query"),
        (admin(), "GET /containerLogs/n/web/c?tailLines=-1", "422 ", "tailLines: Invalid value"),
        (admin(), "GET /containerLogs/n/web/c?previous=true", "400 ", "previous terminated container \"c\""),
        (admin(), "GET /containerLogs/n/web/d", "404 ", "container \"d\" in pod \"web\" is not valid"),
        (admin(), "GET /containerLogs/n/none/c", "404 ", "pod \"none\" not found"),
        (admin(), "POST /pods", "405 ", ""),
        (admin(), "GET /nowhere", "404 ", "404 page not found"),
    ];
    for (identity, request, status, says) in cases {
        let answer = call(address, identity, request).await;
        assert!(answer.starts_with(status) && answer.contains(says), "{request}: {answer}");
    }
    let cases = [
        (None, "t-admin", "GET /pods", "200 OK"),
        (None, "t-reader", "GET /pods", "200 OK"),
        (None, "t-reader", "POST /pods", "403 Forbidden"),
        (None, "t-stolen", "GET /pods", "401 Unauthorized"),
        (None, "t-away", "GET /pods", "401 Unauthorized"),
        // The certificate says who it is, whatever the token.
        (reader(), "t-admin", "POST /pods", "403 Forbidden"),
    ];
    for (identity, token, request, status) in cases {
        let request = format!("{request} HTTP/1.1\r\nAuthorization: bearer {token}\r\nX-Rest:");
        let answer = call(address, identity, &request).await;
        assert!(answer.starts_with(status), "{token}: {answer}");
    }
    let answer = call(address, Some(theirs.client("root", "admins")), "GET /pods").await;
    assert!(!answer.starts_with("200"), "a stranger's certificate opened the door: {answer}");
}

/// The certificate that the server shows.
async fn shown(address: SocketAddr) -> Option<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.expect("connects");
    let name = ServerName::try_from("node").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
}

/// Until the server has noticed.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let patience = std::time::Duration::from_secs(60);
    let wait = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn pair() -> (String, String, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().to_vec())
}

#[tokio::test]
async fn a_new_authority_is_taken_without_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let address = start(folder.path(), &ours).await;
    let first = shown(address).await.expect("a certificate");
    let enters = async |authority: &Authority| {
        call(address, Some(authority.client("root", "admins")), "GET /pods").await.starts_with("200")
    };
    assert!(enters(&ours).await && !enters(&theirs).await);
    // What can't be used changes nothing.
    std::fs::write(folder.path().join("ca.crt"), "half a certif").expect("writes");
    std::fs::write(folder.path().join("ca.new"), &theirs.certificate).expect("writes");
    assert!(enters(&ours).await);
    std::fs::rename(folder.path().join("ca.new"), folder.path().join("ca.crt")).expect("renames");
    until("the new authority's clients enter", || enters(&theirs)).await;
    assert!(!enters(&ours).await);
    assert_eq!(shown(address).await, Some(first), "the server's own certificate stays");
}

#[tokio::test]
async fn certificate_files_are_followed_also_when_they_are_links() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let write = |data: &str, (certificate, key, _): &(String, String, Vec<u8>)| {
        std::fs::create_dir(at(data)).expect("a folder");
        std::fs::write(at(data).join("tls.crt"), certificate).expect("writes");
        std::fs::write(at(data).join("tls.key"), key).expect("writes");
    };
    let (first, second) = (pair(), pair());
    write("one", &first);
    std::os::unix::fs::symlink("one", at("data")).expect("links");
    let settings = Settings {
        address: "127.0.0.1:0".parse().expect("address"),
        identity: berth_api::Identity::Files { certificate: at("data/tls.crt"), key: at("data/tls.key") },
        only_tls13: true,
        client_ca_file: None,
        tokens: None,
        anonymous: true,
    };
    let server = Server::bind(&settings, Arc::new(Node { log: at("0.log") }), Arc::new(Rules)).await.expect("listens");
    let address = server.local_addr().expect("an address");
    tokio::spawn(server.run());
    assert_eq!(shown(address).await.as_ref(), Some(&first.2));
    write("two", &second);
    std::os::unix::fs::symlink("two", at("data.new")).expect("links");
    std::fs::rename(at("data.new"), at("data")).expect("renames");
    until("the new certificate is shown", async || shown(address).await.as_ref() == Some(&second.2)).await;
}

#[tokio::test]
async fn an_issued_certificate_is_shown_once_it_is_there() {
    let folder = tempfile::tempdir().expect("folder");
    let (issuer, issued) = tokio::sync::watch::channel(None);
    let settings = Settings {
        address: "127.0.0.1:0".parse().expect("address"),
        identity: berth_api::Identity::Issued(issued),
        only_tls13: false,
        client_ca_file: None,
        tokens: None,
        anonymous: true,
    };
    let node = Arc::new(Node { log: folder.path().join("0.log") });
    let server = Server::bind(&settings, node, Arc::new(Rules)).await.expect("listens");
    let address = server.local_addr().expect("an address");
    tokio::spawn(server.run());
    assert_eq!(shown(address).await, None);
    for _ in 0..2 {
        let (certificate, key, der) = pair();
        issuer.send(Some(berth_api::Issued { certificate, key })).expect("sends");
        until("the issued certificate is shown", async || shown(address).await.as_ref() == Some(&der)).await;
    }
}

#[tokio::test]
async fn plain_healthz_answers_get_and_head() {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = probe.local_addr().expect("an address");
    drop(probe);
    tokio::spawn(async move { berth_api::healthz(address).await });
    for (method, body) in [("GET", "ok"), ("HEAD", "")] {
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let request = format!("{method} /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    }
}

//! Discovery against a real TLS server: a good cluster, and every way in which it can be bad.

mod server;

use std::time::Duration;

use berth_join::{Cluster, Credentials, Discovery, JoinError, Options, Request, Session, Token, Trusted, discover};
use server::{Authority, Behaviour, Cluster as Fake, TOKEN};

fn options(fake: &Fake) -> Options {
    Options {
        endpoint: Some(fake.endpoint()),
        token: Some(TOKEN.into()),
        hashes: vec![fake.authority.pin()],
        ..Options::default()
    }
}

/// What comes of it, with no patience for what would not change.
async fn by(options: &Options) -> Result<Trusted, JoinError> {
    let mut request = Request::from_options(options, "worker").expect("a request");
    request.timeouts.discovery = Some(Duration::from_secs(1));
    discover(&request).await
}

async fn refused(options: &Options) -> JoinError {
    by(options).await.expect_err("refused")
}

#[tokio::test]
async fn a_good_cluster_is_trusted_by_token_and_pin() {
    let fake = Fake::start(|_| {}).await;
    let found = by(&options(&fake)).await.expect("trusted");
    assert_eq!(found.server, format!("https://{}", fake.endpoint()));
    assert_eq!(found.authority, fake.authority.pem().as_bytes());
    assert_eq!(found.credentials, Credentials::token(&Token::parse(TOKEN).expect("a token")));
    // The token is not shown before the cluster has proved itself.
    assert!(fake.requests().iter().all(|request| !request.contains("authorization")), "{:?}", fake.requests());
    assert_eq!(fake.requests().len(), 2);

    let unpinned = Options { hashes: Vec::new(), skip_verification: true, ..options(&fake) };
    by(&unpinned).await.expect("trusted by the token alone");
}

#[tokio::test]
async fn a_wrong_secret_is_told_from_a_tampered_cluster_info() {
    let fake = Fake::start(|_| {}).await;
    let wrong = Options { token: Some("abcdef.fedcba9876543210".into()), ..options(&fake) };
    assert!(matches!(refused(&wrong).await, JoinError::TokenSecret { id } if id == "abcdef"));
    let unpinned = Options { hashes: Vec::new(), skip_verification: true, ..wrong };
    let error = refused(&unpinned).await;
    assert!(error.to_string().contains("failed to verify JWS signature"), "{error}");

    // Somebody in between who changes the address, but has no key that the cluster's authority has signed.
    let between = Fake::start(|behaviour| behaviour.tampered = true).await;
    let pinned = Options { hashes: vec![between.authority.pin()], ..options(&between) };
    assert!(matches!(refused(&pinned).await, JoinError::Tampered));
}

#[tokio::test]
async fn whoever_knows_the_token_and_not_the_authority_is_not_believed() {
    let (cluster, other) = (Fake::start(|_| {}).await, Fake::start(|_| {}).await);
    let lured = Options { endpoint: Some(other.endpoint()), ..options(&cluster) };
    let error = refused(&lured).await;
    assert!(matches!(&error, JoinError::PinMismatch { found } if *found == other.authority.pin()), "{error}");
    // The real cluster-info, passed on by a server without the cluster's key.
    let relay = Fake::start(|behaviour| behaviour.foreign_certificate = true).await;
    let error = refused(&options(&relay)).await;
    assert!(
        matches!(&error, JoinError::ServerIdentity { reason, .. } if reason.contains("not by the cluster's CA")),
        "{error}"
    );
    // One for other names.
    let named = Fake::start(|behaviour| behaviour.names = vec!["elsewhere".into()]).await;
    let error = refused(&options(&named)).await;
    assert!(error.to_string().contains("it is for other names than this one"), "{error}");
}

#[tokio::test]
async fn a_token_that_is_not_signed_for_is_expired_or_unknown() {
    let fake = Fake::start(|behaviour| behaviour.signed = false).await;
    let error = refused(&options(&fake)).await;
    assert!(matches!(&error, JoinError::TokenUnknown { .. }), "{error}");
    assert!(error.to_string().contains("it has expired. Use \"kubeadm token create\""), "{error}");
    // A token made a moment ago is signed a moment later.
    let late = Fake::start(|behaviour| behaviour.unsigned_answers = 1).await;
    let mut request = Request::from_options(&options(&late), "worker").expect("a request");
    request.timeouts.discovery = Some(Duration::from_secs(60));
    discover(&request).await.expect("signed in the end");
}

#[tokio::test]
async fn a_clock_that_is_off_is_told() {
    let fake = Fake::start(|behaviour| behaviour.date_offset = 86_400).await;
    let error = refused(&options(&fake)).await;
    assert!(matches!(&error, JoinError::Clock { side: "behind", .. }), "{error}");
    let fake = Fake::start(|behaviour| behaviour.date_offset = -86_400).await;
    assert!(matches!(refused(&options(&fake)).await, JoinError::Clock { side: "ahead of", .. }));
    // No Date, and a certificate that begins tomorrow.
    let fake = Fake::start(|behaviour| {
        behaviour.no_date = true;
        behaviour.begins = 1;
    })
    .await;
    let error = refused(&options(&fake)).await;
    assert!(error.to_string().contains("behind the validity of the API server's certificate"), "{error}");
    // The clocks agree: it is the certificate that has ended.
    let fake = Fake::start(|behaviour| {
        behaviour.begins = -9;
        behaviour.ends = -1;
    })
    .await;
    let error = refused(&options(&fake)).await;
    assert!(error.to_string().contains("kubeadm certs renew apiserver"), "{error}");
}

#[tokio::test]
async fn servers_that_are_none_are_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let free = listener.local_addr().expect("an address");
    drop(listener);
    let fake = Fake::start(|_| {}).await;
    let away = Options { endpoint: Some(free.to_string()), ..options(&fake) };
    let error = refused(&away).await;
    assert!(matches!(&error, JoinError::Unreachable { reason, .. } if reason == "connection refused"), "{error}");
    let nowhere = Options { endpoint: Some("no-such-host.invalid:6443".into()), ..options(&fake) };
    assert!(matches!(refused(&nowhere).await, JoinError::Unreachable { .. }));

    let plain = server::plain_http().await;
    let http = Options { endpoint: Some(plain), ..options(&fake) };
    let error = refused(&http).await;
    assert!(matches!(&error, JoinError::NotTls { .. }), "{error}");

    for (status, says) in
        [(403, "anonymous requests for it are refused"), (404, "it does not exist"), (500, "answered 500")]
    {
        let fake = Fake::start(|behaviour| behaviour.cluster_info_status = status).await;
        let error = refused(&options(&fake)).await.to_string();
        assert!(error.contains(says), "{error}");
    }
    for body in ["", "{", "{\"data\": {}}", "{\"data\": {\"kubeconfig\": \"\"}}", "[]"] {
        let fake = Fake::start(|behaviour| behaviour.body = Some(body.to_owned())).await;
        refused(&options(&fake)).await;
    }
    let endless = Fake::start(|behaviour| behaviour.body = Some("x".repeat(9 << 20))).await;
    assert!(matches!(refused(&options(&endless)).await, JoinError::Unreachable { .. }));
}

#[tokio::test]
async fn a_discovery_file_is_trusted_as_it_is() {
    let folder = tempfile::tempdir().expect("folder");
    let fake = Fake::start(|_| {}).await;
    let file = folder.path().join("discovery.conf");
    let write = |authority: &Authority| {
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).expect("written");
        let server = fake.endpoint();
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: '', cluster: {{server: 'https://{server}', \
             certificate-authority: ca.crt}}}}]\n"
        );
        std::fs::write(&file, text).expect("written");
    };
    write(&fake.authority);
    let options = Options { discovery_file: Some(file.clone()), token: Some(TOKEN.into()), ..Options::default() };
    let found = by(&options).await.expect("trusted");
    assert_eq!(found.credentials, Credentials::Bearer(TOKEN.into()));
    let anonymous = Options { token: None, ..options.clone() };
    assert!(refused(&anonymous).await.to_string().contains("holds no credentials"));
    write(&Authority::new());
    assert!(matches!(refused(&options).await, JoinError::ServerIdentity { .. }));
    std::fs::remove_file(&file).expect("removed");
    assert!(refused(&options).await.to_string().contains("discovery.conf"));
}

#[tokio::test]
async fn what_the_cluster_says_is_read_with_the_token() {
    let fake = Fake::start(|_| {}).await;
    let trusted = by(&options(&fake)).await.expect("trusted");
    let cluster = Cluster::read(&trusted, "worker").await.expect("read");
    assert_eq!((cluster.name.as_str(), cluster.version.as_str()), ("test", "v1.37.2"));
    assert!(cluster.kubelet_config.contains("clusterDNS"));
    assert!(fake.requests().iter().any(|request| request.contains(&format!("authorization: Bearer {TOKEN}"))));

    type Change = fn(&mut Behaviour);
    let cases: [(Change, &str); 6] = [
        (|b| b.api_status = 401, "does not accept the bootstrap token: it has expired"),
        (|b| b.api_status = 403, "kube-system/kubeadm-config: ClusterConfiguration may not be read"),
        (|b| b.api_status = 404, "the cluster has no kube-system/kubeadm-config"),
        (|b| b.api_status = 500, "answered 500: no luck"),
        (|b| b.node_ready = Some("True"), "a Node with name \"worker\" and status \"Ready\" already exists"),
        (|b| b.kubeadm_config = "- broken".into(), "kubeadm-config: ClusterConfiguration can't be used"),
    ];
    for (change, says) in cases {
        let fake = Fake::start(change).await;
        let trusted = by(&options(&fake)).await.expect("trusted");
        let error = Cluster::read(&trusted, "worker").await.expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
    let fake = Fake::start(|b| b.node_ready = Some("Unknown")).await;
    let trusted = by(&options(&fake)).await.expect("trusted");
    Cluster::read(&trusted, "worker").await.expect("a node that is not Ready is taken over");
}

#[tokio::test]
async fn a_session_asks_by_the_kubeconfig_of_the_node() {
    let fake = Fake::start(|b| b.node_ready = Some("True")).await;
    let trusted = by(&options(&fake)).await.expect("trusted");
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("kubelet.conf");
    std::fs::write(&file, trusted.kubeconfig()).expect("written");
    let session = Session::open(&file).expect("opens");
    assert_eq!(session.ends(), None);
    let node = session.node("worker").await.expect("answers").expect("a node");
    assert_eq!(node.metadata.name.as_deref(), Some("worker"));
    assert_eq!(session.pods("worker").await.expect("answers").len(), 1);
    assert!(matches!(
        Request::from_options(&options(&fake), "worker").expect("a request").discovery,
        Discovery::Token { .. }
    ));
}

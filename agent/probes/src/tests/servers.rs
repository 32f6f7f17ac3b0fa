//! Servers that say what they are told to.

use std::sync::{Arc, Mutex};

use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Answers every connection alike, as soon as it has read a request's head or whatever else comes first.
#[derive(Debug)]
pub(super) struct Scripted {
    pub(super) port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// `{port}` in the answer becomes the server's own. An empty answer is none: the server stays silent.
    pub(super) async fn start(answer: &str) -> Self {
        let (listener, port) = listen().await;
        let answer = answer.replace("{port}", &port.to_string());
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let known = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone(), Arc::clone(&known)));
            }
        });
        Self { port, heads }
    }

    /// The same over TLS, with a certificate that nobody knows.
    pub(super) async fn start_tls(answer: &'static str) -> Self {
        let (listener, port) = listen().await;
        let acceptor = acceptor(&[b"http/1.1"]);
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let known = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    tokio::spawn(serve(stream, answer.to_owned(), Arc::clone(&known)));
                }
            }
        });
        Self { port, heads }
    }

    /// The heads of the requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("heads").clone()
    }
}

pub(super) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

pub(super) fn acceptor(protocols: &[&[u8]]) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["elsewhere".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_no_client_auth();
    let mut config = config.with_single_cert(vec![made.cert.der().clone()], key.into()).expect("a configuration");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: String, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // Not HTTP at all, or no more of it.
        if !matches!(stream.read(&mut byte).await, Ok(1)) || !byte[0].is_ascii() || head.len() > 4096 {
            break;
        }
        head.push(byte[0]);
    }
    heads.lock().expect("heads").push(String::from_utf8_lossy(&head).into_owned());
    if answer.is_empty() {
        let _ = stream.read(&mut byte).await;
        return;
    }
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// How many connections of this port wait for their time to pass.
pub(super) fn time_waits(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("the table");
    let of_port = format!(":{port:04X}");
    table.lines().filter(|line| line.contains(&of_port) && line.split_whitespace().nth(3) == Some("06")).count()
}

/// A connection, for servers that are made elsewhere.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.expect("a connection").0
}

//! TLS towards containers, whose certificates nobody on the node could know: any is taken, as the API documents for
//! `scheme: HTTPS`.

use std::io;
use std::sync::{Arc, LazyLock};

use berth_tls::Anybody;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, Error};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Protocols to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// HTTP/2, and HTTP/1.1 where that is not known.
    Http,
    /// HTTP/2 alone, as gRPC speaks.
    Http2,
}

static HTTP: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(|| config(&[b"h2", b"http/1.1"]));
static HTTP2: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(|| config(&[b"h2"]));

fn config(protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let verifier = Anybody::new(&provider);
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Nothing is kept from one probe to the next.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Shakes hands over a connection to `host`.
pub(crate) async fn connect(host: &str, stream: TcpStream, offer: Offer) -> io::Result<TlsStream<TcpStream>> {
    let known = if offer == Offer::Http { &*HTTP } else { &*HTTP2 };
    let config = known.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// Whether a handshake failed because the other side does not speak TLS at all.
pub(crate) fn is_plain(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(inner, Some(Error::InvalidMessage(_)))
}

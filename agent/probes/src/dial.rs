//! Connections to containers, and what to say when there is none.

use std::io::{self, ErrorKind};

use tokio::net::TcpStream;

/// A connection to a container; it is not reused.
pub(crate) async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One that leaves no TIME_WAIT behind: whoever uses it has heard the other side out before it is dropped.
pub(crate) async fn conversation(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = tcp(host, port).await?;
    stream.set_zero_linger()?;
    Ok(stream)
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Why there is no connection, in the words that Go's dialer made familiar.
pub(crate) fn words(host: &str, port: u16, error: &io::Error) -> String {
    let cause = match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {}: {cause}", authority(host, port))
}

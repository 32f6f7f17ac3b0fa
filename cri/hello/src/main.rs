//! The sample workload: an HTTP server small enough to be carried inside Berth and to be a container's only file.
//!
//! It listens on `PORT` (default 8080) and answers every GET with a text that names the host, says so in one line at its
//! start, and leaves with status 0 on SIGTERM or SIGINT, also as process 1, which the kernel spares the default action.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use berth_sys::event;
use berth_sys::signal::{SIGINT, SIGTERM, SignalFd};

/// Connections served at the same time; more wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its request or take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request head that is read.
const HEAD: usize = 4096;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let signals = SignalFd::block(&[SIGTERM, SIGINT])?;
    let port = match env::var("PORT") {
        Err(_) => 8080,
        Ok(text) => {
            text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("PORT={text} is no port")))?
        }
    };
    // All addresses of both families, or of IPv4 where the kernel has no IPv6.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    listener.set_nonblocking(true)?;
    let host: Arc<str> = hostname().into();
    println!("hello from {host}, listening on port {}", listener.local_addr()?.port());
    let serving = Arc::new(AtomicUsize::new(0));
    loop {
        let ready = event::wait_readable(&[signals.as_fd(), listener.as_fd()], -1)?;
        if ready[0] && signals.next()?.is_some() {
            println!("goodbye");
            return Ok(());
        }
        if !ready[1] {
            continue;
        }
        if serving.load(Ordering::Relaxed) >= CONNECTIONS {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        // A client may have gone again since the wait: no reason to stop serving.
        let Ok((client, _)) = listener.accept() else { continue };
        let (host, serving) = (Arc::clone(&host), Arc::clone(&serving));
        serving.fetch_add(1, Ordering::Relaxed);
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let _ = answer(client, &host);
            serving.fetch_sub(1, Ordering::Relaxed);
        })?;
    }
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "nowhere".to_owned(), |name| name.trim().to_owned())
}

fn answer(mut client: TcpStream, host: &str) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let length = client.read(&mut buffer)?;
        if length == 0 || head.len() + length > HEAD {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..length]);
    }
    client.write_all(&response(&head, host))
}

fn response(head: &[u8], host: &str) -> Vec<u8> {
    let (status, body) = match head.split(|&b| b == b' ').next() {
        Some(b"GET" | b"HEAD") => ("200 OK", format!("Hello from {host}, a pod on Berth.\n")),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let length = body.len();
    let body = if head.starts_with(b"HEAD ") { "" } else { &body };
    format!("HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::response;

    #[test]
    fn get_names_the_host_and_others_are_refused() {
        let text = String::from_utf8(response(b"GET / HTTP/1.1\r\n\r\n", "pod-1")).expect("text");
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nHello from pod-1, a pod on Berth.\n")
        );
        assert!(response(b"POST / HTTP/1.1\r\n\r\n", "x").starts_with(b"HTTP/1.1 405 "));
        assert!(response(b"HEAD / HTTP/1.1\r\n\r\n", "x").ends_with(b"\r\n\r\n"));
    }
}

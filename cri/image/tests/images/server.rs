//! A registry that misbehaves as told: what a real one does only on bad days.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::support::Made;

/// A request: path with query, and its headers in lower case.
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    /// How often this path was asked for before.
    pub(crate) before: usize,
}

impl Asked {
    pub(crate) fn range(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok()
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Send only so much of the body, then hang up.
    pub(crate) cut: Option<usize>,
    /// Having sent that, wait for the peer to hang up instead.
    pub(crate) hang: bool,
}

impl Reply {
    pub(crate) fn ok(body: Vec<u8>) -> Self {
        Self { status: "200 OK", headers: Vec::new(), body, cut: None, hang: false }
    }

    pub(crate) fn status(status: &'static str) -> Self {
        Self { status, ..Self::ok(Vec::new()) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves `made` as `/v2/app`, except where `twist` answers otherwise; it is given the right answer.
    pub(crate) fn start(made: &Made, twist: impl Fn(&Asked, Reply) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (made, twist, log) = (made.clone(), Arc::new(twist), Arc::clone(&asked));
        // The threads end with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (made, twist, log) = (made.clone(), Arc::clone(&twist), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &made, &*twist, &log));
            }
        });
        Self { address, asked }
    }

    /// How many requests had `part` in their path.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked.lock().expect("lock").iter().filter(|path| path.contains(part)).count()
    }
}

fn serve(mut stream: TcpStream, made: &Made, twist: &dyn Fn(&Asked, Reply) -> Reply, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().expect("clone")).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
    let before = {
        let mut log = log.lock().expect("lock");
        let before = log.iter().filter(|asked| **asked == path).count();
        log.push(path.clone());
        before
    };
    let asked = Asked { path, headers, before };
    let reply = twist(&asked, right(&asked, made));
    let mut head =
        format!("HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    // The peer may hang up at any time; that is what some tests are about.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(body);
    if reply.hang {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
}

fn right(asked: &Asked, made: &Made) -> Reply {
    let path = asked.path.split('?').next().unwrap_or_default();
    if path.contains("/manifests/") {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        return Reply::ok(made.manifest.clone()).header("Content-Type", kind);
    }
    let blob = made.blobs.iter().find(|(digest, _)| path.ends_with(digest.as_str()));
    match (blob, asked.range()) {
        (None, _) => Reply::status("404 Not Found"),
        (Some((_, bytes)), None) => Reply::ok(bytes.clone()),
        (Some((_, bytes)), Some(from)) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply { status: "206 Partial Content", ..Reply::ok(bytes[from..].to_vec()) }.header("Content-Range", range)
        }
    }
}

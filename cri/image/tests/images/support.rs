//! Folders, archives, images and a real registry to push them to.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_image::import::Layout;
use berth_image::unpack::Program;
use berth_image::{Digest, Image, Options, PullError, Store};
use serde_json::json;

/// A folder of one test, removed with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("berth-image-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a folder of our own");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn options() -> Options {
    Options {
        unpack: Program { path: env!("CARGO_BIN_EXE_berth-image-unpack").into(), args: Vec::new() },
        stall: Duration::from_secs(10),
        attempts: 3,
        ..Options::default()
    }
}

pub(crate) fn store(folder: &Folder) -> Store {
    Store::open(&folder.path("store"), options()).expect("the store opens")
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}

/// One entry of an archive, whatever its name.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: tar::EntryType,
    pub(crate) link: &'a str,
    pub(crate) data: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
    pub(crate) device: (u32, u32),
    pub(crate) pax: &'a [(&'a str, &'a [u8])],
}

pub(crate) fn entry<'a>(name: &'a str, kind: tar::EntryType) -> Entry<'a> {
    Entry { name, kind, link: "", data: b"", mode: 0o755, owner: (0, 0), mtime: 0, device: (0, 0), pax: &[] }
}

pub(crate) fn dir(name: &str) -> Entry<'_> {
    entry(name, tar::EntryType::Directory)
}

pub(crate) fn file<'a>(name: &'a str, data: &'a [u8]) -> Entry<'a> {
    Entry { data, mode: 0o644, ..entry(name, tar::EntryType::Regular) }
}

pub(crate) fn symlink<'a>(name: &'a str, link: &'a str) -> Entry<'a> {
    Entry { link, ..entry(name, tar::EntryType::Symlink) }
}

pub(crate) fn hardlink<'a>(name: &'a str, link: &'a str) -> Entry<'a> {
    Entry { link, ..entry(name, tar::EntryType::Link) }
}

pub(crate) fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        if !entry.pax.is_empty() {
            builder.append_pax_extensions(entry.pax.iter().copied()).expect("pax");
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(entry.mtime);
        header.set_size(entry.data.len() as u64);
        if matches!(entry.kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(entry.device.0).expect("major");
            header.set_device_minor(entry.device.1).expect("minor");
        }
        // By hand: the library would refuse the names that we are here to refuse.
        let old = header.as_old_mut();
        old.name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        old.linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_cksum();
        builder.append(&header, entry.data).expect("append");
    }
    builder.into_inner().expect("archive")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

/// An image ready to be served: blobs by digest and the manifest.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) blobs: Vec<(Digest, Vec<u8>)>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) id: String,
}

impl Made {
    /// From layers as they are served, each with the archive in it.
    pub(crate) fn new(layers: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, archive)| Digest::sha256(archive)).collect();
        Self::with_diff_ids(layers.iter().map(|(blob, _)| blob.clone()).collect(), &diff_ids)
    }

    pub(crate) fn gzipped(archives: &[Vec<u8>]) -> Self {
        Self::new(&archives.iter().map(|archive| (gzip(archive), archive.clone())).collect::<Vec<_>>())
    }

    pub(crate) fn with_diff_ids(layers: Vec<Vec<u8>>, diff_ids: &[Digest]) -> Self {
        let config = json!({
            "architecture": std::env::consts::ARCH, "os": "linux", "config": { "Entrypoint": ["/hello"], "Volumes": null },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = serde_json::to_vec(&config).expect("json");
        let describe = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::sha256(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", &config),
            "layers": layers.iter().map(|layer| describe("layer.v1.tar+gzip", layer)).collect::<Vec<_>>(),
        });
        let id = Digest::sha256(&config).to_string();
        let blobs = layers.into_iter().chain([config]).map(|blob| (Digest::sha256(&blob), blob)).collect();
        Self { blobs, manifest: serde_json::to_vec(&manifest).expect("json"), id }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    pub(crate) fn layer(&self, number: usize) -> Digest {
        self.blobs[number].0.clone()
    }

    /// The image as an archive of an OCI layout.
    pub(crate) fn layout(&self) -> Layout {
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": self.digest(), "size": self.manifest.len(),
        }]});
        let index = serde_json::to_vec(&index).expect("json");
        let mut builder = tar::Builder::new(Vec::new());
        let manifest = (self.digest(), self.manifest.clone());
        let blobs = self.blobs.iter().chain([&manifest]);
        let blobs = blobs.map(|(digest, bytes)| (format!("blobs/sha256/{}", digest.hex()), bytes.clone()));
        for (name, bytes) in blobs.chain([("index.json".to_owned(), index)]) {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, &bytes[..]).expect("append");
        }
        Layout::archive(&builder.into_inner().expect("archive")[..]).expect("a layout")
    }
}

pub(crate) fn import(store: &Store, name: &str, made: &Made) -> Result<Image, PullError> {
    run(store.import_layout(name, made.layout(), false))
}

/// Debian's docker-registry on a port of its own.
pub(crate) struct Registry {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: Folder,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let folder = Folder::new();
        let address = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("address");
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            folder.path("data").display()
        );
        fs::write(folder.path("config.yml"), config).expect("config");
        let child = Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(folder.path("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let registry = Self { child, address, _folder: folder };
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("docker-registry does not listen on {address}");
    }

    pub(crate) fn push(&self, repository: &str, tag: &str, made: &Made) {
        for (digest, bytes) in &made.blobs {
            let (_, head, _) = self.http("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
            let location = head.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a location").trim();
            let path = location.split_once(&self.address.to_string()).map_or(location, |(_, path)| path);
            let (status, ..) = self.http("PUT", &format!("{path}&digest={digest}"), "application/octet-stream", bytes);
            assert_eq!(status, 201, "push of {digest}");
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let (status, _, body) = self.http("PUT", &format!("/v2/{repository}/manifests/{tag}"), kind, &made.manifest);
        assert_eq!(status, 201, "{body}");
    }

    fn http(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).expect("connect");
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("request");
        stream.write_all(body).expect("request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_owned(), body.to_owned())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tree, one line per entry: what a comparison of two trees should show.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("list") {
            let path = entry.expect("entry").path();
            let data = fs::symlink_metadata(&path).expect("metadata");
            let mut line = format!("{:o} {}:{} @{}", data.mode(), data.uid(), data.gid(), data.mtime());
            if data.is_dir() {
                folders.push(path.clone());
            } else if data.is_symlink() {
                line.push_str(&format!(" -> {}", fs::read_link(&path).expect("link").display()));
            } else if data.is_file() {
                line.push_str(&format!(
                    " n{} {:?}",
                    data.nlink(),
                    String::from_utf8_lossy(&fs::read(&path).expect("read"))
                ));
            } else {
                line.push_str(&format!(" dev {:x}", data.rdev()));
            }
            let mut names = vec![0u8; 4096];
            let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap_or(0);
            for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                let mut value = vec![0u8; 256];
                let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).expect("attribute");
                line.push_str(&format!(" {}={:02x?}", String::from_utf8_lossy(name), &value[..length]));
            }
            lines.insert(path.strip_prefix(root).expect("below").display().to_string(), line);
        }
    }
    lines
}

/// The only layer folder of a store, or the `number`th.
pub(crate) fn layer(folder: &Folder, number: u32) -> PathBuf {
    folder.path(&format!("store/layers/{number}/diff"))
}

/// The names in a folder of a store.
pub(crate) fn names(folder: &Folder, part: &str) -> Vec<String> {
    names_in(&folder.path("store"), part)
}

pub(crate) fn names_in(store: &Path, part: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(store.join(part))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

//! Small images, built in memory from this machine's static busybox.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::command;

const BUSYBOX: &str = "/bin/busybox";
/// 2023-11-14, so that an image's digest depends on its content alone.
const MODIFIED: u64 = 1_700_000_000;

/// The files of an image and how it wants to be run.
#[derive(Clone, Debug)]
pub struct Image {
    /// Uncompressed tar archives, the lowest first.
    pub layers: Vec<Vec<u8>>,
    /// The `config` of the OCI image configuration.
    pub config: Value,
}

/// One layer in the making.
pub struct Layer(Builder<Vec<u8>>);

impl std::fmt::Debug for Layer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Layer").finish_non_exhaustive()
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Layer {
    /// Adds a folder.
    ///
    /// # Errors
    /// The path does not fit the archive format.
    pub fn folder(mut self, path: &str, mode: u32) -> Result<Self> {
        self.0.append_data(&mut header(EntryType::Directory, mode, 0), path, std::io::empty())?;
        Ok(self)
    }

    /// Adds a file of root's.
    ///
    /// # Errors
    /// The path does not fit the archive format.
    pub fn file(mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<Self> {
        self.0.append_data(&mut header(EntryType::Regular, mode, bytes.len() as u64), path, bytes)?;
        Ok(self)
    }

    /// Adds another name of a file of this layer.
    ///
    /// # Errors
    /// A path does not fit the archive format.
    pub fn hard_link(mut self, path: &str, target: &str) -> Result<Self> {
        self.0.append_link(&mut header(EntryType::Link, 0o755, 0), path, target)?;
        Ok(self)
    }

    /// The archive.
    ///
    /// # Errors
    /// None in practice: it is written to memory.
    pub fn done(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MODIFIED);
    header
}

/// A shell with its tools, users and groups.
///
/// # Errors
/// busybox is not installed.
pub fn busybox() -> Result<Image> {
    Ok(Image { layers: vec![base()?], config: config(&["sh"]) })
}

/// A web server on port 80 that answers `/` with the name of its pod.
///
/// # Errors
/// busybox is not installed.
pub fn web() -> Result<Image> {
    let script = b"#!/bin/sh\nmkdir -p /www\nhostname >/www/index.html\necho serving\ntrap 'exit 0' TERM\n\
        httpd -f -p 80 -h /www &\nwait\n";
    let top = Layer::default().file("serve", 0o755, script)?.done()?;
    Ok(Image { layers: vec![base()?, top], config: config(&["/serve"]) })
}

/// Runs a command with the usual search path.
pub(crate) fn config(command: &[&str]) -> Value {
    json!({"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": command})
}

fn base() -> Result<Vec<u8>> {
    shell(
        Path::new(BUSYBOX),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
        "root:x:0:\nnogroup:x:65534:\n",
    )
    .context("Debian's busybox-static")
}

/// A layer of a static busybox under all its names, with the folders and users that a small image has.
///
/// # Errors
/// The program is missing.
pub(crate) fn shell(busybox: &Path, passwd: &str, group: &str) -> Result<Vec<u8>> {
    let program = fs::read(busybox).with_context(|| busybox.display().to_string())?;
    let applets = command::output(Command::new(busybox).arg("--list"))?;
    let mut layer = Layer::default();
    for folder in ["bin", "dev", "etc", "home", "proc", "root", "sbin", "sys", "usr", "usr/bin", "var", "var/run"] {
        layer = layer.folder(folder, 0o755)?;
    }
    layer = layer.folder("tmp", 0o1777)?.file("bin/busybox", 0o755, &program)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer = layer.hard_link(&format!("bin/{applet}"), "bin/busybox")?;
    }
    layer.file("etc/passwd", 0o644, passwd.as_bytes())?.file("etc/group", 0o644, group.as_bytes())?.done()
}

/// Begins a layer with `program` at the absolute path `place`, and the shared libraries that it names, each where it is
/// here.
///
/// # Errors
/// A file can't be read.
pub(crate) fn with_libraries(program: &Path, place: &str) -> Result<Layer> {
    let listed = command::output(Command::new("ldd").arg(program))?;
    // "NAME => PATH (ADDRESS)", or the loader's path alone.
    let libraries: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).collect();
    let places = || libraries.iter().copied().chain([place]);
    let mut folders = BTreeSet::new();
    for place in places() {
        folders.extend(Path::new(place).ancestors().skip(1).filter_map(Path::to_str).filter(|path| *path != "/"));
    }
    let mut layer = Layer::default();
    for folder in folders {
        layer = layer.folder(folder.trim_start_matches('/'), 0o755)?;
    }
    for at in places() {
        let from = if at == place { program } else { Path::new(at) };
        let bytes = fs::read(from).with_context(|| from.display().to_string())?;
        layer = layer.file(at.trim_start_matches('/'), 0o755, &bytes)?;
    }
    Ok(layer)
}

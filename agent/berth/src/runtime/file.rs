//! The runtime's configuration file, `/etc/berth/config.toml`:
//!
//! ```toml
//! default_handler = "berth"
//! cgroup_driver = "cgroupfs"
//!
//! [handlers.crun]
//! path = "/usr/bin/crun"
//! args = []
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use berth_cri::{BUILT_IN, CgroupDriver, Handler, Handlers};
use serde::Deserialize;
use toml::Spanned;

/// Read where nobody names another; it may be missing.
pub(crate) const DEFAULT: &str = "/etc/berth/config.toml";

/// The largest file, in bytes.
const LIMIT: u64 = 64 << 10;
const MAX_HANDLERS: usize = 64;
const MAX_ARGS: usize = 32;
/// All of a handler's arguments and its path together, in bytes: they travel in a message's head.
const MAX_TEXT: usize = 2 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    default_handler: Option<Spanned<String>>,
    cgroup_driver: Option<Spanned<String>>,
    #[serde(default)]
    handlers: BTreeMap<Spanned<String>, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: Spanned<String>,
    #[serde(default)]
    args: Option<Spanned<Vec<String>>>,
}

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) handlers: Handlers,
    pub(crate) cgroup_driver: Option<CgroupDriver>,
}

/// What a file says; errors name it, the line and the field.
pub(crate) fn read(path: &Path) -> Result<File> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && path == Path::new(DEFAULT) => {
            return Ok(File::default());
        }
        other => other.with_context(|| format!("--runtime-config: {}", path.display()))?,
    };
    let mut text = String::new();
    let read = file.take(LIMIT + 1).read_to_string(&mut text);
    read.with_context(|| format!("reading {}", path.display()))?;
    if text.len() as u64 > LIMIT {
        bail!("{}: larger than {LIMIT} bytes", path.display());
    }
    parse(&text).map_err(|Wrong { at, words }| match at {
        Some(at) => anyhow::anyhow!("{}:{}: {words}", path.display(), line(&text, at)),
        None => anyhow::anyhow!("{}: {words}", path.display()),
    })
}

/// What is wrong with a file, and at which byte.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    at: Option<usize>,
    words: String,
}

fn wrong<T>(span: Range<usize>, words: String) -> Result<T, Wrong> {
    Err(Wrong { at: Some(span.start), words })
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn parse(text: &str) -> Result<File, Wrong> {
    let document: Document = toml::from_str(text)
        .map_err(|error| Wrong { at: error.span().map(|span| span.start), words: error.message().to_owned() })?;
    if document.handlers.len() > MAX_HANDLERS {
        return Err(Wrong { at: None, words: format!("handlers: there are more than {MAX_HANDLERS}") });
    }
    let mut others = BTreeMap::new();
    for (name, entry) in document.handlers {
        let (span, name) = (name.span(), name.into_inner());
        if name == BUILT_IN {
            return wrong(span, format!("handlers.{name}: this is the built-in runtime's name, use another"));
        }
        if !is_label(&name) {
            return wrong(span, format!("handlers: {name:?} is not a name that a RuntimeClass can have (a DNS label)"));
        }
        others.insert(name.clone(), handler(&name, entry)?);
    }
    let cgroup_driver = document.cgroup_driver.map(|name| match name.as_ref().as_str() {
        "cgroupfs" => Ok(CgroupDriver::Cgroupfs),
        "systemd" => Ok(CgroupDriver::Systemd),
        other => wrong(name.span(), format!("cgroup_driver: {other:?} is neither cgroupfs nor systemd")),
    });
    let default = match document.default_handler {
        None => BUILT_IN.to_owned(),
        Some(name) if *name.as_ref() == BUILT_IN || others.contains_key(name.as_ref()) => name.into_inner(),
        Some(name) => {
            let words = format!("default_handler: there is no handler {:?}; add [handlers.NAME]", name.as_ref());
            return wrong(name.span(), words);
        }
    };
    Ok(File { handlers: Handlers { default, others }, cgroup_driver: cgroup_driver.transpose()? })
}

fn handler(name: &str, entry: Entry) -> Result<Handler, Wrong> {
    let (span, path) = (entry.path.span(), entry.path.into_inner());
    if !path.starts_with('/') || path.contains('\0') {
        return wrong(span, format!("handlers.{name}.path: {path:?} is not an absolute path"));
    }
    let (args_span, args) = entry.args.map_or((span.clone(), Vec::new()), |args| (args.span(), args.into_inner()));
    if args.len() > MAX_ARGS || args.iter().any(|arg| arg.contains('\0')) {
        return wrong(args_span, format!("handlers.{name}.args: more than {MAX_ARGS}, or with a NUL"));
    }
    if path.len() + args.iter().map(String::len).sum::<usize>() > MAX_TEXT {
        return wrong(args_span, format!("handlers.{name}: path and args have more than {MAX_TEXT} bytes"));
    }
    Ok(Handler { path: PathBuf::from(path), args })
}

/// RFC 1123's label, as a RuntimeClass's handler is checked.
fn is_label(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_runtimes() {
        let File { handlers, cgroup_driver } = parse("").expect("an empty file");
        assert_eq!((handlers.default.as_str(), handlers.others.len(), cgroup_driver), ("berth", 0, None));
        let text = "cgroup_driver = \"systemd\"\ndefault_handler = \"runc\"\n[handlers.runc]\npath = \"/usr/sbin/runc\"\n\
                    [handlers.crun]\npath = \"/usr/bin/crun\"\nargs = [\"--debug\"]\n";
        let File { handlers, cgroup_driver } = parse(text).expect("valid");
        assert_eq!(cgroup_driver, Some(CgroupDriver::Systemd));
        assert_eq!(handlers.default, "runc");
        let crun = Handler { path: "/usr/bin/crun".into(), args: vec!["--debug".to_owned()] };
        assert_eq!(handlers.others["crun"], crun);
    }

    #[test]
    fn mistakes_are_shown_with_their_lines() {
        for (text, at, words) in [
            ("\ndefault_handler = \"x\"\n", 2, "default_handler: there is no handler \"x\""),
            ("default_handlers = \"x\"\n", 1, "unknown field `default_handlers`"),
            ("\n\ncgroup_driver = \"lxc\"\n", 3, "cgroup_driver: \"lxc\" is neither"),
            ("[handlers.x]\npath = \"/x\"\nroot = \"/y\"\n", 3, "unknown field `root`"),
            ("[handlers.x]\n\npath = \"x\"\n", 3, "handlers.x.path: \"x\" is not an absolute path"),
            ("[handlers.x]\n", 1, "missing field `path`"),
            ("[handlers.x]\npath = 3\n", 2, "invalid type"),
            ("\n[handlers.berth]\npath = \"/x\"\n", 2, "handlers.berth: this is the built-in runtime's name"),
            ("[handlers.A_b]\npath = \"/x\"\n", 1, "\"A_b\" is not a name"),
            ("a = [\n", 1, ""),
        ] {
            let Wrong { at: byte, words: said } = parse(text).expect_err(text);
            assert!(said.contains(words), "{text:?}: {said}");
            assert_eq!(line(text, byte.expect("a place")), at, "{text:?}: {said}");
        }
        let long = format!("[handlers.x]\npath = \"/x\"\nargs = [\"{}\"]\n", "a".repeat(MAX_TEXT));
        assert!(parse(&long).expect_err("too long").words.contains("handlers.x: path and args"));
        let many = "[handlers.x]\npath = \"/x\"\nargs = [".to_owned() + &"\"a\",".repeat(MAX_ARGS + 1) + "]\n";
        assert!(parse(&many).expect_err("too many").words.contains("handlers.x.args"));
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        let error = read(Path::new("/no/such/config.toml")).expect_err("it was asked for");
        assert!(format!("{error:#}").contains("/no/such/config.toml"), "{error:#}");
        let path = std::env::temp_dir().join(format!("berth-config-{}.toml", std::process::id()));
        fs::write(&path, "\n\nx = 1\n").expect("a file");
        let error = read(&path).expect_err("an unknown key");
        fs::remove_file(&path).expect("removed");
        assert!(format!("{error:#}").contains(".toml:3: unknown field"), "{error:#}");
    }
}

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A folder with `root` and, beside it, `outside`.
struct Place {
    folder: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("berth-sys-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("root")).expect("root");
        fs::create_dir_all(folder.join("outside")).expect("outside");
        fs::write(folder.join("outside/secret"), "secret").expect("secret");
        Self { folder }
    }

    fn root(&self) -> Root {
        Root::open(self.folder.join("root")).expect("a root")
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.folder.join("root").join(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn links_and_dots_stay_inside() {
    let place = Place::new("inside");
    symlink(place.folder.join("outside"), place.inside("absolute")).expect("link");
    symlink("../outside", place.inside("relative")).expect("link");
    for path in ["absolute/secret", "relative/secret", "../outside/secret", "/../../outside/secret"] {
        let error = place.root().read(path, 100).expect_err(path);
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
    }
    fs::create_dir(place.inside("outside")).expect("a folder of the same name inside");
    fs::write(place.inside("outside/secret"), "mine").expect("write");
    assert_eq!(place.root().read("relative/secret", 100).expect("inside"), b"mine");
}

#[test]
fn magic_links_are_refused() {
    let root = Root::open("/proc").expect("proc");
    let error = root.open_path("self/root").expect_err("magic");
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn folders_are_made_with_their_parents_and_through_dangling_links() {
    let place = Place::new("mkdir");
    let mode = Mode::from_raw_mode(0o755);
    place.root().mkdir_all("/a/./b/../c", mode).expect("made");
    assert!(place.inside("a/b").is_dir() && place.inside("a/c").is_dir());
    fs::create_dir(place.inside("var")).expect("var");
    symlink("/run", place.inside("var/run")).expect("absolute");
    symlink("../../../outside/new", place.inside("var/up")).expect("relative");
    place.root().mkdir_all("var/run/secrets/x", mode).expect("through a dangling link");
    assert!(place.inside("run/secrets/x").is_dir());
    place.root().mkdir_all("var/up/y", mode).expect("through a link that points out");
    assert!(place.inside("outside/new/y").is_dir());
    assert!(!place.folder.join("outside/new").exists(), "nothing is made outside");
    symlink("loop", place.inside("loop")).expect("loop");
    assert_eq!(place.root().mkdir_all("loop/x", mode).expect_err("loop").raw_os_error(), Some(libc::ELOOP));
    fs::write(place.inside("file"), "").expect("file");
    assert_eq!(place.root().mkdir_all("file/x", mode).expect_err("a file").kind(), io::ErrorKind::NotADirectory);
}

#[test]
fn a_file_is_touched_once_and_no_link_is_followed_for_it() {
    let place = Place::new("touch");
    let mode = Mode::from_raw_mode(0o644);
    let made = place.root().touch("etc/hosts", mode).expect("made");
    assert_eq!(facts(made.as_fd()).expect("facts").kind, FileType::RegularFile);
    fs::write(place.inside("etc/hosts"), "kept").expect("write");
    place.root().touch("etc/hosts", mode).expect("there already");
    assert_eq!(place.root().read("etc/hosts", 10).expect("read"), b"kept");
    assert_eq!(place.root().read("etc/hosts", 3).expect_err("too large").kind(), io::ErrorKind::InvalidData);
    symlink("../../outside/new", place.inside("etc/dangling")).expect("link");
    assert_eq!(place.root().touch("etc/dangling", mode).expect_err("refused").kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn no_links_means_none_at_all() {
    let place = Place::new("nolinks");
    fs::create_dir(place.inside("real")).expect("real");
    symlink("real", place.inside("proc")).expect("link");
    place.root().open_path_no_links("real").expect("a folder");
    assert_eq!(place.root().open_path_no_links("proc").expect_err("a link").raw_os_error(), Some(libc::ELOOP));
}

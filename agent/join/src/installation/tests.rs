use std::collections::BTreeMap;

use super::*;
use crate::request::Options;
use crate::{Cluster, Credentials, Request, Trusted};

const CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

fn plan(paths: &Paths) -> Plan {
    let options = Options {
        endpoint: Some("10.0.0.1:6443".into()),
        token: Some("abcdef.0123456789abcdef".into()),
        skip_verification: true,
        ..Options::default()
    };
    let request = Request::from_options(&options, "host").expect("a request");
    let server = "https://10.0.0.1:6443".to_owned();
    let credentials = Credentials::Bearer("abcdef.0123456789abcdef".into());
    let trusted = Trusted { server: server.clone(), authority: b"PEM\n".to_vec(), credentials };
    let (name, version) = ("kubernetes".to_owned(), "v1.37.2".to_owned());
    let cluster = Cluster { name, server, version, kubelet_config: CONFIG.to_owned() };
    Plan::new(paths, &request, &trusted, &cluster).expect("a plan")
}

/// Every file below `root` with its content, and every folder with none.
fn tree(root: &Path) -> BTreeMap<PathBuf, Option<String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("lists").flatten() {
            let path = entry.path();
            if entry.file_type().expect("a type").is_dir() {
                found.insert(path.clone(), None);
                folders.push(path);
            } else {
                found.insert(path.clone(), Some(fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    found
}

fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folder");
    fs::write(path, content).expect("written");
}

#[test]
fn what_is_undone_leaves_nothing() {
    let root = tempfile::tempdir().expect("folder");
    let paths = Paths::below(root.path());
    let lock = Lock::take(&paths).expect("free");
    let installation = Installation::begin(&paths, &lock, &plan(&paths), |_| {}).expect("written");
    let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(paths.bootstrap_kubeconfig()), 0o600);
    assert_eq!(mode(paths.config()), 0o644);
    assert_eq!(Journal::load(&paths).expect("loads").expect("a journal").phase, Phase::Joining);
    put(root.path(), "var/lib/kubelet/pki/kubelet-client-2026-11-24-09-00-00.pem", "x");
    put(root.path(), "var/lib/kubelet/pki/kubelet-client.key.tmp", "x");
    put(root.path(), "etc/kubernetes/kubelet.conf", "x");
    put(root.path(), "etc/kubernetes/.tmp-4294967295-0", "half");
    assert!(installation.undo().is_empty());
    drop(lock);
    let left: Vec<_> = tree(root.path()).into_keys().collect();
    let outer: Vec<_> = ["etc", "var", "var/lib"].iter().map(|path| root.path().join(path)).collect();
    assert!(left.iter().all(|path| outer.contains(path)), "{left:?}");
}

#[test]
fn what_was_there_before_is_there_again() {
    let root = tempfile::tempdir().expect("folder");
    put(root.path(), "var/lib/kubelet/config.yaml", "former");
    put(root.path(), "var/lib/kubelet/pki/kubelet.key", "former");
    put(root.path(), "etc/kubernetes/manifests/a.yaml", "theirs");
    put(root.path(), "var/lib/berth/images/a", "theirs");
    let before = tree(root.path());
    let paths = Paths::below(root.path());
    let lock = Lock::take(&paths).expect("free");
    let installation = Installation::begin(&paths, &lock, &plan(&paths), |_| {}).expect("written");
    assert_eq!(fs::read_to_string(paths.config()).expect("there"), CONFIG);
    assert!(installation.undo().is_empty());
    drop(lock);
    assert_eq!(tree(root.path()), before);
}

/// The journal alone tells what to undo, from whatever moment: each prefix of the steps is undone to the same state.
#[test]
fn a_join_that_died_anywhere_is_undone_by_the_journal() {
    let steps = plan(&Paths::default()).files.len();
    for written in 0..=steps {
        let root = tempfile::tempdir().expect("folder");
        put(root.path(), "var/lib/kubelet/config.yaml", "former");
        let before = tree(root.path());
        let paths = Paths::below(root.path());
        let lock = Lock::take(&paths).expect("free");
        let whole = plan(&paths);
        let installation = Installation::begin(&paths, &lock, &whole, |_| {}).expect("written");
        // Back to the moment at which so many files were written.
        for (file, entry) in whole.files.iter().zip(&installation.journal.files).skip(written) {
            restore(entry).expect("as before");
            assert_eq!(file.path.exists(), entry.kept);
        }
        drop((installation, lock));
        let lock = Lock::take(&paths).expect("free");
        let journal = Journal::load(&paths).expect("loads").expect("a journal");
        assert!(Installation::resume(&paths, journal).undo().is_empty());
        // The same attempt goes on, and fails.
        let again = Installation::begin(&paths, &lock, &whole, |_| {}).expect("written again");
        assert!(again.undo().is_empty());
        drop(lock);
        let mut left = tree(root.path());
        left.retain(|path, _| *path != root.path().join("etc"));
        assert_eq!(left, before, "{written}");
    }
}

#[test]
fn a_file_that_cannot_be_written_takes_everything_back() {
    let root = tempfile::tempdir().expect("folder");
    // A folder where config.yaml goes can be set aside, but one that is not empty under the aside's name can't be replaced.
    put(root.path(), "var/lib/kubelet/config.yaml.before-berth-join/x", "in the way");
    put(root.path(), "var/lib/kubelet/config.yaml", "former");
    let before = tree(root.path());
    let paths = Paths::below(root.path());
    let lock = Lock::take(&paths).expect("free");
    let error = Installation::begin(&paths, &lock, &plan(&paths), |_| {}).expect_err("refused").to_string();
    assert!(error.contains("config.yaml") && error.contains("setting the former file aside"), "{error}");
    drop(lock);
    assert!(before.iter().all(|(path, content)| tree(root.path()).get(path) == Some(content)));
    assert!(!paths.bootstrap_kubeconfig().exists());
}

#[test]
fn the_token_goes_once_the_node_has_its_own_credentials() {
    let root = tempfile::tempdir().expect("folder");
    let paths = Paths::below(root.path());
    let lock = Lock::take(&paths).expect("free");
    let mut installation = Installation::begin(&paths, &lock, &plan(&paths), |_| {}).expect("written");
    installation.credentials_are_there(false).expect("noted");
    assert!(!paths.bootstrap_kubeconfig().exists());
    assert_eq!(Journal::load(&paths).expect("loads").expect("a journal").phase, Phase::Starting);
    installation.start(Path::new("/usr/bin/berth")).expect("noted");
    assert!(crate::preflight::standing(&paths).expect_err("joined").to_string().contains("berth leave"));
    assert!(Installation::resume(&paths, installation.journal).undo().is_empty());
}

#[test]
fn a_unit_is_undone_whether_its_file_was_written_or_not() {
    for written in 0..=2 {
        let root = tempfile::tempdir().expect("folder");
        put(root.path(), "etc/systemd/system/berth-agent.service", "former");
        let before = tree(root.path());
        let paths = Paths::below(root.path());
        let lock = Lock::take(&paths).expect("free");
        let mut installation = Installation::begin(&paths, &lock, &plan(&paths), |_| {}).expect("written");
        installation.credentials_are_there(true).expect("noted");
        let unit = paths.units().join(systemd::UNIT);
        assert_eq!(fs::read_to_string(&unit).expect("there"), "former");
        for _ in 0..written {
            installation.write_unit(Path::new("/opt/berth")).expect("written");
            assert!(fs::read_to_string(&unit).expect("there").contains("ExecStart=/opt/berth agent "));
        }
        drop(installation);
        let journal = Journal::load(&paths).expect("loads").expect("a journal");
        assert!(Installation::resume(&paths, journal).undo().is_empty());
        drop(lock);
        let mut left = tree(root.path());
        left.retain(|path, _| !["var", "var/lib"].iter().any(|outer| *path == root.path().join(outer)));
        assert_eq!(left, before, "{written}");
    }
}

//! The first certificate, by a token that is good for that only.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use berth_effect::record;
use rcgen::KeyPair;

use super::request::{Waits, name_of, request_with};
use super::store::file;
use super::{CertificateError, Kind, Pair, Store, Wanted};
use crate::connect::{connect_as, read};
use crate::kubeconfig::{Found, bootstrapped, look};

/// How long to wait for the certificate: kubeadm's `timeouts.tlsBootstrap`.
const PATIENCE: Duration = Duration::from_mins(5);

/// Gets the client certificate of `node` by the token (or whatever else) of `bootstrap_kubeconfig`, keeps it in `store` and
/// writes `kubeconfig`, which points to [`Store::current_path`]. Does nothing when `kubeconfig` has a valid one already.
///
/// One attempt. It can be repeated after whatever end: the key is kept until the certificate is, so that the same request
/// is taken up again.
///
/// Source: `kubernetes@v1.37.2:pkg/kubelet/certificate/bootstrap/bootstrap.go#LoadClientCert`.
///
/// # Errors
/// Why there is none. Of what is written only the key is left then.
pub async fn bootstrap(
    bootstrap_kubeconfig: &Path,
    kubeconfig: &Path,
    node: &str,
    store: &Store,
) -> Result<(), CertificateError> {
    match look(kubeconfig) {
        Found::Certificate(pair) if pair.is_valid(SystemTime::now()) => Ok(()),
        _ => {
            let waits = |what: String| tracing::info!("{what}");
            bootstrap_anew(bootstrap_kubeconfig, kubeconfig, node, store, &waits).await.map(drop)
        }
    }
}

/// As [`bootstrap`], whatever is there. Returns the pair and its file.
pub(crate) async fn bootstrap_anew(
    bootstrap_kubeconfig: &Path,
    kubeconfig: &Path,
    node: &str,
    store: &Store,
    waits: Waits<'_>,
) -> Result<(Pair, PathBuf), CertificateError> {
    let way = read(bootstrap_kubeconfig)?;
    let text = bootstrapped(bootstrap_kubeconfig, &way, &store.current_path())?;
    let client = connect_as(bootstrap_kubeconfig, way).await?;
    let pending = store.dir().join("kubelet-client.key.tmp");
    let key = key(&pending)?;
    let wanted = Wanted { node: node.to_owned(), kind: Kind::Client, patience: PATIENCE };
    let outcome = request_with(&client, &wanted, &key, Some(name_of(&wanted, &key)), waits).await;
    let pair = match outcome {
        Ok(pair) => pair,
        Err(error) => {
            use CertificateError::{Deleted, Denied, Failed, Foreign};
            // The answer to this request stays what it is: the next attempt needs another one.
            if matches!(error, Denied { .. } | Failed { .. } | Deleted { .. } | Foreign { .. }) {
                record::remove(&pending).map_err(|source| file(&pending, source))?;
            }
            return Err(error);
        }
    };
    let path = store.write(&pair)?;
    if let Some(folder) = kubeconfig.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        berth_effect::run("kubeconfig-folder-make", || std::fs::create_dir_all(folder))
            .map_err(|source| file(folder, source))?;
    }
    record::write_durable(kubeconfig, text.as_bytes()).map_err(|source| file(kubeconfig, source))?;
    record::remove(&pending).map_err(|source| file(&pending, source))?;
    Ok((pair, path))
}

/// The key of a request that was begun, or a new one, kept.
fn key(pending: &Path) -> Result<KeyPair, CertificateError> {
    let kept = record::read(pending, 1 << 16).map_err(|source| file(pending, source))?;
    if let Some(key) = kept.and_then(|bytes| KeyPair::from_pem(&String::from_utf8_lossy(&bytes)).ok()) {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(|error| CertificateError::Make(error.to_string()))?;
    record::write_durable(pending, key.serialize_pem().as_bytes()).map_err(|source| file(pending, source))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_until_it_is_used() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("kubelet-client.key.tmp");
        let first = key(&path).expect("a key").serialize_pem();
        assert_eq!(key(&path).expect("the same").serialize_pem(), first);
        std::fs::write(&path, "half a k").expect("writes");
        assert_ne!(key(&path).expect("a new one").serialize_pem(), first);
    }

    #[tokio::test]
    async fn a_valid_certificate_needs_no_bootstrap() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path()).expect("opens");
        let soon = 60 * 60 * 24 * 365 * 20;
        store.write(&crate::certificates::pair_for_tests(&[], soon)).expect("writes");
        let kubeconfig = dir.path().join("kubelet.conf");
        let current = store.current_path();
        std::fs::write(
            &kubeconfig,
            format!(
                "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'}}}}]\n\
                 contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n\
                 users: [{{name: u, user: {{client-certificate: {0}, client-key: {0}}}}}]\n",
                current.display()
            ),
        )
        .expect("writes");
        let nowhere = dir.path().join("bootstrap-kubelet.conf");
        bootstrap(&nowhere, &kubeconfig, "n", &store).await.expect("nothing to do");
        std::fs::remove_file(&kubeconfig).expect("removes");
        let error = bootstrap(&nowhere, &kubeconfig, "n", &store).await.expect_err("no way").to_string();
        assert!(error.contains("bootstrap-kubelet.conf"), "{error}");
    }
}

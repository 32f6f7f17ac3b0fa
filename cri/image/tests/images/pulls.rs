//! Pulls: from Debian's docker-registry, and from servers that misbehave.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_image::{Auth, Image, PullError, RegistryConfig, Store};

use super::server::{Reply, Server};
use super::support::*;

fn pull(store: &Store, name: &str) -> Result<Image, PullError> {
    run(store.pull(name, None, &RegistryConfig::none()))
}

/// A layer that takes more than one read: incompressible, 1 MiB.
fn large() -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = (0..1 << 20).map(next).collect();
    archive(&[file("noise", &noise)])
}

#[test]
fn a_real_registry_serves_tags_digests_and_shared_layers() {
    let folder = Folder::new();
    let store = store(&folder);
    let registry = Registry::start();
    let base = archive(&[dir("etc"), file("etc/base", b"base")]);
    let one = Made::gzipped(&[base.clone(), archive(&[file("one", b"1")])]);
    let two = Made::gzipped(&[base, archive(&[file("two", b"2")])]);
    registry.push("team/one", "v1", &one);
    registry.push("team/two", "latest", &two);
    let host = registry.address;

    let image = pull(&store, &format!("{host}/team/one:v1")).expect("by tag");
    assert_eq!(image.id, one.id);
    assert_eq!(image.repo_tags, [format!("{host}/team/one:v1")]);
    assert_eq!(image.repo_digests, [format!("{host}/team/one@{}", one.digest())]);
    let by_digest = format!("{host}/team/two@{}", two.digest());
    let image = pull(&store, &by_digest).expect("by digest");
    assert_eq!((image.repo_tags, image.repo_digests), (Vec::new(), vec![by_digest]));
    assert_eq!(names(&folder, "layers").len(), 3, "the base is there once");
    assert_eq!(pull(&store, &format!("{host}/team/two")).expect("latest").repo_tags.len(), 1);

    let error = pull(&store, &format!("{host}/team/one:v2")).expect_err("no such tag");
    assert!(matches!(&error, PullError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN: manifest unknown"), "{error}");
    assert_eq!(names(&folder, "leases"), Vec::<String>::new());
    store.remove(&one.id).expect("remove");
    assert_eq!(names(&folder, "layers").len(), 2, "the base is still used");
}

#[test]
fn a_dead_registry_is_named() {
    let folder = Folder::new();
    let store = store(&folder);
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address");
    let error = pull(&store, &format!("{port}/a")).expect_err("nobody listens");
    assert!(matches!(&error, PullError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&port.to_string()) && text.contains("refused") && !text.contains('\n'), "{text}");
}

#[test]
fn concurrent_pulls_download_once() {
    let folder = Folder::new();
    let store = store(&folder);
    let made = Made::gzipped(&[archive(&[file("a", b"a")]), archive(&[file("b/c", b"implied folder")])]);
    let server = Server::start(&made, |_, right| right);
    let host = server.address;
    run(async {
        let pulls = (0..8).map(|number| {
            let store = store.clone();
            async move { store.pull(&format!("{host}/app:t{}", number % 3), None, &RegistryConfig::none()).await }
        });
        for image in futures_util::future::join_all(pulls).await {
            image.expect("pulled");
        }
    });
    for number in 0..2 {
        assert_eq!(server.count(made.layer(number).as_str()), 1, "layer {number}");
    }
    assert_eq!(store.list()[0].repo_tags.len(), 3);
}

#[test]
fn a_pull_that_nobody_waits_for_ends() {
    let folder = Folder::new();
    let store = store(&folder);
    let made = Made::gzipped(&[large()]);
    let layer = made.layer(0);
    let hanging = layer.clone();
    let server = Server::start(&made, move |asked, right| match asked.path.ends_with(hanging.as_str()) {
        true if asked.before == 0 => Reply { cut: Some(300_000), hang: true, ..right },
        _ => right,
    });
    let name = format!("{}/app", server.address);
    let registries = RegistryConfig::none();
    run(async {
        let pull = store.pull(&name, None, &registries);
        let begun = async {
            while server.count(layer.as_str()) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            pulled = pull => panic!("it hangs: {pulled:?}"),
            () = begun => {}
        }
        let gone = async {
            while !names(&folder, "layers").is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        // Sooner than the transfer is given up for its silence.
        tokio::time::timeout(options().stall / 2, gone).await.expect("nothing is left of the pull");
        assert_eq!(server.count(layer.as_str()), 1, "it does not try again");
        store.pull(&name, None, &registries).await.expect("another pull begins anew");
    });
}

#[test]
fn a_tampered_blob_is_refused_and_leaves_nothing() {
    let folder = Folder::new();
    let store = store(&folder);
    let made = Made::gzipped(&[large()]);
    let server = Server::start(&made, |asked, mut right| {
        if asked.is_blob() && right.body.len() > 1 << 19 {
            right.body[70_000] ^= 1;
        }
        right
    });
    let error = pull(&store, &format!("{}/app", server.address)).expect_err("tampered");
    assert!(matches!(&error, PullError::DigestMismatch { .. }), "{error}");
    assert_eq!(names(&folder, "layers"), Vec::<String>::new());
    assert!(store.list().is_empty());

    let other = Made::gzipped(&[archive(&[])]);
    let error = pull(&store, &format!("{}/app@{}", server.address, other.digest())).expect_err("another manifest");
    assert!(matches!(&error, PullError::DigestMismatch { .. }), "{error}");
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_ended() {
    for ignores_range in [false, true] {
        let folder = Folder::new();
        let store = store(&folder);
        let made = Made::gzipped(&[large()]);
        let (whole, layer) = (made.blobs[0].1.clone(), made.layer(0));
        let server = Server::start(&made, move |asked, right| match asked.path.ends_with(layer.as_str()) {
            true if asked.before == 0 => Reply { cut: Some(300_000), ..right },
            true if ignores_range => Reply::ok(whole.clone()),
            true => {
                assert_eq!(asked.range(), Some(300_000));
                right
            }
            false => right,
        });
        pull(&store, &format!("{}/app", server.address)).expect("resumed");
        assert_eq!(server.count(made.layer(0).as_str()), 2);
    }
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let folder = Folder::new();
    let store = store(&folder);
    let made = Made::gzipped(&[archive(&[file("a", b"a")])]);
    let server = Server::start(&made, |asked, right| match asked.before {
        0 => Reply::status("429 Too Many Requests").header("Retry-After", "0"),
        1 => Reply::status("503 Service Unavailable"),
        _ => right,
    });
    pull(&store, &format!("{}/app", server.address)).expect("the third try");

    let server = Server::start(&made, |_, _| Reply {
        body: br#"{"errors":[{"code":"DOWN","message":"for repairs"}]}"#.to_vec(),
        ..Reply::status("503 Service Unavailable")
    });
    let error = pull(&store, &format!("{}/app", server.address)).expect_err("down").to_string();
    assert!(error.contains("503 Service Unavailable: DOWN: for repairs"), "{error}");
    assert_eq!(server.count("/manifests/"), 3);
}

#[test]
fn tokens_are_fetched_with_and_without_a_password() {
    let made = Made::gzipped(&[archive(&[file("a", b"a")])]);
    let server = Arc::new(std::sync::OnceLock::new());
    let own = Arc::clone(&server);
    let secret = Arc::new(AtomicBool::new(false));
    let wants_password = Arc::clone(&secret);
    let started = Server::start(&made, move |asked, right| {
        let authorization = asked.headers.get("authorization").cloned().unwrap_or_default();
        if asked.path.starts_with("/token?") {
            assert!(asked.path.contains("scope=repository%3Aapp%3Apull") && asked.path.contains("service=r%20one"));
            let known = !wants_password.load(Ordering::Relaxed) || authorization == "Basic am9lOnB3";
            return if known { Reply::ok(br#"{"token":"tok"}"#.to_vec()) } else { Reply::status("401 Unauthorized") };
        }
        if authorization == "Bearer tok" {
            return right;
        }
        let address: &std::net::SocketAddr = own.get().expect("started");
        let challenge = format!(r#"Bearer realm="http://{address}/token",service="r one",scope="repository:app:pull""#);
        Reply::status("401 Unauthorized").header("WWW-Authenticate", challenge)
    });
    server.set(started.address).expect("once");
    let name = format!("{}/app", started.address);

    let folder = Folder::new();
    pull(&store(&folder), &name).expect("anonymous");
    secret.store(true, Ordering::Relaxed);
    let folder = Folder::new();
    let store = store(&folder);
    let error = pull(&store, &name).expect_err("no password");
    assert!(matches!(&error, PullError::Unauthorized { .. }), "{error}");
    let auth = Auth { username: "joe".into(), password: "pw".into(), ..Auth::default() };
    run(store.pull(&name, Some(auth), &RegistryConfig::none())).expect("with the password");
}

#[test]
fn secrets_do_not_follow_a_redirect_to_another_host() {
    let folder = Folder::new();
    let store = store(&folder);
    let made = Made::gzipped(&[archive(&[file("a", b"a")])]);
    let storage = Server::start(&made, |asked, right| {
        assert!(!asked.headers.contains_key("authorization"), "the secret leaked");
        right
    });
    let elsewhere = storage.address;
    let server = Server::start(&made, move |asked, right| {
        if asked.headers.get("authorization").map(String::as_str) != Some("Basic am9lOnB3") {
            return Reply::status("401 Unauthorized").header("WWW-Authenticate", "Basic realm=\"r\"");
        }
        if asked.is_blob() {
            let to = format!("http://{elsewhere}{}", asked.path);
            return Reply::status("307 Temporary Redirect").header("Location", to);
        }
        right
    });
    let auth = Auth { auth: "am9lOnB3".into(), ..Auth::default() };
    run(store.pull(&format!("{}/app", server.address), Some(auth), &RegistryConfig::none())).expect("pulled");
    assert!(storage.count("/blobs/") > 0);

    let looping = Server::start(&made, |asked, _| Reply::status("302 Found").header("Location", asked.path.clone()));
    let error = pull(&store, &format!("{}/app", looping.address)).expect_err("a loop").to_string();
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[test]
fn mirrors_come_first_and_the_upstream_takes_over() {
    let folder = Folder::new();
    let store = store(&folder);
    let made = Made::gzipped(&[archive(&[file("a", b"a")])]);
    let mirror = Server::start(&made, |asked, right| {
        assert!(asked.path.ends_with("?ns=registry.example") && !asked.headers.contains_key("authorization"));
        if asked.is_blob() { Reply::status("404 Not Found") } else { right }
    });
    let upstream = Server::start(&made, |_, right| right);
    let certs = folder.path("certs.d/registry.example");
    fs::create_dir_all(&certs).expect("folder");
    let text = format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", upstream.address, mirror.address);
    fs::write(certs.join("hosts.toml"), text).expect("file");
    let auth = Auth { username: "joe".into(), password: "pw".into(), ..Auth::default() };
    let registries = RegistryConfig::new(folder.path("certs.d"));
    let image = run(store.pull("registry.example/app:1", Some(auth.clone()), &registries)).expect("pulled");
    assert_eq!(image.repo_tags, ["registry.example/app:1"]);
    assert_eq!((mirror.count("/manifests/"), upstream.count("/manifests/")), (1, 0));
    assert_eq!((mirror.count("/blobs/"), upstream.count("/blobs/")), (2, 2));
}

#[test]
fn documents_past_their_limit_are_refused() {
    let folder = Folder::new();
    let store = store(&folder);
    let made = Made::gzipped(&[archive(&[])]);
    let server = Server::start(&made, |_, right| Reply { body: vec![b' '; (4 << 20) + 1], ..right });
    let error = pull(&store, &format!("{}/app", server.address)).expect_err("too large");
    assert!(matches!(&error, PullError::TooLarge { .. }), "{error}");
    let server = Server::start(&made, |_, mut right| {
        right.body.resize(4 << 20, b' ');
        right
    });
    let error = pull(&store, &format!("{}/app", server.address)).expect_err("the configuration is padded as well");
    assert!(!error.to_string().contains("manifest"), "a manifest of 4 MiB is taken: {error}");
}

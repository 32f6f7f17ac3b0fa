use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_pods::LogError;
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;

use super::*;

#[derive(Debug)]
struct OneContainer {
    running: AtomicBool,
    path: PathBuf,
}

impl Host for OneContainer {
    fn pods(&self) -> Vec<Pod> {
        Vec::new()
    }

    fn log_path(&self, _: &str, _: &str, _: &str, _: bool) -> Result<PathBuf, LogError> {
        Ok(self.path.clone())
    }

    fn is_running(&self, _: &str, _: &str, _: &str) -> bool {
        self.running.load(Ordering::SeqCst)
    }
}

const LOG: &str = "2026-11-24T04:00:00.1Z stdout F one\n\
    2026-11-24T04:00:01.2Z stderr F two\n\
    not a record\n\
    2026-11-24T04:00:02.3Z stdout P thr\n\
    2026-11-24T04:00:02.4Z stdout F ee\n\
    2026-11-24T04:00:03.5Z stdout F \n\
    2026-11-24T04:00:04.6Z stdout F fi ve\n";

fn source(path: &Path) -> (Source, Arc<OneContainer>) {
    let host = Arc::new(OneContainer { running: AtomicBool::new(true), path: path.to_path_buf() });
    let (namespace, pod, container) = ("n".to_owned(), "p".to_owned(), "c".to_owned());
    (Source { host: host.clone(), namespace, pod, container, path: path.to_path_buf() }, host)
}

async fn read(path: &Path, query: &str) -> String {
    let options = Options::parse(query).expect(query);
    let chunks: Vec<Bytes> = stream(source(path).0, options).await.expect("opens").try_collect().await.expect("reads");
    String::from_utf8(chunks.concat()).expect("text")
}

#[tokio::test]
async fn the_chosen_part_is_read() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("0.log");
    fs::write(&path, LOG).expect("write");
    for (query, expected) in [
        ("", "one\ntwo\nthree\n\nfi ve\n"),
        ("tailLines=2", "\nfi ve\n"),
        ("tailLines=0", ""),
        ("tailLines=99", "one\ntwo\nthree\n\nfi ve\n"),
        ("limitBytes=5", "one\nt"),
        ("sinceTime=2026-11-24T04:00:03Z", "\nfi ve\n"),
        ("stream=Stderr", "two\n"),
        ("tailLines=1&timestamps=true", "2026-11-24T04:00:04.6Z fi ve\n"),
    ] {
        assert_eq!(read(&path, query).await, expected, "{query}");
    }
    let timestamps = read(&path, "timestamps=true").await;
    assert!(timestamps.contains("\n2026-11-24T04:00:02.3Z three\n"), "{timestamps}");
}

#[tokio::test]
async fn the_end_of_a_large_log_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("0.log");
    let line = |n: usize| format!("2026-11-24T04:00:00Z stdout F {n} {}\n", "x".repeat(n % 200));
    fs::write(&path, (0..5000).map(line).collect::<String>()).expect("write");
    let tail = read(&path, "tailLines=1500").await;
    assert_eq!(tail.lines().count(), 1500);
    assert!(tail.starts_with("3500 "));
    assert_eq!(read(&path, "").await.lines().count(), 5000);
}

#[tokio::test]
async fn a_line_without_end_does_not_fill_the_memory() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("0.log");
    fs::write(&path, format!("{}\n2026-11-24T04:00:00Z stdout F after\n", "x".repeat(1 << 20))).expect("write");
    assert_eq!(read(&path, "").await, "after\n");
}

#[tokio::test]
async fn following_ends_with_the_container_and_misses_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("0.log");
    fs::write(&path, "2026-11-24T04:00:00Z stdout F one\n").expect("write");
    let (source, host) = source(&path);
    let options = Options::parse("follow=true").expect("a query");
    let mut chunks = Box::pin(stream(source, options).await.expect("opens"));
    assert_eq!(chunks.next().await.expect("a chunk").expect("reads"), "one\n");
    let mut log = fs::File::options().append(true).open(&path).expect("append");
    // Half a record is not shown before it is whole.
    log.write_all(b"2026-11-24T04:00:00Z stdout F t").expect("write");
    log.write_all(b"wo\n").expect("write");
    assert_eq!(chunks.next().await.expect("a chunk").expect("reads"), "two\n");
    log.write_all(b"2026-11-24T04:00:00Z stdout F last\n").expect("write");
    host.running.store(false, Ordering::SeqCst);
    let rest: Vec<Bytes> = chunks.try_collect().await.expect("ends");
    assert_eq!(rest.concat(), b"last\n");
}

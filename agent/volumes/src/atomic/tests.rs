use std::os::unix::fs::MetadataExt;

use super::*;

fn payload(files: &[(&str, &str)]) -> Payload {
    files
        .iter()
        .map(|(path, data)| {
            ((*path).to_owned(), Projection { data: data.as_bytes().to_vec(), mode: 0o640, owner: None })
        })
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("list")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn content_is_replaced_whole_and_the_old_goes_away() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let target = folder.path();
    assert!(write(target, &payload(&[("a", "1"), ("sub/b", "2"), ("sub/c", "3")]), None).expect("first"));
    assert_eq!(fs::read_to_string(target.join("sub/b")).expect("read"), "2");
    assert_eq!(fs::metadata(target.join("a")).expect("stat").mode() & 0o777, 0o640);
    let first = current(target).expect("a current folder");

    assert!(!write(target, &payload(&[("a", "1"), ("sub/b", "2"), ("sub/c", "3")]), None).expect("the same again"));
    assert_eq!(current(target).expect("still"), first);

    assert!(write(target, &payload(&[("a", "9")]), None).expect("second"));
    let second = current(target).expect("a current folder");
    assert_ne!(first, second);
    assert_eq!(names(target), vec![second.to_string_lossy().into_owned(), "..data".into(), "a".into()]);
    assert_eq!(fs::read_to_string(target.join("a")).expect("read"), "9");
}

#[test]
fn what_a_crash_left_is_swept_even_when_nothing_changed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let target = folder.path();
    write(target, &payload(&[("a", "1")]), None).expect("first");
    fs::create_dir_all(target.join("..2020_01_01_00_00_00.000000001/sub")).expect("stale folder");
    symlink("nowhere", target.join(DATA_NEXT)).expect("stale link");
    assert!(!write(target, &payload(&[("a", "1")]), None).expect("the same again"));
    assert_eq!(names(target).len(), 3);
}

#[test]
fn a_lost_link_is_made_again() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let target = folder.path();
    write(target, &payload(&[("a", "1")]), None).expect("first");
    fs::remove_file(target.join("a")).expect("lose it");
    assert!(write(target, &payload(&[("a", "1")]), None).expect("again"));
    assert_eq!(fs::read_to_string(target.join("a")).expect("read"), "1");
}

#[test]
fn paths_that_would_leave_the_volume_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for path in ["", "/a", "a/../b", "..", "..data", "..x/y", "a//b", "a/.", &"x".repeat(256)] {
        let error = write(folder.path(), &payload(&[(path, "1")]), None).expect_err(path);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}");
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_reader_never_sees_half_an_update() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let target = folder.path().to_path_buf();
    write(&target, &payload(&[("a", "0"), ("b", "0")]), None).expect("first");
    let data = target.join(DATA);
    let reader = std::thread::spawn(move || {
        for _ in 0..2000 {
            // One look at ..data is one version: both files of it agree.
            let Ok(version) = fs::read_link(&data) else { continue };
            let base = data.with_file_name(version);
            if let (Ok(a), Ok(b)) = (fs::read(base.join("a")), fs::read(base.join("b"))) {
                assert_eq!(a, b);
            }
        }
    });
    for n in 1..200 {
        let n = n.to_string();
        write(&target, &payload(&[("a", &n), ("b", &n)]), None).expect("update");
    }
    reader.join().expect("no torn read");
}

#[test]
fn dates_are_right() {
    assert_eq!(civil(0), "1970_01_01_00_00_00");
    assert_eq!(civil(951_826_154), "2000_02_29_12_09_14");
    assert_eq!(civil(1_795_492_663), "2026_11_24_03_57_43");
}

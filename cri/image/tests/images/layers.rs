//! What archives become on disk, and which are refused.

use std::fs;

use berth_image::{Options, PullError, Store};

use super::support::*;

#[test]
fn every_kind_of_entry_is_restored() {
    let folder = Folder::new();
    let store = store(&folder);
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let made = Made::gzipped(&[archive(&[
        Entry { mode: 0o1777, mtime: 7, ..dir("tmp/") },
        Entry { mode: 0o700, owner: (5, 6), mtime: 100, ..dir("./root/") },
        Entry { mode: 0o4755, owner: (1, 2), mtime: 50, ..file("root/su", b"data") },
        hardlink("root/su2", "root/su"),
        symlink("root/abs", "/etc/passwd"),
        Entry { device: (1, 3), mode: 0o666, ..entry("root/null", tar::EntryType::Char) },
        Entry { device: (8, 1), mode: 0o660, owner: (0, 6), ..entry("root/sda", tar::EntryType::Block) },
        Entry { mode: 0o622, ..entry("root/fifo", tar::EntryType::Fifo) },
        Entry {
            pax: &[
                ("SCHILY.xattr.security.capability", &capability),
                ("SCHILY.xattr.user.note", b"n"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("mtime", b"12.5"),
            ],
            ..file("root/ping", b"")
        },
        Entry { mode: 0o755, ..dir("root/old/") },
        file("root/.wh.gone", b""),
        file("root/old/.wh..wh..opq", b""),
        file("root/.wh..wh.plnk", b""),
        // Replaced by a later entry of the same name.
        file("root/twice", b"first"),
        file("root/twice", b"second"),
    ])]);
    let image = import(&store, "test/kinds", &made).expect("import");
    assert_eq!(image.id, made.id);
    let found = tree(&layer(&folder, 1));
    let expected: &[(&str, &str)] = &[
        ("root", "40700 5:6 @100"),
        ("root/abs", "120777 0:0 @0 -> /etc/passwd"),
        ("root/fifo", "10622 0:0 @0 dev 0"),
        ("root/null", "20666 0:0 @0 dev 103"),
        ("root/old", "40755 0:0 @0 trusted.overlay.opaque=[79]"),
        (
            "root/ping",
            "100644 0:0 @12 n1 \"\" security.capability=[01, 00, 00, 02, 00, 04, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00] user.note=[6e]",
        ),
        ("root/sda", "60660 0:6 @0 dev 801"),
        ("root/su", "104755 1:2 @50 n2 \"data\""),
        ("root/su2", "104755 1:2 @50 n2 \"data\""),
        ("root/twice", "100644 0:0 @0 n1 \"second\""),
        ("tmp", "41777 0:0 @7"),
    ];
    for (name, line) in expected {
        assert_eq!(found.get(*name).map(String::as_str), Some(*line), "{name}");
    }
    let whiteout = &found["root/gone"];
    assert!(whiteout.starts_with("20000 0:0") && whiteout.ends_with("dev 0"), "{whiteout}");
    assert_eq!(found.len(), expected.len() + 1, "{found:#?}");
}

#[test]
fn folders_without_an_entry_are_those_of_the_layers_below() {
    let folder = Folder::new();
    let store = store(&folder);
    let base = archive(&[
        Entry { mode: 0o1777, owner: (3, 4), mtime: 9, ..dir("tmp") },
        dir("etc"),
        Entry { mode: 0o700, mtime: 8, ..dir("etc/secret") },
    ]);
    let bare = archive(&[file("tmp/a", b"a"), file("etc/secret/b", b"b"), file("new/c", b"c")]);
    let image = import(&store, "test/bare:1", &Made::gzipped(&[base, bare.clone()])).expect("import");
    let top = &store.snapshot("one", &image).expect("snapshot").lower[0];
    let found = tree(top);
    assert_eq!(found["tmp"], "41777 3:4 @9");
    assert_eq!(found["etc/secret"], "40700 0:0 @8");
    assert!(found["new"].starts_with("40755 0:0"));
    // The same archive over nothing is another tree.
    let image = import(&store, "test/bare:2", &Made::gzipped(&[bare])).expect("import");
    let top = &store.snapshot("two", &image).expect("snapshot").lower[0];
    assert!(tree(top)["tmp"].starts_with("40755 0:0"));
}

#[test]
fn compressions_are_told_by_their_content() {
    let folder = Folder::new();
    let store = store(&folder);
    let archives: Vec<Vec<u8>> = ["a", "b", "c"].iter().map(|name| archive(&[file(name, name.as_bytes())])).collect();
    let (half, rest) = archives[2].split_at(700);
    let made = Made::new(&[
        (archives[0].clone(), archives[0].clone()),
        (zstd::encode_all(&archives[1][..], 1).expect("zstd"), archives[1].clone()),
        ([gzip(half), gzip(rest)].concat(), archives[2].clone()),
    ]);
    let image = import(&store, "test/kinds", &made).expect("import");
    let snapshot = store.snapshot("c", &image).expect("snapshot");
    let tops: Vec<_> = snapshot.lower.iter().map(|path| tree(path).into_keys().collect::<Vec<_>>()).collect();
    assert_eq!(tops, [["c"], ["b"], ["a"]]);
}

/// Nothing outside may change, and nothing inside may stay.
fn refused(entries: &[Entry<'_>], options: Options, word: &str) {
    let folder = Folder::new();
    let outside = folder.path("outside");
    fs::write(&outside, "untouched").expect("write");
    let store = Store::open(&folder.path("store"), options).expect("open");
    let error = import(&store, "test/evil", &Made::gzipped(&[archive(entries)])).expect_err("refused").to_string();
    assert!(error.contains(word) && !error.contains('\n'), "{error}");
    assert_eq!(fs::read_to_string(&outside).expect("read"), "untouched");
    assert!(store.list().is_empty());
    assert_eq!(names(&folder, "layers"), Vec::<String>::new());
}

#[test]
fn hostile_names_and_links_are_refused() {
    refused(&[file("../outside", b"x")], options(), "'..' in the name");
    refused(&[file("a/../../outside", b"x")], options(), "'..' in the name");
    refused(&[file(".wh...", b"")], options(), "whiteout of no name");
    refused(&[hardlink("h", "/etc/passwd")], options(), "not in this layer");
    refused(&[hardlink("h", "../../../../etc/passwd")], options(), "'..' in the name");
    refused(&[symlink("s", "/etc"), hardlink("h", "s/passwd")], options(), "not in this layer");
    refused(&[symlink("s", "/"), hardlink("h", "s/etc/passwd")], options(), "not in this layer");
    refused(&[file("f", b""), file("f/below", b"x")], options(), "no folder");
    refused(&[symlink("s", "nowhere"), file("s/x", b"x")], options(), "no folder");
    refused(&[Entry { owner: (u64::from(u32::MAX), 0), ..file("f", b"") }], options(), "not an owner");
    refused(&[Entry { pax: &[("GNU.sparse.major", b"1")], ..file("f", b"x") }], options(), "sparse");
}

#[test]
fn links_lead_only_inside_the_layer() {
    let folder = Folder::new();
    let store = store(&folder);
    let target = format!("{}/outside", folder.0.display());
    fs::create_dir(&target).expect("folder");
    let up = format!("../../../../../../../..{target}");
    let made = Made::gzipped(&[archive(&[
        dir("real"),
        symlink("abs", "/real"),
        symlink("host", &target),
        symlink("up", &up),
        symlink("proc", "/proc/self/root"),
        file("abs/through", b"inside"),
    ])]);
    import(&store, "test/links", &made).expect("links themselves are fine");
    assert_eq!(fs::read_to_string(layer(&folder, 1).join("real/through")).expect("read"), "inside");
    for link in ["host", "up", "proc"] {
        let name = format!("{link}/x");
        let made = Made::gzipped(&[archive(&[
            symlink("host", &target),
            symlink("up", &up),
            symlink("proc", "/proc/self/root"),
            file(&name, b"x"),
        ])]);
        let error = import(&store, "test/links2", &made).expect_err(link);
        assert!(matches!(&error, PullError::BadLayer { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(&target).expect("list").count(), 0);
    assert!(!std::path::Path::new("/x").exists());
}

#[test]
fn bombs_are_bounded() {
    let small = |entries, bytes| {
        let mut options = options();
        options.limits.entries = entries;
        options.limits.bytes = bytes;
        options
    };
    let zeros = vec![0; 4 << 20];
    refused(&[file("zeros", &zeros)], small(100, 1 << 20), "unpacks to more");
    let many: Vec<String> = (0..50).map(|number| format!("f{number}")).collect();
    let many: Vec<Entry<'_>> = many.iter().map(|name| file(name, b"")).collect();
    refused(&many, small(49, 1 << 30), "too many entries");
    let mut by_ratio = options();
    by_ratio.limits.free_bytes = 1 << 20;
    by_ratio.limits.ratio = 10;
    refused(&[file("zeros", &zeros)], by_ratio, "unpacks to more");
}

#[test]
fn content_that_is_not_what_was_announced_is_refused() {
    let folder = Folder::new();
    let store = store(&folder);
    let archive = archive(&[file("a", b"a")]);
    let other = berth_image::Digest::sha256(b"something else");
    let error = import(&store, "test/diff", &Made::with_diff_ids(vec![gzip(&archive)], &[other])).expect_err("DiffID");
    assert!(matches!(&error, PullError::DigestMismatch { what, .. } if what.contains("content of layer")), "{error}");

    let mut made = Made::gzipped(std::slice::from_ref(&archive));
    let size = made.blobs[0].1.len();
    made.blobs[0].1[size / 2] ^= 1;
    let error = import(&store, "test/blob", &made).expect_err("blob");
    assert!(matches!(&error, PullError::DigestMismatch { .. }), "{error}");

    let made = Made::new(&[(gzip(&archive[..600]), archive[..600].to_vec())]);
    let error = import(&store, "test/cut", &made).expect_err("a cut archive");
    assert!(matches!(&error, PullError::BadLayer { .. }), "{error}");
    assert_eq!(names(&folder, "layers"), Vec::<String>::new());
}

//! Snapshots, users, sizes, and what removal leaves.

use berth_image::import::Layout;
use oci_spec::image::ConfigBuilder;

use super::support::*;

#[test]
fn layers_outlive_their_image_as_long_as_a_snapshot_holds_them() {
    let folder = Folder::new();
    let store = store(&folder);
    let image = import(&store, "test/held:1", &Made::gzipped(&[archive(&[file("a", b"a")])])).expect("import");
    let snapshot = store.snapshot("c1", &image).expect("snapshot");
    assert!(snapshot.upper.is_dir() && snapshot.work.is_dir());
    store.remove("test/held:1").expect("remove");
    store.remove("test/held:1").expect("removing again is fine");
    assert!(store.list().is_empty() && store.find(&image.id).is_none());
    assert!(snapshot.lower[0].join("a").exists());
    assert!(store.snapshot("c2", &image).is_err() || store.remove_snapshot("c2").is_ok());
    drop(store);

    let store = self::store(&folder);
    assert_eq!(store.snapshots(), std::slice::from_ref(&snapshot));
    std::fs::write(snapshot.upper.join("new"), vec![1; 10_000]).expect("write");
    let usage = store.snapshot_usage("c1").expect("usage");
    assert!(usage.bytes >= 10_000 && usage.inodes == 1, "{usage:?}");
    store.remove_snapshot("c1").expect("remove");
    store.remove_snapshot("c1").expect("removing again is fine");
    for part in ["layers", "containers", "images", "leases"] {
        assert_eq!(names(&folder, part), Vec::<String>::new(), "{part}");
    }
    assert_eq!(store.fs_usage(), berth_image::Usage::default());
}

#[test]
fn a_snapshot_is_what_the_kernel_mounts() {
    let folder = Folder::new();
    let store = store(&folder);
    let made = Made::gzipped(&[
        archive(&[dir("d"), file("d/hidden", b"1"), file("gone", b"1"), file("kept", b"1")]),
        archive(&[dir("d"), file("d/.wh..wh..opq", b""), file("d/new", b"2"), file(".wh.gone", b"")]),
    ]);
    let image = import(&store, "test/overlay", &made).expect("import");
    let snapshot = store.snapshot("c", &image).expect("snapshot");
    let lower: Vec<String> = snapshot.lower.iter().map(|path| path.display().to_string()).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        snapshot.upper.display(),
        snapshot.work.display()
    );
    // In a mount namespace of a child that ends: nothing to unmount here.
    let script = format!("mount -t overlay overlay -o {options} /mnt && cd /mnt && find . | sort | tr '\\n' ' '");
    let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().expect("unshare");
    assert_eq!(String::from_utf8_lossy(&output.stdout), ". ./d ./d/new ./kept ", "{output:?}");
}

#[test]
fn what_a_container_has_changed_is_a_layer_that_changes_the_same() {
    let folder = Folder::new();
    let store = store(&folder);
    let base = archive(&[
        dir("d"),
        file("d/hidden", b"1"),
        file("gone", b"1"),
        file("kept", b"1"),
        dir("replaced"),
        file("replaced/old", b"1"),
    ]);
    let image = import(&store, "test/base", &Made::gzipped(std::slice::from_ref(&base))).expect("import");
    let snapshot = store.snapshot("c", &image).expect("snapshot");
    let long = "n".repeat(200);
    let shown = "find . -printf '%p %y %m %U %n %l\\n' | sort; cat d/new";
    let on_overlay = |snapshot: &berth_image::Snapshot, script: &str| {
        let lower: Vec<String> = snapshot.lower.iter().map(|path| path.display().to_string()).collect();
        let (upper, work) = (snapshot.upper.display(), snapshot.work.display());
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        // In a mount namespace of a child that ends: nothing to unmount here.
        let script = format!("set -e; mount -t overlay overlay -o {options} /mnt; cd /mnt; {script}");
        let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().expect("unshare");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let change = format!(
        "rm gone; rm -r replaced; mkdir replaced; echo 2 >replaced/new; echo 2 >d/new; chown 7 d/new; chmod 4711 d/new; \
         ln d/new second; ln -s ../x link; mkfifo fifo; echo 3 >{long}; echo 4 >>kept; touch .wh.false; {shown}"
    );
    let before = on_overlay(&snapshot, &change)
        .lines()
        .filter(|line| !line.contains(".wh.false"))
        .collect::<Vec<_>>()
        .join("\n");

    let mut layer = Vec::new();
    store.snapshot_diff("c", &|id| id + 100, &mut layer).expect("a layer");
    let copy = import(&store, "test/copy", &Made::gzipped(&[base, layer])).expect("the layer is valid");
    let after = on_overlay(&store.snapshot("d", &copy).expect("snapshot"), shown);
    // What was changed has the owner that it was said to have; what was not has its own.
    let owned = |text: &str| text.replace(" 7 2 ", " 107 2 ").replace(" 0 ", " 100 ");
    assert_eq!(owned(after.trim()), owned(&before));
    assert!(after.contains("./d/new f 4711 107 2") && after.contains("./d/hidden f 644 0 1"), "{after}");
    store.snapshot_diff("nobody", &|id| id, &mut Vec::new()).expect_err("no such container");
}

#[test]
fn names_ids_and_sizes_follow_the_rules() {
    let folder = Folder::new();
    let store = store(&folder);
    let one = Made::gzipped(&[archive(&[file("a", b"one")])]);
    let two = Made::gzipped(&[archive(&[file("a", b"two")])]);
    let image = import(&store, "test/app:a", &one).expect("import");
    assert_eq!(image.repo_tags, ["docker.io/test/app:a"]);
    assert_eq!(image.repo_digests, [format!("docker.io/test/app@{}", one.digest())]);
    assert!(image.size > 4096);
    import(&store, "test/app:b", &one).expect("a second name");
    assert_eq!(store.list().len(), 1);
    let hex = image.id.trim_start_matches("sha256:").to_owned();
    let by_digest = format!("test/app@{}", one.digest());
    for name in ["test/app:b", image.id.as_str(), &hex, &hex[..12], &by_digest] {
        assert_eq!(store.find(name).map(|found| found.id), Some(image.id.clone()), "{name}");
    }
    assert!(store.find("test/app:c").is_none() && store.find("test/app").is_none());

    // The tag moves; the old image keeps what it still has.
    let moved = import(&store, "test/app:a", &two).expect("the tag moves");
    assert_eq!(store.find("test/app:a").map(|found| found.id), Some(moved.id.clone()));
    let old = store.find(&image.id).expect("still there");
    assert_eq!(old.repo_tags, ["docker.io/test/app:b"]);
    let usage = store.fs_usage();
    drop(store);
    let store = self::store(&folder);
    assert_eq!(store.find("test/app:a").map(|found| found.id), Some(moved.id));
    assert_eq!(store.fs_usage(), usage);
    // Removal by one name removes all of them.
    store.remove("test/app:b").expect("remove");
    assert!(store.find(&image.id).is_none());
}

#[test]
fn one_binary_becomes_an_image_and_the_same_one_again() {
    let folder = Folder::new();
    let store = store(&folder);
    let config = ConfigBuilder::default().entrypoint(vec!["/bin/hello".to_owned()]).build().expect("config");
    let layout = || Layout::single_binary("/bin/hello", b"#!", &config).expect("layout");
    let image = run(store.import_layout("berth.local/hello:1", layout(), true)).expect("import");
    assert!(image.pinned && image.config.config().as_ref().expect("config").entrypoint().is_some());
    let lower = store.snapshot("c", &image).expect("snapshot").lower;
    assert_eq!(tree(&lower[0])["bin/hello"], "100755 0:0 @0 n1 \"#!\"");
    let again = run(store.import_layout("berth.local/hello:1", layout(), true)).expect("again");
    assert_eq!((again.id, names(&folder, "layers").len()), (image.id, 1));
}

#[test]
fn users_are_read_through_the_layers_and_never_outside() {
    let folder = Folder::new();
    let store = store(&folder);
    let users = |name: &str, layers: &[Vec<u8>]| {
        let image = import(&store, name, &Made::gzipped(layers)).expect(name);
        store.users(&image).map(|users| (users.passwd.clone(), users.group.clone()))
    };
    let base = archive(&[dir("etc"), file("etc/passwd", b"base"), file("etc/group", b"group")]);
    let text = |passwd: &str, group: &str| (passwd.to_owned(), group.to_owned());
    let top = archive(&[dir("etc"), file("etc/passwd", b"top")]);
    assert_eq!(users("test/u:1", &[base.clone(), top]).expect("users"), text("top", "group"));
    let hidden = archive(&[dir("etc"), file("etc/.wh.passwd", b"")]);
    assert_eq!(users("test/u:2", &[base.clone(), hidden]).expect("users"), text("", "group"));
    let opaque = archive(&[dir("etc"), file("etc/.wh..wh..opq", b""), file("etc/group", b"new")]);
    assert_eq!(users("test/u:3", &[base.clone(), opaque]).expect("users"), text("", "new"));
    let linked =
        archive(&[dir("etc"), symlink("etc/passwd", "../usr/../../lib/pw"), dir("lib"), file("lib/pw", b"linked")]);
    let usr = archive(&[dir("usr"), dir("etc"), symlink("etc/group", "/proc/../etc/group")]);
    assert_eq!(users("test/u:4", &[base.clone(), linked, usr]).expect("users"), text("linked", ""));
    let host = archive(&[
        dir("etc"),
        symlink("etc/passwd", "/proc/self/root/etc/passwd"),
        entry("etc/group", tar::EntryType::Fifo),
    ]);
    assert_eq!(users("test/u:5", &[base.clone(), host]).expect("users"), text("", ""));
    let looping = archive(&[dir("etc"), symlink("etc/passwd", "passwd")]);
    assert_eq!(users("test/u:6", &[looping]).expect("users"), text("", ""));
    let large = vec![b'x'; (1 << 20) + 1];
    let error = users("test/u:7", &[archive(&[dir("etc"), file("etc/passwd", &large)])]).expect_err("too large");
    assert!(error.to_string().contains("larger than 1048576"), "{error}");
}

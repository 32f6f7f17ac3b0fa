//! What a killed process leaves, and that the next one finishes or undoes it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_image::{RegistryConfig, Store};

use super::server::{Reply, Server};
use super::support::*;

const CHILD: &str = "BERTH_IMAGE_TEST_PULL";

const REPORT: &str = "BERTH_IMAGE_TEST_REPORT";

/// The process that is killed: this test program, told by its environment to pull and remove.
#[test]
fn as_a_child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (root, name) = told.split_once(' ').expect("root and name");
    let store = Store::open(root.as_ref(), options()).expect("open");
    let pulled = run(store.pull(name, None, &RegistryConfig::none()));
    if let (Ok(report), Err(error)) = (std::env::var(REPORT), &pulled) {
        fs::write(report, format!("{error}\n{:?}", names_in(root.as_ref(), "layers"))).expect("report");
        return;
    }
    let image = pulled.expect("pull");
    store.snapshot("c", &image).expect("snapshot");
    store.remove_snapshot("c").expect("remove snapshot");
    store.remove(name).expect("remove");
}

fn child(folder: &Folder, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "crash::as_a_child"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.env(CHILD, format!("{} {name}", folder.path("store").display()));
    command
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let noise: Vec<u8> = (0..700_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let made = Made::gzipped(&[archive(&[file("large", &noise)])]);
    let server = Server::start(&made, |_, right| right);
    let folder = Folder::new();
    fs::create_dir(folder.path("store")).expect("folder");
    let child = child(&folder, &format!("{}/app:1", server.address));
    // A small file system of its own, in a mount namespace that ends with the child.
    let mount = format!("mount -t tmpfs -o size=1m tmpfs {} && exec \"$@\"", folder.path("store").display());
    let mut small = Command::new("unshare");
    small.args(["-m", "sh", "-c", &mount, "sh"]).arg(child.get_program()).args(child.get_args());
    small.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    small.env(REPORT, folder.path("report")).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(small.status().expect("runs").success());
    let report = fs::read_to_string(folder.path("report")).expect("the pull failed");
    assert!(report.starts_with("no space left for layer sha256:") && report.ends_with("\n[]"), "{report}");
}

fn leftovers(folder: &Folder) -> Vec<String> {
    ["layers", "images", "leases", "containers"].iter().flat_map(|part| names(folder, part)).collect()
}

#[test]
fn every_crash_point_of_an_images_life_is_repaired() {
    // Two layers, one of which takes its folder from the other.
    let made = Made::gzipped(&[archive(&[dir("d"), file("d/a", b"a")]), archive(&[file("d/b", b"b")])]);
    let server = Server::start(&made, |_, right| right);
    let name = format!("{}/app:1", server.address);
    let mut points = 0;
    loop {
        let folder = Folder::new();
        let point = points + 1;
        let status = child(&folder, &name).env("BERTH_CRASH_AT", point.to_string()).status().expect("runs");
        if status.success() {
            break;
        }
        points = point;
        let store = store(&folder);
        assert!(!leftovers(&folder).iter().any(|name| name.contains(".tmp-") || name.contains("corrupt")), "{point}");
        if let Some(image) = store.find(&name) {
            let lower = store.snapshot("check", &image).expect("a whole image").lower;
            assert!(lower[0].join("d/b").exists() && lower[1].join("d/a").exists(), "{point}");
            store.remove_snapshot("check").expect("remove");
        }
        run(store.pull(&name, None, &RegistryConfig::none())).expect("pull again");
        for snapshot in store.snapshots() {
            store.remove_snapshot(&snapshot.container).expect("remove");
        }
        store.remove(&name).expect("remove");
        assert_eq!(leftovers(&folder), Vec::<String>::new(), "{point}");
    }
    println!("{points} crash points");
    assert!(points >= 20, "{points}");
}

#[test]
fn a_pull_killed_in_the_middle_of_a_layer_leaves_nothing_half_made() {
    let noise: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let made = Made::gzipped(&[archive(&[file("small", b"s")]), archive(&[dir("d"), file("d/large", &noise)])]);
    let large = made.layer(1);
    let hanging = Server::start(&made, move |asked, right| {
        if asked.path.ends_with(large.as_str()) { Reply { cut: Some(400_000), hang: true, ..right } } else { right }
    });
    let folder = Folder::new();
    let mut child = child(&folder, &format!("{}/app:1", hanging.address)).spawn().expect("runs");
    // Until the small layer is committed and the large one has begun.
    let reached = || {
        let layers: Vec<_> = fs::read_dir(folder.path("store/layers")).into_iter().flatten().flatten().collect();
        let begun = |name: &str| name.starts_with(".tmp-");
        let names = layers.iter().map(|entry| (entry.file_name().into_string().expect("text"), entry.path()));
        let (making, made): (Vec<_>, Vec<_>) = names.partition(|(name, _)| begun(name));
        made.len() == 1 && making.len() == 1 && making[0].1.join("diff/d").exists()
    };
    for _ in 0..600 {
        if reached() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("kill -9");
    child.wait().expect("ends");

    let store = store(&folder);
    assert!(store.list().is_empty());
    assert_eq!(names(&folder, "layers").len(), 1, "the finished layer waits for the next try");
    let healthy = Server::start(&made, |_, right| right);
    run(store.pull(&format!("{}/app:1", healthy.address), None, &RegistryConfig::none())).expect("pull again");
    assert_eq!(healthy.count(made.layer(0).as_str()), 0, "the finished layer served");
    assert_eq!(healthy.count(made.layer(1).as_str()), 1);
}

#[test]
fn damaged_records_are_set_aside_one_by_one() {
    let folder = Folder::new();
    let store = store(&folder);
    let one = import(&store, "test/one", &Made::gzipped(&[archive(&[file("a", b"1")])])).expect("import");
    let two = import(&store, "test/two", &Made::gzipped(&[archive(&[file("a", b"2")])])).expect("import");
    let three = import(&store, "test/three", &Made::gzipped(&[archive(&[file("a", b"3")])])).expect("import");
    drop(store);
    let record = format!("store/images/{}.json", one.id.trim_start_matches("sha256:"));
    fs::write(folder.path(&record), "{").expect("damage");
    fs::remove_file(folder.path("store/layers/2/layer.json")).expect("damage");
    let store = self::store(&folder);
    assert_eq!(store.list().iter().map(|image| &image.id).collect::<Vec<_>>(), [&three.id]);
    assert_ne!(two.id, three.id);
    assert_eq!(names(&folder, "images").iter().filter(|name| name.ends_with(".corrupt")).count(), 2);
    assert_eq!(names(&folder, "layers"), ["2.corrupt", "3"]);
    assert!(import(&store, "test/two", &Made::gzipped(&[archive(&[file("a", b"2")])])).is_ok());
}

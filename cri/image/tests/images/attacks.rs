//! Attacks that other image stores fell to. `cri/ATTACKS.md` says which one is which row, and without which guard each of
//! these tests fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::support::*;

const SWAPS: usize = 10_000;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

#[test]
fn a_links_mode_is_not_set_on_what_it_leads_to() {
    let folder = Folder::new();
    let store = store(&folder);
    let outside = folder.path("outside");
    fs::write(&outside, "untouched").expect("write");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).expect("a mode");
    let target = outside.display().to_string();
    let made = Made::gzipped(&[archive(&[
        Entry { mode: 0o4777, ..symlink("s", &target) },
        Entry { mode: 0o4777, ..hardlink("h", "s") },
    ])]);
    import(&store, "test/modes", &made).expect("links are fine");
    assert_eq!(mode(&outside), 0o600);
    assert!(layer(&folder, 1).join("h").is_symlink());
}

/// Swaps `d` with a link to `outside` in whatever layer is being unpacked, until it is told to stop.
fn swap(layers: &Path, outside: &Path, swaps: &AtomicUsize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let folders = fs::read_dir(layers).into_iter().flatten().flatten().map(|entry| entry.path().join("diff"));
        for diff in folders.filter(|diff| diff.join("d").is_dir() && !diff.join("l").exists()) {
            let (folder, link): (PathBuf, PathBuf) = (diff.join("d"), diff.join("l"));
            if std::os::unix::fs::symlink(outside, &link).is_err() {
                continue;
            }
            while renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE).is_ok() {
                swaps.fetch_add(1, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    }
}

#[test]
fn a_folder_is_swapped_with_a_link_while_its_layer_is_unpacked() {
    let folder = Folder::new();
    let store = store(&folder);
    let outside = folder.path("outside");
    fs::create_dir(&outside).expect("folder");
    let (swaps, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (layers, elsewhere) = (folder.path("store/layers"), outside.clone());
    let (counted, told) = (Arc::clone(&swaps), Arc::clone(&stop));
    let swapper = std::thread::spawn(move || swap(&layers, &elsewhere, &counted, &told));
    let names: Vec<String> = (0..2000).map(|number| format!("{}/{number}", ["d", "e"][number % 2])).collect();
    let mut tries = 0;
    while swaps.load(Ordering::Relaxed) < SWAPS {
        // Another archive each time, or it would be there already.
        let own = format!("try-{tries}");
        let entries = [dir("d"), dir("e"), file(&own, b"")].into_iter();
        let entries: Vec<Entry<'_>> = entries.chain(names.iter().map(|name| file(name, b"x"))).collect();
        // A link that leads nowhere inside refuses the layer; a folder that is there takes it.
        let _ = import(&store, &format!("test/swapped:{tries}"), &Made::gzipped(&[archive(&entries)]));
        let found: Vec<_> = fs::read_dir(&outside).expect("outside").flatten().map(|entry| entry.file_name()).collect();
        assert!(found.is_empty(), "on the host: {found:?}");
        tries += 1;
        assert!(tries < 20_000, "{} swaps only", swaps.load(Ordering::Relaxed));
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("the swapper");
    println!("{tries} layers");
}

#[test]
fn other_users_of_the_node_reach_no_layer() {
    let folder = Folder::new();
    let store = store(&folder);
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).expect("a mode");
    let made = Made::gzipped(&[archive(&[Entry { mode: 0o4755, ..file("su", b"set-user-id") }])]);
    let image = import(&store, "test/private", &made).expect("import");
    let snapshot = store.snapshot("container", &image).expect("snapshot");
    let root = folder.path("store");
    assert_eq!((mode(&root), mode(&root.join("layers")), mode(&root.join("images"))), (0o711, 0o700, 0o700));
    // Not listed, and not reached by who knows the name.
    let as_nobody = |program: &str, path: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]).arg(path);
        command.output().expect("setpriv, of util-linux").status.success()
    };
    assert!(as_nobody("/bin/ls", Path::new("/")), "this user can list what is for all");
    for path in [root.clone(), root.join("layers"), root.join("containers"), layer(&folder, 1)] {
        assert!(!as_nobody("/bin/ls", &path), "{}", path.display());
    }
    assert!(!as_nobody("/bin/cat", &layer(&folder, 1).join("su")));
    assert!(!snapshot.lower.is_empty());
}

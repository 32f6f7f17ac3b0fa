//! What an unpacker at work can still do.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_image::{RegistryConfig, Store};

use super::server::{Reply, Server};
use super::support::*;

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP.
const CAPABILITIES: u64 = 0x8800_001b;

/// The process whose root holds `marker` and nothing of the host.
fn unpacker(marker: &str) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").expect("proc").flatten().map(|entry| entry.path());
    let mut inside = processes.filter(|process| process.join("root").join(marker).exists());
    inside.find(|process| !process.join("root/proc").exists())
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn an_unpacker_has_its_layer_and_little_else() {
    let noise: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let marker = format!("marker-{}", std::process::id());
    let made = Made::gzipped(&[archive(&[file(&marker, b""), file("large", &noise)])]);
    let layer = made.layer(0);
    let server = Server::start(&made, move |asked, right| match asked.path.ends_with(layer.as_str()) {
        true => Reply { cut: Some(400_000), hang: true, ..right },
        false => right,
    });
    let folder = Folder::new();
    let mut options = options();
    (options.stall, options.attempts) = (Duration::from_secs(3), 1);
    let store = Store::open(&folder.path("store"), options).expect("open");
    let name = format!("{}/app", server.address);
    let pull = std::thread::spawn(move || run(store.pull(&name, None, &RegistryConfig::none())));
    let found = (0..600).find_map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        unpacker(&marker)
    });
    let process = found.expect("an unpacker is at work");
    let status = fs::read_to_string(process.join("status")).expect("status");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(u64::from_str_radix(&field(&status, set), 16), Ok(CAPABILITIES), "{set}");
    }
    assert_eq!((field(&status, "CapInh"), field(&status, "CapAmb")), ("0".repeat(16), "0".repeat(16)));
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1".into(), "2".into()));
    assert_eq!(field(&status, "Threads"), "1");
    for namespace in ["mnt", "net", "ipc", "uts"] {
        let link = |process: &Path| fs::read_link(process.join("ns").join(namespace)).expect("namespace");
        assert_ne!(link(&process), link(Path::new("/proc/self")), "{namespace}");
    }
    let mounts = fs::read_to_string(process.join("mounts")).expect("mounts");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    pull.join().expect("thread").expect_err("the transfer hangs");
    assert!(!process.exists(), "the unpacker ended with the pull");
    assert_eq!(names(&folder, "layers"), Vec::<String>::new());
}

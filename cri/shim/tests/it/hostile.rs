//! Images that want out.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use berth_plan::message::Stage;

use crate::place::{Place, bind};

/// Replaces something in the image.
fn replace(place: &Place, path: &str, target: &str) {
    let path = place.folder.join("image").join(path);
    let _ = fs::remove_dir_all(&path);
    symlink(target, path).expect("link");
}

#[test]
fn procfs_and_sysfs_are_mounted_on_ordinary_folders_only() {
    for (link, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        let mut place = Place::new();
        replace(&place, link, "/tmp");
        let plan = place.plan("c1", "true");
        let failure = place.start(&plan).expect_err(link);
        assert_eq!(failure.stage, Stage::Mount);
        assert!(
            failure.message.contains(&format!("filesystem \"{kind}\" must be mounted on ordinary directory")),
            "{}",
            failure.message
        );
    }
}

/// Devices would be made in a volume that others write to, where the link leads there (CVE-2026-41579).
#[test]
fn a_linked_dev_is_refused() {
    let mut place = Place::new();
    let outside = place.folder.join("outside");
    fs::create_dir(&outside).expect("outside");
    replace(&place, "dev", outside.to_str().expect("text"));
    let plan = place.plan("c1", "true");
    let failure = place.start(&plan).expect_err("a link");
    assert!(failure.message.contains("must be mounted on ordinary directory \"/dev\""), "{}", failure.message);
    assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
}

#[test]
fn mount_destinations_through_links_stay_inside() {
    let mut place = Place::new();
    let outside = place.folder.join("outside");
    fs::create_dir(&outside).expect("outside");
    replace(&place, "up", "../../../../../../../..");
    replace(&place, "abs", outside.to_str().expect("text"));
    let mut plan = place.plan("c1", "cat /etc/token /abs/made/passwd | wc -l");
    plan.mounts.push(bind("/etc/hostname", "/up/up/etc/token", 0));
    plan.mounts.push(bind("/etc/passwd", "/abs/made/passwd", 0));
    let before = fs::metadata("/etc/token").is_ok();
    let (exit, log) = place.run(&plan);
    assert_eq!(exit.code, 0, "{log}");
    assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
    assert_eq!(fs::metadata("/etc/token").is_ok(), before);
}

#[test]
fn a_volume_over_a_part_of_procfs_is_refused() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "true");
    plan.mounts.push(bind("/etc/hostname", "/proc/version", 0));
    let failure = place.start(&plan).expect_err("inside /proc");
    assert_eq!(
        (failure.stage, failure.message.as_str()),
        (Stage::Mount, "\"/proc/version\" cannot be mounted because it is inside /proc")
    );
    plan.mounts.pop();
    plan.mounts.push(bind("/etc/hostname", "/proc/cpuinfo", 0));
    assert_eq!(place.run(&plan).0.code, 0);
}

#[test]
fn a_linked_null_device_masks_nothing_else() {
    let mut place = Place::new();
    // /dev stays the image's: its null leads to a file that a mask must not cover others with.
    fs::write(place.folder.join("image/etc/core_pattern"), "evil").expect("file");
    symlink("/etc/core_pattern", place.folder.join("image/dev/null")).expect("link");
    let mut plan = place.plan("c1", "wc -c < /proc/timer_list");
    plan.mounts.retain(|mount| mount.destination != "/dev" && !mount.destination.starts_with("/dev/"));
    plan.devices.clear();
    plan.links.clear();
    assert_eq!(place.output(&plan), "0\n");
}

#[test]
fn a_device_in_the_way_is_not_taken_for_ours() {
    let mut place = Place::new();
    fs::write(place.folder.join("image/dev/null"), "a file").expect("file");
    let mut plan = place.plan("c1", "true");
    plan.mounts.retain(|mount| mount.destination != "/dev" && !mount.destination.starts_with("/dev/"));
    let failure = place.start(&plan).expect_err("another thing");
    assert_eq!((failure.stage, failure.message.as_str()), (Stage::Device, "\"/dev/null\" exists and is another thing"));
}

#[test]
fn the_runtimes_file_is_not_writable_as_an_entry_point() {
    let mut place = Place::new();
    fs::write(place.folder.join("image/entry"), "#!/proc/self/exe\n").expect("script");
    fs::set_permissions(place.folder.join("image/entry"), PermissionsExt::from_mode(0o755)).expect("mode");
    let mut plan = place.plan("c1", "");
    plan.process.args = vec!["/entry".to_owned()];
    // What runs is the shim's own program, from a read-only mount, with arguments that it refuses.
    let (exit, log) = place.run(&plan);
    assert_eq!(exit.code, 2, "{log}");
    assert_eq!(fs::read(place.folder.join("berth-shim")).expect("the shim"), berth_carried::SHIM);
}

/// Profiles of the time before close_range(2), or recorded under another runtime, know nothing of what Berth calls.
#[test]
fn a_filter_that_forbids_our_own_calls_stops_no_start() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "echo runs");
    let instruction = |code: u16, jump: [u8; 2], k: u32| {
        let (code, k) = (code.to_ne_bytes(), k.to_ne_bytes());
        [code[0], code[1], jump[0], jump[1], k[0], k[1], k[2], k[3]]
    };
    // struct seccomp_data begins with the call's number, which is x86-64's and aarch64's here.
    let (close_range, sendmsg) = (436, if cfg!(target_arch = "x86_64") { 46 } else { 211 });
    plan.process.seccomp = [
        instruction(0x20, [0, 0], 0),
        instruction(0x15, [2, 0], close_range),
        instruction(0x15, [1, 0], sendmsg),
        instruction(0x06, [0, 0], 0x7fff_0000),
        instruction(0x06, [0, 0], 0x0005_0001),
    ]
    .concat();
    assert_eq!(place.output(&plan), "runs\n");
    // A failure under the filter is still told.
    let program = place.folder.join("image/program");
    fs::write(&program, "of no known format").expect("program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    plan.id = "c2".to_owned();
    plan.process.args = vec!["/program".to_owned()];
    let failure = place.start(&plan).expect_err("no program");
    assert_eq!(failure.stage, Stage::Execve, "{}", failure.message);
}

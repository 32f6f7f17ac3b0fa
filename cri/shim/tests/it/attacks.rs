//! Attacks that other runtimes fell to, mounted against the shim. `cri/ATTACKS.md` says which one is which row, and
//! without which guard each of these tests fails.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use berth_plan::container::{Mount, MountSource};
use berth_plan::message::Stage;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::execs::{plan as exec_plan, run as run_exec};
use crate::place::{Place, bind, children};

/// How often two names are swapped while containers start.
const SWAPS: usize = 10_000;
/// So many containers start meanwhile, at least.
const STARTS: usize = 60;

const EVERYTHING: u64 = (1 << 41) - 1;

/// Swaps two names of a folder as fast as it can.
struct Swapper {
    swaps: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let (swaps, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, told) = (Arc::clone(&swaps), Arc::clone(&stop));
        let swap = move || {
            while !told.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).expect("swapped");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        };
        Self { swaps, stop, thread: Some(std::thread::spawn(swap)) }
    }

    fn swaps(&self) -> usize {
        self.swaps.load(Ordering::Relaxed)
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn made(place: &Place, name: &str) -> PathBuf {
    let folder = place.folder.join(name);
    fs::create_dir(&folder).expect("a folder");
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Replaces something of the image with a link.
fn link(place: &Place, path: &str, target: &Path) {
    let path = place.folder.join("image").join(path);
    let _ = fs::remove_dir_all(&path);
    symlink(target, path).expect("a link");
}

fn assert_empty(folder: &Path) {
    let found: Vec<_> = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert!(found.is_empty(), "on the host: {found:?}");
}

fn tmpfs(destination: &str) -> Mount {
    let source = MountSource::Filesystem { kind: "tmpfs".to_owned(), options: vec![] };
    Mount { source, recursive_attr: false, ..bind("", destination, 0) }
}

/// Containers start in a pod whose shared volume has a folder at `dest` now and a link to the host there then; `mount`
/// is to be made below it.
fn race(mount: impl Fn() -> Mount) {
    let mut place = Place::new();
    let (shared, outside) = (made(&place, "shared"), made(&place, "outside"));
    fs::create_dir(shared.join("dest")).expect("a folder");
    symlink(&outside, shared.join("link")).expect("a link");
    let swapper = Swapper::start(shared.join("dest"), shared.join("link"));
    let (mut starts, mut started) = (0, 0);
    while starts < STARTS || swapper.swaps() < SWAPS {
        let mut plan = place.plan(&format!("c{starts}"), "true");
        plan.mounts.extend([bind(text(&shared), "/vol", 0), mount()]);
        if place.start(&plan).is_ok() {
            assert_eq!(place.exit_of(&plan.id).code, 0);
            started += 1;
        }
        starts += 1;
        assert_empty(&outside);
    }
    drop(swapper);
    assert!(started > 0, "none of {starts} containers started");
    println!("{started} of {starts} containers started");
}

#[test]
fn a_mounts_folder_is_swapped_with_a_link() {
    race(|| tmpfs("/vol/dest/made/folder"));
}

#[test]
fn a_mounts_file_is_swapped_with_a_link() {
    race(|| bind("/etc/passwd", "/vol/dest/made/file", 0));
}

#[test]
fn the_runtimes_file_is_not_to_be_had_during_an_exec() {
    let mut place = Place::new();
    // Everything that CVE-2019-5736 takes: all capabilities, and a handle of each process's program.
    let script = "while :; do for p in /proc/[0-9]*; do exec 9<\"$p/exe\" || continue; f=/proc/self/fd/9; \
                  [[ $f -ef /bin/bash || $f -ef /bin/sh ]] || { echo held; [[ -w $f ]] && echo WRITABLE; \
                  (: >>$f) && echo WRITABLE; }; done; done 2>/dev/null";
    let mut plan = place.plan("c1", script);
    plan.process.args[0] = "/bin/bash".to_owned();
    let capabilities = &mut plan.process.capabilities;
    (capabilities.bounding, capabilities.permitted, capabilities.effective) = (EVERYTHING, EVERYTHING, EVERYTHING);
    // A command that is the runtime itself, by its link: it refuses its arguments and ends.
    fs::write(place.folder.join("image/entry"), "#!/proc/self/exe\n").expect("a script");
    fs::set_permissions(place.folder.join("image/entry"), fs::Permissions::from_mode(0o755)).expect("a mode");
    place.start(&plan).expect("start");
    let mut execs = 0;
    while execs < 100 || !place.log("c1").contains("held") {
        for command in ["true", "exec /entry"] {
            run_exec(&mut place, &exec_plan(&format!("e{execs}"), "c1", command));
            execs += 1;
        }
        assert!(execs < 2000, "the attack never held the runtime's file");
    }
    place.signal("c1", 9);
    place.exit_of("c1");
    assert!(!place.log("c1").contains("WRITABLE"), "{}", place.log("c1"));
    assert_eq!(fs::read(place.folder.join("berth-shim")).expect("the shim"), berth_carried::SHIM);
}

#[test]
fn a_false_procfs_swallows_no_apparmor_profile() {
    let mut place = Place::new();
    let proc = made(&place, "proc");
    fs::create_dir_all(proc.join("thread-self/attr/apparmor")).expect("folders");
    let file = proc.join("thread-self/attr/apparmor/exec");
    fs::write(&file, "").expect("a file");
    let mut plan = place.plan("c1", "true");
    // An image's VOLUME /proc, where a runtime mounts such.
    plan.mounts.retain(|mount| mount.destination != "/proc");
    plan.mounts.insert(0, bind(text(&proc), "/proc", 0));
    plan.process.apparmor = "berth-default".to_owned();
    let failure = place.start(&plan).expect_err("no procfs");
    assert_eq!(failure.stage, Stage::Capabilities, "{}", failure.message);
    assert!(failure.message.contains("is not procfs"), "{}", failure.message);
    assert_eq!(fs::read_to_string(&file).expect("the file"), "");
}

#[test]
fn procfs_is_not_mounted_where_a_link_to_a_volume_leads() {
    let mut place = Place::new();
    let shared = made(&place, "shared");
    fs::create_dir(shared.join("proc")).expect("a folder");
    link(&place, "proc", Path::new("/data/proc"));
    let mut plan = place.plan("c1", "true");
    // The volume is there first, and another container may write to it.
    plan.mounts.insert(0, bind(text(&shared), "/data", 0));
    let failure = place.start(&plan).expect_err("a link");
    assert!(failure.message.contains("must be mounted on ordinary directory \"/proc\""), "{}", failure.message);
}

#[test]
fn no_descriptor_of_the_hosts_is_a_working_folder() {
    let mut place = Place::new();
    for number in 3..=20 {
        let mut plan = place.plan("c1", "true");
        plan.process.cwd = format!("/proc/self/fd/{number}");
        let failure = place.start(&plan).expect_err("a descriptor");
        assert_eq!(failure.stage, Stage::Cwd, "{}", failure.message);
    }
    let plan = place.plan("c1", "exec sleep 1000");
    place.start(&plan).expect("start");
    for number in 3..=20 {
        let mut exec = exec_plan("e1", "c1", "true");
        exec.process.cwd = format!("/proc/self/fd/{number}");
        let input = fs::File::options().read(true).write(true).open("/dev/null").expect("null");
        let input = std::os::fd::AsFd::as_fd(&input);
        let failure = place.exec(&exec, [input; 3]).expect_err("a descriptor");
        assert_eq!(failure.stage, Stage::Cwd, "{}", failure.message);
    }
    let (_, open) = run_exec(&mut place, &exec_plan("e2", "c1", "ls /proc/1/fd | tr '\\n' ' '"));
    assert_eq!(open, "0 1 2 ");
    place.signal("c1", 9);
    place.exit_of("c1");
}

#[test]
fn a_sysctl_is_not_written_to_what_a_volume_put_there() {
    let mut place = Place::new();
    let shared = made(&place, "shared");
    fs::write(shared.join("false"), "").expect("a file");
    let mut plan = place.plan("c1", "/bin/true & echo $!; wait");
    // One of the few files of procfs that may be covered.
    plan.mounts.push(bind(text(&shared.join("false")), "/proc/sys/kernel/ns_last_pid", 0));
    plan.sysctls = vec![("kernel.ns_last_pid".to_owned(), "300".to_owned())];
    let pid = place.output(&plan);
    assert_eq!(fs::read_to_string(shared.join("false")).expect("the file"), "");
    assert!(pid.trim().parse::<u32>().is_ok_and(|pid| pid > 300), "the kernel has taken it: {pid}");
}

#[test]
fn no_node_or_link_is_made_where_a_linked_dev_leads() {
    let mut place = Place::new();
    let outside = made(&place, "outside");
    link(&place, "dev", &outside);
    let mut plan = place.plan("c1", "true");
    plan.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    plan.links.push(("/dev/ptmx".to_owned(), "pts/ptmx".to_owned()));
    // Inside, that path is made and has them all.
    let (exit, log) = place.run(&plan);
    assert_eq!(exit.code, 0, "{log}");
    assert_empty(&outside);
    assert!(place.folder.join("c1/upper").join(text(&outside).trim_start_matches('/')).join("null").exists());
}

#[test]
fn a_pods_files_are_not_put_where_a_linked_etc_leads() {
    let mut place = Place::new();
    let (outside, files) = (made(&place, "outside"), made(&place, "files"));
    for name in ["hosts", "hostname", "resolv.conf"] {
        fs::write(files.join(name), "ours\n").expect("a file");
    }
    fs::remove_dir_all(place.folder.join("image/etc")).expect("removed");
    link(&place, "etc", &outside);
    let mut plan = place.plan("c1", "cat /etc/hosts /etc/hostname /etc/resolv.conf");
    for name in ["hosts", "hostname", "resolv.conf"] {
        plan.mounts.push(bind(text(&files.join(name)), &format!("/etc/{name}"), 0));
    }
    assert_eq!(place.output(&plan), "ours\n".repeat(3));
    assert_empty(&outside);
}

#[test]
fn no_folder_is_made_for_what_a_linked_mtab_names() {
    let mut place = Place::new();
    let outside = made(&place, "outside");
    // What is there on the host, and what is not.
    for (name, target) in [("c1", outside.clone()), ("c2", outside.join("made/by/the/runtime"))] {
        let _ = fs::remove_file(place.folder.join("image/etc/mtab"));
        link(&place, "etc/mtab", &target);
        let mut plan = place.plan(name, "true");
        plan.links.push(("/etc/mtab/made/x".to_owned(), "/proc/mounts".to_owned()));
        assert_eq!(place.run(&plan).0.code, 0);
        assert_empty(&outside);
    }
}

#[test]
fn long_plans_arrive_as_they_are() {
    let mut place = Place::new();
    let (volume, long) = (made(&place, "volume"), "l".repeat(70_000));
    let script = "printf %s \"$LONG\" | wc -c; ls -d /m/*/* | wc -l; printf %s \"$LAST\"; echo; echo $#";
    let mut plan = place.plan("c1", script);
    plan.process.env.push(format!("LONG={long}"));
    plan.process.args.extend((0..2000).map(|number| format!("{number:0>40}")));
    // Together the destinations are longer than a length of 16 bits could say.
    plan.mounts.extend((0..400).map(|number| bind(text(&volume), &format!("/m/{number}/{}", "d".repeat(200)), 0)));
    plan.process.env.push("LAST=last".to_owned());
    assert_eq!(place.output(&plan), "70000\n400\nlast\n1999\n");
}

#[test]
fn a_process_has_the_groups_of_its_plan_only() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "id -G; grep CapInh /proc/self/status");
    (plan.process.uid, plan.process.gid, plan.process.groups) = (1000, 1001, vec![1001]);
    assert_eq!(place.output(&plan), "1001\nCapInh:\t0000000000000000\n");
    let plan = place.plan("c2", "exec sleep 1000");
    place.start(&plan).expect("start");
    let mut exec = exec_plan("e1", "c2", "id -G; grep CapInh /proc/self/status");
    (exec.process.uid, exec.process.gid, exec.process.groups) = (1000, 1001, vec![1001]);
    assert_eq!(run_exec(&mut place, &exec).1, "1001\nCapInh:\t0000000000000000\n");
    place.signal("c2", 9);
    place.exit_of("c2");
}

/// The sockets that a process has open, by inode.
fn sockets(pid: i32) -> BTreeSet<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

#[test]
fn a_pod_in_the_hosts_network_finds_no_abstract_socket_of_ours() {
    let mut place = Place::new();
    let plan = place.plan("c1", "cat /proc/net/unix; exec sleep 1000");
    place.start(&plan).expect("start");
    let shim = place.shim;
    let ours: BTreeSet<String> = children(shim).into_iter().chain([shim]).flat_map(sockets).collect();
    assert!(!ours.is_empty(), "the shim has a socket");
    let listed = fs::read_to_string("/proc/net/unix").expect("unix sockets");
    let mut named = 0;
    for line in listed.lines() {
        // Num RefCount Protocol Flags Type St Inode Path
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [.., inode, path] = fields[..] else { continue };
        if fields.len() == 8 && ours.contains(inode) {
            assert!(!path.starts_with('@'), "{line}");
            named += 1;
        }
    }
    assert!(named > 0, "the pod's network is the one that was looked at");
    place.signal("c1", 9);
    place.exit_of("c1");
}

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use berth_plan::container::{Exec, Mount};
use berth_plan::message::{Event, Reply, Request, Stage};
use berth_sys::pidfd::PidFd;
use berth_sys::seqpacket;
use berth_sys::signal::{SIGCONT, SIGSTOP};

use crate::place::{Place, bind, logger, process, until};

/// A folder through which a test tells a container to go on.
fn control(place: &Place) -> Mount {
    let folder = place.folder.join("ctl");
    fs::create_dir(&folder).expect("folder");
    bind(folder.to_str().expect("text"), "/ctl", 0)
}

#[test]
fn long_lines_are_split_and_the_last_one_needs_no_end() {
    let mut place = Place::new();
    let plan = place.plan("c1", "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'no end'");
    let (_, log) = place.run(&plan);
    let shape: Vec<(&str, usize)> = log.lines().map(|line| (&line[..8], line.len() - 9)).collect();
    assert_eq!(shape, [("stdout P", 16384), ("stdout P", 16384), ("stdout F", 7232), ("stdout P", 6)]);
}

/// But for a machine so slow that the shim has given up waiting: then the output still comes.
#[test]
fn an_exit_is_told_after_its_output_is_written() {
    /// A little less than the shim waits.
    const WAIT: Duration = Duration::from_millis(200);
    let mut place = Place::new();
    let in_time = (0..20).filter(|n| {
        let plan = place.plan(&format!("c{n}"), "seq 5000");
        let (_, log) = place.run(&plan);
        let recorded = fs::metadata(place.folder.join("run/exits").join(&plan.id)).expect("a record").modified();
        let is_late = recorded.expect("a time").elapsed().is_ok_and(|passed| passed > WAIT);
        if is_late {
            until(|| place.log(&plan.id).ends_with("stdout F 5000\n"));
            assert_eq!(place.log(&plan.id).lines().count(), 5000);
        } else {
            assert!(log.lines().count() == 5000 && log.ends_with("stdout F 5000\n"), "{n}");
        }
        !is_late
    });
    assert!(in_time.count() > 0, "this machine is too slow to tell");
}

/// A logger that does not run holds the exit back for a while, so that whoever hears of it finds the output. An attempt is
/// void when this machine lets so much time pass meanwhile that the shim has given up waiting.
#[test]
fn an_exit_waits_for_the_logger() {
    let mut place = Place::new();
    let waited = (0..5).any(|n| {
        let mut plan = place.plan(&format!("c{n}"), "while ! test -e /ctl/go; do sleep 0.01; done; echo late");
        let folder = place.folder.join(format!("ctl{n}"));
        fs::create_dir(&folder).expect("folder");
        plan.mounts.push(bind(folder.to_str().expect("text"), "/ctl", 0));
        place.start(&plan).expect("start");
        let logger = logger(place.shim);
        let logger = PidFd::open(logger).expect("open");
        logger.send_signal(SIGSTOP).expect("stop");
        fs::write(folder.join("go"), "").expect("go");
        until(|| place.folder.join(format!("run/exits/c{n}")).exists());
        let early = seqpacket::readable(place.client.socket.as_fd(), 0).expect("poll");
        logger.send_signal(SIGCONT).expect("continue");
        place.exit_of(&plan.id);
        !early && place.log(&plan.id) == "stdout F late\n"
    });
    assert!(waited);
}

#[test]
fn a_renamed_log_is_opened_anew() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "echo one; while ! test -e /ctl/go; do sleep 0.02; done; echo two");
    plan.mounts.push(control(&place));
    place.start(&plan).expect("start");
    until(|| place.log("c1").contains("one"));
    let (log, old) = (place.folder.join("c1.log"), place.folder.join("c1.log.1"));
    fs::rename(&log, &old).expect("rename");
    let reopen = || Request::ReopenLog { container: "c1".to_owned() };
    assert_eq!(place.client.ask(reopen(), &[]).expect("reopen"), Reply::Done);
    assert!(log.exists(), "the reply comes when the file is there");
    fs::write(place.folder.join("ctl/go"), "").expect("go");
    assert_eq!(place.exit_of("c1").code, 0);
    assert_eq!(place.log("c1"), "stdout F two\n");
    assert!(fs::read_to_string(old).expect("old").ends_with("stdout F one\n"));
    let failure = place.client.ask(Request::ReopenLog { container: "c9".to_owned() }, &[]).expect_err("unknown");
    assert_eq!(failure.stage, Stage::UnknownTarget);
}

#[test]
fn a_log_that_can_not_be_opened_is_an_error() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "true");
    plan.log_path = "/no/such/folder/log".to_owned();
    let failure = place.start(&plan).expect_err("no log");
    assert_eq!((failure.stage, failure.errno), (Stage::Log, 2));
    plan.log_path = place.folder.join("link").to_str().expect("text").to_owned();
    symlink("/etc/berth-shim-no-such", place.folder.join("link")).expect("link");
    assert_eq!(place.start(&plan).expect_err("a link").stage, Stage::Log);
    plan.log_path = String::new();
    assert_eq!(place.start(&plan).map(|_| ()), Ok(()));
    assert_eq!(place.exit_of("c1").code, 0);
}

#[test]
fn a_killed_logger_is_replaced_and_the_container_goes_on() {
    let mut place = Place::new();
    let mut plan =
        place.plan("c1", "n=0; while ! test -e /ctl/go; do echo $n; n=$((n+1)); sleep 0.01; done; echo last");
    plan.mounts.push(control(&place));
    place.start(&plan).expect("start");
    for _ in 0..2 {
        let logger = logger(place.shim);
        let before = place.log("c1").len();
        let pidfd = PidFd::open(logger).expect("open");
        pidfd.kill().expect("kill");
        assert!(pidfd.has_ended(-1).expect("poll"));
        until(|| place.log("c1").len() > before);
    }
    fs::write(place.folder.join("ctl/go"), "").expect("go");
    assert_eq!(place.exit_of("c1").code, 0);
    assert!(place.log("c1").ends_with("stdout F last\n"));
}

#[test]
fn a_stalled_log_stalls_neither_exits_nor_other_requests() {
    let mut place = Place::new();
    let plan = place.plan("c1", "while [ ! -e /go ]; do sleep 0.01; done; head -c 1000000 /dev/zero | tr '\\0' '\\n'");
    place.start(&plan).expect("start");
    // As if the disk took nothing any more: one pipe's worth, and then the container waits for good.
    PidFd::open(logger(place.shim)).and_then(|logger| logger.send_signal(SIGSTOP)).expect("stop");
    fs::write(place.folder.join("c1/upper/go"), "").expect("go");
    // An exec comes and goes meanwhile, as a probe does.
    let null: OwnedFd = fs::File::options().read(true).write(true).open("/dev/null").expect("null").into();
    let exec = Exec {
        id: "e1".to_owned(),
        container: "c1".to_owned(),
        delegate: None,
        user: None,
        process: process(&["/bin/sh", "-c", "exit 4"]),
    };
    place.exec(&exec, [null.as_fd(); 3]).expect("exec");
    let Event::ExecExited { exit, .. } = place.client.event() else { panic!("an exec's end") };
    assert_eq!(exit.code, 4);
    let (mut second, _) = crate::client::Client::connect(&place.folder.join("run/shim.sock"));
    second
        .ask(Request::Signal { target: berth_plan::message::Target::Container("c1".to_owned()), signal: 9 }, &[])
        .expect("signal");
    assert_eq!(place.exit_of("c1").code, 137);
    assert!(place.folder.join("run/exits/c1").exists());
}

/// Whoever may write to the folder of logs could hold up a whole pod with it.
#[test]
fn a_log_that_is_no_file_is_refused() {
    let mut place = Place::new();
    let fifo = place.folder.join("c1.log");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let plan = place.plan("c1", "true");
    assert_eq!(place.start(&plan).expect_err("a FIFO without a reader").stage, Stage::Log);
    let _reader = fs::File::options().read(true).write(true).open(&fifo).expect("a reader");
    let failure = place.start(&plan).expect_err("a FIFO");
    assert_eq!(failure.stage, Stage::Log, "{}", failure.message);
    let plan = place.plan("c2", "echo after");
    assert_eq!(place.output(&plan), "after\n");
}

/// A folder on a file system of its own, which can be suspended as a device is that has gone away for a while.
struct Disk {
    folder: PathBuf,
    /// Thaws and unmounts when its input ends, so also when this process is killed: a frozen file system that nobody can
    /// reach holds its device for good.
    keeper: Child,
}

impl Disk {
    fn mount(place: &Path) -> Self {
        let (image, folder) = (place.join("disk"), place.join("logs"));
        fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("an image");
        fs::create_dir(&folder).expect("folder");
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&folder));
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", "trap '' INT TERM HUP; read _; fsfreeze -u \"$0\" 2>/dev/null; umount -l \"$0\""])
            .arg(&folder);
        let keeper = keeper.stdin(Stdio::piped()).spawn().expect("a keeper");
        Self { folder, keeper }
    }

    fn freeze(&self) {
        run(Command::new("fsfreeze").arg("-f").arg(&self.folder));
    }

    fn thaw(&self) {
        run(Command::new("fsfreeze").arg("-u").arg(&self.folder));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether a process waits for a device (`D` in proc_pid_stat(5)).
fn waits_for_disk(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
    stat.rsplit_once(") ").expect("a state").1.starts_with('D')
}

/// The loop devices that hold files of a folder.
fn loops(folder: &Path) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").expect("devices").flatten();
    let files = devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.filter(|file| file.starts_with(folder.to_str().expect("text"))).collect()
}

#[test]
fn a_suspended_log_device_stalls_neither_exits_nor_probes_and_loses_nothing() {
    let mut place = Place::new();
    let folder = place.folder.clone();
    // Goes before the place does: what waits for the device can't be ended.
    let disk = Disk::mount(&folder);
    let control = control(&place);
    let mut start = |name: &str, script: &str| {
        let mut plan = place.plan(name, script);
        plan.mounts.push(control.clone());
        plan.log_path = disk.folder.join(name).to_str().expect("text").to_owned();
        place.start(&plan).expect("start");
    };
    start("c1", "n=0; while ! test -e /ctl/go; do echo $n; n=$((n+1)); sleep 0.01; done; echo last $n");
    start("c2", "while ! test -e /ctl/end; do sleep 0.01; done; echo bye; exit 5");
    let log = |name: &str| {
        let log = fs::read_to_string(folder.join("logs").join(name)).expect("a log");
        log.lines().map(|line| line.split_once(" stdout F ").expect("a line").1.to_owned()).collect::<Vec<_>>()
    };
    until(|| !log("c1").is_empty());
    disk.freeze();
    let logger = logger(place.shim);
    until(|| waits_for_disk(logger));
    // A probe comes and goes.
    let null: OwnedFd = fs::File::options().read(true).write(true).open("/dev/null").expect("null").into();
    let probe = Exec {
        id: "e1".to_owned(),
        container: "c1".to_owned(),
        delegate: None,
        user: None,
        process: process(&["/bin/sh", "-c", "exit 4"]),
    };
    place.exec(&probe, [null.as_fd(); 3]).expect("exec");
    let Event::ExecExited { exit, .. } = place.client.event() else { panic!("an exec's end") };
    assert_eq!(exit.code, 4);
    // An end is told and written down.
    fs::write(folder.join("ctl/end"), "").expect("end");
    assert_eq!(place.exit_of("c2").code, 5);
    assert!(folder.join("run/exits/c2").exists());
    assert!(waits_for_disk(logger) && !log("c2").contains(&"bye".to_owned()), "it was frozen all the time");

    disk.thaw();
    fs::write(folder.join("ctl/go"), "").expect("go");
    assert_eq!(place.exit_of("c1").code, 0);
    let lines = log("c1");
    let (last, counted) = lines.split_last().expect("lines");
    let expected: Vec<String> = (0..counted.len()).map(|n| n.to_string()).collect();
    assert_eq!((counted, last), (expected.as_slice(), &format!("last {}", counted.len())));
    assert_eq!(log("c2"), ["bye"]);
    assert_eq!(loops(&folder).len(), 1);
    drop(disk);
    drop(place);
    // The kernel lets the last mount go in its own time.
    for _ in 0..3000 {
        if loops(&folder).is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(loops(&folder), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(folder.to_str().expect("text")), "{mounts}");
}

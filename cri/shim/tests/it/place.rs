//! A sandbox in a folder of its own: a shim, an image, and plans for containers.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_plan::codec;
use berth_plan::container::*;
use berth_plan::message::{Event, Exit, Failure, Reply, Request, Target};
use berth_sys::pidfd::PidFd;
use berth_sys::{event, fd, memfd, mount};

use crate::client::Client;

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) client: Client,
    pub(crate) shim: i32,
}

/// containerd's default set.
pub(crate) const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;

impl Place {
    /// A shim with its sandbox made: own IPC and UTS namespaces, the host's network.
    pub(crate) fn new() -> Self {
        Self::with(sandbox())
    }

    /// A shim with a sandbox as asked for.
    pub(crate) fn with(request: Request) -> Self {
        let mut place = Self::without_sandbox();
        assert_eq!(place.client.ask(request, &[]).expect("sandbox"), Reply::Done);
        place
    }

    pub(crate) fn without_sandbox() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!("/tmp/berth-shim-{}-{number}", std::process::id()));
        fs::create_dir_all(folder.join("run")).expect("folder");
        let program = folder.join("berth-shim");
        // Written by another process: a fork of a parallel test could else hold it open for writing (ETXTBSY).
        let source = folder.join("berth-shim.source");
        fs::write(&source, berth_carried::SHIM).expect("write the shim");
        fs::set_permissions(&source, fs::Permissions::from_mode(0o555)).expect("mode");
        assert!(Command::new("cp").arg(&source).arg(&program).status().expect("cp").success());
        let status = Command::new(&program).arg("--dir").arg(folder.join("run")).status().expect("start the shim");
        assert!(status.success());
        make_image(&folder.join("image"));
        let (client, hello) = Client::connect(&folder.join("run/shim.sock"));
        let Reply::Hello { pid, .. } = hello else { panic!("{hello:?}") };
        assert_eq!(fs::read_to_string(folder.join("run/shim.pid")).expect("shim.pid"), pid.to_string());
        Self { folder, client, shim: pid }
    }

    /// A container that runs a shell script.
    pub(crate) fn plan(&self, name: &str, script: &str) -> Container {
        let own = self.folder.join(name);
        for folder in ["upper", "work"] {
            fs::create_dir_all(own.join(folder)).expect("container folder");
        }
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        let filesystem = |kind: &str, destination: &str, attr_set, options: &[(&str, &str)]| Mount {
            source: MountSource::Filesystem {
                kind: kind.to_owned(),
                options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            },
            destination: destination.to_owned(),
            attr_set,
            attr_clear: 0,
            recursive_attr: false,
            propagation: 0,
            idmap: None,
        };
        let quiet = mount::NOSUID | mount::NODEV | mount::NOEXEC;
        let device = |path: &str, minor| Device {
            path: path.to_owned(),
            kind: DeviceKind::Character,
            major: 1,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        };
        let strings = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        Container {
            id: name.to_owned(),
            namespaces: NewNamespaces { mount: true, pid: true, cgroup: true, ..NewNamespaces::default() },
            pid_from: PidFrom::Shim,
            user: None,
            hostname: None,
            rootfs: Rootfs::Overlay {
                lower: vec![text(self.folder.join("image"))],
                upper: text(own.join("upper")),
                work: text(own.join("work")),
            },
            readonly_rootfs: false,
            root_propagation: mount::SLAVE | mount::RECURSIVE,
            mounts: vec![
                filesystem("proc", "/proc", quiet, &[]),
                filesystem("tmpfs", "/dev", mount::NOSUID, &[("mode", "755"), ("size", "65536k")]),
                filesystem(
                    "devpts",
                    "/dev/pts",
                    mount::NOSUID | mount::NOEXEC,
                    &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
                ),
                filesystem("mqueue", "/dev/mqueue", quiet, &[]),
                filesystem("sysfs", "/sys", quiet | mount::RDONLY, &[]),
                bind("/usr", "/usr", mount::RDONLY),
            ],
            devices: vec![device("/dev/null", 3), device("/dev/zero", 5)],
            links: vec![
                ("/dev/fd".to_owned(), "/proc/self/fd".to_owned()),
                ("/dev/stdout".to_owned(), "/proc/self/fd/1".to_owned()),
            ],
            sysctls: vec![],
            masked_paths: strings(&["/proc/kcore", "/proc/acpi", "/proc/timer_list", "/sys/firmware", "/no/such"]),
            readonly_paths: strings(&["/proc/sys", "/proc/bus", "/no/such"]),
            process: process(&["/bin/sh", "-c", script]),
            log_path: text(self.folder.join(format!("{name}.log"))),
            stdin: Stdin::None,
            delegate: None,
        }
    }

    pub(crate) fn start(&mut self, plan: &Container) -> Result<i32, Failure> {
        self.start_in(plan, &[], None)
    }

    pub(crate) fn start_in(
        &mut self,
        plan: &Container,
        procs: &[OwnedFd],
        v2: Option<&OwnedFd>,
    ) -> Result<i32, Failure> {
        let memory = memfd::sealed("plan", &codec::encode(plan).expect("it fits")).expect("memfd");
        let mut descriptors = vec![memory.as_fd()];
        descriptors.extend(procs.iter().map(AsFd::as_fd));
        descriptors.extend(v2.map(AsFd::as_fd));
        let cgroup_tasks = u8::try_from(procs.len()).expect("few");
        let request = Request::Start { container: plan.id.clone(), cgroup_tasks, cgroup_v2: v2.is_some() };
        match self.client.ask(request, &descriptors)? {
            Reply::Started { pid, .. } => Ok(pid),
            other => panic!("{other:?}"),
        }
    }

    /// Starts it, waits for its end and gives that and its log without times.
    pub(crate) fn run(&mut self, plan: &Container) -> (Exit, String) {
        let pid = self.start(plan).expect("start");
        let exit = self.exit_of(&plan.id);
        assert_eq!(exit.pid, pid);
        (exit, self.log(&plan.id))
    }

    /// Runs a shell script as a container and gives what it printed on standard output; it must succeed.
    pub(crate) fn output(&mut self, plan: &Container) -> String {
        let (exit, log) = self.run(plan);
        assert_eq!(exit.code, 0, "{log}");
        log.lines().filter_map(|line| line.strip_prefix("stdout F ")).map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn exit_of(&mut self, name: &str) -> Exit {
        match self.client.event() {
            Event::ContainerExited { container, exit } if container == name => exit,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn log(&self, name: &str) -> String {
        let log = fs::read_to_string(self.folder.join(format!("{name}.log"))).expect("log");
        // A line that is just being written may be seen in part.
        let whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| line.split_once(' ').expect("a time").1).collect()
    }

    pub(crate) fn signal(&mut self, name: &str, signal: i32) {
        let target = Target::Container(name.to_owned());
        assert_eq!(self.client.ask(Request::Signal { target, signal }, &[]).expect("signal"), Reply::Done);
    }

    pub(crate) fn exec(&mut self, plan: &Exec, stdio: [BorrowedFd<'_>; 3]) -> Result<i32, Failure> {
        let memory = memfd::sealed("exec", &codec::encode(plan).expect("it fits")).expect("memfd");
        self.exec_with(plan, &[memory.as_fd()].into_iter().chain(stdio).collect::<Vec<_>>())
    }

    /// On a terminal, whose master it gives.
    pub(crate) fn exec_on_terminal(&mut self, plan: &Exec) -> Result<(i32, File), Failure> {
        let memory = memfd::sealed("exec", &codec::encode(plan).expect("it fits")).expect("memfd");
        let pid = self.exec_with(plan, &[memory.as_fd()])?;
        Ok((pid, File::from(self.client.given.pop().expect("a terminal"))))
    }

    /// Joins a container's streams by pipes of the usual size.
    pub(crate) fn attach(&mut self, name: &str, stdin: bool, stdout: bool, stderr: bool) -> Result<Attached, Failure> {
        let wanted = usize::from(stdout) + usize::from(stderr);
        let (outputs, ends): (Vec<_>, Vec<_>) = (0..wanted).map(|_| fd::pipe().expect("pipe")).unzip();
        let ends: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
        match self.client.ask(Request::Attach { container: name.to_owned(), stdin, stdout, stderr }, &ends)? {
            Reply::Attached { terminal, stdin } => Ok(Attached {
                terminal,
                stdin,
                input: self.client.given.pop().map(File::from),
                outputs: outputs.into_iter().map(File::from).collect(),
            }),
            other => panic!("{other:?}"),
        }
    }

    fn exec_with(&mut self, plan: &Exec, descriptors: &[BorrowedFd<'_>]) -> Result<i32, Failure> {
        let request = Request::Exec { exec: plan.id.clone(), cgroup_tasks: 0, cgroup_v2: false };
        match self.client.ask(request, descriptors)? {
            Reply::Started { pid, .. } => Ok(pid),
            other => panic!("{other:?}"),
        }
    }
}

/// What a client has of a container that it is attached to.
pub(crate) struct Attached {
    pub(crate) terminal: bool,
    /// Whether the container reads what is typed.
    pub(crate) stdin: bool,
    pub(crate) input: Option<File>,
    /// Standard output and error, or one of them.
    pub(crate) outputs: Vec<File>,
}

impl Attached {
    pub(crate) fn type_in(&mut self, text: &str) {
        self.input.as_mut().expect("an input").write_all(text.as_bytes()).expect("typed");
    }

    /// What the first output shows up to and with `end`.
    pub(crate) fn shown_until(&mut self, end: &str) -> String {
        shown_until(&mut self.outputs[0], end)
    }
}

/// Reads until what was read ends with `end`.
pub(crate) fn shown_until(output: &mut File, end: &str) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(end.as_bytes()) {
        assert!(
            event::wait_readable(&[output.as_fd()], 30_000).expect("poll")[0],
            "{}",
            String::from_utf8_lossy(&text)
        );
        match output.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8(text).expect("text")
}

impl Drop for Place {
    fn drop(&mut self) {
        // Containers first: they are the shim's children, and end with their PID namespaces.
        if let Ok(shim) = PidFd::open(self.shim) {
            for child in children(self.shim) {
                let _ = PidFd::open(child).and_then(|child| child.kill().and_then(|()| child.has_ended(-1)));
            }
            let _ = shim.kill().and_then(|()| shim.has_ended(-1));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        cwd: "/".to_owned(),
        capabilities: Capabilities {
            bounding: DEFAULT_CAPABILITIES,
            effective: DEFAULT_CAPABILITIES,
            permitted: DEFAULT_CAPABILITIES,
            inheritable: 0,
            ambient: 0,
        },
        ..Process::default()
    }
}

pub(crate) fn bind(path: &str, destination: &str, attr_set: u64) -> Mount {
    Mount {
        source: MountSource::Bind { path: path.to_owned(), recursive: true },
        destination: destination.to_owned(),
        attr_set,
        attr_clear: 0,
        recursive_attr: true,
        propagation: 0,
        idmap: None,
    }
}

/// A sandbox with IPC and UTS namespaces of its own, in the host's network.
pub(crate) fn sandbox() -> Request {
    Request::Sandbox {
        join_network: false,
        new_network: false,
        new_ipc: true,
        new_uts: true,
        shared_pid: false,
        user: None,
        hostname: "pod-1".to_owned(),
        sysctls: vec![],
    }
}

/// Waits for what comes soon; in a test that would wait for ever nobody sees why.
#[track_caller]
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "it does not come");
        std::thread::yield_now();
    }
}

/// How many descriptors the shim and its log writer have open. The shim may hold what came with a request for a moment
/// after its reply; with the next reply it holds that no more.
pub(crate) fn descriptors(place: &mut Place, logger: i32) -> (usize, usize) {
    place.attach("nobody", false, true, false).map(drop).expect_err("there is no such container");
    let open = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").count();
    (open(place.shim), open(logger))
}

/// The shim's log writer, which takes its name a moment after the sandbox is made.
pub(crate) fn logger(shim: i32) -> i32 {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(logger) = children(shim).into_iter().find(|&pid| name_of(pid) == "berth-shim-log") {
            return logger;
        }
        assert!(Instant::now() < end, "there is no logger");
        std::thread::yield_now();
    }
}

/// Child processes, by the host's procfs.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Process `pid`'s short name.
pub(crate) fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// An image without programs: `/usr` is bound from the host.
fn make_image(image: &Path) {
    for folder in ["etc", "proc", "sys", "dev", "tmp", "usr", "home/user"] {
        fs::create_dir_all(image.join(folder)).expect("image");
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), image.join(name)).expect("link");
    }
    fs::write(image.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("passwd");
    fs::set_permissions(image.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("mode");
}

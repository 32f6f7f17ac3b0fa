//! A bundle, a root for records and a runtime.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::check::Runtime;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const APPLETS: [&str; 25] = [
    "cat", "chmod", "date", "df", "echo", "env", "grep", "hostname", "id", "kill", "ls", "mkdir", "mknod", "mount",
    "ps", "pwd", "readlink", "sh", "sleep", "stat", "test", "touch", "true", "tty", "umount",
];

static NUMBER: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) runtime: Runtime,
    folder: tempfile::TempDir,
    number: usize,
    calls: Cell<usize>,
}

/// What a call said.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) code: i32,
    out: PathBuf,
    error: PathBuf,
}

impl Said {
    /// Its standard output, and that of the container that it has made, until now.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).expect("output")).into_owned()
    }

    pub(crate) fn error(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.error).expect("errors")).into_owned()
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out(), self.error());
        self
    }

    #[track_caller]
    pub(crate) fn fails(self) -> Self {
        assert_ne!(self.code, 0, "it did not fail: {}", self.out());
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out()).unwrap_or_else(|error| panic!("{error}: {}", self.out()))
    }
}

impl Stage {
    pub(crate) fn new(runtime: Runtime) -> Self {
        let folder = tempfile::Builder::new().prefix("berth-oci-").tempdir().expect("a folder");
        let stage = Self { runtime, folder, number: NUMBER.fetch_add(1, Ordering::Relaxed), calls: Cell::new(0) };
        let rootfs = stage.rootfs();
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "work"] {
            fs::create_dir_all(rootfs.join(name)).expect("folders");
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox: apt-get install busybox-static");
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).expect("links");
        }
        let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
        fs::write(rootfs.join("etc/passwd"), passwd).expect("users");
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path("bundle/rootfs")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// An id that no other stage has, and its cgroup's name.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("bo-{}-{}-{name}", std::process::id(), self.number)
    }

    /// A configuration like those of container engines that runs a command.
    pub(crate) fn configuration(&self, command: &[&str]) -> Value {
        let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE"];
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": command,
                "env": ["PATH=/bin", "WORD=of the configuration"],
                "cwd": "/",
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
                "noNewPrivileges": true,
            },
            "root": { "path": "rootfs" },
            "hostname": "stage",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                  "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs",
                  "options": ["nosuid", "noexec", "nodev", "ro"] },
            ],
            "linux": {
                "cgroupsPath": format!("/{}", self.id("cg")),
                "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
                "namespaces": namespaces,
            },
        })
    }

    pub(crate) fn write(&self, configuration: &Value) {
        fs::write(self.path("bundle/config.json"), configuration.to_string()).expect("a configuration");
    }

    /// The same with one change.
    pub(crate) fn write_with(&self, command: &[&str], change: impl FnOnce(&mut Value)) {
        let mut configuration = self.configuration(command);
        change(&mut configuration);
        self.write(&configuration);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = if self.runtime.without_unified {
            let mut command = Command::new("unshare");
            let script = "umount /sys/fs/cgroup/unified && exec \"$@\"";
            command.args(["--mount", "sh", "-c", script, "sh"]).arg(&self.runtime.program);
            command
        } else {
            Command::new(&self.runtime.program)
        };
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        command.current_dir(self.path("bundle"));
        command
    }

    /// Runs a command of the runtime.
    pub(crate) fn call(&self, arguments: &[&str]) -> Said {
        self.finish(self.command(arguments), arguments)
    }

    pub(crate) fn finish(&self, mut command: Command, arguments: &[&str]) -> Said {
        let number = self.calls.replace(self.calls.get() + 1);
        let (out, error) = (self.path(&format!("out-{number}")), self.path(&format!("error-{number}")));
        command.stdout(File::create(&out).expect("a file")).stderr(File::create(&error).expect("a file"));
        let mut child = command.spawn().expect("the runtime");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait") {
                break status;
            }
            if start.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{} {arguments:?} hangs: {:?}", self.runtime.name, fs::read_to_string(&error));
            }
            thread::sleep(Duration::from_millis(2));
        };
        Said { code: status.code().unwrap_or(-1), out, error }
    }

    pub(crate) fn state(&self, id: &str) -> Value {
        self.call(&["state", id]).ok().json()
    }

    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().expect("a status").to_owned()
    }

    pub(crate) fn pid(&self, id: &str) -> i64 {
        self.state(id)["pid"].as_i64().expect("a pid")
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "{}: {what} has not come", self.runtime.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub(crate) fn wait_stopped(&self, id: &str) {
        self.wait_for("the end", || self.status(id) == "stopped");
    }

    /// Runs the configuration to its end: the exit code, and what it said.
    pub(crate) fn run(&self) -> Said {
        self.call(&["run", &self.id("run")])
    }

    /// What a command says in the configuration, with one change.
    #[track_caller]
    pub(crate) fn says_with(&self, script: &str, change: impl FnOnce(&mut Value)) -> String {
        self.write_with(&["/bin/sh", "-c", script], change);
        self.run().ok().out().trim_end().to_owned()
    }

    /// Makes and starts a container that stays.
    #[track_caller]
    pub(crate) fn running(&self, id: &str) {
        self.write(&self.configuration(&["/bin/sleep", "1000"]));
        self.call(&["create", id]).ok();
        self.call(&["start", id]).ok();
    }

    /// What is left of everything: records, cgroups, mounts.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = fs::read_dir(self.root())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| format!("record {:?}", entry.file_name()))
            .collect();
        let prefix = self.id("");
        left.extend(cgroups(&prefix).iter().map(|path| format!("cgroup {}", path.display())));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let folder = self.folder.path().to_string_lossy().into_owned();
        left.extend(mounts.lines().filter(|line| line.contains(&folder)).map(|line| format!("mount {line}")));
        left
    }

    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        assert_eq!(self.leftovers(), Vec::<String>::new(), "left by {}", self.runtime.name);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            let _ = self.command(&["delete", "--force", &id]).output();
        }
        // What a reference has left is not for the next one to find.
        let prefix = self.id("");
        for cgroup in cgroups(&prefix) {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// Replaces what is at a JSON pointer.
pub(crate) fn set(configuration: &mut Value, pointer: &str, value: Value) {
    if let Some(there) = configuration.pointer_mut(pointer) {
        *there = value;
        return;
    }
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = configuration.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} has no parent"));
    parent[key] = value;
}

/// Adds to the list at a JSON pointer.
pub(crate) fn push(configuration: &mut Value, pointer: &str, value: Value) {
    configuration.pointer_mut(pointer).and_then(Value::as_array_mut).expect("a list").push(value);
}

/// Whether a v2 tree is all that the machine has.
pub(crate) fn is_pure_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The cgroups right below the root of any hierarchy whose names begin so.
fn cgroups(prefix: &str) -> Vec<PathBuf> {
    let below = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let root = Path::new("/sys/fs/cgroup");
    let roots = if is_pure_v2() { vec![root.to_path_buf()] } else { below(root) };
    let all = roots.iter().flat_map(|root| below(root));
    all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))).collect()
}

/// A file of a cgroup, where a v1 controller or v2 has it.
pub(crate) fn cgroup_file(id: &str, controller: &str, v1: &str, v2: &str) -> String {
    let path = if is_pure_v2() {
        format!("/sys/fs/cgroup/{id}/{v2}")
    } else {
        format!("/sys/fs/cgroup/{controller}/{id}/{v1}")
    };
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim_end().to_owned()
}

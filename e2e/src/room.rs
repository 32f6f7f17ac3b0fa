//! Another machine on the control plane's network: a network, mount, UTS and cgroup namespace of its own in this house.
//!
//! Its root is an overlay over the house's, so that every file that a node under test writes, wherever it is, lies on
//! one file system in memory: the leak check sees all of it, and that disk can be made full.

mod root;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::controlplane::{ADDRESS, BRIDGE, PREFIX};
use crate::house::cgroups;
use crate::leak::{Folders, Picture};
use crate::{command, ip, paths};

/// Keeps the namespaces: it joins the room's cgroups first, as a cgroup namespace begins where its maker is.
const HOLDER: &str = "for procs in \"$@\"; do echo 0 >\"$procs\" || exit 125; done
exec unshare --net --uts --cgroup --mount --propagation private sh -c 'hostname \"$0\" && echo ready && exec cat' \"$ROOM\"";

/// Executes a program in the room's cgroups; the first argument holds the files to write to.
const JOINED: &str = "for procs in $1; do echo 0 >\"$procs\" || exit 125; done; shift; exec \"$@\"";

/// A running room. Dropping it ends its namespaces; its processes must have ended.
#[derive(Debug)]
pub struct Room {
    name: String,
    address: String,
    disk: PathBuf,
    holder: Child,
    namespaces: Vec<(File, CloneFlags)>,
    entrances: String,
}

impl Room {
    /// Makes a room whose host name is `name`, with `address` on its `eth0`, the berth program installed, and a disk
    /// below `dir`.
    ///
    /// # Errors
    /// The kernel or a tool refuses.
    pub fn build(name: &str, address: &str, dir: &Path) -> Result<Self> {
        let disk = dir.join(name).join("disk");
        fs::create_dir_all(&disk)?;
        let entrances = cgroups::make_inner(name)?;
        let mut holder = Command::new("sh")
            .args(["-c", HOLDER, "sh"])
            .args(&entrances)
            .env("ROOM", name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("the room's output")?).read_line(&mut line)?;
        let mut room = Self {
            name: name.to_owned(),
            address: address.to_owned(),
            disk,
            holder,
            namespaces: Vec::new(),
            entrances: String::new(),
        };
        ensure!(line.trim() == "ready", "the namespaces of room {name} can't be made");
        room.namespaces = room.open_namespaces()?;
        let (disk, holder) = (room.disk.clone(), room.holder.id());
        let entrances = room.enter(|| {
            root::build(&disk)?;
            cgroups::mount_inner(holder)
        })?;
        room.entrances = entrances.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
        room.connect()?;
        room.furnish()?;
        Ok(room)
    }

    /// The host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address on `eth0`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where everything that the room writes lies.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// Runs `work` on a thread in the room's namespaces; what it starts is there too, but for cgroups (see
    /// [`Room::command`]).
    ///
    /// # Errors
    /// Those of `work`, or the kernel refuses the way in.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // The root folder is a thread's own from here on.
                unshare(CloneFlags::CLONE_FS)?;
                for (namespace, kind) in &self.namespaces {
                    setns(namespace, *kind).with_context(|| format!("the way into room {}", self.name))?;
                }
                work()
            });
            inside.join().map_err(|_| anyhow!("the work in room {} panicked", self.name))?
        })
    }

    /// A program in the room's cgroups; start it from within [`Room::enter`].
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", JOINED, "sh", &self.entrances, program]);
        // A house's own variables would make a program of ours believe that it is the scenario.
        command.env_remove("BERTH_HOUSE").env_remove("BERTH_HOUSE_NAME");
        command
    }

    /// Runs a program in the room to its end and returns its stdout.
    ///
    /// # Errors
    /// As [`command::output`].
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.enter(|| command::output(self.command(program).args(arguments)))
    }

    /// A picture for the leak check.
    ///
    /// # Errors
    /// Something can't be read.
    pub fn picture(&self) -> Result<Picture> {
        self.enter(|| Picture::take(&self.folders()))
    }

    /// Takes pictures until one equals `before`.
    ///
    /// # Errors
    /// The difference.
    pub fn await_equal(&self, before: &Picture, except: &[&str]) -> Result<()> {
        self.enter(|| before.await_equal(&self.folders(), except))
    }

    /// Lets only so many more files be made on the room's disk; `None` lifts the limit.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn limit_files(&self, more: Option<u64>) -> Result<()> {
        self.enter(|| root::limit_files(&self.disk, more))
    }

    fn folders(&self) -> Folders {
        Folders::new(&[
            &self.disk.join(root::UPPER),
            &self.disk.join(root::LIB),
            Path::new("/run"),
            Path::new("/var/log"),
        ])
    }

    fn open_namespaces(&self) -> Result<Vec<(File, CloneFlags)>> {
        // The mount namespace last: /proc is the house's until then.
        let kinds = [
            ("net", CloneFlags::CLONE_NEWNET),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("cgroup", CloneFlags::CLONE_NEWCGROUP),
            ("mnt", CloneFlags::CLONE_NEWNS),
        ];
        let open = |(file, kind)| Ok((File::open(format!("/proc/{}/ns/{file}", self.holder.id()))?, kind));
        kinds.into_iter().map(open).collect()
    }

    /// A cable to the bridge, an address, and the control plane as the way out.
    fn connect(&self) -> Result<()> {
        let (cable, holder) = (format!("{}-0", self.name), self.holder.id().to_string());
        ip::run(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &holder])?;
        ip::run(&["link", "set", &cable, "master", BRIDGE, "up"])?;
        self.enter(|| {
            ip::run(&["link", "set", "lo", "up"])?;
            ip::run(&["address", "add", &format!("{}/{PREFIX}", self.address), "dev", "eth0"])?;
            ip::run(&["link", "set", "eth0", "up"])?;
            ip::run(&["route", "add", "default", "via", ADDRESS])?;
            // What kubeadm and every network for pods ask an operator for.
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")
        })
    }

    /// What an operator has prepared: the program, a name server, names.
    fn furnish(&self) -> Result<()> {
        let berth = paths::berth("berth");
        self.enter(|| {
            fs::copy(&berth, "/usr/bin/berth").with_context(|| berth.display().to_string())?;
            // It may be a link to another program's folder.
            let _ = fs::remove_file("/etc/resolv.conf");
            fs::write("/etc/resolv.conf", format!("nameserver {ADDRESS}\n"))?;
            fs::write("/etc/hosts", format!("127.0.0.1 localhost\n{} {}\n", self.address, self.name))?;
            fs::write("/etc/hostname", format!("{}\n", self.name))?;
            Ok(())
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // They fail only when the house fell apart before; the caller learns that elsewhere.
        let _ = ip::run(&["link", "delete", &format!("{}-0", self.name)]);
        self.namespaces.clear();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        if let Err(error) = cgroups::remove(&self.name) {
            eprintln!("room {}: {error:#}", self.name);
        }
    }
}

//! podman on `berth-oci`: a container's life by the commands that people type.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::registry::image;
use crate::{command, paths, wait};

const IMAGE: &str = "localhost/berth/busybox:1";
/// Where `berth-oci` keeps its records when nobody says otherwise.
const RECORDS: &str = "/run/berth-oci";

/// Plays the scenario; call it in a house.
///
/// # Errors
/// What was not as it should be.
pub fn play() -> Result<()> {
    let dir = paths::scratch("podman")?;
    let podman = Podman::prepare(&dir)?;
    foreground(&podman)?;
    println!("podman: run gives output, exit codes and the errors that podman knows");
    life(&podman)?;
    println!("podman: exec, pause, unpause, stats, stop, start and rm of one container");
    limits(&podman)?;
    println!("podman: limits, users, read-only roots, tmpfs, init and a user namespace");
    together(&podman)?;
    println!("podman: containers that share namespaces");
    podman.nothing_is_left()?;
    println!("podman: nothing is left: records, cgroups");
    fs::remove_dir_all(dir)?;
    Ok(())
}

#[derive(Debug)]
struct Podman {
    dir: PathBuf,
}

impl Podman {
    fn prepare(dir: &Path) -> Result<Self> {
        let podman = Self { dir: dir.to_owned() };
        let text = |path: &Path| path.display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            text(&dir.join("graph")),
            text(&dir.join("run"))
        );
        fs::write(dir.join("storage.conf"), storage)?;
        // Without CAP_SYS_RESOURCE nobody raises a limit, as podman would.
        let containers = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\ntmp_dir = {:?}\n\
             [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
            text(&dir.join("tmp"))
        );
        fs::write(dir.join("containers.conf"), containers)?;
        let layers = image::busybox()?.layers;
        let [layer] = layers.as_slice() else { anyhow::bail!("the image has {} layers", layers.len()) };
        fs::write(dir.join("image.tar"), layer)?;
        podman.says(&["import", &text(&dir.join("image.tar")), IMAGE])?;
        Ok(podman)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.arg("--runtime").arg(paths::berth("berth-oci")).args(arguments).stdin(Stdio::null());
        command.env("CONTAINERS_STORAGE_CONF", self.dir.join("storage.conf"));
        command.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command
    }

    fn says(&self, arguments: &[&str]) -> Result<String> {
        command::output(&mut self.command(arguments)).map(|text| text.trim_end().to_owned())
    }

    fn ends(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let Output { status, stderr, .. } = self.command(arguments).output()?;
        Ok((status.code().context("podman was killed")?, String::from_utf8_lossy(&stderr).into_owned()))
    }

    fn run(&self, options: &[&str], script: &str) -> Result<String> {
        let all = [&["run", "--rm", "--network=none"], options, &[IMAGE, "sh", "-c", script]].concat();
        self.says(&all)
    }

    fn status(&self, name: &str) -> Result<String> {
        self.says(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name])
    }

    fn nothing_is_left(&self) -> Result<()> {
        let records: Vec<_> = fs::read_dir(RECORDS)?.flatten().map(|entry| entry.file_name()).collect();
        ensure!(records.is_empty(), "records of {records:?}");
        let mut left = Vec::new();
        for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
            for entry in fs::read_dir(hierarchy.path().join("libpod_parent")).into_iter().flatten().flatten() {
                if entry.path().is_dir() && entry.file_name().to_string_lossy().starts_with("libpod-") {
                    left.push(entry.path());
                }
            }
        }
        // Those of conmon, which are podman's own.
        left.retain(|path| !path.to_string_lossy().contains("conmon"));
        ensure!(left.is_empty(), "cgroups {left:?}");
        Ok(())
    }
}

fn foreground(podman: &Podman) -> Result<()> {
    ensure!(podman.run(&["-e", "WORD=hello"], "echo $WORD")? == "hello", "output");
    let base = ["run", "--rm", "--network=none", IMAGE];
    for (command, code, part) in [
        (["sh", "-c", "exit 7"].as_slice(), 7, ""),
        (&["no-such-program"], 127, "not found"),
        (&["/etc"], 126, "is a directory"),
    ] {
        let (ended, said) = podman.ends(&[&base, command].concat())?;
        ensure!(ended == code && said.contains(part), "{command:?} ended with {ended}: {said}");
    }
    Ok(())
}

fn life(podman: &Podman) -> Result<()> {
    let script = "trap 'exit 4' TERM; while :; do sleep 0.05; done";
    podman.says(&["run", "--detach", "--network=none", "--name", "life", IMAGE, "sh", "-c", script])?;
    ensure!(podman.says(&["exec", "life", "sh", "-c", "echo $0; cat /proc/1/comm"])? == "sh\nsh", "exec");
    ensure!(podman.ends(&["exec", "life", "sh", "-c", "exit 3"])?.0 == 3, "exec's exit code");
    ensure!(podman.says(&["exec", "--user", "1000:1001", "life", "id", "-u"])? == "1000", "exec's user");
    ensure!(podman.says(&["exec", "--tty", "life", "tty"])?.starts_with("/dev/pts/"), "exec's terminal");
    podman.says(&["pause", "life"])?;
    ensure!(podman.status("life")?.starts_with("paused"), "pause");
    ensure!(podman.ends(&["exec", "life", "true"])?.0 != 0, "exec in a paused container");
    podman.says(&["unpause", "life"])?;
    ensure!(podman.status("life")?.starts_with("running"), "unpause");
    let stats = podman.says(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "life"])?;
    let processes = stats.strip_prefix("life ").and_then(|count| count.parse::<u32>().ok());
    ensure!(processes.is_some_and(|count| count > 0), "stats: {stats}");
    podman.says(&["stop", "--time", "20", "life"])?;
    ensure!(podman.status("life")? == "exited 4", "stop: {}", podman.status("life")?);
    podman.says(&["start", "life"])?;
    wait::until_true("it runs again", Duration::from_secs(10), || Ok(podman.status("life")?.starts_with("running")))?;
    podman.says(&["kill", "--signal", "KILL", "life"])?;
    wait::until_true("it is killed", Duration::from_secs(10), || Ok(podman.status("life")? == "exited 137"))?;
    podman.says(&["rm", "life"])?;
    Ok(())
}

fn limits(podman: &Podman) -> Result<()> {
    let said = podman.run(&["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"], "echo limited")?;
    ensure!(said == "limited", "limits");
    let options = ["--user", "7:8", "--read-only", "--tmpfs", "/scratch:size=1m", "--cap-drop", "ALL"];
    let script = "id -u; id -g; touch /no 2> /dev/null || echo refused; grep CapEff /proc/self/status; \
                  grep -c ' /scratch tmpfs' /proc/self/mounts";
    let said = podman.run(&options, script)?;
    ensure!(said == "7\n8\nrefused\nCapEff:\t0000000000000000\n1", "{said}");
    let said =
        podman.run(&["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"], "id -u; cat /proc/self/uid_map")?;
    let words: Vec<&str> = said.split_whitespace().collect();
    ensure!(words == ["0", "0", "100000", "5000"], "a user namespace: {said}");
    Ok(())
}

fn together(podman: &Podman) -> Result<()> {
    podman.says(&[
        "run",
        "--detach",
        "--network=none",
        "--name",
        "first",
        "--hostname",
        "one",
        IMAGE,
        "sleep",
        "1000",
    ])?;
    let options = ["--network=container:first", "--pid=container:first", "--ipc=container:first"];
    let all = [&["run", "--rm"], options.as_slice(), &[IMAGE, "sh", "-c", "ps | grep -c 'sleep 1000'"]].concat();
    let said = podman.says(&all)?;
    ensure!(said.parse::<u32>().is_ok_and(|count| count >= 1), "processes of the other container: {said}");
    podman.says(&["rm", "--force", "--time", "0", "first"])?;
    Ok(())
}

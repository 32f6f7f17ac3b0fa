//! `cargo xtask`: what CI runs is what a person runs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use berth_e2e::controlplane::{self, ControlPlane};
use berth_e2e::registry::{self, Registry};
use berth_e2e::{apt, house, paths, vm};
use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Checks, tests and benchmarks of Berth", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install the Debian packages that the tests need
    Packages,
    /// Build, start or stop a Kubernetes control plane for tests
    ControlPlane {
        #[command(subcommand)]
        command: ControlPlaneTask,
    },
    /// Run a scenario on another kernel, in a virtual machine
    Vm {
        #[command(subcommand)]
        command: VmTask,
    },
    /// Start or stop a registry with small images
    Registry {
        #[command(subcommand)]
        command: RegistryTask,
    },
}

#[derive(Debug, Subcommand)]
enum ControlPlaneTask {
    /// Build its programs into the cache folder (minutes when cold)
    Build,
    /// Start it and print its kubeconfig's path
    Up(Dir),
    /// Stop it and remove its bridge and folder
    Down(Dir),
}

#[derive(Debug, Subcommand)]
enum RegistryTask {
    /// Start it and upload the images
    Up(RegistryDir),
    /// Stop it and remove its folder
    Down(RegistryDir),
}

#[derive(Debug, Subcommand)]
enum VmTask {
    /// Boot the guest's kernel and switch it off again
    Boot,
}

#[derive(Args, Debug)]
struct Dir {
    /// Certificates, data and logs
    #[arg(long, default_value = "/tmp/berth-control-plane")]
    dir: PathBuf,
}

#[derive(Args, Debug)]
struct RegistryDir {
    /// Data and log
    #[arg(long, default_value = "/tmp/berth-registry")]
    dir: PathBuf,
    /// IP:PORT to listen on
    #[arg(long, default_value = "127.0.0.1:5000")]
    address: String,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Packages => {
            let installed = apt::ensure()?;
            println!("installed: {}", if installed.is_empty() { "nothing".to_owned() } else { installed.join(" ") });
            Ok(())
        }
        Task::ControlPlane { command } => control_plane(command),
        Task::Vm { command: VmTask::Boot } => house::run(|| vm::Kernel::fetch().map(drop), vm::boot),
        Task::Registry { command } => registry(command),
    }
}

fn control_plane(task: ControlPlaneTask) -> Result<()> {
    match task {
        ControlPlaneTask::Build => controlplane::build::build(&paths::cache().join("controlplane/build.log")),
        ControlPlaneTask::Up(Dir { dir }) => {
            let plane = ControlPlane::start(&dir)?;
            println!("{}", plane.admin().display());
            plane.detach()
        }
        ControlPlaneTask::Down(Dir { dir }) => controlplane::down(&dir),
    }
}

fn registry(task: RegistryTask) -> Result<()> {
    match task {
        RegistryTask::Up(RegistryDir { dir, address }) => {
            let registry = Registry::start(&dir, &address)?;
            registry.push_standard()?;
            println!("{} {}", registry.name(registry::BUSYBOX), registry.name(registry::WEB));
            registry.detach()
        }
        RegistryTask::Down(RegistryDir { dir, .. }) => registry::down(&dir),
    }
}

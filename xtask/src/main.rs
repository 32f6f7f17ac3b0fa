//! `cargo xtask`: what CI runs is what a person runs.

mod attacks;
mod check;
mod ci;
mod fuzz;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use berth_e2e::controlplane::{self, ControlPlane};
use berth_e2e::registry::{self, Registry};
use berth_e2e::scenario::vm::suites::Selection;
use berth_e2e::{apt, bench, critest, house, images, node::Shape, paths, scenario, streamclient, vm};
use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Checks, tests and benchmarks of Berth", disable_version_flag = true)]
struct Cli {
    /// Play with the programs that are built already
    #[arg(long, global = true)]
    no_build: bool,
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every check and test, as CI does
    Ci {
        /// The long scenarios and the benchmarks too
        #[arg(long)]
        full: bool,
    },
    /// Look over sources and dependencies, formatting and lints
    Check,
    /// Run the tests beside the code and in the crates' tests folders
    Test,
    /// Run the tests of cri/ATTACKS.md
    Attacks {
        /// Show instead that they fail without the guards that they test
        #[arg(long)]
        red: bool,
        /// Only this row's
        #[arg(long)]
        row: Option<u32>,
    },
    /// Run the fuzz tests for longer
    Fuzz {
        /// Seconds for each of them
        #[arg(long, default_value_t = 12)]
        seconds: u64,
    },
    /// Play a scenario against real programs, in namespaces of its own
    E2e {
        #[command(subcommand)]
        command: E2eTask,
    },
    /// Install the Debian packages that the tests need
    Packages,
    /// Build, start or stop a Kubernetes control plane for tests
    ControlPlane {
        #[command(subcommand)]
        command: ControlPlaneTask,
    },
    /// Measure beside the reference and the kernel's own figures
    Bench {
        #[command(subcommand)]
        command: BenchTask,
    },
    /// Run the CRI validation suite, with the critest on the search path
    Critest(CritestArguments),
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
enum E2eTask {
    /// A Deployment and a crashing pod on a real cluster, and back to nothing
    FirstPod {
        /// `berth cri` and `berth agent` as two processes
        #[arg(long)]
        two_processes: bool,
    },
    /// Every crash point of a pod's life: a restart leaves nothing behind
    Crash {
        /// The first point to visit
        #[arg(long, default_value_t = 1)]
        first: u64,
    },
    /// Nodes of a kubeadm cluster, by `berth join` and by kubeadm: joins that fail, services, rotation, leaving
    JoinKubeadm {
        /// Only this part of it
        #[arg(long, value_enum)]
        only: Option<JoinPart>,
    },
    /// Our CNI plugins beside the reference's: results, links, routes and traffic are the same
    Cni,
    /// Images through the CRI: their names, their identity, their removal
    CriImages,
    /// Bad manifests, images, registries, options and rights: one clear line each
    BadInput,
    /// Calls to `berth cri` that are cut at random: every pod's life ends clean
    CriProxy {
        /// How many lifecycles
        #[arg(long, default_value_t = 500)]
        pods: usize,
        /// So many of them at a time
        #[arg(long, default_value_t = 8)]
        at_once: usize,
        /// What the dice begin with; any when not given
        #[arg(long)]
        seed: Option<u64>,
    },
    /// containerd with `berth-oci` as `BinaryName`: pods through its CRI
    Containerd,
    /// podman with `berth-oci` below it: the commands that people type
    Podman,
    /// Probes, hooks and a sidecar of one pod, across a killed agent
    Probes,
    /// 2,000 exec probes, 300 pods' lives, 10,000 clients that die: `berth cri` and its shims do not grow
    Soak {
        /// So many times as much
        #[arg(long, default_value_t = 1)]
        times: usize,
    },
    /// Kubernetes' own kubelet on `berth cri`: exec, attach, logs, port-forward and cp by kubectl
    StockKubelet {
        /// The runtime measures pods, not the kubelet's cAdvisor
        #[arg(long)]
        stats_from_cri: bool,
    },
    /// What YAML means, beside kubectl
    Yaml,
    /// Exec, attach and port-forward by client-go against the streaming server
    Stream,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum JoinPart {
    /// Joins that can't succeed
    Failing,
    /// A join killed at each of its steps
    Crash,
    /// Two nodes' whole life
    Nodes,
}

impl JoinPart {
    fn part(self) -> scenario::join::Part {
        match self {
            Self::Failing => scenario::join::Part::Failing,
            Self::Crash => scenario::join::Part::Crash,
            Self::Nodes => scenario::join::Part::Nodes,
        }
    }
}

#[derive(Debug, Subcommand)]
enum BenchTask {
    /// What the kernel itself takes
    Floor(Json),
    /// A pod's life through the CRI, Berth beside containerd with crun and with runc
    Cri(Json),
    /// Attaching pods to a network, our plugins beside the reference's
    Cni(Json),
    /// A container's life, `berth-oci` beside crun and runc
    Oci(Json),
    /// Build and fetch what Berth is compared with
    Reference,
}

#[derive(Args, Debug)]
struct Json {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct CritestArguments {
    /// On containerd with crun instead, to be compared with
    #[arg(long)]
    reference: bool,
    /// In a virtual machine instead, with pure cgroup v2 and AppArmor (slow: some 25 times)
    #[arg(long, conflicts_with = "reference")]
    vm: bool,
    /// Only specs whose names match this regular expression (may be repeated)
    #[arg(long, value_name = "REGEX")]
    focus: Vec<String>,
    /// Arguments of critest's own
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum VmTask {
    /// Boot the guest's kernel and switch it off again
    Boot,
    /// A pod on pure cgroup v2: the node in the guest, the control plane outside
    FirstPod,
    /// The node as units of systemd's, which come and go while pods run
    Systemd,
    /// systemd's cgroup driver: `berth-oci`, and `berth cri` under the kubelet
    SystemdCgroups,
    /// The runtime's own tests on pure cgroup v2, with systemd as init and with AppArmor (slow: an hour)
    Suites {
        /// Only those that CI has the time for
        #[arg(long, conflicts_with = "filters")]
        short: bool,
        /// Only suites of these names, such as berth-shim-it, and tests whose names contain one of the others
        #[arg(value_name = "NAME")]
        filters: Vec<String>,
    },
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
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let prepare = |prepare: fn() -> Result<()>| if cli.no_build { Ok(()) } else { prepare() };
    let prepare_debian = || {
        prepare(prepare_vm)?;
        vm::fetch_debian().map(drop)
    };
    match cli.command {
        Task::Ci { full } => ci::run(full),
        Task::Check => check::run(),
        Task::Test => ci::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]),
        Task::Attacks { red, row } => attacks::run(row, red),
        Task::Fuzz { seconds } => fuzz::run(seconds),
        Task::E2e { command } => {
            // Those need no control plane.
            let needs = match command {
                E2eTask::Cni => prepare_cni,
                E2eTask::CriImages => prepare_cri,
                E2eTask::Containerd => prepare_containerd,
                E2eTask::CriProxy { .. } | E2eTask::Soak { .. } | E2eTask::Podman => prepare_runtime,
                E2eTask::Stream => prepare_stream,
                _ => prepare_e2e,
            };
            house::run(|| prepare(needs), || e2e(&command))
        }
        Task::Packages => {
            let installed = apt::ensure()?;
            println!("installed: {}", if installed.is_empty() { "nothing".to_owned() } else { installed.join(" ") });
            Ok(())
        }
        Task::ControlPlane { command } => control_plane(command),
        Task::Bench { command: BenchTask::Floor(Json { json }) } => {
            house::run(|| apt::ensure().map(drop), || bench::floor(json))
        }
        Task::Bench { command: BenchTask::Cri(Json { json }) } => {
            house::run(|| prepare(prepare_bench), || bench::cri(json))
        }
        Task::Bench { command: BenchTask::Cni(Json { json }) } => {
            house::run(|| prepare(prepare_cni), || bench::cni(json))
        }
        Task::Bench { command: BenchTask::Oci(Json { json }) } => {
            house::run(|| prepare(bench::build_oci), || bench::oci(json))
        }
        Task::Bench { command: BenchTask::Reference } => bench::build_reference(),
        Task::Critest(CritestArguments { reference, vm, focus, arguments }) => {
            let (on, needs): (_, fn() -> Result<()>) = match (reference, vm) {
                (true, _) => (critest::On::Reference, prepare_reference),
                (_, true) => (critest::On::Guest, prepare_guest),
                _ => (critest::On::Berth, prepare_cri),
            };
            house::run(
                || {
                    critest::find()?;
                    prepare(needs)
                },
                || critest::play(&critest::Options { on, focus, arguments }),
            )
        }
        Task::Vm { command: VmTask::FirstPod } => house::run(|| prepare(prepare_vm), scenario::vm::first_pod::play),
        Task::Vm { command: VmTask::Systemd } => house::run(prepare_debian, scenario::vm::systemd::play),
        Task::Vm { command: VmTask::SystemdCgroups } => house::run(prepare_debian, scenario::vm::systemd_cgroups::play),
        Task::Vm { command: VmTask::Suites { short, filters } } => {
            let selection = match (short, filters) {
                (true, _) => Selection::Short,
                (false, filters) if filters.is_empty() => Selection::All,
                (false, filters) => Selection::Named(filters),
            };
            house::run(|| prepare(prepare_suites), || scenario::vm::suites::play(&selection))
        }
        Task::Vm { command: VmTask::Boot } => house::run(|| vm::Kernel::fetch().map(drop), vm::boot),
        Task::Registry { command } => registry(command),
    }
}

/// What a scenario needs and can't fetch from inside its house.
fn prepare_e2e() -> Result<()> {
    apt::ensure()?;
    controlplane::build::build(&paths::cache().join("controlplane/build.log"))?;
    build(&["--workspace", "--bins"])
}

/// The same without a control plane.
fn prepare_runtime() -> Result<()> {
    apt::ensure()?;
    build(&["--workspace", "--bins"])
}

fn prepare_containerd() -> Result<()> {
    prepare_runtime()?;
    bench::build_reference()
}

fn prepare_cni() -> Result<()> {
    apt::ensure()?;
    bench::build_reference_plugins()?;
    build(&["--package", "berth-cni-plugins", "--bins"])
}

fn prepare_stream() -> Result<()> {
    streamclient::build().map(drop)
}

fn prepare_vm() -> Result<()> {
    vm::Kernel::fetch()?;
    prepare_e2e()
}

fn prepare_suites() -> Result<()> {
    apt::ensure()?;
    scenario::vm::suites::prepare()
}

fn prepare_cri() -> Result<()> {
    apt::ensure()?;
    images::build()?;
    build(&["--workspace", "--bins"])
}

fn prepare_guest() -> Result<()> {
    critest::prepare_guest()?;
    prepare_cri()
}

fn prepare_reference() -> Result<()> {
    apt::ensure()?;
    images::build()?;
    bench::build_reference()
}

/// Builds what is played with: the programs of `$BERTH_PROFILE`.
fn build(what: &[&str]) -> Result<()> {
    build_as(&paths::profile(), what)
}

/// Builds what cargo puts into this folder of the target's.
fn build_as(folder: &str, what: &[&str]) -> Result<()> {
    let profile = if folder == "debug" { "dev" } else { folder };
    ci::cargo(&[&["build", "--locked", "--quiet", "--profile", profile], what].concat())
}

/// What `bench cri` needs: the programs as they ship, but for link-time optimisation.
fn prepare_bench() -> Result<()> {
    apt::ensure()?;
    bench::build_reference()?;
    build_as(&paths::measured_profile(), &["--package", "berth"])
}

fn e2e(task: &E2eTask) -> Result<()> {
    match task {
        E2eTask::FirstPod { two_processes } => {
            scenario::first_pod::play(if *two_processes { Shape::Two } else { Shape::One })
        }
        E2eTask::Cni => scenario::cni::play(&bench::build_reference_plugins()?),
        E2eTask::Crash { first } => scenario::crash::play(*first),
        E2eTask::JoinKubeadm { only } => scenario::join::play(|part| only.is_none_or(|only| part == only.part())),
        E2eTask::CriImages => scenario::cri_images::play(),
        E2eTask::BadInput => scenario::bad_input::play(),
        E2eTask::CriProxy { pods, at_once, seed } => {
            scenario::cri_proxy::play(scenario::cri_proxy::Options { pods: *pods, at_once: *at_once, seed: *seed })
        }
        E2eTask::Containerd => scenario::containerd::play(),
        E2eTask::Podman => scenario::podman::play(),
        E2eTask::Probes => scenario::probes::play(),
        E2eTask::Soak { times } => scenario::soak::play(*times),
        E2eTask::StockKubelet { stats_from_cri } => scenario::stock_kubelet::play(*stats_from_cri),
        E2eTask::Yaml => scenario::yaml::play(),
        E2eTask::Stream => scenario::stream::play(&streamclient::build()?),
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

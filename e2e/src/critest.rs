//! The CRI validation suite, `critest` of kubernetes-sigs/cri-tools, against Berth or against the reference.
//!
//! The program is whoever runs this has put on the search path. Its images are made here ([`crate::images`]) and come
//! from a registry in the same house, by the mirrors of `hosts.toml`: the suite names them as ever. What containerd does
//! with the same images is kept, so that a spec that fails there, too, is told apart.

mod guest;
mod outcome;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::bench::Containerd;
use crate::cri::{Cri, Start};
use crate::registry::Registry;
use crate::{command, controlplane, daemon, images, paths};
pub use guest::prepare as prepare_guest;
use outcome::{Outcome, Outcomes};

const PROGRAM: &str = "critest";
const PORT: u16 = 5000;

/// Specs that can't pass here, by a regular expression of their names, and why.
const SKIPPED: &[(&str, &str)] = &[(
    "public image with digest should be pulled and removed",
    "asks for an image by a digest whose bytes can't be made again",
)];

/// A reason for which a spec may skip itself.
struct Excuse {
    /// The start of what it says.
    says: &'static str,
    /// What is lacking.
    lacking: &'static str,
    /// Whether that is so in the guest, too.
    in_guest: bool,
}

const EXCUSED: &[Excuse] = &[
    Excuse { says: "AppArmor is disabled", lacking: "the kernel has no AppArmor", in_guest: false },
    Excuse { says: "NRI socket not configured", lacking: "NRI is not implemented", in_guest: true },
];

/// Where the suite runs, and against what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum On {
    /// Berth, here.
    #[default]
    Berth,
    /// containerd with crun, here.
    Reference,
    /// Berth, in a virtual machine with pure cgroup v2 and AppArmor.
    Guest,
}

/// What is run, and on what.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where, and against what.
    pub on: On,
    /// Only specs whose names match one of these regular expressions.
    pub focus: Vec<String>,
    /// Further arguments of critest's own.
    pub arguments: Vec<String>,
}

/// Fails when there is no critest, which this project neither has nor fetches.
///
/// # Errors
/// It is not on the search path.
pub fn find() -> Result<()> {
    ensure!(
        command::found(PROGRAM),
        "there is no {PROGRAM} on the search path: build the one of https://github.com/kubernetes-sigs/cri-tools \
         (`make critest` there) and put it into a folder of $PATH"
    );
    Ok(())
}

/// Runs the suite; call it in a house. The folder with its logs and its report is kept.
///
/// # Errors
/// The suite can't be run, a spec failed, or one was skipped for a reason that does not count.
pub fn play(options: &Options) -> Result<()> {
    let dir = paths::scratch("critest")?;
    let address = match options.on {
        On::Berth | On::Reference => "127.0.0.1",
        On::Guest => {
            controlplane::add_bridge()?;
            controlplane::ADDRESS
        }
    };
    let registry = Registry::start(&dir.join("registry"), &format!("{address}:{PORT}"))?;
    let start = Instant::now();
    images::push(&registry)?;
    let certs = images::mirror(&dir, registry.address())?;
    println!("critest: the images are in the registry after {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let report = match options.on {
        On::Berth => {
            let dir_of_berth = dir.join("berth");
            let start = Start { log_level: "debug", registries: Some(&certs), ..Start::new(&dir_of_berth) };
            let berth = Cri::start(start)?;
            let report = run(options, berth.socket(), &dir)?;
            berth.stop()?;
            report
        }
        On::Reference => {
            let containerd = Containerd::start_for_suite(&dir.join("containerd"), &registry, &certs)?;
            run(options, &containerd.socket(), &dir)?
        }
        On::Guest => guest::run(options, &certs, &dir)?,
    };
    let took = start.elapsed();
    let lacking = EXCUSED.iter().filter(|excuse| excuse.in_guest || options.on != On::Guest);
    let lacking: Vec<_> = lacking.map(|excuse| (excuse.says, excuse.lacking)).collect();
    let outcomes = Outcomes::new(&report::read(&report)?, SKIPPED, &lacking);
    let reference = reference();
    let known = Outcomes::load(&reference);
    print!("{}", outcomes.table(if options.on == On::Reference { None } else { known.as_ref() }));
    println!("took {:.0} s; the logs are in {}", took.as_secs_f64(), dir.display());
    if options.on == On::Reference && options.focus.is_empty() {
        outcomes.save(&reference)?;
    }
    keep(&dir)?;
    let bad = outcomes.count(|outcome| matches!(outcome, Outcome::Failed { .. } | Outcome::Skipped { .. }));
    ensure!(bad == 0, "{bad} specs have failed, or were skipped for a reason that does not count");
    ensure!(outcomes.count(|outcome| matches!(outcome, Outcome::Passed)) > 0, "no spec was run");
    Ok(())
}

/// Runs critest to its end; the report's path. That specs fail is no error yet.
fn run(options: &Options, socket: &Path, dir: &Path) -> Result<PathBuf> {
    let (report, log) = (dir.join("report.json"), dir.join("critest.log"));
    let mut critest = Command::new(PROGRAM);
    critest.current_dir(dir).args(arguments(options, socket, &report));
    println!("critest: runs; its log is {}", log.display());
    let mut child = daemon::Daemon::start(PROGRAM, &mut critest, &log)?;
    let ended = child.wait(std::time::Duration::MAX)?;
    if !report.is_file() {
        let status = ended.map_or_else(|| "still running".to_owned(), |status| status.to_string());
        bail!("{PROGRAM} has left no report ({status}); the end of its log:\n{}", command::tail_of(&log));
    }
    Ok(report)
}

/// What critest is told.
fn arguments(options: &Options, socket: &Path, report: &Path) -> Vec<String> {
    let mut arguments = vec![
        // Its own configuration file would name another endpoint.
        "--config=/nonexistent".to_owned(),
        format!("--runtime-endpoint=unix://{}", socket.display()),
        format!("--ginkgo.json-report={}", report.display()),
        "--ginkgo.no-color".to_owned(),
    ];
    arguments.extend(SKIPPED.iter().map(|(names, _)| format!("--ginkgo.skip={names}")));
    arguments.extend(options.focus.iter().map(|names| format!("--ginkgo.focus={names}")));
    arguments.extend(options.arguments.iter().cloned());
    arguments
}

/// What became of the specs on the reference, as the last whole run has left it.
fn reference() -> PathBuf {
    paths::cache().join("reference/critest.json")
}

/// A house's folder goes with it; logs are wanted afterwards, too.
fn keep(dir: &Path) -> Result<()> {
    let kept = paths::target().join("critest");
    fs::create_dir_all(&kept)?;
    for name in ["report.json", "critest.log", "berth/cri.log", "containerd/containerd.log"] {
        let (from, to) = (dir.join(name), kept.join(Path::new(name).file_name().context("a file's name")?));
        if from.is_file() {
            fs::copy(&from, &to).with_context(|| to.display().to_string())?;
        }
    }
    println!("copies are in {}", kept.display());
    Ok(())
}

//! The program: command line, then checked configuration, then wiring. What it does is in the crates below it.

mod agent;
mod cli;
mod console;
mod cri;
mod doctor;
mod host;
mod join;
mod kubelet;
mod leave;
mod logging;
mod network;
mod runtime;
mod standalone;
mod state;
mod status;
mod systemd;

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::{CommandFactory, Parser};

use crate::cli::{Agent, Cli, Command};
use crate::kubelet::{Asked, Own};

/// Pools of the allocator: two let threads seldom wait for each other, and what is held at rest stays near what is used.
const POOLS: u8 = 2;

// A build for the tests of attacks (cri/guard) is not for anything else.
const _: () = assert!(cfg!(debug_assertions) || !berth_guard::SWITCHABLE, "guards can be taken away in this build");

fn main() -> ExitCode {
    // Before the first thread. Without the limit the program only holds more.
    let _ = berth_sys::allocator::limit_pools(POOLS);
    let cli = match command_line() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // The confined child must not start threads, and says what it has to say in its own way.
    if matches!(cli.command, Command::Unpack) {
        return berth_image::unpack::child();
    }
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // One line: causes after colons, no backtrace.
            eprintln!("berth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was typed; `Err` when the answer is given already. Called by a link named `kubelet` this is the kubelet.
fn command_line() -> Result<Cli, ExitCode> {
    let typed: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let program = typed.first().map(Path::new).and_then(Path::file_name);
    if program.is_some_and(|name| name == "kubelet") {
        return kubelet_line(typed.into_iter().skip(1), vec!["berth".to_owned()], true);
    }
    // Global options may stand before the command.
    let global = |at: usize| typed.get(at).is_some_and(|argument| argument.starts_with("--log-"));
    let value = |at: usize| global(at - 1) && typed.get(at - 1).is_some_and(|option| !option.contains('='));
    let command = (1..typed.len()).find(|at| !global(*at) && !value(*at));
    match command {
        Some(at) if typed[at] == "agent" => {
            let before = typed[..at].to_vec();
            kubelet_line(typed.into_iter().skip(at + 1), before, false)
        }
        _ => Ok(Cli::parse()),
    }
}

/// Puts the kubelet's flags among `arguments` into Berth's words. `before`: what stands before the command.
fn kubelet_line(
    arguments: impl Iterator<Item = String>,
    mut before: Vec<String>,
    is_kubelet: bool,
) -> Result<Cli, ExitCode> {
    let line = match kubelet::read(arguments, &own_options(), is_kubelet) {
        Ok(Asked::Run(line)) => line,
        Ok(Asked::Version) => {
            println!("Kubernetes {}", kubelet::VERSION);
            return Err(ExitCode::SUCCESS);
        }
        Ok(Asked::Help) => kubelet::Line { options: vec!["--help".to_owned()], ..kubelet::Line::default() },
        Err(error) => {
            eprintln!("{}: {error}", if is_kubelet { "kubelet" } else { "berth" });
            return Err(ExitCode::FAILURE);
        }
    };
    before.push("agent".to_owned());
    let mut cli = Cli::parse_from(before.iter().chain(&line.options));
    if let Command::Agent(agent) = &mut cli.command {
        agent.kubelet = line;
    }
    Ok(cli)
}

/// The agent's options of a command line that nobody typed: what kubeadm-flags.env or a configuration says.
fn agent_options(arguments: Vec<String>) -> Result<Agent> {
    let Asked::Run(line) = kubelet::read(arguments, &own_options(), true)? else { bail!("asks for help or a version") };
    let words = ["berth", "agent"].into_iter().chain(line.options.iter().map(String::as_str));
    let cli = Cli::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        anyhow!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: "))
    })?;
    match cli.command {
        Command::Agent(mut agent) => {
            agent.kubelet = line;
            Ok(agent)
        }
        _ => bail!("is not the agent's"),
    }
}

/// `berth agent`'s options, the global ones among them.
fn own_options() -> Vec<Own> {
    let command = Cli::command();
    let agent = command.find_subcommand("agent").into_iter().flat_map(clap::Command::get_arguments);
    let arguments = agent.chain(command.get_arguments());
    let own = |argument: &clap::Arg| {
        let takes_value = argument.get_action().takes_values();
        Some(Own { name: argument.get_long()?.to_owned(), takes_value })
    };
    arguments.filter_map(own).collect()
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Doctor(options) => {
            return Ok(if doctor::run(&options) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "berth", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()).context("writing the manual page")?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::YamlToJson { file } => {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let json = berth_manifest::to_json(&text).with_context(|| file.display().to_string())?;
            println!("{json}");
            return Ok(ExitCode::SUCCESS);
        }
        Command::Status(options) => {
            block_on(status::run(&options))?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Standalone(_)
        | Command::Agent(_)
        | Command::Cri(_)
        | Command::Join(_)
        | Command::Leave(_)
        | Command::Unpack => {}
    }
    if let Some(obstacle) = doctor::first_obstacle() {
        bail!("this machine can't run pods: {obstacle}");
    }
    if matches!(cli.command, Command::Standalone(_) | Command::Agent(_) | Command::Cri(_)) {
        // Refused, it has as many as it was given: that serves a small node.
        let _ = berth_cri::raise_descriptor_limit();
    }
    match cli.command {
        Command::Standalone(options) => {
            // The terminal tells the story; log lines only of what went wrong, unless asked for.
            logging::init(&cli.log, "warn")?;
            block_on(standalone::run(options))
        }
        Command::Agent(options) => {
            logging::init(&cli.log, options.log_level())?;
            block_on(agent::run(options))
        }
        Command::Join(options) => block_on(join::run(options, &cli.log)),
        Command::Leave(options) => {
            logging::init(&cli.log, "warn")?;
            block_on(leave::run(options))
        }
        Command::Cri(options) => {
            logging::init(&cli.log, "info")?;
            block_on(cri::run(options))
        }
        _ => Ok(()),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on a small runtime: pods cost tasks, not threads.
fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    let outcome = runtime.block_on(command);
    // A blocking call that hangs (a dead file system) must not keep the process.
    runtime.shutdown_background();
    outcome
}

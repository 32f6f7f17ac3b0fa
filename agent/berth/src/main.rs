//! The program: command line, then checked configuration, then wiring. What it does is in the crates below it.

mod agent;
mod cli;
mod console;
mod cri;
mod doctor;
mod host;
mod logging;
mod network;
mod runtime;
mod standalone;

use std::future::Future;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
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

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Doctor => return Ok(if doctor::run() { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
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
        Command::Standalone(_) | Command::Agent(_) | Command::Cri(_) | Command::Unpack => {}
    }
    if let Some(obstacle) = doctor::first_obstacle() {
        bail!("this machine can't run pods: {obstacle}");
    }
    match cli.command {
        Command::Standalone(options) => {
            // The terminal tells the story; log lines only of what went wrong, unless asked for.
            logging::init(&cli.log, "warn")?;
            block_on(standalone::run(options))
        }
        Command::Agent(options) => {
            logging::init(&cli.log, "info")?;
            block_on(agent::run(options))
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

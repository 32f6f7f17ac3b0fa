//! `cargo xtask ci`: every check and test in sequence, each with a budget and its own log.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::{command, daemon, paths};
use serde::Deserialize;

/// What the stages without `full` may take together.
const TOTAL_MINUTES: u64 = 70;
/// A stage is ended after this many times its budget.
const PATIENCE: u32 = 3;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budgets {
    stage: Vec<Stage>,
}

/// One line of e2e/budgets.toml: the name is what is given to `cargo xtask`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    name: String,
    minutes: u64,
    #[serde(default)]
    full: bool,
}

/// How a stage went.
#[derive(Debug)]
struct Run {
    took: Duration,
    failed: bool,
    tests: Tests,
}

/// How many tests a stage counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tests {
    passed: u64,
    failed: u64,
}

pub(crate) fn run(full: bool) -> Result<()> {
    let stages = stages(&fs::read_to_string(paths::checkout().join("e2e/budgets.toml"))?, full)?;
    let logs = paths::target().join("ci-logs");
    fs::create_dir_all(&logs)?;
    println!("{} stages; their logs are in {}", stages.len(), logs.display());
    // Stages build, and cargo then puts another file in this program's place: they are run from a copy.
    let program = logs.join("xtask");
    fs::copy(std::env::current_exe()?, &program).with_context(|| format!("copying to {}", program.display()))?;
    let mut runs = Vec::new();
    for stage in &stages {
        let log = logs.join(format!("{}.log", stage.name.replace([' ', '-'], "_")));
        println!("== {}", stage.name);
        let run = run_stage(&program, stage, &log)?;
        println!("   {} after {}", if run.failed { "FAILED" } else { "ok" }, minutes(run.took));
        runs.push(run);
    }
    print_table(&stages, &runs);
    let mut sum = Tests::default();
    for run in &runs {
        sum.passed += run.tests.passed;
        sum.failed += run.tests.failed;
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    let failed: Vec<&str> =
        stages.iter().zip(&runs).filter(|(_, run)| run.failed).map(|(stage, _)| stage.name.as_str()).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn stages(text: &str, full: bool) -> Result<Vec<Stage>> {
    let budgets: Budgets = toml::from_str(text).context("e2e/budgets.toml")?;
    let total: u64 = budgets.stage.iter().filter(|stage| !stage.full).map(|stage| stage.minutes).sum();
    ensure!(total <= TOTAL_MINUTES, "the budgets add up to {total} minutes, more than {TOTAL_MINUTES}");
    Ok(budgets.stage.into_iter().filter(|stage| full || !stage.full).collect())
}

fn run_stage(program: &Path, stage: &Stage, log: &Path) -> Result<Run> {
    let start = Instant::now();
    let file = File::create(log)?;
    let mut child = Command::new(program)
        .args(stage.name.split(' '))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()?;
    let limit = Duration::from_secs(stage.minutes * 60) * PATIENCE;
    let ended = daemon::wait_child(&mut child, limit)?;
    if ended.is_none() {
        daemon::kill_group(&child)?;
        child.wait()?;
        println!("   ended: it took more than {PATIENCE} times its budget");
    }
    let failed = !ended.is_some_and(|status| status.success());
    if failed {
        println!("   the end of {}:\n{}", log.display(), command::tail_of(log));
    }
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    Ok(Run { took: start.elapsed(), failed, tests: count(&text, failed) })
}

/// Sums up what test runners said in a log. A stage that counts nothing is one test.
fn count(log: &str, failed: bool) -> Tests {
    let mut tests = Tests::default();
    for line in log.lines() {
        let Some(rest) = line.strip_prefix("test result: ") else { continue };
        let number = |word: &str| {
            let part = rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(word));
            part.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        tests.passed += number(" passed");
        tests.failed += number(" failed");
    }
    match (failed, tests.failed) {
        (true, 0) => tests.failed = 1,
        (false, _) if tests.passed == 0 => tests.passed = 1,
        _ => {}
    }
    tests
}

fn print_table(stages: &[Stage], runs: &[Run]) {
    println!("\n{:<32} {:>8} {:>8}  {:<6} {:>6}", "stage", "budget", "took", "", "tests");
    for (stage, run) in stages.iter().zip(runs) {
        let budget = Duration::from_secs(stage.minutes * 60);
        let mark = match (run.failed, run.took > budget) {
            (true, _) => "FAILED",
            (false, true) => "OVER",
            (false, false) => "",
        };
        let tests = run.tests.passed + run.tests.failed;
        println!("{:<32} {:>8} {:>8}  {mark:<6} {tests:>6}", stage.name, minutes(budget), minutes(run.took));
    }
    let budget = stages.iter().map(|stage| stage.minutes * 60).sum();
    let took = runs.iter().map(|run| run.took).sum();
    println!("{:<32} {:>8} {:>8}\n", "total", minutes(Duration::from_secs(budget)), minutes(took));
}

fn minutes(duration: Duration) -> String {
    format!("{}:{:02}", duration.as_secs() / 60, duration.as_secs() % 60)
}

/// Runs `cargo` for a person: its output is theirs.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = cargo.args(arguments).current_dir(checkout()).env("CARGO_TARGET_DIR", paths::target()).status()?;
    if !status.success() {
        bail!("cargo {}: {status}", arguments.join(" "));
    }
    Ok(())
}

fn checkout() -> PathBuf {
    paths::checkout()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budgets_are_readable_and_within_the_limit() {
        let text = fs::read_to_string(paths::checkout().join("e2e/budgets.toml")).expect("budgets");
        assert!(!stages(&text, false).expect("short").is_empty());
        let too_much = "[[stage]]\nname = \"x\"\nminutes = 71\n";
        assert!(stages(too_much, false).is_err());
    }

    #[test]
    fn the_counts_of_all_test_runs_are_summed() {
        let log =
            "test result: ok. 3 passed; 0 failed; 0 ignored\nx\ntest result: FAILED. 2 passed; 1 failed; 0 ignored\n";
        assert_eq!(count(log, true), Tests { passed: 5, failed: 1 });
        assert_eq!(count("nothing", false), Tests { passed: 1, failed: 0 });
        assert_eq!(count("test result: ok. 4 passed; 0 failed;", true), Tests { passed: 4, failed: 1 });
    }
}

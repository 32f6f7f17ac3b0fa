//! The runtime as a client sees it, in this process: real shims, cgroups, overlays, namespaces and a bridge.
//!
//! The program runs itself again in network and mount namespaces of its own, so that nothing of it can stay on the
//! machine but cgroups, which lie below `/berth-test-cri-PID` and are checked and removed.

#[path = "lifecycle/bench.rs"]
mod bench;
#[path = "lifecycle/broken.rs"]
mod broken;
#[path = "lifecycle/cases.rs"]
mod cases;
#[path = "lifecycle/changes.rs"]
mod changes;
#[path = "lifecycle/checkpoints.rs"]
mod checkpoints;
#[path = "lifecycle/confinement.rs"]
mod confinement;
#[path = "lifecycle/devices.rs"]
mod devices;
#[path = "lifecycle/figures.rs"]
mod figures;
#[path = "lifecycle/handlers.rs"]
mod handlers;
#[path = "lifecycle/pods.rs"]
mod pods;
#[path = "lifecycle/races.rs"]
mod races;
#[path = "lifecycle/sessions.rs"]
mod sessions;

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use bench::Bench;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("unpack") => berth_image::unpack::child(),
        Some("life") => {
            let bench = Bench::at(Path::new(&arguments[1]), arguments[2].clone());
            executor().block_on(cases::live(bench, &arguments[3]));
            ExitCode::SUCCESS
        }
        Some("inside") => inside(&arguments[1..]),
        // What cargo-nextest asks.
        Some("--list") => ExitCode::SUCCESS,
        _ => {
            let exe = env::current_exe().expect("our own path");
            let mut command = Command::new("unshare");
            command.args(["--mount", "--net", "--propagation", "private", "--"]).arg(exe).arg("inside").args(arguments);
            let status = command.status().expect("unshare(1), as root");
            if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn executor() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio")
}

fn inside(filters: &[String]) -> ExitCode {
    let runtime = executor();
    let (mut passed, mut failed) = (0, 0);
    let more = [
        broken::ALL,
        changes::ALL,
        checkpoints::ALL,
        confinement::ALL,
        devices::ALL,
        figures::ALL,
        handlers::ALL,
        races::ALL,
        sessions::ALL,
    ];
    let all = cases::ALL.iter().chain(more.into_iter().flatten());
    for (name, case) in all {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let bench = Bench::new(name);
        let outcome = runtime.block_on(async { tokio::spawn(case(bench)).await });
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        let counted = if outcome.is_ok() { &mut passed } else { &mut failed };
        *counted += 1;
    }
    // As libtest says it, for what counts tests.
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

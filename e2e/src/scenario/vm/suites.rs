//! The runtime's own tests on another kernel: cgroup v2 alone, systemd as init, AppArmor on.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::paths;
use crate::vm::{self, Hardware, Initramfs, Kernel, Machine, Suite};

/// What runs, and with which arguments: where libtest is the harness, one test after the other, since each is slow.
const SUITES: &[(Suite, &str)] = &[
    (Suite { package: "berth-cgroup", target: "host" }, "--test-threads=1"),
    (Suite { package: "berth-shim", target: "it" }, "--test-threads=1"),
    (Suite { package: "berth-cri", target: "lifecycle" }, ""),
];
const FOLDER: &str = "usr/lib/berth-tests";

/// What a run needs that can't be had inside a house.
///
/// # Errors
/// The tests do not compile, or Debian's packages can't be fetched.
pub fn prepare() -> Result<()> {
    let _ = (Kernel::fetch()?, vm::fetch_debian()?);
    let folder = programs();
    fs::create_dir_all(&folder)?;
    for ((suite, _), built) in SUITES.iter().zip(vm::build_suites(SUITES.iter().map(|(suite, _)| suite))?) {
        fs::copy(&built, folder.join(suite.name())).with_context(|| built.display().to_string())?;
    }
    Ok(())
}

/// Cargo's own names of test programs have a hash in them.
fn programs() -> PathBuf {
    paths::target().join("vm-suites")
}

/// Runs the tests whose names contain one of `filters`, or all, in a guest; call it in a house.
///
/// # Errors
/// A test failed, with its output; or the guest did.
pub fn play(filters: &[String]) -> Result<()> {
    let dir = paths::scratch("vm-suites")?;
    let (kernel, disk) = (Kernel::fetch()?, vm::fetch_debian()?);
    let mut image = Initramfs::with_disk(&kernel)?;
    for (suite, _) in SUITES {
        image.program(&programs().join(suite.name()), &format!("{FOLDER}/{}", suite.name()))?;
    }
    let hardware = Hardware { bridge: None, disk: Some(&disk) };
    let mut machine = Machine::boot(&kernel, &image.done(), &dir, &hardware)?;
    run(&mut machine, filters).with_context(|| machine.end_of_console())?;
    machine.shut_down()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

fn run(machine: &mut Machine, filters: &[String]) -> Result<()> {
    let enabled = machine.run("cat /sys/module/apparmor/parameters/enabled")?;
    ensure!(enabled.trim() == "Y", "AppArmor is not on in the guest");
    let kinds = machine.run("stat -f -c %T /sys/fs/cgroup; cat /proc/1/comm")?;
    ensure!(kinds.trim() == "cgroup2fs\nsystemd", "the guest is not what it should be: {kinds}");
    let mut failed = Vec::new();
    for (suite, arguments) in SUITES {
        let start = Instant::now();
        let filters: String = filters.iter().map(|filter| format!(" '{filter}'")).collect();
        let line = format!("cd /tmp && /{FOLDER}/{} {arguments}{filters}; echo ended $?", suite.name());
        let output = machine.run(&line)?;
        let passed = output.lines().filter(|line| line.starts_with("test ") && line.ends_with(" ok")).count();
        let bad: Vec<&str> =
            output.lines().filter(|line| line.starts_with("test ") && line.ends_with(" FAILED")).collect();
        println!("{}: {passed} passed, {} failed in {:.0} s", suite.name(), bad.len(), start.elapsed().as_secs_f64());
        if !output.trim_end().ends_with("\nended 0") {
            println!("{output}");
            failed.push(suite.name());
        } else if passed == 0 && filters.is_empty() {
            bail!("{} has run no test", suite.name());
        }
    }
    ensure!(failed.is_empty(), "failed in the guest: {}", failed.join(", "));
    Ok(())
}

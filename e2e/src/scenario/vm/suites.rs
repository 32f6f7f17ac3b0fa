//! The runtime's own tests on another kernel: cgroup v2 alone, systemd as init, AppArmor on, and kinds of links that the
//! machines of CI lack.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::paths;
use crate::vm::{self, Hardware, Initramfs, Kernel, Machine, Suite};

/// A suite and how it is run.
#[derive(Debug)]
struct Run {
    suite: Suite,
    arguments: &'static str,
    /// What of it fits into a few minutes and is another on this kernel.
    short: &'static [&'static str],
}

/// Where libtest is the harness, one test after the other: each is slow, and they would be in each other's way.
const SERIAL: &str = "--test-threads=1";
const RUNS: &[Run] = &[
    Run {
        suite: Suite { package: "berth-cgroup", target: "host", programs: &[] },
        arguments: SERIAL,
        short: &["limits", "killed", "frozen", "memory", "devices"],
    },
    Run {
        suite: Suite { package: "berth-cni-plugins", target: "kinds", programs: &[] },
        arguments: SERIAL,
        short: &[""],
    },
    Run {
        suite: Suite { package: "berth-shim", target: "it", programs: &[] },
        arguments: SERIAL,
        short: &["cgroup", "apparmor"],
    },
    Run {
        suite: Suite { package: "berth-cri", target: "lifecycle", programs: &[] },
        arguments: "",
        short: &["apparmor"],
    },
    Run {
        suite: Suite { package: "berth-runtime", target: "oci", programs: &["berth-oci"] },
        arguments: SERIAL,
        short: &["limits::"],
    },
];
const FOLDER: &str = "usr/lib/berth-tests";
/// Links that the guest must be able to make: the tests of links take the kinds that there are.
const LINKS: &[&str] = &["type dummy", "link pair0 type ipvlan", "link pair0 type vlan id 7", "type vrf table 7"];
/// Tells the suite of `berth-oci` to leave its references out, which would take most of the time.
const ALONE: &str = "BERTH_TEST_ALONE";
/// Set here, they play all the same.
const REFERENCES: &str = "BERTH_VM_REFERENCES";
/// For one test: the longest are those that play a pod's life once for each point at which it can break off.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Which tests run.
#[derive(Debug)]
pub enum Selection {
    All,
    /// What CI has the time for.
    Short,
    /// Suites of these names, and tests whose names contain one of those that name no suite.
    Named(Vec<String>),
}

impl Selection {
    /// What a suite is asked to run; no filter is all of it.
    fn of<'a>(&'a self, suite: &Suite, short: &[&'a str]) -> Option<Vec<&'a str>> {
        let Self::Named(names) = self else {
            return Some(if matches!(self, Self::Short) { short.to_vec() } else { Vec::new() });
        };
        if names.contains(&suite.name()) {
            return Some(Vec::new());
        }
        let is_suite = |name: &str| RUNS.iter().any(|run| run.suite.name() == name);
        let filters: Vec<&str> = names.iter().map(String::as_str).filter(|name| !is_suite(name)).collect();
        (!filters.is_empty()).then_some(filters)
    }
}

/// What a run needs that can't be had inside a house.
///
/// # Errors
/// The tests do not compile, or Debian's packages can't be fetched.
pub fn prepare() -> Result<()> {
    let _ = (Kernel::fetch()?, vm::fetch_debian()?);
    let folder = programs();
    fs::create_dir_all(&folder)?;
    let keep = |from: &PathBuf, name: &str| {
        fs::copy(from, folder.join(name)).with_context(|| from.display().to_string()).map(drop)
    };
    for (Run { suite, .. }, built) in RUNS.iter().zip(vm::build_suites(RUNS.iter().map(|run| &run.suite))?) {
        keep(&built.test, &suite.name())?;
        for (name, program) in suite.programs.iter().zip(&built.programs) {
            ensure!(*program == known(name), "the test knows {name} as {}", program.display());
            keep(program, name)?;
        }
    }
    Ok(())
}

/// Cargo's own names of test programs have a hash in them.
fn programs() -> PathBuf {
    paths::target().join("vm-suites")
}

/// Where a test looks for a program: the path was compiled into it.
fn known(program: &str) -> PathBuf {
    paths::target().join("debug").join(program)
}

/// Runs tests in a guest; call it in a house.
///
/// # Errors
/// A test failed, or the guest did.
pub fn play(selection: &Selection) -> Result<()> {
    let dir = paths::scratch("vm-suites")?;
    let (kernel, disk) = (Kernel::fetch()?, vm::fetch_debian()?);
    let mut image = Initramfs::with_disk(&kernel)?;
    for Run { suite, .. } in RUNS {
        image.program(&programs().join(suite.name()), &format!("{FOLDER}/{}", suite.name()))?;
        for program in suite.programs {
            image.program(&programs().join(program), &format!("{FOLDER}/{program}"))?;
        }
    }
    let hardware = Hardware { bridge: None, disk: Some(&disk) };
    let mut machine = Machine::boot(&kernel, &image.done(), &dir, &hardware)?;
    let played = check(&mut machine).and_then(|()| place(&mut machine)).and_then(|()| run(&mut machine, selection));
    played.with_context(|| machine.end_of_console())?;
    machine.shut_down()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// Whether the guest is what it is for: the tests decide by what they find.
fn check(machine: &mut Machine) -> Result<()> {
    let enabled = machine.run("cat /sys/module/apparmor/parameters/enabled")?;
    ensure!(enabled.trim() == "Y", "AppArmor is not on in the guest");
    let found = machine.run("stat -f -c %T /sys/fs/cgroup; cat /proc/1/comm; readlink /bin")?;
    ensure!(found.trim() == "cgroup2fs\nsystemd\nusr/bin", "the guest is not what it should be: {found}");
    // The channel is there early; folders for temporary files are cleared later.
    machine.run("systemctl is-system-running --wait; true")?;
    machine.run("ip link add pair0 type veth peer pair1")?;
    for link in LINKS {
        machine.run(&format!("ip link add name made0 {link} && ip link delete made0"))?;
    }
    machine.run("ip link delete pair0").map(drop)
}

/// Puts programs where the tests look for them, which may be a folder for temporary files.
fn place(machine: &mut Machine) -> Result<()> {
    for program in RUNS.iter().flat_map(|run| run.suite.programs) {
        let known = known(program);
        let folder = known.parent().unwrap_or(&known);
        machine.run(&format!("mkdir -p {0} && ln -s /{FOLDER}/{program} {0}/", folder.display()))?;
    }
    Ok(())
}

fn run(machine: &mut Machine, selection: &Selection) -> Result<()> {
    let mut failed = Vec::new();
    for Run { suite, arguments, short } in RUNS {
        let Some(filters) = selection.of(suite, short) else { continue };
        let filters: String = filters.iter().map(|filter| format!(" '{filter}'")).collect();
        println!("== {}", suite.name());
        let (start, mut last) = (Instant::now(), Instant::now());
        let (mut passed, mut bad) = (0, 0);
        let environment = if std::env::var_os(REFERENCES).is_none() { format!("{ALONE}=1") } else { String::new() };
        let line = format!("cd /tmp && {environment} /{FOLDER}/{} {arguments}{filters}; echo ended $?", suite.name());
        let output = machine.run_telling(&line, PATIENCE, &mut |line| {
            // Alone on its line where the test itself has printed something.
            let outcome = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(' '));
            match outcome.map_or(line, |(_, outcome)| outcome) {
                "ok" => passed += 1,
                "FAILED" => bad += 1,
                _ => return println!("{line}"),
            }
            println!("{line} ({:.0} s)", last.elapsed().as_secs_f64());
            last = Instant::now();
        })?;
        println!("{}: {passed} passed, {bad} failed in {:.0} s", suite.name(), start.elapsed().as_secs_f64());
        if !output.trim_end().ends_with("\nended 0") {
            failed.push(suite.name());
        } else if !matches!(selection, Selection::Named(_)) {
            ensure!(passed > 0, "{} has run no test", suite.name());
        }
    }
    ensure!(failed.is_empty(), "failed in the guest: {}", failed.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_suites_or_tests() {
        let (first, second) = (&RUNS[0], &RUNS[1]);
        let named = |names: &[&str]| Selection::Named(names.iter().map(|name| (*name).to_owned()).collect());
        let of = |selection: &Selection, run: &Run| selection.of(&run.suite, run.short).map(|all| all.join(" "));
        assert_eq!(of(&Selection::All, first).as_deref(), Some(""));
        assert_eq!(of(&Selection::Short, first), Some(first.short.join(" ")));
        let suite = named(&[&first.suite.name()]);
        assert_eq!((of(&suite, first).as_deref(), of(&suite, second)), (Some(""), None));
        let both = named(&[&first.suite.name(), "a test"]);
        assert_eq!((of(&both, first).as_deref(), of(&both, second).as_deref()), (Some(""), Some("a test")));
    }
}

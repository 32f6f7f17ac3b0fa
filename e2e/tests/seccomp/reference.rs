//! libseccomp's filter of the same profile, and the programs in C that stand beside this test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::machine::{Abi, Call, Filter, X32_BIT};

/// Compiles a C program of this folder.
pub(crate) fn compile(folder: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp").join(name).with_extension("c");
    let program = folder.join(name);
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Werror", "-o"]).arg(&program).arg(source).args(arguments);
    let status = cc.status().expect("cc, which `cargo xtask packages` installs");
    assert!(status.success(), "{name}.c needs libseccomp-dev, which `cargo xtask packages` installs");
    program
}

/// Runs a program of ours on bytes.
pub(crate) fn run(program: &Path, arguments: &[&Path], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}: {}", program.display(), output.status);
    output.stdout
}

/// What libseccomp made of a profile.
#[derive(Debug)]
pub(crate) struct Reference {
    filter: Filter,
    /// Numbers of the calls that the profile names.
    pub(crate) numbers: BTreeMap<&'static str, BTreeSet<u32>>,
    /// Names that its tables lack.
    pub(crate) unknown: BTreeSet<String>,
    answers_newer: bool,
    pub(crate) version: String,
}

impl Reference {
    pub(crate) fn new(program: &Path, profile: &Value) -> Self {
        let file = program.with_extension("bpf");
        let report = run(program, &[&file], lines(profile).as_bytes());
        let filter = Filter::parse(&fs::read(&file).expect("a filter"));
        let mut reference = Self {
            filter,
            numbers: BTreeMap::new(),
            unknown: BTreeSet::new(),
            answers_newer: !["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"]
                .contains(&text(&profile["defaultAction"])),
            version: String::new(),
        };
        for line in String::from_utf8(report).expect("text").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["unknown", name] => drop(reference.unknown.insert(name.to_owned())),
                ["number", abi, _, number] => {
                    let abi = ["x86_64", "x86", "x32"].into_iter().find(|known| *known == abi).expect("an ABI");
                    reference.numbers.entry(abi).or_default().insert(number.parse().expect("a number"));
                }
                ["version", version] => version.clone_into(&mut reference.version),
                _ => panic!("libseccomp: {line}"),
            }
        }
        for (abi, listed) in [("x86", "SCMP_ARCH_X86"), ("x32", "SCMP_ARCH_X32")] {
            if !profile["architectures"].as_array().is_some_and(|all| all.iter().any(|one| one == listed)) {
                reference.numbers.remove(abi);
            }
        }
        reference
    }

    /// libseccomp's answer, with what runc puts before it: a call that is newer than all that the profile names on its
    /// ABI is answered with ENOSYS, unless the profile permits what it does not name
    /// (runc: libcontainer/seccomp/patchbpf/enosys_linux.go).
    pub(crate) fn decide(&self, call: &Call) -> u32 {
        const ENOSYS: u32 = 0x0005_0026;
        // -1 is what a tracer sets to skip a call; it belongs to the machine's own ABI.
        let abi = match call.abi {
            Abi::Foreign => None,
            Abi::I386 => Some("x86"),
            Abi::X86_64 | Abi::X32 if call.number >= X32_BIT && call.number != u32::MAX => Some("x32"),
            Abi::X86_64 | Abi::X32 => Some("x86_64"),
        };
        let newest = abi.and_then(|abi| self.numbers.get(abi)).and_then(BTreeSet::last);
        if self.answers_newer && newest.is_some_and(|newest| call.number > *newest) {
            return ENOSYS;
        }
        self.filter.decide(call)
    }
}

/// The profile in the words of libseccomp.c. Rules that only repeat the default are left out, as runc does.
fn lines(profile: &Value) -> String {
    let default = action(&profile["defaultAction"], &profile["defaultErrnoRet"]);
    let mut text = format!("default {default:#x}\n");
    for (arch, name) in [("SCMP_ARCH_X86", "x86"), ("SCMP_ARCH_X32", "x32")] {
        if profile["architectures"].as_array().is_some_and(|all| all.iter().any(|one| one == arch)) {
            text.push_str(&format!("arch {name}\n"));
        }
    }
    for rule in profile["syscalls"].as_array().expect("rules") {
        let action = action(&rule["action"], &rule["errnoRet"]);
        for name in rule["names"].as_array().expect("names") {
            let word = if action == default { "name" } else { "rule" };
            text.push_str(&format!("{word} {action:#x} {}", self::text(name)));
            for arg in rule["args"].as_array().into_iter().flatten() {
                let number = |field: &str| arg[field].as_u64().unwrap_or(0);
                let (op, index) = (self::text(&arg["op"]), number("index"));
                text.push_str(&format!(" {index} {op} {:#x} {:#x}", number("value"), number("valueTwo")));
            }
            text.push('\n');
        }
    }
    text
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// `SECCOMP_RET_*` with its data.
fn action(name: &Value, errno: &Value) -> u32 {
    let data = u32::try_from(errno.as_u64().unwrap_or(1)).expect("an errno");
    match text(name) {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | data,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_KILL_THREAD" => 0,
        other => panic!("{other}"),
    }
}

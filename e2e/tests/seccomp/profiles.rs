//! Twenty profiles: what Berth ships, and what people might write.

use berth_cri_core::capabilities;
use berth_cri_core::host::Arch;
use berth_cri_core::seccomp::runtime_default;
use serde_json::{Value, json};

/// A profile as people keep it.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) json: Value,
}

const ALL_ABIS: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];

/// Calls of the three ABIs, old and new, with and without a number of its own in each.
const CALLS: [&str; 48] = [
    "read",
    "write",
    "open",
    "close",
    "stat",
    "fstat",
    "poll",
    "lseek",
    "mmap",
    "mprotect",
    "brk",
    "ioctl",
    "pread64",
    "access",
    "pipe",
    "select",
    "dup",
    "nanosleep",
    "getpid",
    "clone",
    "fork",
    "execve",
    "exit",
    "kill",
    "uname",
    "fcntl",
    "flock",
    "fsync",
    "chdir",
    "rename",
    "mkdir",
    "chmod",
    "chown",
    "umask",
    "prctl",
    "mount",
    "reboot",
    "gettid",
    "futex",
    "openat",
    "unshare",
    "splice",
    "setns",
    "getrandom",
    "bpf",
    "statx",
    "clone3",
    "openat2",
];

/// The newest call of each generated profile: up to it the profile's default counts.
const NEWEST: &str = "futex_waitv";

const ACTIONS: [(&str, Option<u32>); 8] = [
    ("SCMP_ACT_ALLOW", None),
    ("SCMP_ACT_ERRNO", None),
    ("SCMP_ACT_ERRNO", Some(95)),
    ("SCMP_ACT_LOG", None),
    ("SCMP_ACT_TRAP", None),
    ("SCMP_ACT_TRACE", Some(7)),
    ("SCMP_ACT_KILL_PROCESS", None),
    ("SCMP_ACT_KILL_THREAD", None),
];

const OPS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];

pub(crate) fn all() -> Vec<Profile> {
    let mut profiles = Vec::new();
    let masks = [("default", capabilities::DEFAULT), ("none", 0), ("all", capabilities::ALL)];
    for (name, bounding) in masks {
        let json = serde_json::to_value(runtime_default(Arch::X86_64, bounding)).expect("JSON");
        profiles.push(Profile { name: format!("RuntimeDefault with capabilities: {name}"), json });
    }
    for (number, default) in
        ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG", "SCMP_ACT_TRAP"]
            .into_iter()
            .cycle()
            .take(17)
            .enumerate()
    {
        let seed = 1 + number as u64;
        // Every third one is of this machine's own ABI alone, where values may have 64 bits.
        let wide = number % 3 == 2;
        profiles.push(Profile {
            name: format!("profile {seed}: {default}, {}", if wide { "x86_64" } else { "three ABIs" }),
            json: generated(seed, default, wide),
        });
    }
    profiles
}

fn generated(seed: u64, default: &str, wide: bool) -> Value {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut calls = CALLS.to_vec();
    random.shuffle(&mut calls);
    let mut rules = vec![
        json!({"names": [NEWEST], "action": if default == "SCMP_ACT_ALLOW" { "SCMP_ACT_ERRNO" } else { "SCMP_ACT_ALLOW" }}),
    ];
    for name in calls.into_iter().take(36) {
        one(&mut random, name, wide, &mut rules);
    }
    random.shuffle(&mut rules);
    let mut profile = json!({
        "defaultAction": default,
        "architectures": if wide { &ALL_ABIS[..1] } else { &ALL_ABIS[..] },
        "syscalls": rules,
    });
    if seed.is_multiple_of(2) {
        profile["flags"] = json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    }
    if default == "SCMP_ACT_ERRNO" && seed.is_multiple_of(4) {
        profile["defaultErrnoRet"] = json!(13);
    }
    profile
}

/// What a profile says about one call, where libseccomp 2.5 does what it says. It merges the rules of a call into one tree
/// of half words, and then answers some calls as no rule does: where rules of different actions overlap, and where more
/// than one of them orders numbers of 64 bits (`arg5 <= 0x7fffffff0000ffff` or `arg5 < 0x180000000` does not match
/// 0x180000002). Berth's filter is held to the words of such profiles by cri/core's own tests.
fn one(random: &mut fastrand::Rng, name: &str, wide: bool, rules: &mut Vec<Value>) {
    let (action, errno) = ACTIONS[random.usize(..ACTIONS.len())];
    let mut rule = |args: Vec<Value>, action: &str, errno: Option<u32>| {
        let mut rule = json!({"names": [name], "action": action, "args": args});
        if let Some(errno) = errno {
            rule["errnoRet"] = json!(errno);
        }
        rules.push(rule);
    };
    match random.u32(..6) {
        0 | 1 => rule(vec![], action, errno),
        // All must hold.
        2 => {
            let mut indices = [0, 1, 2, 3, 4, 5];
            random.shuffle(&mut indices);
            let count = random.usize(1..=3);
            let args = indices[..count].iter().map(|index| condition(random, *index, wide)).collect();
            rule(args, action, errno);
        }
        // One of them must hold.
        3 => {
            for _ in 0..random.u32(2..=5) {
                let index = random.u64(..6);
                rule(vec![alternative(random, index, wide)], action, errno);
            }
        }
        // An answer for each value.
        4 => {
            let (index, first) = (random.u64(..6), value(random, false));
            for step in 0..random.u64(2..=4) {
                let (action, errno) = ACTIONS[random.usize(..ACTIONS.len())];
                let value = (first + step) & 0xffff_ffff;
                rule(vec![json!({"index": index, "op": "SCMP_CMP_EQ", "value": value, "valueTwo": 0})], action, errno);
            }
        }
        // An argument that is named twice.
        _ => {
            let index = random.u64(..6);
            rule(vec![alternative(random, index, wide), alternative(random, index, wide)], action, errno);
        }
    }
}

fn condition(random: &mut fastrand::Rng, index: u64, wide: bool) -> Value {
    let op = OPS[random.usize(..OPS.len())];
    json!({"index": index, "op": op, "value": value(random, wide), "valueTwo": value(random, wide)})
}

/// One of several that would do.
fn alternative(random: &mut fastrand::Rng, index: u64, wide: bool) -> Value {
    let condition = condition(random, index, wide);
    let orders = ["LT", "LE", "GE", "GT"].iter().any(|op| condition["op"] == format!("SCMP_CMP_{op}"));
    if orders && wide { alternative(random, index, false) } else { condition }
}

/// Values at the borders of words, small ones, and any. A 32-bit ABI's have 32 bits: wider ones never match with Berth,
/// where libseccomp cuts them off.
fn value(random: &mut fastrand::Rng, wide: bool) -> u64 {
    const BORDERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    let low = match random.u32(..3) {
        0 => BORDERS[random.usize(..BORDERS.len())],
        1 => random.u64(..64),
        _ => random.u64(..) & 0xffff_ffff,
    };
    match random.u32(..3) {
        0 if wide => BORDERS[random.usize(..BORDERS.len())] << 32 | low,
        1 if wide => random.u64(..),
        _ => low,
    }
}

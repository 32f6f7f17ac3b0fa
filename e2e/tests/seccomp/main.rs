//! Berth's system call filters beside libseccomp's: 20 profiles, 100,000 calls, one answer. A part of the calls is
//! decided by the kernel too.

mod machine;
mod profiles;
mod reference;

use std::collections::BTreeSet;
use std::path::PathBuf;

use berth_cri_core::host::Arch;
use berth_cri_core::seccomp::compile;
use machine::{Abi, Call, Filter, X32_BIT};
use profiles::Profile;
use reference::Reference;
use serde_json::Value;

/// Calls of each profile.
const CALLS: usize = 5000;
/// So many of them are also put to the kernel.
const BY_KERNEL: usize = 1000;

/// Calls that the default profile names and libseccomp 2.5.4 does not know. They are compared with nothing here.
const NEWER_THAN_LIBSECCOMP: &[&str] = &[
    "getxattrat",
    "listmount",
    "listxattrat",
    "lsm_get_self_attr",
    "lsm_list_modules",
    "lsm_set_self_attr",
    "mseal",
    "removexattrat",
    "setxattrat",
    "statmount",
    "uretprobe",
];

/// uretprobe and uprobe: since Linux 6.14 and 6.18 the kernel asks no filter about them, and they end who was not made to
/// call them by a probe.
const UNASKED: [u32; 2] = [335, 336];

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("berth-seccomp-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The profile as both compilers know it, and what libseccomp made of it.
fn both(program: &std::path::Path, json: &Value) -> (Filter, Reference) {
    let unknown = Reference::new(program, json).unknown;
    let mut json = json.clone();
    for rule in json["syscalls"].as_array_mut().expect("rules") {
        let names = rule["names"].as_array_mut().expect("names");
        names.retain(|name| !unknown.contains(name.as_str().expect("text")));
    }
    json["syscalls"].as_array_mut().expect("rules").retain(|rule| !rule["names"].as_array().expect("names").is_empty());
    let mut reference = Reference::new(program, &json);
    assert!(reference.unknown.is_empty());
    reference.unknown = unknown;
    let profile = serde_json::from_value(json).expect("an OCI profile");
    let ours = compile(&profile, Arch::X86_64).expect("compiled");
    (Filter::parse(&ours), reference)
}

/// Calls near everything that the profile speaks of, and any others.
fn calls(seed: u64, json: &Value, reference: &Reference) -> Vec<Call> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut values: Vec<u64> = vec![0, 1, u64::MAX, 0xffff_ffff, 0x1_0000_0000];
    for arg in json["syscalls"].as_array().into_iter().flatten().flat_map(|rule| rule["args"].as_array()).flatten() {
        values.extend(["value", "valueTwo"].into_iter().filter_map(|field| arg[field].as_u64()));
    }
    let named: BTreeSet<u32> = reference.numbers.values().flatten().map(|number| number & !X32_BIT).collect();
    let named: Vec<u32> = named.into_iter().collect();
    let call = |_| {
        // A foreign call is refused for what it is; a few are enough.
        let abi = match random.u32(..31) {
            0..10 => Abi::X86_64,
            10..20 => Abi::I386,
            20..30 => Abi::X32,
            _ => Abi::Foreign,
        };
        let number = match random.u32(..20) {
            0 => random.u32(..),
            1 => [u32::MAX, X32_BIT - 1, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff][random.usize(..5)],
            2..5 => random.u32(..700),
            5..7 => named[random.usize(..named.len())].saturating_add_signed(random.i32(-1..=1)),
            _ => named[random.usize(..named.len())],
        };
        let number = if abi == Abi::X32 { number | X32_BIT } else { number };
        let args = std::array::from_fn(|_| {
            let value = values[random.usize(..values.len())];
            match random.u32(..8) {
                0 => value.wrapping_add(1),
                1 => value.wrapping_sub(1),
                2 => value | random.u64(..) << 32,
                3 => value ^ 1 << random.u32(..64),
                4 => random.u64(..),
                _ => value,
            }
        });
        Call::new(abi, number, args)
    };
    (0..CALLS).map(call).collect()
}

#[test]
fn libseccomp_gives_the_same_answers() {
    let folder = Folder::new("libseccomp");
    let program = reference::compile(&folder.0, "libseccomp", &["-lseccomp"]);
    let profiles = profiles::all();
    assert_eq!(profiles.len(), 20);
    let (mut answers, mut different) = (BTreeSet::new(), Vec::new());
    for (seed, Profile { name, json }) in profiles.iter().enumerate() {
        let (ours, reference) = both(&program, json);
        let expected = if name.starts_with("RuntimeDefault") { NEWER_THAN_LIBSECCOMP } else { &[] };
        let unexpected: Vec<_> = reference.unknown.iter().filter(|name| !expected.contains(&name.as_str())).collect();
        assert!(unexpected.is_empty(), "libseccomp {} does not know {unexpected:?}", reference.version);
        let mut here = BTreeSet::new();
        let mut faults = Vec::new();
        for call in calls(seed as u64, json, &reference) {
            let (a, b) = (ours.decide(&call), reference.decide(&call));
            here.insert(b);
            if a != b {
                faults.push(format!("{name}: {call:x?}: {a:#x}, and {b:#x} by libseccomp"));
            }
        }
        // A sample that meets one answer only would compare nothing.
        assert!(here.len() > 2, "{name}: only {here:x?}");
        answers.extend(here);
        println!("{name}: {CALLS} calls, {} differ", faults.len());
        different.extend(faults);
    }
    assert!(
        different.is_empty(),
        "{} differ, such as\n{}",
        different.len(),
        different[..different.len().min(20)].join("\n")
    );
    assert!(answers.len() >= 9, "every kind of answer: {answers:x?}");
}

#[test]
fn the_kernel_gives_the_same_answers() {
    let folder = Folder::new("kernel");
    let libseccomp = reference::compile(&folder.0, "libseccomp", &["-lseccomp"]);
    // Arguments are pushed below the stack's end.
    let kernel = reference::compile(&folder.0, "kernel", &["-mno-red-zone"]);
    for (seed, Profile { name, json }) in profiles::all().iter().enumerate() {
        let (ours, reference) = both(&libseccomp, json);
        let calls = calls(seed as u64, json, &reference);
        let asked =
            |call: &Call| call.abi != Abi::Foreign && !(call.abi == Abi::X86_64 && UNASKED.contains(&call.number));
        let calls: Vec<Call> = calls.into_iter().filter(asked).take(BY_KERNEL).collect();
        assert_eq!(calls.len(), BY_KERNEL);
        let (filter, answers) = ours.as_errnos();
        let word = |length: usize| u32::try_from(length).expect("short").to_le_bytes();
        let mut input = [&word(filter.len())[..], &filter, &word(calls.len())].concat();
        for call in &calls {
            input.extend(u32::from(call.abi == Abi::I386).to_le_bytes());
            input.extend(call.number.to_le_bytes());
            input.extend(call.args.into_iter().flat_map(u64::to_le_bytes));
        }
        let output = reference::run(&kernel, &[], &input);
        assert_eq!(output.len(), 4 * calls.len());
        for (call, bytes) in calls.iter().zip(output.chunks_exact(4)) {
            let errno = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
            let said = answers.get((errno as usize).wrapping_sub(1)).copied();
            assert_eq!(said, Some(ours.decide(call)), "{name}: {call:x?}: errno {errno}");
        }
    }
}

//! The compiled filters, run by an interpreter of classic BPF and compared with the profile read word by word.

mod fuzz;
mod machine;

use machine::{Call, run};
use oci_spec::runtime as oci;
use proptest::prelude::*;

use super::{compiler::Abi, syscalls::SYSCALLS, *};
use crate::capabilities;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0;

fn profile(text: &str) -> oci::LinuxSeccomp {
    serde_json::from_str(text).expect("a profile")
}

fn call(abi: Abi, name: &str, args: &[u64]) -> Call {
    let number = abi.number(name).unwrap_or_else(|| panic!("{abi:?} has no {name}"));
    Call::new(abi, number, args)
}

/// What a profile says about a call, read rule by rule; the compiler's cleverness has no part in it.
fn expected(profile: &oci::LinuxSeccomp, call: &Call) -> u32 {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let mut newest = None;
    let mut named = false;
    let mut first = None;
    let mut wide = None;
    for rule in profile.syscalls().iter().flatten() {
        let action = rule.action().as_u32(rule.errno_ret());
        for name in rule.names() {
            let Some(number) = call.abi.number(name) else { continue };
            if call.abi != Abi::Arm || number < 0xf0000 {
                newest = newest.max(Some(number));
            }
            if number != call.number || action == default {
                continue;
            }
            named = true;
            let args = rule.args().as_deref().unwrap_or_default();
            if args.is_empty() {
                wide.get_or_insert(action);
            } else if holds(args, call) {
                first.get_or_insert(action);
            }
        }
    }
    let permissive = matches!(
        profile.default_action(),
        oci::LinuxSeccompAction::ScmpActAllow
            | oci::LinuxSeccompAction::ScmpActLog
            | oci::LinuxSeccompAction::ScmpActTrace
    );
    let newer = !permissive && !named && newest.is_some_and(|newest| call.number > newest);
    wide.or(first).unwrap_or(if newer { ENOSYS } else { default })
}

fn holds(args: &[oci::LinuxSeccompArg], call: &Call) -> bool {
    use oci::LinuxSeccompOperator as Op;
    let test = |arg: &oci::LinuxSeccompArg| {
        let mut have = call.args[arg.index()];
        if matches!(call.abi, Abi::I386 | Abi::X32 | Abi::Arm) {
            have &= 0xffff_ffff;
        }
        match arg.op() {
            Op::ScmpCmpNe => have != arg.value(),
            Op::ScmpCmpLt => have < arg.value(),
            Op::ScmpCmpLe => have <= arg.value(),
            Op::ScmpCmpEq => have == arg.value(),
            Op::ScmpCmpGe => have >= arg.value(),
            Op::ScmpCmpGt => have > arg.value(),
            Op::ScmpCmpMaskedEq => have & arg.value() == arg.value_two().unwrap_or(0) & arg.value(),
        }
    };
    let mut indices: Vec<_> = args.iter().map(|arg| arg.index()).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() < args.len() { args.iter().any(test) } else { args.iter().all(test) }
}

const X86: [Abi; 3] = [Abi::X86_64, Abi::I386, Abi::X32];
const ARM: [Abi; 2] = [Abi::Aarch64, Abi::Arm];

fn machines() -> [(Arch, &'static [Abi]); 2] {
    [(Arch::X86_64, &X86), (Arch::Aarch64, &ARM)]
}

/// Arguments near everything that the default profile compares with.
const INTERESTING: [u64; 17] =
    [0, 1, 8, 16, 37, 38, 39, 40, 41, 45, 63, 64, 0x2_0000, 0x2_0008, 0xffff_ffff, 0x1_0000_0028, u64::MAX];

#[test]
fn the_table_of_numbers_is_sorted_and_sane() {
    assert!(SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
    for (name, x86_64, aarch64) in
        [("read", 0, 63), ("openat", 257, 56), ("clone3", 435, 435), ("mseal", 462, 462), ("execve", 59, 221)]
    {
        assert_eq!(Abi::X86_64.number(name), Some(x86_64), "{name}");
        assert_eq!(Abi::Aarch64.number(name), Some(aarch64), "{name}");
    }
    assert_eq!(Abi::I386.number("socketcall"), Some(102));
    assert_eq!(Abi::X32.number("ioctl"), Some(0x4000_0000 + 514));
    assert_eq!(Abi::Arm.number("cacheflush"), Some(0xf0002));
    assert_eq!(Abi::Aarch64.number("open"), None);
}

#[test]
fn the_default_profile_names_only_calls_that_exist() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for rule in runtime_default(arch, capabilities::ALL).syscalls().iter().flatten() {
            for name in rule.names() {
                // Names that libseccomp gives to calls of machines not served here.
                let foreign =
                    ["fstatat64", "getsid", "io_pgetevents_time64", "utimensat_time64"].contains(&name.as_str());
                let known = SYSCALLS.iter().any(|(known, _)| known == name);
                assert!(known || foreign, "{name}");
            }
        }
    }
}

#[test]
fn the_default_filter_does_what_the_profile_says_for_every_call() {
    for (arch, abis) in machines() {
        for bounding in [capabilities::DEFAULT, 0, capabilities::ALL] {
            let profile = runtime_default(arch, bounding);
            let filter = compile(&profile, arch).expect("compiled");
            for abi in abis {
                let mut numbers: Vec<_> = SYSCALLS.iter().filter_map(|(name, _)| abi.number(name)).collect();
                let base = if *abi == Abi::X32 { 0x4000_0000 } else { 0 };
                numbers.extend((0..700).map(|number| base + number));
                numbers.extend([base + 0xf_0000, base + 0xf_0005, base + 0xf_0007, base + 0xff_ffff]);
                for number in numbers {
                    let compared =
                        ["socket", "personality", "clone"].map(|name| abi.number(name)).contains(&Some(number));
                    for arg in if compared { &INTERESTING[..] } else { &[0, u64::MAX] } {
                        let call = Call::new(*abi, number, &[*arg]);
                        assert_eq!(run(&filter, &call), Ok(expected(&profile, &call)), "{call:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_default_filter_holds_what_matters() {
    let filter = compile(&runtime_default(Arch::X86_64, capabilities::DEFAULT), Arch::X86_64).expect("compiled");
    let admin = compile(&runtime_default(Arch::X86_64, capabilities::ALL), Arch::X86_64).expect("compiled");
    let (af_unix, af_alg, af_netlink, af_vsock, af_xdp) = (1, 38, 16, 40, 44);
    for abi in X86 {
        let answer = |name: &str, args: &[u64]| run(&filter, &call(abi, name, args));
        assert_eq!(answer("read", &[]), Ok(ALLOW));
        assert_eq!(answer("unshare", &[0]), Ok(EPERM));
        assert_eq!(answer("mount", &[]), Ok(EPERM));
        assert_eq!(answer("keyctl", &[]), Ok(EPERM));
        assert_eq!(answer("io_uring_setup", &[]), Ok(EPERM));
        assert_eq!(answer("chroot", &[]), Ok(ALLOW));
        assert_eq!(answer("clone", &[0x11]), Ok(ALLOW));
        assert_eq!(answer("clone", &[0x1000_0011]), Ok(EPERM), "CLONE_NEWUSER");
        assert_eq!(answer("clone", &[0xffff_0000_0000_0011]), Ok(ALLOW));
        assert_eq!(answer("clone3", &[]), Ok(ENOSYS));
        assert_eq!(answer("personality", &[0xffff_ffff]), Ok(ALLOW));
        assert_eq!(answer("personality", &[0x40000]), Ok(EPERM), "ADDR_NO_RANDOMIZE");
        for family in [af_unix, af_netlink, af_xdp, 2, 10, 17, 39, 45] {
            assert_eq!(answer("socket", &[family]), Ok(ALLOW), "{family}");
        }
        for family in [af_alg, af_vsock, 0x1_0000_0000 | af_vsock, 0xffff_ffff_0000_0000 | af_alg] {
            // The kernel takes an int: bits above it must not open the door.
            assert_eq!(answer("socket", &[family]), Ok(EPERM), "{family:#x}");
        }
        let answer = |name: &str, args: &[u64]| run(&admin, &call(abi, name, args));
        assert_eq!(answer("clone", &[0x1000_0011]), Ok(ALLOW));
        assert_eq!(answer("clone3", &[]), Ok(ALLOW));
        assert_eq!(answer("mount", &[]), Ok(ALLOW));
    }
    // Newer than the profile, a tracer's -1, and an ABI that no profile lists.
    assert_eq!(run(&filter, &Call::new(Abi::X86_64, 9999, &[])), Ok(ENOSYS));
    assert_eq!(run(&filter, &Call::new(Abi::X86_64, u32::MAX, &[])), Ok(ENOSYS));
    assert_eq!(run(&filter, &Call::new(Abi::Aarch64, 63, &[])), Ok(KILL));
}

#[test]
fn the_default_filter_is_short() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let filter = compile(&runtime_default(arch, capabilities::DEFAULT), arch).expect("compiled");
        let length = filter.len() / 8;
        assert!(length < 1200, "{arch:?} has {length} instructions");
        // Binary search: a plain call takes few steps.
        let steps =
            machine::steps(&filter, &Call::new(if arch == Arch::X86_64 { Abi::X86_64 } else { Abi::Aarch64 }, 0, &[]));
        assert!(steps <= 16, "{arch:?} takes {steps} steps");
    }
}

#[test]
fn each_action_and_errno_is_its_own() {
    let filter = compile(
        &profile(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,"syscalls":[
                {"names":["read"],"action":"SCMP_ACT_ALLOW"},
                {"names":["write"],"action":"SCMP_ACT_LOG"},
                {"names":["open"],"action":"SCMP_ACT_TRAP"},
                {"names":["close"],"action":"SCMP_ACT_KILL_PROCESS"},
                {"names":["stat"],"action":"SCMP_ACT_KILL_THREAD"},
                {"names":["fstat"],"action":"SCMP_ACT_KILL"},
                {"names":["lstat"],"action":"SCMP_ACT_ERRNO","errnoRet":95},
                {"names":["poll"],"action":"SCMP_ACT_TRACE","errnoRet":7},
                {"names":["lseek"],"action":"SCMP_ACT_ERRNO"},
                {"names":["membarrier","no_such_call"],"action":"SCMP_ACT_ALLOW"}]}"#,
        ),
        Arch::X86_64,
    )
    .expect("compiled");
    for (name, action) in [
        ("read", ALLOW),
        ("write", 0x7ffc_0000),
        ("open", 0x0003_0000),
        ("close", 0x8000_0000),
        ("stat", 0),
        ("fstat", 0),
        ("lstat", 0x0005_0000 | 95),
        ("poll", 0x7ff0_0000 | 7),
        ("lseek", EPERM),
        ("mmap", 0x0005_0000 | 13),
    ] {
        assert_eq!(run(&filter, &call(Abi::X86_64, name, &[])), Ok(action), "{name}");
    }
    // Only the machine's own ABI is listed, so the others are shut.
    assert_eq!(run(&filter, &call(Abi::I386, "read", &[])), Ok(KILL));
    assert_eq!(run(&filter, &call(Abi::X32, "read", &[])), Ok(KILL));
}

#[test]
fn a_permissive_default_says_nothing_of_newer_calls() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let filter = compile(&profile(text), Arch::X86_64).expect("compiled");
    assert_eq!(run(&filter, &Call::new(Abi::X86_64, 9999, &[])), Ok(ALLOW));
    assert_eq!(run(&filter, &Call::new(Abi::X86_64, u32::MAX, &[])), Ok(ALLOW));
    assert_eq!(run(&filter, &call(Abi::X86_64, "chmod", &[])), Ok(EPERM));
    let text = r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#;
    let filter = compile(&profile(text), Arch::X86_64).expect("compiled");
    assert_eq!(run(&filter, &Call::new(Abi::X86_64, 0, &[])), Ok(EPERM));
}

#[test]
fn calls_through_the_old_doors_of_i386_are_the_same_calls() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
        "syscalls":[{"names":["connect","shmget"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let filter = compile(&profile(text), Arch::X86_64).expect("compiled");
    let answer = |name: &str, args: &[u64]| run(&filter, &call(Abi::I386, name, args));
    assert_eq!(answer("connect", &[]), Ok(EPERM));
    assert_eq!(answer("socketcall", &[3]), Ok(EPERM), "SYS_CONNECT");
    assert_eq!(answer("socketcall", &[2]), Ok(ALLOW), "SYS_BIND");
    assert_eq!(answer("ipc", &[23]), Ok(EPERM), "SHMGET");
    assert_eq!(answer("ipc", &[21]), Ok(ALLOW), "SHMAT");
}

#[test]
fn what_cannot_be_compiled_is_refused_by_name() {
    let many: Vec<_> = (0..5000)
        .map(|value| {
            format!(
                r#"{{"names":["ioctl"],"action":"SCMP_ACT_ALLOW",
                    "args":[{{"index":1,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
            )
        })
        .collect();
    let many = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, many.join(","));
    for (text, word) in [
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#, "NOTIFY"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#, "listenerPath"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#, "SECCOMP_FILTER_FLAG_LOG"),
        (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#, "4096"),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
                "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            "6 is no argument",
        ),
        (&many, "4096"),
    ] {
        let error = compile(&profile(text), Arch::X86_64).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
    let text =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW","SECCOMP_FILTER_FLAG_TSYNC"]}"#;
    assert!(compile(&profile(text), Arch::X86_64).is_ok());
}

#[test]
fn a_filter_is_compiled_once() {
    let filters = Filters::default();
    let count = std::cell::Cell::new(0);
    let get = |bounding: u64| {
        filters.get(Key::runtime_default(Arch::X86_64, bounding), || {
            count.set(count.get() + 1);
            compile(&runtime_default(Arch::X86_64, bounding), Arch::X86_64)
        })
    };
    let first = get(capabilities::DEFAULT).expect("compiled");
    // CHOWN makes no difference to the profile, SYS_ADMIN does.
    assert_eq!(get(capabilities::DEFAULT & !1), Ok(first.clone()));
    assert_eq!(count.get(), 1);
    assert_ne!(get(capabilities::ALL), Ok(first));
    assert_eq!(count.get(), 2);
}

fn operators() -> impl Strategy<Value = oci::LinuxSeccompOperator> {
    use oci::LinuxSeccompOperator as Op;
    prop::sample::select(vec![
        Op::ScmpCmpNe,
        Op::ScmpCmpLt,
        Op::ScmpCmpLe,
        Op::ScmpCmpEq,
        Op::ScmpCmpGe,
        Op::ScmpCmpGt,
        Op::ScmpCmpMaskedEq,
    ])
}

fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        prop::sample::select(INTERESTING.to_vec()),
        any::<u64>(),
        (0_u64..4).prop_map(|high| high << 32 | 5),
        Just(5),
    ]
}

fn rules() -> impl Strategy<Value = oci::LinuxSyscall> {
    let arg = (0_usize..6, operators(), values(), prop::option::of(values())).prop_map(|(index, op, value, two)| {
        let arg = oci::LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
        match two {
            Some(two) => arg.value_two(two),
            None => arg,
        }
        .build()
        .expect("an argument")
    });
    let names = prop::collection::vec(prop::sample::select(SYSCALLS).prop_map(|(name, _)| name.to_owned()), 1..4);
    let action = prop::sample::select(vec![
        oci::LinuxSeccompAction::ScmpActAllow,
        oci::LinuxSeccompAction::ScmpActErrno,
        oci::LinuxSeccompAction::ScmpActLog,
        oci::LinuxSeccompAction::ScmpActKillProcess,
    ]);
    (names, action, prop::option::of(1_u32..100), prop::collection::vec(arg, 0..4)).prop_map(
        |(names, action, errno, args)| {
            let mut rule = oci::LinuxSyscall::default();
            rule.set_names(names).set_action(action).set_errno_ret(errno).set_args(Some(args));
            rule
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_profile_is_compiled_to_what_it_says(
        rules in prop::collection::vec(rules(), 0..12),
        permissive in any::<bool>(),
        args in prop::collection::vec(prop::collection::vec(values(), 6), 8),
    ) {
        let mut profile = oci::LinuxSeccomp::default();
        profile
            .set_default_action(if permissive { oci::LinuxSeccompAction::ScmpActAllow } else { oci::LinuxSeccompAction::ScmpActErrno })
            .set_architectures(Some(vec![oci::Arch::ScmpArchX86, oci::Arch::ScmpArchX32, oci::Arch::ScmpArchArm]))
            .set_syscalls(Some(rules.clone()));
        for (arch, abis) in machines() {
            let filter = compile(&profile, arch).expect("compiled");
            for abi in abis {
                for name in rules.iter().flat_map(|rule| rule.names()).map(String::as_str).chain(["read"]) {
                    // The old doors of i386 have rules of their own making.
                    if *abi == Abi::I386 && matches!(name, "socketcall" | "ipc") {
                        continue;
                    }
                    let Some(number) = abi.number(name) else { continue };
                    for number in [number, number.saturating_sub(1), number + 1] {
                        let door = |name| abi.number(name) == Some(number);
                        if *abi == Abi::I386 && (door("socketcall") || door("ipc")) {
                            continue;
                        }
                        for args in &args {
                            let call = Call::new(*abi, number, args);
                            if *abi == Abi::X32 && number < 0x4000_0000 {
                                continue;
                            }
                            prop_assert_eq!(run(&filter, &call), Ok(expected(&profile, &call)), "{:?}", call);
                        }
                    }
                }
            }
        }
    }
}

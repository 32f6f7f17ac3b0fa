//! Mutants of profiles: what compiles is a filter that the kernel takes, and it does what the profile says.

use std::sync::atomic::{AtomicU32, Ordering};

use berth_fuzz::Documents;
use oci_spec::runtime as oci;

use super::{Call, compile, expected, machines, run};
use crate::fuzz::{TIME, assert_clear, corpus, numbers};
use crate::seccomp::compiler::Abi;

/// Calls that are tried of each number.
const CALLS: usize = 40;
/// Numbers that are tried of each profile.
const NUMBERS: usize = 60;

#[test]
fn profiles() {
    let documents = Documents::json(&corpus("seccomp"));
    let compiled = AtomicU32::new(0);
    bolero::check!().with_test_time(TIME).with_max_len(128).for_each(|script: &[u8]| {
        let document = documents.mutant(script);
        let Ok(profile) = serde_json::from_value::<oci::LinuxSeccomp>(document.clone()) else { return };
        let mut values = vec![0, u64::MAX, 1 << 32];
        numbers(&document, "value", &mut values);
        numbers(&document, "valueTwo", &mut values);
        // Just beside each, and the same in one half only.
        let near =
            |value: &u64| [*value, value.wrapping_add(1), value.wrapping_sub(1), value ^ 1 << 32, value ^ 1 << 63];
        let values: Vec<u64> = values.iter().flat_map(near).collect();
        for (arch, abis) in machines() {
            match compile(&profile, arch) {
                Err(error) => assert_clear(&error),
                Ok(filter) => {
                    compiled.fetch_add(1, Ordering::Relaxed);
                    is_taken_by_the_kernel(&filter);
                    for abi in abis {
                        says_what_the_profile_says(&profile, &filter, *abi, &values);
                    }
                }
            }
        }
    });
    assert!(compiled.into_inner() > 0, "no mutant is a profile");
}

fn says_what_the_profile_says(profile: &oci::LinuxSeccomp, filter: &[u8], abi: Abi, values: &[u64]) {
    // Where an ABI is not listed, its calls are shut.
    let listed = |arch| profile.architectures().iter().flatten().any(|one| *one == arch);
    let open = match abi {
        Abi::X86_64 | Abi::Aarch64 => true,
        Abi::I386 => listed(oci::Arch::ScmpArchX86),
        Abi::X32 => listed(oci::Arch::ScmpArchX32),
        Abi::Arm => listed(oci::Arch::ScmpArchArm),
    };
    let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let numbers = names.filter_map(|name| abi.number(name)).flat_map(|number| [number, number + 1]);
    for (turn, number) in numbers.take(NUMBERS).enumerate() {
        // The old doors of i386 have rules of their own making.
        if abi == Abi::I386 && ["socketcall", "ipc"].iter().any(|door| abi.number(door) == Some(number)) {
            continue;
        }
        for (at, value) in values.iter().cycle().skip(turn * 7).take(CALLS).enumerate() {
            let mut args = [*value; 6];
            args[at % 6] = value.wrapping_add(1);
            let call = Call::new(abi, number, &args);
            let wanted = if open { expected(profile, &call) } else { 0 };
            assert_eq!(run(filter, &call), Ok(wanted), "{call:?}");
        }
    }
}

/// bpf_check_classic and seccomp_check_filter: known instructions, loads of whole words of seccomp_data, jumps that go
/// forward and stay inside, and a return at the end.
fn is_taken_by_the_kernel(filter: &[u8]) {
    assert!(filter.len().is_multiple_of(8) && (1..=4096).contains(&(filter.len() / 8)), "{} bytes", filter.len());
    let instructions: Vec<_> = filter.chunks_exact(8).collect();
    for (at, bytes) in instructions.iter().enumerate() {
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let k = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let inside =
            |distance: usize| assert!(at + 1 + distance < instructions.len(), "a jump from {at} over {distance}");
        match code {
            0x20 => assert!(k < 64 && k.is_multiple_of(4), "a load from {k}"),
            0x54 | 0x06 => {}
            0x05 => inside(usize::try_from(k).expect("a distance")),
            0x15 | 0x25 | 0x35 => {
                inside(bytes[2].into());
                inside(bytes[3].into());
            }
            other => panic!("instruction {other:#x}"),
        }
    }
    assert_eq!(instructions.last().map(|bytes| bytes[0]), Some(0x06));
}

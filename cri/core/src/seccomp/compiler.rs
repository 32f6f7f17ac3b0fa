//! OCI profile to BPF.
//!
//! Each ABI of the machine gets a program of its own behind a check of the architecture. In it, the call numbers are cut
//! into ranges with one outcome each, found by binary search; a range whose outcome depends on arguments continues with
//! its conditions. The kernel's own cache of always-allowed calls understands the search (it loads nothing but number
//! and architecture).

use std::collections::BTreeMap;

use oci_spec::runtime as oci;

use super::{
    bpf::{self, Instruction},
    syscalls::SYSCALLS,
};
use crate::{error::ConfigError, host::Arch};

/// What a call returns when nothing of the profile's range knows it.
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
/// The kernel's largest errno (MAX_ERRNO).
const MAX_ERRNO: u32 = 4095;

// SECCOMP_RET_*
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;

// SECCOMP_FILTER_FLAG_*
const FLAG_LOG: u64 = 1 << 1;
const FLAG_SPEC_ALLOW: u64 = 1 << 2;
const FLAG_WAIT_KILLABLE: u64 = 1 << 5;

/// An x32 call's number has this bit, and the architecture of x86_64.
const X32_BIT: u32 = 0x4000_0000;

/// The numbers of the ARM kernel's private calls start here.
const ARM_PRIVATE: u32 = 0x000f_0000;

/// A system call ABI; its value is its column in the table of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Abi {
    X86_64 = 0,
    I386 = 1,
    X32 = 2,
    Aarch64 = 3,
    Arm = 4,
}

impl Abi {
    /// `AUDIT_ARCH_*` (linux/audit.h).
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Arguments are 32 bits wide; the upper halves carry nothing.
    const fn narrow(self) -> bool {
        matches!(self, Self::I386 | Self::X32 | Self::Arm)
    }

    pub(super) fn number(self, name: &str) -> Option<u32> {
        let at = SYSCALLS.binary_search_by(|(known, _)| known.cmp(&name)).ok()?;
        let number = u32::try_from(SYSCALLS[at].1[self as usize]).ok()?;
        Some(if self == Self::X32 { number | X32_BIT } else { number })
    }

    /// i386 has older doors to some calls: `socketcall` and `ipc` take the call as their first argument.
    fn multiplexed(self, name: &str) -> Option<(u32, u64)> {
        // linux/net.h and linux/ipc.h
        const SOCKETCALL: [&str; 20] = [
            "socket",
            "bind",
            "connect",
            "listen",
            "accept",
            "getsockname",
            "getpeername",
            "socketpair",
            "send",
            "recv",
            "sendto",
            "recvfrom",
            "shutdown",
            "setsockopt",
            "getsockopt",
            "sendmsg",
            "recvmsg",
            "accept4",
            "recvmmsg",
            "sendmmsg",
        ];
        const IPC: [(&str, u64); 11] = [
            ("semop", 1),
            ("semget", 2),
            ("semctl", 3),
            ("semtimedop", 4),
            ("msgsnd", 11),
            ("msgrcv", 12),
            ("msgget", 13),
            ("msgctl", 14),
            ("shmat", 21),
            ("shmdt", 22),
            ("shmget", 23),
        ];
        if self != Self::I386 {
            return None;
        }
        if let Some(at) = SOCKETCALL.iter().position(|known| *known == name) {
            return Some((self.number("socketcall")?, at as u64 + 1));
        }
        let code = match name {
            "shmctl" => 24,
            name => IPC.iter().find(|(known, _)| *known == name)?.1,
        };
        Some((self.number("ipc")?, code))
    }
}

/// A rule of one call: conditions that must all hold, and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    conditions: Vec<Condition>,
    action: u32,
}

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    index: u32,
    op: oci::LinuxSeccompOperator,
    value: u64,
    /// The value to compare with after masking (`SCMP_CMP_MASKED_EQ` only; `value` is the mask then).
    masked: u64,
}

/// What happens to the calls of one ABI.
#[derive(Debug, Default)]
struct Table {
    /// In the profile's order; one without conditions decides alone, as in libseccomp.
    rules: BTreeMap<u32, Vec<Rule>>,
    /// The highest number that the profile names.
    newest: Option<u32>,
}

/// Compiles a profile for a machine. Architectures of other machines are left out: their calls never arrive here. What
/// needs more than a filter (a listener, flags) is refused.
pub fn compile(profile: &oci::LinuxSeccomp, arch: Arch) -> Result<Vec<u8>, ConfigError> {
    if let Some(name) = profile.flags().iter().flatten().find(|flag| flag_bits(**flag) & !FLAG_SPEC_ALLOW != 0) {
        return Err(refuse("flags", format!("{name} is not implemented"), "remove the flag"));
    }
    if profile.listener_path().is_some() || notifies(profile) {
        return Err(refuse("listenerPath", "SCMP_ACT_NOTIFY is not implemented", "use another action"));
    }
    compile_filter(profile, arch)
}

/// A profile's filter, and what it is to be installed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub filter: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u64,
    /// Whether calls are to be answered by a listener.
    pub listener: bool,
}

/// Compiles a profile for who installs it with flags and a listener.
pub fn installation(profile: &oci::LinuxSeccomp, arch: Arch) -> Result<Installation, ConfigError> {
    let listener = notifies(profile);
    if profile.default_action() == oci::LinuxSeccompAction::ScmpActNotify {
        return Err(refuse(
            "defaultAction",
            "every call would wait for a listener that is not there yet",
            "name calls",
        ));
    }
    if listener && profile.listener_path().is_none() {
        return Err(refuse("listenerPath", "SCMP_ACT_NOTIFY needs it", "name the listener's socket"));
    }
    if !listener && profile.listener_path().is_some() {
        return Err(refuse("listenerPath", "no call has SCMP_ACT_NOTIFY", "remove it"));
    }
    // The runtime hands the listener over under the filter.
    for (index, syscall) in profile.syscalls().iter().flatten().enumerate() {
        let needed = ["sendmsg", "recvmsg"].into_iter().find(|name| syscall.names().iter().any(|one| one == name));
        if let (oci::LinuxSeccompAction::ScmpActNotify, Some(name)) = (syscall.action(), needed) {
            let reason = format!("the runtime itself needs {name} to hand the listener over");
            return Err(refuse(&format!("syscalls[{index}].names"), reason, "leave it out"));
        }
    }
    let flags = profile.flags().iter().flatten().fold(0, |bits, flag| bits | flag_bits(*flag));
    Ok(Installation { filter: compile_filter(profile, arch)?, flags, listener })
}

fn notifies(profile: &oci::LinuxSeccomp) -> bool {
    let notify = oci::LinuxSeccompAction::ScmpActNotify;
    profile.default_action() == notify || profile.syscalls().iter().flatten().any(|one| one.action() == notify)
}

/// One thread loads the filter, so the flag for all threads is none.
const fn flag_bits(flag: oci::LinuxSeccompFilterFlag) -> u64 {
    match flag {
        oci::LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
        oci::LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
        oci::LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
        oci::LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE,
    }
}

fn compile_filter(profile: &oci::LinuxSeccomp, arch: Arch) -> Result<Vec<u8>, ConfigError> {
    let default = action("defaultAction", profile.default_action(), profile.default_errno_ret())?;
    // runc's rule for answering ENOSYS to calls that the profile's author cannot have known.
    let answers_newer = !matches!(
        profile.default_action(),
        oci::LinuxSeccompAction::ScmpActAllow
            | oci::LinuxSeccompAction::ScmpActLog
            | oci::LinuxSeccompAction::ScmpActTrace
    );
    let mut programs = Vec::new();
    for abi in abis(profile, arch) {
        let table = table(profile, abi, default)?;
        let newer = table.newest.filter(|_| answers_newer);
        let program = search(&ranges(&table, abi, default, newer), abi, default);
        programs.push((abi, program, if newer.is_some() { ERRNO | ENOSYS } else { default }));
    }
    let program = dispatch(programs);
    if program.len() > bpf::MAX_INSTRUCTIONS {
        return Err(refuse(
            "syscalls",
            format!("the filter would have {} instructions, and the kernel takes 4096", program.len()),
            "shorten the profile",
        ));
    }
    Ok(bpf::encode(&program))
}

fn refuse(field: &str, reason: impl Into<String>, remedy: &str) -> ConfigError {
    ConfigError::new(format!("seccomp profile {field}"), reason, remedy)
}

fn action(field: &str, action: oci::LinuxSeccompAction, errno: Option<u32>) -> Result<u32, ConfigError> {
    use oci::LinuxSeccompAction as A;
    let data = errno.unwrap_or(EPERM);
    if data > MAX_ERRNO {
        return Err(refuse(field, format!("errno {data} is out of range"), "use at most 4095"));
    }
    Ok(match action {
        A::ScmpActKill | A::ScmpActKillThread => KILL_THREAD,
        A::ScmpActKillProcess => KILL_PROCESS,
        A::ScmpActTrap => TRAP,
        A::ScmpActErrno => ERRNO | data,
        A::ScmpActTrace => TRACE | data,
        A::ScmpActLog => LOG,
        A::ScmpActAllow => ALLOW,
        A::ScmpActNotify => NOTIFY,
    })
}

/// The ABIs that a profile covers on a machine: the machine's own always, others where they are listed.
fn abis(profile: &oci::LinuxSeccomp, arch: Arch) -> Vec<Abi> {
    use oci::Arch as A;
    let lists = |arch| profile.architectures().iter().flatten().any(|listed| *listed == arch);
    let (own, others): (_, &[_]) = match arch {
        Arch::X86_64 => (Abi::X86_64, &[(A::ScmpArchX86, Abi::I386), (A::ScmpArchX32, Abi::X32)]),
        Arch::Aarch64 => (Abi::Aarch64, &[(A::ScmpArchArm, Abi::Arm)]),
    };
    let mut abis = vec![own];
    abis.extend(others.iter().filter(|(arch, _)| lists(*arch)).map(|(_, abi)| *abi));
    abis
}

fn table(profile: &oci::LinuxSeccomp, abi: Abi, default: u32) -> Result<Table, ConfigError> {
    let mut table = Table::default();
    for syscall in profile.syscalls().iter().flatten() {
        let names = syscall.names();
        let action = action("syscalls.action", syscall.action(), syscall.errno_ret())?;
        let alternatives = alternatives(syscall.args().as_deref().unwrap_or_default())?;
        for name in names {
            // Names of other architectures and of newer kernels are part of every profile.
            let Some(number) = abi.number(name) else { continue };
            if abi != Abi::Arm || number < ARM_PRIVATE {
                table.newest = table.newest.max(Some(number));
            }
            // runc drops rules that only repeat the default.
            if action == default {
                continue;
            }
            for conditions in &alternatives {
                table.rules.entry(number).or_default().push(Rule { conditions: conditions.clone(), action });
            }
            if alternatives == [vec![]]
                && let Some((door, code)) = abi.multiplexed(name)
            {
                let condition =
                    Condition { index: 0, op: oci::LinuxSeccompOperator::ScmpCmpEq, value: code, masked: 0 };
                table.rules.entry(door).or_default().push(Rule { conditions: vec![condition], action });
            }
        }
    }
    for rules in table.rules.values_mut() {
        // libseccomp keeps the widest rule of a call: one without conditions replaces all that have some.
        if let Some(wide) = rules.iter().find(|rule| rule.conditions.is_empty()).cloned() {
            *rules = vec![wide];
        }
    }
    Ok(table)
}

/// The conditions of a rule, all of which must hold. As with runc, a rule that names an argument twice is as many rules
/// as it has conditions.
fn alternatives(args: &[oci::LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>, ConfigError> {
    let mut conditions = Vec::with_capacity(args.len());
    for arg in args {
        let index = u32::try_from(arg.index())
            .ok()
            .filter(|index| *index < 6)
            .ok_or_else(|| refuse("syscalls.args.index", format!("{} is no argument", arg.index()), "use 0 to 5"))?;
        // libseccomp masks both sides.
        let masked = arg.value_two().unwrap_or(0) & arg.value();
        conditions.push(Condition { index, op: arg.op(), value: arg.value(), masked });
    }
    let twice = conditions
        .iter()
        .enumerate()
        .any(|(at, condition)| conditions[..at].iter().any(|other| other.index == condition.index));
    Ok(if twice { conditions.into_iter().map(|condition| vec![condition]).collect() } else { vec![conditions] })
}

/// What becomes of a range of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Answer(u32),
    Rules(Vec<Rule>),
}

/// Consecutive ranges, each by its first number, of all numbers of an ABI.
fn ranges(table: &Table, abi: Abi, default: u32, newer: Option<u32>) -> Vec<(u32, Outcome)> {
    let first = if abi == Abi::X32 { X32_BIT } else { 0 };
    let mut ranges: Vec<(u32, Outcome)> = Vec::new();
    let mut push = |start: u32, outcome: Outcome| {
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((start, outcome));
        }
    };
    let unnamed = |number: u32| match newer {
        Some(newest) if number > newest => Outcome::Answer(ERRNO | ENOSYS),
        _ => Outcome::Answer(default),
    };
    let mut next = first;
    for (number, rules) in &table.rules {
        // A gap may cross the newest call (ARM's private calls lie beyond it).
        if *number > next {
            push(next, unnamed(next));
            if let Some(newest) = newer.filter(|newest| (next..*number - 1).contains(newest)) {
                push(newest + 1, unnamed(newest + 1));
            }
        }
        let outcome = match rules.as_slice() {
            [rule] if rule.conditions.is_empty() => Outcome::Answer(rule.action),
            rules => Outcome::Rules(rules.to_vec()),
        };
        push(*number, outcome);
        next = number + 1;
    }
    push(next, unnamed(next));
    if let Some(newest) = newer.filter(|newest| *newest >= next) {
        push(newest + 1, unnamed(newest + 1));
    }
    ranges
}

/// Binary search for the range of the number in A.
fn search(ranges: &[(u32, Outcome)], abi: Abi, default: u32) -> Vec<Instruction> {
    match ranges {
        [] => vec![bpf::answer(default)],
        [(_, Outcome::Answer(action))] => vec![bpf::answer(*action)],
        [(_, Outcome::Rules(rules))] => rules.iter().rev().fold(vec![bpf::answer(default)], |otherwise, rule| {
            conditions(&rule.conditions, abi, &[bpf::answer(rule.action)], otherwise)
        }),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            bpf::branch(bpf::JGE, high[0].0, search(high, abi, default), search(low, abi, default))
        }
    }
}

/// `if all conditions hold { then } else { otherwise }`, where every failed condition jumps to `otherwise`.
fn conditions(
    conditions: &[Condition],
    abi: Abi,
    then: &[Instruction],
    otherwise: Vec<Instruction>,
) -> Vec<Instruction> {
    // The tests of one rule are few: at most six arguments of six instructions, so `otherwise` begins within reach of a
    // short jump, counted from the end of the rule.
    let mut body = then.to_vec();
    for condition in conditions.iter().rev() {
        body = test(*condition, abi, body);
    }
    body.extend(otherwise);
    body
}

/// Puts the test of one condition before `body`; when it fails, control goes to what follows `body`.
fn test(condition: Condition, abi: Abi, body: Vec<Instruction>) -> Vec<Instruction> {
    use oci::LinuxSeccompOperator as Op;
    let Condition { index, op, value, masked } = condition;
    let (low, high) = bpf::argument(index);
    let (value_low, value_high) = halves(value);
    let (masked_low, masked_high) = halves(masked);
    // Jump targets are positions in the test: `body` follows it, the failure lies behind `body`.
    let mut code = Test::default();
    match op {
        Op::ScmpCmpEq => {
            code.half(abi, high, value_high, To::Next, To::Fail, To::Fail);
            code.half(abi, low, value_low, To::Pass, To::Fail, To::Fail);
        }
        Op::ScmpCmpNe => {
            code.half(abi, high, value_high, To::Next, To::Pass, To::Pass);
            code.half(abi, low, value_low, To::Fail, To::Pass, To::Pass);
        }
        Op::ScmpCmpGt => {
            code.half(abi, high, value_high, To::Next, To::Pass, To::Fail);
            code.half(abi, low, value_low, To::Fail, To::Pass, To::Fail);
        }
        Op::ScmpCmpGe => {
            code.half(abi, high, value_high, To::Next, To::Pass, To::Fail);
            code.half(abi, low, value_low, To::Pass, To::Pass, To::Fail);
        }
        Op::ScmpCmpLt => {
            code.half(abi, high, value_high, To::Next, To::Fail, To::Pass);
            code.half(abi, low, value_low, To::Fail, To::Fail, To::Pass);
        }
        Op::ScmpCmpLe => {
            code.half(abi, high, value_high, To::Next, To::Fail, To::Pass);
            code.half(abi, low, value_low, To::Pass, To::Fail, To::Pass);
        }
        Op::ScmpCmpMaskedEq => {
            code.masked(abi, high, value_high, masked_high, To::Next);
            code.masked(abi, low, value_low, masked_low, To::Pass);
        }
    }
    code.finish(body)
}

#[allow(clippy::cast_possible_truncation, reason = "taking the halves is the point")]
const fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

/// Where a comparison leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// The next comparison of the same test.
    Next,
    /// The test holds.
    Pass,
    /// The test fails.
    Fail,
}

/// A test under construction: instructions whose jumps are still symbols.
#[derive(Debug, Default)]
struct Test(Vec<(Instruction, Option<(To, To)>)>);

impl Test {
    /// Compares one half of an argument with `value`: where to go when it is equal, greater, less.
    fn half(&mut self, abi: Abi, offset: u32, value: u32, equal: To, greater: To, less: To) {
        if is_high(offset) && abi.narrow() {
            // The half is zero: the outcome is known now.
            return self.constant(if value == 0 { equal } else { less });
        }
        self.0.push((bpf::load(offset), None));
        let compare = |code| Instruction { code, jt: 0, jf: 0, k: value };
        if greater == less {
            self.0.push((compare(bpf::JEQ), Some((equal, greater))));
        } else if equal == greater {
            self.0.push((compare(bpf::JGE), Some((equal, less))));
        } else if equal == less {
            self.0.push((compare(bpf::JGT), Some((greater, less))));
        } else {
            self.0.push((compare(bpf::JGT), Some((greater, To::Next))));
            self.0.push((compare(bpf::JEQ), Some((equal, less))));
        }
    }

    /// Compares one half of an argument, masked, with `value`; anything but equality fails.
    fn masked(&mut self, abi: Abi, offset: u32, mask: u32, value: u32, equal: To) {
        if (is_high(offset) && abi.narrow()) || mask == 0 {
            return self.constant(if value == 0 { equal } else { To::Fail });
        }
        self.0.push((bpf::load(offset), None));
        if mask != u32::MAX {
            self.0.push((bpf::and(mask), None));
        }
        self.0.push((Instruction { code: bpf::JEQ, jt: 0, jf: 0, k: value }, Some((equal, To::Fail))));
    }

    /// An outcome that does not depend on the argument. `Next` needs no instruction.
    fn constant(&mut self, to: To) {
        if to != To::Next {
            // A comparison whose branches agree; there is no conditional-free way to name two symbols.
            self.0.push((Instruction { code: bpf::JEQ, jt: 0, jf: 0, k: 0 }, Some((to, to))));
        }
    }

    fn finish(self, body: Vec<Instruction>) -> Vec<Instruction> {
        let length = self.0.len();
        let mut program = Vec::with_capacity(length + body.len());
        for (at, (mut instruction, jumps)) in self.0.into_iter().enumerate() {
            if let Some((yes, no)) = jumps {
                let distance = |to: To| match to {
                    To::Next => 0,
                    To::Pass => length - at - 1,
                    To::Fail => length - at - 1 + body.len(),
                };
                // At most six conditions of six instructions and one answer: 37.
                instruction.jt = u8::try_from(distance(yes)).unwrap_or(u8::MAX);
                instruction.jf = u8::try_from(distance(no)).unwrap_or(u8::MAX);
            }
            program.push(instruction);
        }
        program.extend(body);
        program
    }
}

const fn is_high(offset: u32) -> bool {
    offset % 8 == 4
}

/// The check of the architecture in front of the programs of the ABIs; each comes with its answer to unknown numbers.
fn dispatch(programs: Vec<(Abi, Vec<Instruction>, u32)>) -> Vec<Instruction> {
    // As libseccomp: a call of an ABI that the profile does not list kills.
    let mut x32 = vec![bpf::answer(KILL_THREAD)];
    let mut rest = Vec::new();
    for (abi, program, unknown) in programs {
        if abi == Abi::X32 { x32 = program } else { rest.push((abi, program, unknown)) }
    }
    let mut program = vec![bpf::answer(KILL_THREAD)];
    for (abi, body, unknown) in rest.into_iter().rev() {
        let mut own = vec![bpf::load(bpf::NUMBER)];
        own.extend(match abi {
            Abi::X86_64 => {
                // -1 is what a tracer sets to skip a call; it is no x32 call.
                let x32 = std::mem::take(&mut x32);
                let marked = bpf::branch(bpf::JEQ, u32::MAX, vec![bpf::answer(unknown)], x32);
                bpf::branch(bpf::JGE, X32_BIT, marked, body)
            }
            _ => body,
        });
        program = bpf::branch(bpf::JEQ, abi.audit(), own, program);
    }
    program.insert(0, bpf::load(bpf::ARCH));
    program
}

//! Device rules as an eBPF program, for cgroup v2, which has no files for them.
//!
//! Rules mean what they mean to the devices controller of cgroup v1 (`security/device_cgroup.c`): a default, which a rule
//! for all devices sets anew, and exceptions from it. The program answers a `struct bpf_cgroup_dev_ctx` (linux/bpf.h) with
//! 1 to allow, so a cgroup's programs of `BPF_PROG_TYPE_CGROUP_DEVICE` all have to agree.

use berth_plan::container::DeviceKind;

/// One rule, in the order in which they are written to `devices.allow` and `devices.deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    /// `None` is every device: all rules before count no more, and neither do the numbers and the access.
    pub kind: Option<DeviceKind>,
    /// `None` is every number, here and below.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m` (mknod).
    pub access: String,
}

/// Bits of the upper half of `access_type`.
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;
/// Its lower half.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// What the rules come to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exceptions {
    /// What holds for what no exception is about.
    allow: bool,
    list: Vec<Exception>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    kind: u32,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// The program of some rules, as an array of `struct bpf_insn` in the machine's byte order, eight bytes each; empty where
/// everything is allowed. Devices that no rule is about are denied.
pub fn compile(rules: &[Rule]) -> Vec<u8> {
    let exceptions = Exceptions::of(rules);
    if exceptions.allow && exceptions.list.is_empty() {
        return Vec::new();
    }
    let mut program = Program::default();
    program.load_context();
    for exception in &exceptions.list {
        program.exception(exception, exceptions.allow);
    }
    program.answer(exceptions.allow);
    program.0
}

/// The same rules as the devices controller of cgroup v1 takes them: (file, line) each.
pub fn lines(rules: &[Rule]) -> Vec<(&'static str, String)> {
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let line = |rule: &Rule| {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        let kind = match rule.kind {
            None => return (file, "a".to_owned()),
            Some(DeviceKind::Block) => 'b',
            Some(DeviceKind::Character) => 'c',
        };
        (file, format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access))
    };
    [("devices.deny", "a".to_owned())].into_iter().chain(rules.iter().map(line)).collect()
}

impl Exceptions {
    fn of(rules: &[Rule]) -> Self {
        let mut exceptions = Self { allow: false, list: Vec::new() };
        for rule in rules {
            let Some(kind) = rule.kind else {
                exceptions = Self { allow: rule.allow, list: Vec::new() };
                continue;
            };
            let kind = match kind {
                DeviceKind::Block => BLOCK,
                DeviceKind::Character => CHARACTER,
            };
            let exception = Exception { kind, major: rule.major, minor: rule.minor, access: bits(&rule.access) };
            if rule.allow == exceptions.allow { exceptions.remove(exception) } else { exceptions.add(exception) }
        }
        exceptions
    }

    /// An exception for the same devices gets the access, too.
    fn add(&mut self, new: Exception) {
        match self.list.iter_mut().find(|known| known.is_about(&new)) {
            Some(known) => known.access |= new.access,
            None => self.list.push(new),
        }
    }

    fn remove(&mut self, old: Exception) {
        for known in self.list.iter_mut().filter(|known| known.is_about(&old)) {
            known.access &= !old.access;
        }
        self.list.retain(|known| known.access != 0);
    }
}

impl Exception {
    /// Exactly the same devices: a part of them does not count.
    fn is_about(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }
}

fn bits(access: &str) -> u32 {
    let bit = |letter| match letter {
        'm' => MKNOD,
        'r' => READ,
        'w' => WRITE,
        _ => 0,
    };
    access.chars().map(bit).fold(0, |all, bit| all | bit)
}

/// Instructions (Documentation/bpf/standardization/instruction-set.rst). Comparisons are of 32 bits (Linux 5.1), since an
/// immediate is a signed number and device numbers are not.
mod op {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const COPY: u8 = 0xbf;
    pub(super) const SET: u8 = 0xb7;
    pub(super) const AND: u8 = 0x54;
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    pub(super) const JUMP_UNEQUAL: u8 = 0x56;
    pub(super) const JUMP_ANY_BIT: u8 = 0x46;
    pub(super) const JUMP: u8 = 0x05;
    pub(super) const EXIT: u8 = 0x95;
}

/// Registers: the answer; the context; what is asked for.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `set answer; exit`
const ANSWER_LENGTH: i16 = 2;

#[derive(Debug, Default)]
struct Program(Vec<u8>);

impl Program {
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: u32) {
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        self.0.extend([code, registers]);
        self.0.extend(offset.to_ne_bytes());
        self.0.extend(immediate.to_ne_bytes());
    }

    fn load_context(&mut self) {
        self.push(op::LOAD_WORD, KIND, CONTEXT, 0, 0);
        self.push(op::COPY, ACCESS, KIND, 0, 0);
        self.push(op::AND, KIND, 0, 0, 0xffff);
        self.push(op::SHIFT_RIGHT, ACCESS, 0, 0, 16);
        self.push(op::LOAD_WORD, MAJOR, CONTEXT, 4, 0);
        self.push(op::LOAD_WORD, MINOR, CONTEXT, 8, 0);
    }

    fn exception(&mut self, exception: &Exception, default: bool) {
        let mut unequal = vec![(KIND, exception.kind)];
        unequal.extend(exception.major.map(|major| (MAJOR, major)));
        unequal.extend(exception.minor.map(|minor| (MINOR, minor)));
        // What is allowed covers all that is asked for; of what is denied any part is enough.
        let missing = ALL & !exception.access;
        let access: i16 = match (default, missing) {
            (true, _) => 2,
            (false, 0) => 0,
            (false, _) => 1,
        };
        let mut left = i16::try_from(unequal.len()).unwrap_or(i16::MAX) + access + ANSWER_LENGTH;
        for (register, value) in unequal {
            left -= 1;
            self.push(op::JUMP_UNEQUAL, register, 0, left, value);
        }
        if default {
            self.push(op::JUMP_ANY_BIT, ACCESS, 0, 1, exception.access);
            self.push(op::JUMP, 0, 0, ANSWER_LENGTH, 0);
        } else if missing != 0 {
            self.push(op::JUMP_ANY_BIT, ACCESS, 0, ANSWER_LENGTH, missing);
        }
        self.answer(!default);
    }

    fn answer(&mut self, allow: bool) {
        self.push(op::SET, ANSWER, 0, 0, u32::from(allow));
        self.push(op::EXIT, 0, 0, 0, 0);
    }
}

#[cfg(test)]
mod tests;

use super::*;

/// What the processor does with the few instructions that are used; anything else is a fault.
fn run(program: &[u8], context: [u32; 3]) -> u32 {
    let mut registers = [0_u64; 6];
    let mut at = 0_usize;
    for _ in 0..10_000 {
        let bytes = &program[at * 8..at * 8 + 8];
        let (to, from) = (usize::from(bytes[1] & 15), usize::from(bytes[1] >> 4));
        let offset = i16::from_ne_bytes([bytes[2], bytes[3]]);
        let immediate = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let word = u32::try_from(registers[to] & 0xffff_ffff).expect("32 bits");
        at += 1;
        let jump = match bytes[0] {
            op::LOAD_WORD => {
                assert!(from == 1 && offset % 4 == 0, "a load from elsewhere");
                registers[to] = u64::from(context[usize::try_from(offset).expect("forward") / 4]);
                false
            }
            op::COPY => {
                registers[to] = registers[from];
                false
            }
            op::SET => {
                registers[to] = u64::from(immediate);
                false
            }
            op::AND => {
                registers[to] = u64::from(word & immediate);
                false
            }
            op::SHIFT_RIGHT => {
                registers[to] = u64::from(word >> immediate);
                false
            }
            op::JUMP_UNEQUAL => word != immediate,
            op::JUMP_ANY_BIT => word & immediate != 0,
            op::JUMP => true,
            op::EXIT => return u32::try_from(registers[0]).expect("0 or 1"),
            other => panic!("instruction {other:#x}"),
        };
        if jump {
            assert!(offset >= 0, "a loop");
            at += usize::try_from(offset).expect("forward");
        }
    }
    panic!("no end")
}

/// The kernel's devices controller of v1, written from its words: per device and access, each asked for alone.
#[derive(Default)]
struct Controller {
    allow: bool,
    exceptions: Vec<(DeviceKind, Option<u32>, Option<u32>, String)>,
}

impl Controller {
    fn write(&mut self, rule: &Rule) {
        let Some(kind) = rule.kind else {
            *self = Self { allow: rule.allow, exceptions: Vec::new() };
            return;
        };
        let same =
            |e: &(DeviceKind, Option<u32>, Option<u32>, String)| (e.0, e.1, e.2) == (kind, rule.major, rule.minor);
        let known = self.exceptions.iter().position(same);
        match (known, rule.allow == self.allow) {
            (Some(known), true) => self.exceptions[known].3.retain(|letter| !rule.access.contains(letter)),
            (None, true) => {}
            (Some(known), false) => self.exceptions[known].3.push_str(&rule.access),
            (None, false) => self.exceptions.push((kind, rule.major, rule.minor, rule.access.clone())),
        }
    }

    fn allows(&self, kind: DeviceKind, major: u32, minor: u32, access: &str) -> bool {
        let mut about = self.exceptions.iter().filter(|(of, a, b, _)| {
            *of == kind && a.is_none_or(|number| number == major) && b.is_none_or(|number| number == minor)
        });
        if self.allow {
            !about.any(|(.., letters)| access.chars().any(|letter| letters.contains(letter)))
        } else {
            about.any(|(.., letters)| access.chars().all(|letter| letters.contains(letter)))
        }
    }
}

fn all_rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for allow in [false, true] {
        rules.push(Rule { allow, kind: None, major: None, minor: None, access: "rwm".into() });
        for kind in [DeviceKind::Character, DeviceKind::Block] {
            for (major, minor) in
                [(None, None), (Some(1), None), (None, Some(3)), (Some(1), Some(3)), (Some(u32::MAX), None)]
            {
                for access in ["r", "wm", "rwm"] {
                    rules.push(Rule { allow, kind: Some(kind), major, minor, access: access.into() });
                }
            }
        }
    }
    rules
}

/// Every question that tells rules of [`all_rules`] apart.
fn agree(rules: &[Rule]) {
    let program = compile(rules);
    let mut controller = Controller::default();
    rules.iter().for_each(|rule| controller.write(rule));
    for kind in [DeviceKind::Character, DeviceKind::Block] {
        for major in [1, 2, u32::MAX] {
            for minor in [3, 4] {
                for access in ["r", "w", "m", "rw", "rm", "wm", "rwm"] {
                    let kind_bits = if kind == DeviceKind::Block { BLOCK } else { CHARACTER };
                    let context = [bits(access) << 16 | kind_bits, major, minor];
                    let got = program.is_empty() || run(&program, context) == 1;
                    let expected = controller.allows(kind, major, minor, access);
                    assert_eq!(got, expected, "{kind:?} {major}:{minor} {access} by {rules:?}");
                }
            }
        }
    }
}

#[test]
fn programs_decide_as_the_devices_controller() {
    agree(&[]);
    let rules = all_rules();
    let resets: Vec<_> = rules.iter().filter(|rule| rule.kind.is_none()).cloned().collect();
    for first in &rules {
        agree(std::slice::from_ref(first));
        for second in &rules {
            agree(&[first.clone(), second.clone()]);
            for reset in &resets {
                agree(&[reset.clone(), first.clone(), second.clone()]);
            }
        }
    }
}

#[test]
fn only_what_allows_everything_needs_no_program() {
    let all = Rule { allow: true, kind: None, major: None, minor: None, access: "rwm".into() };
    assert!(compile(std::slice::from_ref(&all)).is_empty());
    assert!(!compile(&[]).is_empty());
    let denied = Rule { allow: false, kind: Some(DeviceKind::Block), ..all.clone() };
    assert!(!compile(&[all, denied]).is_empty());
    // What the kernel runs for every open: eight instructions of it for one of the usual rules at most.
    let null =
        Rule { allow: true, kind: Some(DeviceKind::Character), major: Some(1), minor: Some(3), access: "rw".into() };
    assert_eq!(compile(&[null]).len(), (6 + 6 + 2) * 8);
}

//! Classic BPF as seccomp(2) takes it.

/// One `sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// Instructions to skip when a comparison holds.
    pub(super) jt: u8,
    /// Instructions to skip when it does not.
    pub(super) jf: u8,
    pub(super) k: u32,
}

// linux/bpf_common.h
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JGT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const JGE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// The kernel's limit on a filter (BPF_MAXINSNS).
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

// Offsets in struct seccomp_data.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;

/// Offsets of the low and the high half of an argument; all machines here are little-endian.
pub(super) const fn argument(index: u32) -> (u32, u32) {
    (16 + 8 * index, 20 + 8 * index)
}

pub(super) const fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jt: 0, jf: 0, k: offset }
}

pub(super) const fn and(mask: u32) -> Instruction {
    Instruction { code: AND, jt: 0, jf: 0, k: mask }
}

pub(super) const fn answer(action: u32) -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k: action }
}

/// `if A <code> k { yes } else { no }`. Both branches must end in an answer, so nothing falls out of them.
pub(super) fn branch(code: u16, k: u32, yes: Vec<Instruction>, no: Vec<Instruction>) -> Vec<Instruction> {
    let mut program = Vec::with_capacity(yes.len() + no.len() + 2);
    // The negative branch comes first; a conditional jump reaches 255 instructions, an unconditional one all.
    match u8::try_from(no.len()) {
        Ok(distance) => program.push(Instruction { code, jt: distance, jf: 0, k }),
        Err(_) => {
            program.push(Instruction { code, jt: 0, jf: 1, k });
            // No program is longer than 4096 instructions; a longer one is refused when it is complete.
            let distance = u32::try_from(no.len()).unwrap_or(u32::MAX);
            program.push(Instruction { code: JUMP, jt: 0, jf: 0, k: distance });
        }
    }
    program.extend(no);
    program.extend(yes);
    program
}

/// The bytes of a program, as an array of `sock_filter` has them in memory.
pub(super) fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend(instruction.code.to_le_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_le_bytes());
    }
    bytes
}

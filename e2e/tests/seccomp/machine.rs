//! System calls as a filter sees them, and an interpreter of classic BPF that decides them.

#![allow(clippy::cast_possible_truncation, reason = "taking halves of words is what the machine does")]

/// `AUDIT_ARCH_*` (linux/audit.h).
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

/// An x32 call's number has this bit, and the architecture of x86_64.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Through which door a call comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    X86_64,
    I386,
    X32,
    /// No call of this machine; a filter must shut it all the same.
    Foreign,
}

impl Abi {
    pub(crate) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => X86_64,
            Self::I386 => I386,
            Self::Foreign => AARCH64,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) abi: Abi,
    pub(crate) number: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    pub(crate) fn new(abi: Abi, number: u32, args: [u64; 6]) -> Self {
        // The kernel passes the lower halves of i386's registers and all of x32's.
        let args = if abi == Abi::I386 { args.map(|arg| arg & 0xffff_ffff) } else { args };
        Self { abi, number, args }
    }

    /// struct seccomp_data
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.abi.audit()),
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[((offset - 16) / 8) as usize];
                Some(if offset % 8 == 4 { (arg >> 32) as u32 } else { arg as u32 })
            }
            _ => None,
        }
    }
}

/// One `sock_filter`.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    jt: usize,
    jf: usize,
    k: u32,
}

/// A filter, eight bytes an instruction.
#[derive(Debug)]
pub(crate) struct Filter(Vec<Instruction>);

const RETURN: u16 = 0x06;

impl Filter {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        assert!(bytes.len().is_multiple_of(8) && (1..=4096).contains(&(bytes.len() / 8)), "{} bytes", bytes.len());
        let instruction = |b: &[u8]| Instruction {
            code: u16::from_le_bytes([b[0], b[1]]),
            jt: b[2].into(),
            jf: b[3].into(),
            k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        };
        Self(bytes.chunks_exact(8).map(instruction).collect())
    }

    pub(crate) fn decide(&self, call: &Call) -> u32 {
        let (mut a, mut at) = (0_u32, 0_usize);
        loop {
            // Jumps go forward only, so this ends.
            let Instruction { code, jt, jf, k } = *self.0.get(at).expect("a jump out of the filter");
            at += 1;
            match code {
                0x20 => a = call.word(k).expect("a load from seccomp_data"),
                0x54 => a &= k,
                0x05 => at += k as usize,
                0x15 => at += if a == k { jt } else { jf },
                0x25 => at += if a > k { jt } else { jf },
                0x35 => at += if a >= k { jt } else { jf },
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    /// The same decisions told as errnos, so that a kernel that decides carries nothing out: the bytes, and the answers
    /// that errno 1, 2, … stand for.
    pub(crate) fn as_errnos(&self) -> (Vec<u8>, Vec<u32>) {
        const ERRNO: u32 = 0x0005_0000;
        let (mut bytes, mut answers) = (Vec::new(), Vec::new());
        for &Instruction { code, jt, jf, k } in &self.0 {
            let k = if code == RETURN {
                let at = answers.iter().position(|known| *known == k).unwrap_or_else(|| {
                    answers.push(k);
                    answers.len() - 1
                });
                ERRNO | (at as u32 + 1)
            } else {
                k
            };
            bytes.extend(code.to_le_bytes());
            bytes.extend([jt as u8, jf as u8]);
            bytes.extend(k.to_le_bytes());
        }
        (bytes, answers)
    }
}

//! An interpreter of classic BPF with the kernel's checks on seccomp filters.

#![allow(clippy::cast_possible_truncation, reason = "taking halves of words is what the machine does")]

use super::super::compiler::Abi;

/// A system call as a filter sees it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) abi: Abi,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    pub(super) fn new(abi: Abi, number: u32, args: &[u64]) -> Self {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        // A 32-bit machine has no upper halves to pass; x32 programs do, and the kernel ignores them.
        if matches!(abi, Abi::I386 | Abi::Arm) {
            all = all.map(|arg| arg & 0xffff_ffff);
        }
        Self { abi, number, args: all }
    }

    /// struct seccomp_data
    fn word(&self, offset: u32) -> Option<u32> {
        let half = |value: u64, high: bool| if high { (value >> 32) as u32 } else { value as u32 };
        match offset {
            0 => Some(self.number),
            4 => Some(self.abi.audit()),
            8 | 12 => Some(0xdead_beef),
            16..64 if offset.is_multiple_of(4) => Some(half(self.args[((offset - 16) / 8) as usize], offset % 8 == 4)),
            _ => None,
        }
    }
}

/// The filter's answer.
pub(super) fn run(filter: &[u8], call: &Call) -> Result<u32, String> {
    execute(filter, call).map(|(answer, _)| answer)
}

/// How many instructions the answer took.
pub(super) fn steps(filter: &[u8], call: &Call) -> usize {
    execute(filter, call).expect("an answer").1
}

fn execute(filter: &[u8], call: &Call) -> Result<(u32, usize), String> {
    if filter.is_empty() || !filter.len().is_multiple_of(8) || filter.len() / 8 > 4096 {
        return Err(format!("{} bytes are no filter", filter.len()));
    }
    let mut a = 0_u32;
    let mut at = 0_usize;
    for step in 1..=4096 {
        let Some(bytes) = filter.get(at * 8..at * 8 + 8) else { return Err(format!("jump out of the filter to {at}")) };
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let (jt, jf) = (usize::from(bytes[2]), usize::from(bytes[3]));
        let k = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        at += 1;
        match code {
            0x20 => a = call.word(k).ok_or_else(|| format!("load from {k}"))?,
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += if a == k { jt } else { jf },
            0x25 => at += if a > k { jt } else { jf },
            0x35 => at += if a >= k { jt } else { jf },
            0x06 => return Ok((k, step)),
            other => return Err(format!("instruction {other:#x}")),
        }
    }
    Err("no answer".to_owned())
}

//! Static programs carried inside Berth: the shim and the sample workload.
//!
//! The build script builds both with a cargo of its own (profile `shim`, static, not position-independent), so that
//! `cargo run` alone yields a Berth that can start containers. Whoever installs one names the file by its digest: a
//! running shim keeps its version, and an upgrade writes beside it.

/// `berth-shim`, the per-sandbox monitor, as an ELF executable.
pub const SHIM: &[u8] = include_bytes!(env!("BERTH_CARRIED_SHIM"));

/// SHA-256 of [`SHIM`], 64 hexadecimal digits.
pub const SHIM_DIGEST: &str = env!("BERTH_CARRIED_SHIM_DIGEST");

/// `berth-hello`, the sample HTTP server, as an ELF executable that needs no other file.
pub const HELLO: &[u8] = include_bytes!(env!("BERTH_CARRIED_HELLO"));

/// SHA-256 of [`HELLO`], 64 hexadecimal digits.
pub const HELLO_DIGEST: &str = env!("BERTH_CARRIED_HELLO_DIGEST");

#[cfg(test)]
mod tests {
    use super::*;

    /// ELF, 64 bits, little-endian, of type EXEC: static and not position-independent.
    fn is_fixed_executable(program: &[u8]) -> bool {
        program.starts_with(b"\x7fELF\x02\x01") && program[16..18] == [2, 0]
    }

    /// No program header asks for a dynamic loader (PT_INTERP).
    fn is_static(program: &[u8]) -> bool {
        let half = |at: usize| usize::from(u16::from_le_bytes([program[at], program[at + 1]]));
        let table = u64::from_le_bytes(program[32..40].try_into().expect("eight bytes"));
        let (table, size, count) = (usize::try_from(table).expect("an offset"), half(54), half(56));
        (0..count).all(|n| program[table + n * size..table + n * size + 4] != [3, 0, 0, 0])
    }

    #[test]
    fn both_programs_are_static_and_fixed() {
        for program in [SHIM, HELLO] {
            assert!(is_fixed_executable(program) && is_static(program));
        }
        assert_eq!((SHIM_DIGEST.len(), HELLO_DIGEST.len()), (64, 64));
        assert_ne!(SHIM_DIGEST, HELLO_DIGEST);
    }
}

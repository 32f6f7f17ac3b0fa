//! Forgetting secrets: overwriting memory in a way that the compiler must not leave out.

use std::sync::atomic::{Ordering, compiler_fence};

/// Overwrites `bytes` with zeros.
pub fn bytes(bytes: &mut [u8]) {
    for byte in bytes.iter_mut() {
        // SAFETY: `byte` is a valid, exclusive reference.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
    compiler_fence(Ordering::SeqCst);
}

/// Overwrites a vector's content and its spare capacity, and empties it.
pub fn vec(vec: &mut Vec<u8>) {
    vec.clear();
    for byte in vec.spare_capacity_mut() {
        // SAFETY: `byte` is a valid, exclusive reference to memory of the vector.
        unsafe { std::ptr::write_volatile(byte.as_mut_ptr(), 0) };
    }
    compiler_fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_zero_afterwards() {
        let mut secret = *b"hunter2";
        super::bytes(&mut secret);
        assert_eq!(secret, [0; 7]);
        let mut secret = b"hunter2".to_vec();
        super::vec(&mut secret);
        assert!(secret.is_empty());
    }
}

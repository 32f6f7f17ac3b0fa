//! The C library's allocator.

/// At most so many pools (`M_ARENA_MAX`) for all threads together: mallopt(3).
///
/// glibc gives threads up to eight pools a processor, and each keeps what its threads once held at most, so that a
/// program whose work wanders over many threads grows for hours. Call it before there is a second thread: pools that
/// exist stay. Answers whether the allocator takes the limit; one that doesn't works as before.
#[cfg(target_env = "gnu")]
#[must_use]
pub fn limit_pools(most: u8) -> bool {
    // SAFETY: mallopt takes two integers and no pointer, locks the allocator itself, and refuses what it does not know.
    let taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, i32::from(most)) };
    taken == 1
}

/// Other C libraries' allocators have no such pools.
#[cfg(not(target_env = "gnu"))]
#[must_use]
pub fn limit_pools(_most: u8) -> bool {
    false
}

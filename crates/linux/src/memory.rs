//! This process's own memory.

/// Gives the kernel back what was freed and is still set aside (`malloc_trim(3)`): after a job that took much.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    crate::sys::malloc_trim();
}

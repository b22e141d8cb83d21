//! This process's own memory.

/// The bytes that are in memory (`statm`, proc(5)). `None` where that can't be read.
pub fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Gives the kernel back what was freed and is still set aside (`malloc_trim(3)`): after a job that took much.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    crate::sys::malloc_trim();
}

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

/// Keeps the memory of a long-lived process near what it uses: threads share what is set aside, and what is largest goes back to the
/// kernel as soon as it is freed (`mallopt(3)`). For the beginning, before there are threads.
///
/// With glibc's own choice, threads that come and go with megabytes each leave five times as much behind, whatever [`give_back`]
/// does. That takes care of the rest: with less set aside, each piece that is used again would cost as many page faults as it has pages.
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    crate::sys::mallopt(2, 4 << 20, 32 << 20);
}

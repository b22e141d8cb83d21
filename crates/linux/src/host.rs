//! Facts of the host, from /proc and /etc.

use crate::{KernelError, Result};
use std::fs;
use std::path::Path;

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| KernelError::at("read", path, source))
}

/// The kernel's identifier of this boot, from `path` (`/proc/sys/kernel/random/boot_id`).
pub fn boot_id(path: &Path) -> Result<String> {
    Ok(read(path)?.trim().to_owned())
}

/// The kernel's release, such as `6.1.0-18-amd64`.
pub fn kernel_release() -> Result<String> {
    Ok(read(Path::new("/proc/sys/kernel/osrelease"))?.trim().to_owned())
}

/// Bytes in the page cache that are not written yet (`Dirty` and `Writeback` of /proc/meminfo).
pub fn dirty_bytes() -> Result<u64> {
    let text = read(Path::new("/proc/meminfo"))?;
    let kib = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    Ok((kib("Dirty:").unwrap_or(0) + kib("Writeback:").unwrap_or(0)) * 1024)
}

/// A kernel setting, by its dotted name (`vm.dirty_ratio`).
pub fn sysctl(name: &str) -> Result<String> {
    Ok(read(&Path::new("/proc/sys").join(name.replace('.', "/")))?.trim().to_owned())
}

/// The number of a user of this host.
pub fn user_id(name: &str) -> Result<Option<u32>> {
    Ok(third_field(&read(Path::new("/etc/passwd"))?, name))
}

/// The number of a group of this host.
pub fn group_id(name: &str) -> Result<Option<u32>> {
    Ok(third_field(&read(Path::new("/etc/group"))?, name))
}

fn third_field(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// The I/O scheduler in use by the device with this number (`st_dev`), or by the disk that it is a part of.
pub fn io_scheduler(dev: u64) -> Result<Option<String>> {
    let node = format!("/sys/dev/block/{}:{}", libc::major(dev), libc::minor(dev));
    let found = ["queue/scheduler", "../queue/scheduler"]
        .into_iter()
        .find_map(|file| fs::read_to_string(Path::new(&node).join(file)).ok());
    Ok(found.and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())))
}

/// Whether this process may administer the system (mount, loop devices, quotas).
pub fn has_cap_sys_admin() -> Result<bool> {
    has_capability(21)
}

/// Whether this process may go beyond resource limits; ext4 wants that of who grows it under its users.
pub fn has_cap_sys_resource() -> Result<bool> {
    has_capability(24)
}

/// (linux/capability.h)
fn has_capability(number: u32) -> Result<bool> {
    let text = read(Path::new("/proc/self/status"))?;
    let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    Ok(bits.is_some_and(|bits| bits & (1 << number) != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_users_and_facts() {
        assert_eq!(user_id("root").unwrap(), Some(0));
        assert_eq!(user_id("roo").unwrap(), None);
        assert_eq!(third_field("a:x:7:8\nab:x:9\nbroken", "ab"), Some(9));
        assert!(!kernel_release().unwrap().is_empty());
        assert!(sysctl("vm.dirty_ratio").unwrap().parse::<u32>().is_ok());
        dirty_bytes().unwrap();
    }
}

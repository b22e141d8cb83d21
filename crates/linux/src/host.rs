//! Facts about the host: boot, kernel, memory, users. It only reads, and knows no rule about what is good.

use crate::{KernelError, Result};
use rustix::thread::CapabilitySet;
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| KernelError::on("read", path, source))
}

/// The ID of this boot; the kernel has it at `/proc/sys/kernel/random/boot_id`.
///
/// # Errors
/// A file that can't be read, or is empty.
pub fn boot_id(path: &Path) -> Result<String> {
    match read(path)?.trim() {
        "" => Err(KernelError::invalid("read", path, "the boot ID is empty")),
        id => Ok(id.to_owned()),
    }
}

/// The kernel's release, such as `6.1.0-18-amd64` (`uname(2)`).
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The host's name (`uname(2)`).
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Bytes in memory that are still to be written to some device: `Dirty` and `Writeback` of `/proc/meminfo`.
///
/// # Errors
/// `/proc/meminfo` that can't be read or understood.
pub fn dirty_bytes() -> Result<u64> {
    let path = Path::new("/proc/meminfo");
    dirty_of(&read(path)?).ok_or_else(|| KernelError::invalid("read", path, "no Dirty or no Writeback in it"))
}

fn dirty_of(meminfo: &str) -> Option<u64> {
    let kilobytes = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    kilobytes("Dirty")?.checked_add(kilobytes("Writeback")?)?.checked_mul(1024)
}

/// A kernel setting, such as `fs.aio-max-nr`: the content of the file below `/proc/sys`.
///
/// # Errors
/// No such setting, or one that can't be read.
pub fn sysctl(name: &str) -> Result<String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    Ok(read(&path)?.trim().to_owned())
}

/// The number of a user of `/etc/passwd`. A number is its own answer. Other sources of users (LDAP) are not asked.
///
/// # Errors
/// `/etc/passwd` that can't be read.
pub fn user_id(name: &str) -> Result<Option<u32>> {
    id_in(Path::new("/etc/passwd"), name)
}

/// The number of a group of `/etc/group`. A number is its own answer. Other sources of groups (LDAP) are not asked.
///
/// # Errors
/// `/etc/group` that can't be read.
pub fn group_id(name: &str) -> Result<Option<u32>> {
    id_in(Path::new("/etc/group"), name)
}

fn id_in(file: &Path, name: &str) -> Result<Option<u32>> {
    // All digits or a sign: u32's own parser takes "+1" too, which is no number of a user.
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(name.parse().ok());
    }
    let bytes = fs::read(file).map_err(|source| KernelError::on("read", file, source))?;
    Ok(id_of(&String::from_utf8_lossy(&bytes), name))
}

/// Both files have the name first and the number third (passwd(5), group(5)).
fn id_of(database: &str, name: &str) -> Option<u32> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// The I/O scheduler of a block device (`st_rdev`, or `st_dev` of a file on it), as `/sys/dev/block` tells it; of a
/// partition, that of its disk. `None`: not a block device, or one without schedulers.
///
/// # Errors
/// A file below `/sys` that is there and can't be read.
pub fn io_scheduler(device: u64) -> Result<Option<String>> {
    let home =
        PathBuf::from(format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device)));
    for path in [home.join("queue/scheduler"), home.join("../queue/scheduler")] {
        match read(&path) {
            Ok(text) => return Ok(chosen(&text).map(str::to_owned)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The word in brackets; a device with only one choice has it without.
fn chosen(schedulers: &str) -> Option<&str> {
    match schedulers.split_once('[') {
        Some((_, rest)) => rest.split_once(']').map(|(name, _)| name),
        None => schedulers.split_whitespace().next(),
    }
}

/// Whether this thread may mount, freeze and attach (`CAP_SYS_ADMIN`, capabilities(7)).
///
/// # Errors
/// `capget(2)` that fails (a seccomp filter).
pub fn has_cap_sys_admin() -> Result<bool> {
    has_capability(CapabilitySet::SYS_ADMIN)
}

/// Whether this process may go beyond resource limits (`CAP_SYS_RESOURCE`); ext4 wants that of who grows it under its
/// users.
pub fn has_cap_sys_resource() -> Result<bool> {
    has_capability(CapabilitySet::SYS_RESOURCE)
}

fn has_capability(wanted: CapabilitySet) -> Result<bool> {
    let sets = rustix::thread::capabilities(None).map_err(|errno| KernelError {
        op: "capget",
        path: None,
        source: errno.into(),
    })?;
    Ok(sets.effective.contains(wanted))
}

/// Lets everybody else run first on this processor: for the calling thread, and for what would take all of one.
pub fn be_nice() {
    const NICE: i32 = 10;
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        // It is slower for others then, and nothing worse.
        tracing::debug!(%error, "the priority of a thread stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirty_memory_is_counted_in_bytes() {
        let text = "MemTotal:  24684088 kB\nDirty:               312 kB\nWriteback:             8 kB\nWritebackTmp: 5 kB\n";
        assert_eq!(dirty_of(text), Some(320 * 1024));
        assert_eq!(dirty_of("Dirty: 1 kB\n"), None);
        dirty_bytes().unwrap();
    }

    #[test]
    fn users_and_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nrootless:x:5:5::/:\npostgres:x:113:120::/var:/bin/sh\nbad:x:no:1::/:\n";
        assert_eq!(id_of(passwd, "root"), Some(0));
        assert_eq!(id_of(passwd, "postgres"), Some(113));
        for nobody in ["x", "bad", "postgre", "/root", "5"] {
            assert_eq!(id_of(passwd, nobody), None, "{nobody}");
        }
        assert_eq!(user_id("root").unwrap(), Some(0));
        assert_eq!(group_id("1234567").unwrap(), Some(1_234_567));
        for odd in ["", "4294967296", "-1", "+1", "nobody\n"] {
            assert_eq!(user_id(odd).unwrap(), None, "{odd:?}");
        }
    }

    #[test]
    fn schedulers() {
        assert_eq!(chosen("mq-deadline kyber [none]\n"), Some("none"));
        assert_eq!(chosen("[bfq] none\n"), Some("bfq"));
        assert_eq!(chosen("none\n"), Some("none"));
        assert_eq!(chosen("\n"), None);
        assert_eq!(io_scheduler(0).unwrap(), None);
    }

    #[test]
    fn this_boot_and_kernel() {
        let id = boot_id(Path::new("/proc/sys/kernel/random/boot_id")).unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(sysctl("kernel.random.boot_id").unwrap(), id);
        assert_eq!(sysctl("kernel.osrelease").unwrap(), kernel_release());
        assert!(sysctl("kernel.no-such-setting").unwrap_err().is_not_found());
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(boot_id(empty.path()).is_err());
        has_cap_sys_admin().unwrap();
    }
}

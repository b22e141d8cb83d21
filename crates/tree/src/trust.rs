//! Whether the times of a file system tell that a file was written. They do not on all of them: tmpfs does not know of writes
//! through a mapping at all, and what a network file system says may be old.

use crate::walk::Tree;
use rustix::fs::{fstatfs, statfs};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// From `linux/magic.h` and the file systems' own headers. On these, after `syncfs(2)`, the first write through a mapping to a
/// page sets the times again, since writing it out has made it read-only.
const EXT4: u64 = 0xEF53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683E;
const F2FS: u64 = 0xF2F5_2010;
const OVERLAY: u64 = 0x794C_7630;

/// Whether the times on the file system of a tree can be trusted. In doubt they cannot: that costs time and no data.
pub(crate) fn are_times_trusted(tree: &Tree) -> bool {
    let Ok(stat) = fstatfs(tree) else { return false };
    match stat.f_type as u64 {
        EXT4 | XFS | BTRFS | F2FS => true,
        // Overlayfs writes to its upper directory, so its times are those of the file system there.
        OVERLAY => upper(tree).is_some_and(|upper| {
            statfs(Path::new(&upper))
                .is_ok_and(|stat| matches!(stat.f_type as u64, EXT4 | XFS | BTRFS | F2FS))
        }),
        _ => false,
    }
}

/// The upper directory of the overlayfs that a tree is on, if this process can find it.
fn upper(tree: &Tree) -> Option<OsString> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    upper_in(&table, tree.mount().id()?)
}

/// The same in a mount table. None if it is relative to where the mounting process was, or if the mount is `volatile`: then
/// `syncfs(2)` does nothing, so that pages stay writable and later writes leave no trace.
fn upper_in(table: &[u8], mount: u64) -> Option<OsString> {
    let mount = mount.to_string();
    let line = table
        .split(|&byte| byte == b'\n')
        .find(|line| line.split(|&byte| byte == b' ').next() == Some(mount.as_bytes()))?;
    let options = line.rsplit(|&byte| byte == b' ').next()?;
    let mut options = options.split(|&byte| byte == b',');
    if options.clone().any(|option| option == b"volatile" || option == b"fsync=volatile") {
        return None;
    }
    let upper = options.find_map(|option| option.strip_prefix(b"upperdir="))?;
    let upper = unescape(upper);
    upper.as_bytes().starts_with(b"/").then_some(upper)
}

/// Undoes the octal escapes of the mount table (`\040` is a space).
fn unescape(bytes: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.get(..3)).flatten().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(value) => {
                plain.push(value);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"24 1 254:0 / / rw - ext4 /dev/vda rw\n\
        40 24 0:33 / /merged rw - overlay overlay rw,lowerdir=/l,upperdir=/u\\040p,workdir=/w\n\
        41 24 0:34 / /relative rw - overlay overlay rw,lowerdir=l,upperdir=u,workdir=w\n\
        42 24 0:35 / /lost rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile\n\
        43 24 0:36 / /read rw - overlay overlay ro,lowerdir=/l:/m\n";

    #[test]
    fn the_upper_directory_is_found_where_it_can_be_relied_on() {
        assert_eq!(upper_in(TABLE, 40), Some(OsString::from("/u p")));
        assert_eq!([24, 41, 42, 43, 4].map(|mount| upper_in(TABLE, mount)), [const { None }; 5]);
    }
}

//! The mount table, from `mountinfo` (proc(5)) below any root.

use super::tree::Tree;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub target: PathBuf,
    pub fstype: String,
    pub source: String,
    /// `major:minor`.
    pub device: String,
    /// Those of the mount and those of the file system.
    pub options: Vec<String>,
}

impl Mount {
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|have| have == option)
    }

    /// What stands after `key=`.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.options.iter().find_map(|have| have.strip_prefix(key)?.strip_prefix('='))
    }
}

pub(super) fn table(tree: Tree<'_>) -> Vec<Mount> {
    tree.text("/proc/self/mountinfo").map(|text| text.lines().filter_map(parse).collect()).unwrap_or_default()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let device = left.nth(2)?.to_owned();
    let target = PathBuf::from(unescape(left.nth(1)?));
    let mount_options = left.next()?;
    let mut right = right.split(' ');
    let fstype = right.next()?.to_owned();
    let source = unescape(right.next()?);
    let options = mount_options.split(',').chain(right.next().unwrap_or_default().split(','));
    Some(Mount { target, fstype, source, device, options: options.map(str::to_owned).collect() })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = text.to_owned();
    // The backslash last, or it would make new escapes.
    for (code, char) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, char);
    }
    out
}

/// The mount that `path` (without symbolic links) is on; of several on one target the last, which hides the others.
pub(super) fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.target));
    above.max_by_key(|mount| mount.target.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_escapes_and_both_kinds_of_options() {
        let line = r"36 35 98:0 / /a\040b rw,noatime master:1 shared:2 - ext4 /dev/x rw,data=journal";
        let mount = parse(line).unwrap();
        assert_eq!(mount.target, Path::new("/a b"));
        assert_eq!((mount.device.as_str(), mount.source.as_str()), ("98:0", "/dev/x"));
        assert!(mount.has("noatime") && !mount.has("data"));
        assert_eq!(mount.value("data"), Some("journal"));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn the_deepest_and_the_latest_mount_holds() {
        let text = "1 0 8:0 / / rw - ext4 /dev/a rw\n2 1 8:1 / /var rw - ext4 /dev/b rw\n3 1 8:2 / /var rw - xfs /dev/c rw";
        let mounts: Vec<_> = text.lines().filter_map(parse).collect();
        assert_eq!(holding(&mounts, Path::new("/var/lib")).unwrap().source, "/dev/c");
        assert_eq!(holding(&mounts, Path::new("/variable")).unwrap().source, "/dev/a");
        assert_eq!(holding(&[], Path::new("/")), None);
    }
}

//! Which processes use a file system or a directory, in any mount namespace. (proc(5))

use crate::{KernelError, Result};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Everything on the file system with this device number (`st_dev`).
    Device(u64),
    /// Everything at or below this directory.
    Tree(&'a Path),
}

/// How a process uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An open file descriptor.
    Fd(u32),
    /// Its working directory.
    Cwd,
    /// Its root directory.
    Root,
    /// A file mapped into memory.
    Map,
}

/// What a use allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Both.
    ReadWrite,
}

/// One use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// How.
    pub what: What,
    /// The path as the process sees it.
    pub path: PathBuf,
    /// What it allows.
    pub access: Access,
}

/// A process with its uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process ID.
    pub pid: u32,
    /// Its command's name.
    pub command: String,
    /// Its uses, at least one.
    pub uses: Vec<Use>,
}

impl Target<'_> {
    fn has(&self, link: &Path, seen_as: &Path) -> bool {
        // stat through the magic link: it leads to the file itself, in whichever mount namespace.
        let dev = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
        match self {
            Self::Device(wanted) => dev(link) == Some(*wanted),
            Self::Tree(tree) => seen_as.starts_with(tree) && dev(link) == dev(tree),
        }
    }
}

/// The processes that use `target`. Those that end meanwhile are left out.
pub fn open_files(target: &Target<'_>) -> Result<Vec<Holder>> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).map_err(|source| KernelError::at("read directory", proc, source))?;
    let mut holders: Vec<Holder> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let uses = uses_of(&entry.path(), target);
            let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned();
            (!uses.is_empty()).then_some(Holder { pid, command, uses })
        })
        .collect();
    holders.sort_by_key(|holder| holder.pid);
    Ok(holders)
}

fn uses_of(process: &Path, target: &Target<'_>) -> Vec<Use> {
    let mut uses = Vec::new();
    for (name, what) in [("cwd", What::Cwd), ("root", What::Root)] {
        uses.extend(link_use(&process.join(name), what, Access::Read, target));
    }
    for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let access = access_of(&process.join("fdinfo").join(entry.file_name()));
        uses.extend(link_use(&entry.path(), What::Fd(number), access, target));
    }
    let mut mapped: Vec<Use> = fs::read_dir(process.join("map_files"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| link_use(&entry.path(), What::Map, Access::Read, target))
        .collect();
    mapped.dedup_by(|a, b| a.path == b.path);
    uses.extend(mapped);
    uses
}

fn link_use(link: &Path, what: What, access: Access, target: &Target<'_>) -> Option<Use> {
    let path = fs::read_link(link).ok()?;
    // Sockets, pipes and the like have no path.
    (path.is_absolute() && target.has(link, &path)).then_some(Use { what, path, access })
}

fn access_of(fdinfo: &Path) -> Access {
    let text = fs::read_to_string(fdinfo).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    match flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0) & 3 {
        0 => Access::Read,
        1 => Access::Write,
        _ => Access::ReadWrite,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_process_by_tree_and_by_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let file = fs::File::create(path.join("open")).unwrap();
        let dev = file.metadata().unwrap().dev();
        for target in [Target::Tree(&path), Target::Device(dev)] {
            let holders = open_files(&target).unwrap();
            let me = holders.iter().find(|holder| holder.pid == std::process::id()).unwrap();
            assert!(me.uses.iter().any(|u| u.path == path.join("open") && u.access == Access::Write));
        }
        drop(file);
        assert!(open_files(&Target::Tree(&path)).unwrap().is_empty());
    }
}

//! Looking: everything that reads a file or asks the kernel. Nothing here judges.

mod host;
mod loops;
mod mounts;
mod pool;
mod tracking;
mod tree;

pub(crate) use host::{Host, Namespace};
pub(crate) use loops::LoopDevice;
pub(crate) use mounts::Mount;
pub(crate) use pool::{Disk, PoolFacts, Standing, Unreachable};
pub(crate) use tracking::Tracking;
pub(crate) use tree::Presence;

use crate::context::{Context, DaemonFacts, DockerFacts};
use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tree::Tree;

/// All that the checks judge.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub host: Host,
    pub tracking: Tracking,
    pub docker: Result<Option<DockerFacts>, String>,
    pub daemon: Result<DaemonFacts, String>,
    pub plugin: PluginSocket,
    pub state: StateDir,
    pub pools: Vec<PoolFacts>,
    pub loop_control: bool,
    pub max_loop: Option<u64>,
    pub loops: Vec<LoopDevice>,
    /// What is mounted below our directory of mount points: the target and the ID it has in its path.
    pub mounted: Vec<(PathBuf, String)>,
    /// The IDs that volumes have. `None`: neither the daemon nor the pools' directories could be asked.
    pub ids: Option<BTreeSet<String>>,
}

/// The socket of the volume plugin.
#[derive(Debug, Clone)]
pub(crate) struct PluginSocket {
    pub path: PathBuf,
    pub there: Presence,
    pub is_socket: bool,
}

/// The directory of the catalog, and the mount it is (or would be) on.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    pub path: PathBuf,
    pub there: Presence,
    pub mount: Option<Mount>,
}

pub(crate) fn gather(context: &Context) -> Facts {
    let tree = Tree(&context.root);
    let mounts = mounts::table(tree);
    let pools: Vec<_> = context.pools.iter().map(|pool| pool::look(tree, &mounts, pool)).collect();
    Facts {
        host: host::look(tree, context.now),
        tracking: tracking::look(tree, &mounts),
        docker: context.docker.clone(),
        daemon: context.daemon.clone(),
        plugin: plugin(&context.plugin_socket),
        state: state(&mounts, &context.state),
        loop_control: tree.presence("/dev/loop-control") != Presence::Absent,
        max_loop: tree.number("/sys/module/loop/parameters/max_loop"),
        loops: loops::look(tree, &pools),
        mounted: mounted(&mounts, &resolve(&context.mountpoints)),
        ids: ids(context, &pools),
        pools,
    }
}

/// Without symbolic links, as the kernel shows paths; what is not there yet stays as it is.
fn resolve(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn presence(path: &Path) -> Presence {
    Tree(Path::new("/")).presence(&path.to_string_lossy())
}

fn plugin(path: &Path) -> PluginSocket {
    let is_socket = path.metadata().is_ok_and(|found| found.file_type().is_socket());
    PluginSocket { path: path.to_owned(), there: presence(path), is_socket }
}

fn state(mounts: &[Mount], path: &Path) -> StateDir {
    // Before the first start, what counts is the directory above in which it will be made.
    let nearest = path.ancestors().find(|above| above.exists()).unwrap_or(path);
    let mount = mounts::holding(mounts, &resolve(nearest)).cloned();
    StateDir { path: path.to_owned(), there: presence(path), mount }
}

fn mounted(mounts: &[Mount], mountpoints: &Path) -> Vec<(PathBuf, String)> {
    let id_of = |mount: &Mount| {
        let id = mount.target.strip_prefix(mountpoints).ok()?.components().next()?;
        Some((mount.target.clone(), id.as_os_str().to_string_lossy().into_owned()))
    };
    mounts.iter().filter_map(id_of).collect()
}

/// The daemon knows best; when it is down, the pools' directories say which volumes there are.
fn ids(context: &Context, pools: &[PoolFacts]) -> Option<BTreeSet<String>> {
    if let Ok(daemon) = &context.daemon {
        return Some(daemon.ids.iter().cloned().collect());
    }
    let mut ids = BTreeSet::new();
    for pool in pools {
        for entry in std::fs::read_dir(pool.path.join("volumes")).ok()? {
            ids.insert(entry.ok()?.file_name().to_string_lossy().into_owned());
        }
    }
    (!pools.is_empty()).then_some(ids)
}

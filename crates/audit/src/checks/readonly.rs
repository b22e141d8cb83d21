//! Containers that need no writable layer.

use super::Draft;
use crate::case::{Case, Context};
use crate::report::Severity;
use crate::tally::is_below;
use crate::words::{list, quote};

/// A layer with nothing but noise, of a container that runs: only then it is known what it writes.
pub(super) fn could_be_read_only(case: &Case<'_>, _: &Context<'_>) -> Vec<Draft> {
    let container = case.container;
    let Ok(layer) = &container.layer else { return Vec::new() };
    if container.read_only_root || !container.state.is_alive() || layer.written_more {
        return Vec::new();
    }
    // The engine makes the points that something is mounted at.
    let is_mount_point = |path: &str| container.mounts.iter().any(|mount| is_below(&mount.destination, path));
    let explained = layer.stray_count == layer.strays.len() as u64
        && layer.strays.iter().all(|path| is_mount_point(path));
    let data = !case.layer_data().is_empty() || layer.matter.bytes > 0;
    if !explained || data {
        return Vec::new();
    }
    let covered = |path: &str| container.mounts.iter().any(|mount| is_below(path, &mount.destination));
    let needed: Vec<String> = layer.written.iter().filter(|path| !covered(path)).cloned().collect();
    let flags: String = needed.iter().map(|path| format!(" --tmpfs {}", quote(path))).collect();
    let with = match needed.as_slice() {
        [] => "nothing was written to its layer".to_owned(),
        paths => format!("only {} were written to", list(paths, 32)),
    };
    let found = format!("could run with a read-only root: {with}");
    let draft = Draft::new(Severity::Note, found).container(&container.name);
    vec![draft.command(format!("docker run --read-only{flags} … {}", quote(&container.image)))]
}

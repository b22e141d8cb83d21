//! Checks of loop devices and of mounts that nobody owns.

use super::{Finding, quote, some_of};
use crate::facts::Facts;

pub(super) fn loop_devices(facts: &Facts) -> Finding {
    let load = "modprobe loop && echo loop > /etc/modules-load.d/everhold.conf";
    if !facts.loop_control {
        return Finding::problem("/dev/loop-control does not exist: the module is not loaded").command(load);
    }
    // `max_loop` is how many devices are made in advance; /dev/loop-control makes more than that.
    let made =
        facts.max_loop.map(|made| format!("; {made} made at boot, more on demand")).unwrap_or_default();
    Finding::ok(format!("{} in use{made}", facts.loops.len()))
}

pub(super) fn deleted_images(facts: &Facts) -> Finding {
    let known = |id: &str| facts.ids.as_ref().is_none_or(|ids| ids.contains(id));
    let lost = facts.loops.iter().filter(|device| device.deleted);
    let lost: Vec<_> = lost
        .filter_map(|device| Some((device, device.volume.as_ref()?)))
        .filter(|(_, volume)| known(&volume.id))
        .collect();
    let Some((device, volume)) = lost.first() else { return Finding::ok("none") };
    let names: Vec<_> = lost.iter().map(|(device, _)| format!("/dev/{}", device.name)).collect();
    // Beside the volumes, not in the volume's own directory: that may be gone too.
    let pool = facts.pools.iter().find(|pool| pool.name == volume.pool);
    let rescued =
        pool.map_or(volume.id.clone().into(), |pool| pool.path.join(format!("rescued-{}.img", volume.id)));
    Finding::problem(format!("the image behind {} was deleted while in use", some_of(&names)))
        .command(format!("cp --sparse=always /dev/{} {}", device.name, quote(&rescued)))
}

pub(super) fn stale_loop_devices(facts: &Facts) -> Finding {
    let Some(ids) = &facts.ids else {
        return Finding::advice("not known: the IDs of the volumes are out of sight");
    };
    let of_nobody = |id: &String| !ids.contains(id);
    let stale: Vec<_> = facts
        .loops
        .iter()
        .filter(|device| device.volume.as_ref().is_some_and(|volume| of_nobody(&volume.id)))
        .map(|device| format!("/dev/{}", device.name))
        .collect();
    if stale.is_empty() {
        return Finding::ok("none");
    }
    Finding::warning(format!("{} with images of volumes that are gone", some_of(&stale)))
        .command(format!("losetup --detach {}", stale.join(" ")))
}

pub(super) fn stale_mounts(facts: &Facts) -> Finding {
    let Some(ids) = &facts.ids else {
        return Finding::advice("not known: the IDs of the volumes are out of sight");
    };
    let stale: Vec<_> =
        facts.mounted.iter().filter(|(_, id)| !ids.contains(id)).map(|(path, _)| path).collect();
    if stale.is_empty() {
        return Finding::ok("none");
    }
    let names: Vec<_> = stale.iter().map(|path| path.display().to_string()).collect();
    // Innermost first: the table is in the order of mounting.
    let words: Vec<_> = stale.iter().rev().map(|path| quote(path)).collect();
    Finding::warning(format!("{} of volumes that are gone", some_of(&names)))
        .command(format!("umount {}", words.join(" ")))
}

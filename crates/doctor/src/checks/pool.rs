//! Checks of each pool.

use super::{Finding, quote};
use crate::facts::{Disk, Facts, LoopDevice, PoolFacts, Standing, Unreachable};
use model::Size;
use std::collections::BTreeSet;
use std::path::Path;

pub(super) fn file_system(pool: &PoolFacts, facts: &Facts) -> Finding {
    let path = pool.path.display();
    let standing = match &pool.standing {
        Ok(standing) => standing,
        Err(Unreachable::Absent) if facts.daemon.is_err() => {
            return Finding::warning(format!("{path} does not exist")).recommend(
                "mount it first if it is to be a mount point; otherwise the daemon makes it at its start",
            );
        }
        Err(Unreachable::Absent) => {
            return Finding::problem(format!("{path} does not exist although the daemon runs"))
                .recommend("mount the pool's file system again, then restart the daemon");
        }
        Err(Unreachable::Failed(why)) => return Finding::problem(format!("{path} can't be used: {why}")),
    };
    let fstype = standing.mount.fstype.as_str();
    let found = format!("{path} is on {fstype} ({})", standing.mount.source);
    match fstype {
        "ext4" | "xfs" | "btrfs" => Finding::ok(found),
        "tmpfs" | "ramfs" | "overlay" => {
            Finding::problem(format!("{found}, and lost with a reboot or container"))
        }
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "ceph" | "virtiofs" => Finding::problem(format!(
            "{found}: another host may change it, and loop devices on it can deadlock"
        )),
        other if other.starts_with("fuse") => {
            Finding::problem(format!("{found}: a user-space process is in the way"))
        }
        _ => Finding::warning(format!("{found}, which is not tested")),
    }
}

pub(super) fn reflinks(standing: &Standing, _: &PoolFacts, _: &Facts) -> Finding {
    match standing.reflinks {
        Some(true) => Finding::ok("the file system has them"),
        Some(false) => Finding::advice(format!("{} here has none", standing.mount.fstype)),
        None => Finding::advice("not known"),
    }
}

pub(super) fn direct_io(standing: &Standing, pool: &PoolFacts, facts: &Facts) -> Finding {
    let of_pool =
        |device: &&LoopDevice| device.volume.as_ref().is_some_and(|volume| volume.pool == pool.name);
    let buffered: Vec<_> =
        facts.loops.iter().filter(of_pool).filter(|device| device.direct_io == Some(false)).collect();
    match (standing.direct_io, buffered.as_slice()) {
        (Some(false), _) => Finding::warning(format!(
            "{} can't do it here; the page cache of the host is used",
            standing.mount.fstype
        )),
        (_, buffered @ [_, ..]) => {
            Finding::warning(format!("off on {} loop devices of this pool", buffered.len()))
                .command(switch(buffered))
        }
        (Some(true), []) => {
            Finding::ok("the file system can do it, and all loop devices of this pool use it")
        }
        (None, []) => Finding::advice("not known"),
    }
}

/// losetup(8) takes one device at a time.
fn switch(devices: &[&LoopDevice]) -> String {
    let commands = devices.iter().map(|device| format!("losetup --direct-io=on /dev/{}", device.name));
    commands.collect::<Vec<_>>().join(" && ")
}

pub(super) fn project_quota(standing: &Standing, _: &PoolFacts, _: &Facts) -> Finding {
    let mount = &standing.mount;
    if standing.project_quota == Some(true) {
        return Finding::ok("on");
    }
    let finding = match standing.project_quota {
        None => Finding::advice("not known"),
        _ => Finding::advice(format!("off: `size=` of a `dir` volume is refused on {}", mount.fstype)),
    };
    let (device, target) = (quote(Path::new(&mount.source)), quote(&mount.target));
    match mount.fstype.as_str() {
        "btrfs" => finding.recommend("use driver image where volumes need a size; btrfs has no project quota"),
        _ if mount.target == Path::new("/") => {
            finding.recommend("use driver image where volumes need a size, or put the pool on a file system of its own")
        }
        "ext4" => finding.command(format!(
            "umount {target} && tune2fs -O project,quota -Q prjquota {device} && mount -o prjquota {device} {target}"
        )),
        "xfs" => finding.command(format!("umount {target} && mount -o prjquota {device} {target}")),
        _ => finding,
    }
}

pub(super) fn io_scheduler(standing: &Standing, _: &PoolFacts, _: &Facts) -> Finding {
    let Some(disk) = &standing.disk else { return Finding::advice("the disk below is not known") };
    let Disk { name, scheduler, rotational, offered } = disk;
    let kind = if *rotational { "rotating or virtual disk" } else { "SSD" };
    let found = format!("{scheduler} on {name} ({kind})");
    let (fine, best): (&[&str], _) = if *rotational {
        (&["mq-deadline", "bfq"], "mq-deadline")
    } else {
        (&["none", "mq-deadline", "kyber"], "none")
    };
    // A virtual disk often claims to rotate, and its host schedules; without a choice there is nothing to say.
    if fine.contains(&scheduler.as_str()) || !offered.iter().any(|one| one == best) {
        return Finding::ok(found);
    }
    Finding::advice(found).recommend(best).command(format!(
        "echo {best} > /sys/block/{name}/queue/scheduler && \
         echo 'ACTION==\"add|change\", KERNEL==\"{name}\", ATTR{{queue/scheduler}}=\"{best}\"' \
         > /etc/udev/rules.d/60-everhold-{name}.rules"
    ))
}

pub(super) fn space(standing: &Standing, pool: &PoolFacts, _: &Facts) -> Finding {
    let reserve = pool.reserve.of(standing.total);
    let free = standing.available;
    let size = Size::from_bytes;
    let found = format!(
        "{} of {} free; the reserve is {} ({})",
        size(free),
        size(standing.total),
        size(reserve),
        pool.reserve
    );
    // Without a reserve, a twentieth is what file systems need to stay fast.
    let near = if reserve == 0 { standing.total / 20 } else { reserve.saturating_mul(2) };
    let look = format!("everhold trash ls && du -xhd1 {} | sort -h", quote(&standing.mount.target));
    match free {
        _ if free < reserve => {
            Finding::problem(format!("{found}, and new volumes are refused")).command(look)
        }
        _ if free < near => Finding::warning(found).command(look),
        _ => Finding::ok(found),
    }
}

pub(super) fn inodes(standing: &Standing, _: &PoolFacts, _: &Facts) -> Finding {
    let (total, free) = standing.inodes;
    if total == 0 {
        return Finding::ok("no limit");
    }
    let found = format!("{free} of {total} free");
    let look = format!("du -x --inodes -d1 {} | sort -n", quote(&standing.mount.target));
    match free {
        0 => Finding::problem(found).command(look),
        _ if free < total / 20 => Finding::warning(found).command(look),
        _ => Finding::ok(found),
    }
}

/// What each of these options costs: data first, speed last.
pub(super) fn mount_options(standing: &Standing, _: &PoolFacts, _: &Facts) -> Finding {
    let mount = &standing.mount;
    let remount = |options: &str| format!("mount -o remount,{options} {}", quote(&mount.target));
    if mount.has("ro") {
        return Finding::problem("ro: nothing can be written").command(remount("rw"));
    }
    if mount.has("nobarrier") || mount.value("barrier") == Some("0") {
        return Finding::problem("nobarrier: a power failure loses what was reported as written")
            .command(remount("barrier=1"));
    }
    if mount.value("data") == Some("journal") {
        return Finding::warning("data=journal: everything is written twice, and direct I/O is off")
            .recommend(
                "take data=journal out of /etc/fstab and mount again (it can't be changed while mounted)",
            );
    }
    if mount.has("sync") {
        return Finding::warning("sync: every write waits for the disk").command(remount("async"));
    }
    if mount.options.iter().any(|option| option.starts_with("compress")) {
        return Finding::advice("compress: compressed blocks go through the page cache, not by direct I/O")
            .command(remount("compress=no"));
    }
    if !["relatime", "noatime"].iter().any(|option| mount.has(option)) {
        return Finding::advice("strictatime: every read writes a time stamp").command(remount("relatime"));
    }
    let options: BTreeSet<_> = mount.options.iter().map(String::as_str).collect();
    Finding::ok(options.into_iter().collect::<Vec<_>>().join(","))
}

pub(super) fn own_file_system(standing: &Standing, _: &PoolFacts, _: &Facts) -> Finding {
    if standing.mount.target == Path::new("/") {
        return Finding::advice("the pool is on the root file system");
    }
    Finding::ok(format!("on {}", standing.mount.target.display()))
}

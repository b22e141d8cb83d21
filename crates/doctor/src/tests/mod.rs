//! Every check is made to agree and to complain, on a tree that looks like a host; and all of them look at the real host.

mod breaks;
mod stage;

use crate::context::{Context, PoolPlace};
use crate::facts::{Facts, Standing};
use crate::report::{Check, Report, Verdict};
use crate::{checks, examine};
use Verdict::{Ok as Fine, Problem, Warning};
use breaks::{BREAKS, Break};
use stage::{GONE, ID, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant, SystemTime};

fn check<'a>(checks: &'a [Check], id: &str) -> &'a Check {
    checks.iter().find(|check| check.id == id).unwrap_or_else(|| panic!("no check {id}"))
}

fn ids() -> BTreeSet<&'static str> {
    checks::TABLE.iter().map(|rule| rule.id).collect()
}

fn assert_readable(check: &Check) {
    for text in [&check.title, &check.found, &check.recommended, &check.why] {
        assert!(!text.trim().is_empty() && !text.ends_with('.'), "{check:?}");
        assert!(!text.contains('\n') && !text.contains("  "), "{check:?}");
    }
}

#[test]
fn a_good_host_is_fine_in_every_point() {
    let checks = checks::judge(&Stage::new().facts());
    for check in &checks {
        assert_eq!(check.verdict, Fine, "{check:?}");
        assert_eq!(check.command, None, "{check:?}");
        assert_readable(check);
    }
    assert_eq!(checks.len(), checks::TABLE.len());
    assert!(Report { checks }.healthy());
}

#[test]
fn every_check_complains_where_it_should() {
    for (id, verdict, broken) in BREAKS {
        let mut stage = Stage::new();
        if let Break::Host(change) = broken {
            change(&mut stage);
        }
        let mut facts = stage.facts();
        match broken {
            Break::Host(_) => {}
            Break::Facts(change) => change(&mut facts),
            Break::Pool(change) => change(facts.pools[0].standing.as_mut().unwrap()),
        }
        let checks = checks::judge(&facts);
        let complaint = check(&checks, id);
        assert_eq!(complaint.verdict, *verdict, "{complaint:?}");
        checks.iter().for_each(assert_readable);
        assert_eq!(
            Report { checks }.healthy(),
            *verdict != Problem && !has_problem_of_its_own(&facts),
            "{id}"
        );
    }
}

/// A daemon or Docker that does not answer is a problem besides.
fn has_problem_of_its_own(facts: &Facts) -> bool {
    facts.daemon.is_err() || facts.docker.is_err()
}

#[test]
fn every_check_has_a_case_in_which_it_complains() {
    let tried: BTreeSet<_> = BREAKS.iter().map(|(id, ..)| *id).collect();
    assert_eq!(tried, ids());
    assert_eq!(ids().len(), checks::TABLE.len(), "an ID stands twice in the table");
    for id in ids() {
        assert!(
            id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
            "{id}"
        );
    }
}

fn command(id: &str, change: fn(&mut Stage)) -> String {
    let mut stage = Stage::new();
    change(&mut stage);
    let checks = checks::judge(&stage.facts());
    let base = stage.dir.path().canonicalize().unwrap().display().to_string();
    check(&checks, id).command.clone().unwrap_or_default().replace(&base, "")
}

#[test]
fn commands_are_exact() {
    let host = |id, change: fn(&mut Stage)| command(id, change);
    assert_eq!(
        host("helper-programs", |host| {
            host.remove("/usr/sbin/e2fsck");
            host.remove("/usr/sbin/xfs_growfs");
        }),
        "apt-get install e2fsprogs xfsprogs"
    );
    assert_eq!(
        host("stale-loop-devices", |host| {
            host.use_loop("loop10", &host.image(GONE), "1");
            host.use_loop("loop4", &host.image(GONE), "1");
        }),
        "losetup --detach /dev/loop4 /dev/loop10"
    );
    assert_eq!(
        host("deleted-images", |host| host.use_loop("loop3", &format!("{} (deleted)", host.image(ID)), "1")),
        format!("cp --sparse=always /dev/loop3 /pool/rescued-{ID}.img")
    );
    assert_eq!(
        host("pool-direct-io", |host| host.write("/sys/block/loop3/loop/dio", "0")),
        "losetup --direct-io=on /dev/loop3"
    );
    assert_eq!(
        host("pool-mount-options", |host| host.remount("/dev/sdb1", "rw,relatime", "rw")),
        "mount -o remount,relatime /pool"
    );
    assert_eq!(
        host("pool-io-scheduler", |host| {
            host.write("/sys/devices/sdb/queue/scheduler", "none mq-deadline [bfq]");
        }),
        "echo none > /sys/block/sdb/queue/scheduler && \
         echo 'ACTION==\"add|change\", KERNEL==\"sdb\", ATTR{queue/scheduler}=\"none\"' \
         > /etc/udev/rules.d/60-everhold-sdb.rules"
    );
    assert_eq!(
        host("dirty-pages", |host| host.write("/proc/meminfo", "MemTotal: 268435456 kB")),
        "printf 'vm.dirty_bytes = 1073741824\\nvm.dirty_background_bytes = 268435456\\n' \
         > /etc/sysctl.d/60-everhold.conf && sysctl --load=/etc/sysctl.d/60-everhold.conf"
    );
}

#[test]
fn what_the_operator_reads_about_quota_depends_on_the_file_system() {
    let mut facts = Stage::new().facts();
    let mut said = |change: fn(&mut Standing)| {
        let standing = facts.pools[0].standing.as_mut().unwrap();
        standing.project_quota = Some(false);
        change(standing);
        let found = check(&checks::judge(&facts), "pool-project-quota").clone();
        (found.recommended, found.command)
    };
    let (_, xfs) = said(|standing| standing.mount.target = "/srv/p".into());
    assert_eq!(xfs.unwrap(), "umount /srv/p && mount -o prjquota /dev/sdb1 /srv/p");
    let (_, ext4) = said(|standing| standing.mount.fstype = "ext4".into());
    assert!(ext4.unwrap().contains("tune2fs -O project,quota -Q prjquota /dev/sdb1"));
    let (root, none) = said(|standing| standing.mount.target = "/".into());
    assert!(root.contains("driver image") && none.is_none());
    let (btrfs, none) = said(|standing| standing.mount.fstype = "btrfs".into());
    assert!(btrfs.contains("btrfs") && none.is_none());
}

#[test]
fn the_disk_is_found_through_a_partition_and_through_device_mapper() {
    let mut stage = Stage::new();
    stage.write("/sys/devices/dm-0/queue/scheduler", "none");
    stage.write("/sys/devices/dm-0/queue/rotational", "0");
    stage.link("/sys/devices/dm-0/slaves/sdb1", "../../sdb/sdb1");
    stage.link("/sys/dev/block/253:0", "../../devices/dm-0");
    for device in ["8:17", "253:0"] {
        stage.remount("/dev/sdb1", stage.mounts[1].split(' ').nth(2).unwrap().to_owned().as_str(), device);
        let facts = stage.facts();
        let disk = facts.pools[0].standing.as_ref().unwrap().disk.clone().unwrap();
        assert_eq!((disk.name.as_str(), disk.scheduler.as_str()), ("sdb", "none"), "{device}");
        assert!(!disk.rotational);
    }
    // btrfs has a device number that is no device.
    stage.remount("/dev/sdb1", "253:0", "0:44");
    stage.link("/sys/class/block/sdb1", "../../devices/sdb/sdb1");
    assert_eq!(stage.facts().pools[0].standing.as_ref().unwrap().disk.as_ref().unwrap().name, "sdb");
}

#[test]
fn an_unreachable_pool_is_reported_once_and_the_others_in_full() {
    let mut stage = Stage::new();
    let second =
        PoolPlace { name: "gone".into(), path: "/nowhere/at/all".into(), reserve: "5%".parse().unwrap() };
    stage.context.pools.push(second);
    let checks = checks::judge(&stage.facts());
    let mut of_pools: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for check in &checks {
        of_pools.entry(check.subject.as_deref().unwrap_or("-")).or_default().push(&check.id);
    }
    assert_eq!(of_pools["gone"], ["pool-file-system"]);
    assert_eq!(of_pools["default"].len(), of_pools["default"].iter().collect::<BTreeSet<_>>().len());
    assert!(of_pools["default"].contains(&"pool-space") && of_pools["-"].contains(&"kernel"));
}

#[test]
fn more_loop_devices_than_max_loop_is_fine() {
    // max_loop is the number that is made in advance, no limit.
    let stage = Stage::new();
    (10..30).for_each(|n| stage.use_loop(&format!("loop{n}"), "/some/iso", "0"));
    let checks = checks::judge(&stage.facts());
    assert_eq!(check(&checks, "loop-devices").verdict, Fine);
    assert!(check(&checks, "loop-devices").found.starts_with("21 in use"));
    assert_eq!(
        check(&checks, "stale-loop-devices").verdict,
        Fine,
        "other people's loop devices are not ours"
    );
}

#[test]
fn the_real_host_is_examined_fast_and_completely() {
    let dir = tempfile::tempdir().unwrap();
    let context = Context {
        now: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000),
        root: "/".into(),
        state: dir.path().into(),
        mountpoints: dir.path().join("mnt"),
        plugin_socket: "/run/docker/plugins/everhold.sock".into(),
        pools: vec![PoolPlace {
            name: "default".into(),
            path: dir.path().into(),
            reserve: "5%".parse().unwrap(),
        }],
        docker: Err("not asked".into()),
        daemon: Err("not asked".into()),
    };
    let start = Instant::now();
    let report = examine(&context);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let got: Vec<_> = report.checks.iter().map(|check| check.id.as_str()).collect();
    let want: Vec<_> = checks::TABLE.iter().map(|rule| rule.id).collect();
    assert_eq!(got, want);
    for check in &report.checks {
        assert_readable(check);
        println!("{:8} {:24} {}", format!("{:?}", check.verdict), check.id, check.found);
    }
    assert!(!report.healthy(), "the daemon and Docker did not answer");
    assert!(report.count(Problem) >= 2);
    // What every host that builds this can say of itself.
    assert!(check(&report.checks, "kernel").found.starts_with("Linux "));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn the_shape_of_the_json_is_stable() {
    let check = Check {
        id: "pool-space".into(),
        subject: Some("default".into()),
        title: "Pool space".into(),
        verdict: Warning,
        found: "f".into(),
        recommended: "r".into(),
        why: "w".into(),
        command: Some("c".into()),
    };
    let without = Check { subject: None, command: None, verdict: Fine, ..check.clone() };
    let report = Report { checks: vec![check, without] };
    let json = serde_json::json!({ "checks": [
        { "id": "pool-space", "subject": "default", "title": "Pool space", "verdict": "warning",
          "found": "f", "recommended": "r", "why": "w", "command": "c" },
        { "id": "pool-space", "title": "Pool space", "verdict": "ok", "found": "f", "recommended": "r", "why": "w" },
    ] });
    assert_eq!(serde_json::to_value(&report).unwrap(), json);
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}

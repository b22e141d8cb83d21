//! The commands that findings name: none that would be refused, and one for nearly every finding.

use super::breaks::{LAYERS, MOUNTS, VOLUMES};
use super::stage::*;
use super::{finding, report};
use crate::facts::*;

/// What makes rescue refuse a container, and what has to be done first if that is all that is needed.
type Refused = (&'static str, fn(&mut Host), Option<&'static str>);

fn each(host: &mut Host, change: impl Fn(&mut Container)) {
    host.containers.iter_mut().for_each(change);
}

/// Adds a container for each with a name that is made of its name.
fn beside(host: &mut Host, end: &str) {
    let others: Vec<_> = host
        .containers
        .iter()
        .map(|found| Container {
            restart_policy: "no".into(),
            ..container(&format!("{}{end}", found.name), "x:1")
        })
        .collect();
    host.others.extend(others);
}

const REFUSED: &[Refused] = &[
    ("--rm", |host| each(host, |container| container.auto_remove = true), None),
    ("dead", |host| each(host, |container| container.state = State::Dead), None),
    ("half removed", |host| each(host, |container| container.state = State::Other("removing".into())), None),
    ("paused", |host| each(host, |container| container.state = State::Paused), Some("docker unpause ")),
    ("restarting", |host| each(host, |container| container.state = State::Restarting), Some("docker stop ")),
    (
        "of Swarm",
        |host| each(host, |it| drop(it.labels.insert("com.docker.swarm.service.name".into(), "x".into()))),
        None,
    ),
    (
        "of Kubernetes",
        |host| each(host, |it| drop(it.labels.insert("io.kubernetes.pod.name".into(), "x".into()))),
        None,
    ),
    ("lived in", |host| each(host, |container| container.dependents = vec!["sidecar".into()]), None),
    ("rescued before", |host| beside(host, "-before-rescue"), None),
    ("half rescued", |host| beside(host, "-everhold-new"), None),
    ("of another storage driver", |host| host.engine.storage_driver = "overlayfs".into(), None),
];

#[test]
fn nothing_is_rescued_that_rescue_refuses() {
    let mut rescued = 0;
    for (at, (_, change)) in LAYERS.iter().chain(MOUNTS).chain(VOLUMES).enumerate() {
        let mut fine = healthy();
        change(&mut fine);
        rescued += report(&fine).findings.iter().filter(|found| !found.rescue.is_empty()).count();
        for (what, refuse, step) in REFUSED {
            let mut host = healthy();
            change(&mut host);
            refuse(&mut host);
            for found in report(&host).findings {
                let command = found.command.as_deref().unwrap_or_default();
                let moves = command.contains("everhold rescue") && !command.ends_with(" --discard-old");
                let rescues = moves || !found.rescue.is_empty();
                let allowed = step.is_some_and(|step| command.starts_with(step));
                assert!(!rescues || allowed, "case {at}, {what}: {found:#?}");
            }
        }
    }
    assert!(rescued > 10, "without that, rescue helps");
}

#[test]
fn a_rescue_moves_what_its_command_names() {
    for (_, change) in LAYERS.iter().chain(MOUNTS).chain(VOLUMES) {
        let mut host = healthy();
        change(&mut host);
        for found in report(&host).findings {
            let command = found.command.unwrap_or_default();
            let named: Vec<&str> = command.split(" --path ").skip(1).collect();
            assert_eq!(found.rescue, named, "{command}");
            let moves = command.starts_with("everhold rescue ") && !command.ends_with(" --discard-old");
            assert_eq!(moves, !named.is_empty(), "{command}");
        }
    }
}

#[test]
fn nearly_every_finding_has_a_command() {
    for (_, change) in LAYERS.iter().chain(MOUNTS).chain(VOLUMES) {
        let mut host = healthy();
        change(&mut host);
        let stopped = !host.containers[0].state.is_alive();
        for found in report(&host).findings {
            let none = found.code == "not-looked-at" || found.code == "data-on-tmpfs" && stopped;
            assert_eq!(found.command.is_none(), none, "{found:?}");
        }
    }
}

/// The command of the one finding with this code, after a change.
fn command(code: &str, change: impl FnOnce(&mut Host)) -> String {
    let mut host = healthy();
    change(&mut host);
    finding(&report(&host), code).command.unwrap_or_default()
}

#[test]
fn several_places_are_moved_together_and_the_root_is_backed_up() {
    let mut host = healthy();
    host.containers[3].layer = layer(&[("/srv/a/x", 20 * MIB), ("/opt/b/y", 30 * MIB), ("/big", MIB)]);
    let found = finding(&report(&host), "files-in-layer");
    assert_eq!(found.command.as_deref(), Some("everhold rescue app --path /opt/b --path /srv/a"));
    assert_eq!(found.rescue, ["/opt/b", "/srv/a"]);
    let command = command("files-in-layer", |host| {
        host.containers[3].layer = layer(&[("/big", 20 * MIB)]);
    });
    assert_eq!(command, "everhold container backup app --to app.tar");
}

#[test]
fn what_can_not_be_moved_is_saved() {
    let big = || layer(&[("/srv/a/x", 20 * MIB)]);
    let layer_command = |change: fn(&mut Host)| {
        command("files-in-layer", |host| {
            host.containers[3].layer = big();
            change(host);
        })
    };
    assert_eq!(
        layer_command(|host| host.containers[3].auto_remove = true),
        "everhold container backup app --to app.tar"
    );
    assert_eq!(
        layer_command(|host| host.containers[3].state = State::Paused),
        "docker unpause app && everhold rescue app --path /srv/a"
    );
    assert_eq!(layer_command(|host| host.containers[3].state = State::Dead), "docker cp -a app:/srv/a .");
    let memory = |change: fn(&mut Container)| {
        command("data-on-tmpfs", |host| {
            host.volumes.clear();
            host.containers[0].mounts = vec![tmpfs("/var/lib/postgresql/data", content(5, &["PG_VERSION"]))];
            change(&mut host.containers[0]);
        })
    };
    assert_eq!(memory(|_| {}), "everhold rescue db --path /var/lib/postgresql/data");
    assert_eq!(memory(|db| db.state = State::Exited), "");
    assert_eq!(
        memory(|db| db.auto_remove = true),
        "docker exec db tar -cf - -C /var/lib/postgresql/data . >db.tar"
    );
}

#[test]
fn only_what_can_be_adopted_is() {
    let volume_command = |code, change: fn(&mut Host)| {
        command(code, |host| {
            let left =
                Volume { driver: "local".into(), protection: Protection::Unknown, ..host.volumes[0].clone() };
            host.volumes = vec![left];
            change(host);
        })
    };
    let used = |change| volume_command("volume-without-history", change);
    assert_eq!(used(|_| {}), "everhold adopt pgdata");
    let backup = "everhold container backup db --to db.tar";
    assert_eq!(used(|host| host.volumes[0].driver = "rclone".into()), backup);
    assert_eq!(used(|host| drop(host.volumes[0].options.insert("type".into(), "nfs".into()))), backup);
    assert_eq!(used(|host| host.containers[0].auto_remove = true), backup);
    // Its other user is none of those that were asked for.
    assert_eq!(
        used(|host| {
            let mut other = container("other", "busybox:1");
            other.auto_remove = true;
            other.mounts = vec![Mount { read_write: false, ..host.containers[0].mounts[0].clone() }];
            host.others.push(other);
        }),
        backup
    );
    let pack = "docker run --rm -v pgdata:/from:ro busybox tar -cf - -C /from . >pgdata.tar";
    assert_eq!(
        used(|host| {
            host.volumes[0].driver = "rclone".into();
            host.containers[0].state = State::Exited;
        }),
        pack
    );
    let left = |change: fn(&mut Volume)| {
        command("volume-dangling", |host| {
            let mut left = Volume {
                driver: "local".into(),
                protection: Protection::Unknown,
                used_by: vec![],
                ..host.volumes.remove(0)
            };
            host.containers.remove(0);
            change(&mut left);
            host.volumes = vec![left];
        })
    };
    assert_eq!(left(|_| {}), "everhold adopt pgdata");
    assert_eq!(left(|volume| volume.driver = "rclone".into()), pack);
}

#[test]
fn a_volume_without_a_name_that_several_have_is_adopted() {
    let command = command("data-on-anonymous-volume", |host| {
        let shared = mount(&anonymous('b'), "/state", content(7, &["x"]));
        host.containers[3].mounts = vec![shared.clone()];
        host.others.push(Container { mounts: vec![shared.clone()], ..container("other", "busybox:1") });
        let listed =
            Volume { driver: "local".into(), protection: Protection::Unknown, ..volume(&shared, "app") };
        host.volumes.push(listed);
    });
    assert_eq!(command, format!("everhold adopt {} --as …", anonymous('b')));
}

#[test]
fn what_an_empty_mount_hides_is_copied_into_it() {
    let hides = |held: Content| {
        command("mount-hides-image-content", |host| {
            let hiding = bind("/srv/html", "/usr/share/nginx/html", held);
            let hiding = Mount { shadows: Some(2), copied_up: Some(false), ..hiding };
            host.containers[1].mounts.push(hiding);
        })
    };
    assert_eq!(
        hides(content(0, &[])),
        "docker run --rm --user 0 --entrypoint cp -v /srv/html:/mnt nginx:1.29 -a /usr/share/nginx/html/. /mnt"
    );
    assert_eq!(
        hides(content(5, &["x"])),
        "docker run --rm --entrypoint ls nginx:1.29 -lA /usr/share/nginx/html"
    );
}

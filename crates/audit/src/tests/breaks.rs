//! For each check a change of the healthy host that makes it complain, and nothing else.

use super::stage::*;
use crate::facts::*;
use crate::report::Severity::{self, Advice, Loss, Note, Risk};

/// What a change makes the examination say: codes and severities, all of them.
pub(super) type Break = (&'static [(&'static str, Severity)], fn(&mut Host));

fn db(host: &mut Host) -> &mut Container {
    &mut host.containers[0]
}

fn web(host: &mut Host) -> &mut Container {
    &mut host.containers[1]
}

fn app(host: &mut Host) -> &mut Container {
    &mut host.containers[3]
}

/// Takes the volume away, so that the database is in the layer.
fn unmount(host: &mut Host) {
    db(host).mounts.clear();
    host.volumes.clear();
}

/// Puts the database on another mount, in the container and in the list of volumes.
fn remount(host: &mut Host, changed: Mount) {
    host.volumes = vec![volume(&changed, "db")];
    db(host).mounts = vec![changed];
}

fn data() -> Content {
    content(3 * GIB, &["PG_VERSION", "base"])
}

fn postgres_18(host: &mut Host) {
    db(host).image = "postgres:18".into();
    db(host).env.insert("PGDATA".into(), "/var/lib/postgresql/18/docker".into());
    db(host).declared_volumes = vec!["/var/lib/postgresql".into()];
}

fn own(used_percent: u64) -> Content {
    let fs_free = Some((100 - used_percent) * GIB);
    Content { fs_is_own: true, fs_size: Some(100 * GIB), fs_free, ..data() }
}

pub(super) const LAYERS: &[Break] = &[
    (&[("data-in-layer", Loss)], |host| {
        unmount(host);
        db(host).layer = layer(&[("/var/lib/postgresql/data/base/1", 3 * GIB)]);
    }),
    // A deeper directory that the environment names, with the volume where the image has its own default.
    (&[("volume-misses-data", Loss)], |host| {
        let empty = content(0, &[]);
        remount(host, mount("pgdata", "/var/lib/postgresql/data", empty));
        db(host).env.insert("PGDATA".into(), "/srv/pg".into());
        db(host).layer = layer(&[("/srv/pg/base/1", 3 * GIB)]);
    }),
    (&[("data-in-layer", Loss), ("files-in-layer", Risk)], |host| {
        unmount(host);
        db(host).command = vec!["postgres".into(), "-D".into(), "/srv/pg".into()];
        db(host).layer = layer(&[("/srv/pg/base/1", 3 * GIB), ("/opt/notes", 5)]);
    }),
    // The same for a stopped one, of which no process is seen.
    (&[("data-in-layer", Loss)], |host| {
        unmount(host);
        db(host).state = State::Exited;
        db(host).processes.clear();
        db(host).layer = layer(&[("/var/lib/postgresql/data/base/1", 3 * GIB)]);
    }),
    (&[("data-in-layer", Loss), ("removes-itself", Risk)], |host| {
        unmount(host);
        db(host).auto_remove = true;
        db(host).restart_policy = "no".into();
        db(host).layer = layer(&[("/var/lib/postgresql/data/base/1", 1)]);
    }),
    // Kafka's default lies below /tmp, which is noise for everybody else.
    (&[("data-in-layer", Loss)], |host| {
        app(host).image = "apache/kafka:4.1.0".into();
        app(host).restart_policy = "always".into();
        app(host).layer = layer(&[("/tmp/kraft-combined-logs/topic-0/0.log", GIB)]);
    }),
    (&[("files-in-layer", Loss)], |host| app(host).layer = layer(&[("/srv/uploads/a", 11 * MIB)])),
    (&[("files-in-layer", Risk)], |host| app(host).layer = layer(&[("/etc/app.conf", 1)])),
    (&[("could-be-read-only", Note)], |host| web(host).read_only_root = false),
    (&[("not-looked-at", Note)], |host| app(host).layer = Err("permission denied".into())),
    (&[("not-looked-at", Note)], |host| app(host).mounts[0].content = None),
    (&[("not-looked-at", Note)], |host| host.unreadable.push("docker did not answer in time".into())),
    (&[("not-looked-at", Note)], |host| {
        host.volumes[0].content = None;
        db(host).mounts[0].content = None;
    }),
];

pub(super) const MOUNTS: &[Break] = &[
    (&[("data-on-anonymous-volume", Risk)], |host| {
        remount(host, mount(&anonymous('a'), "/var/lib/postgresql/data", data()));
    }),
    (&[("data-on-anonymous-volume", Loss), ("removes-itself", Risk)], |host| {
        remount(host, mount(&anonymous('a'), "/var/lib/postgresql/data", data()));
        db(host).auto_remove = true;
        db(host).restart_policy = "no".into();
    }),
    // Nobody knows what this is, but it is data.
    (&[("data-on-anonymous-volume", Risk)], |host| {
        app(host).mounts.push(mount(&anonymous('b'), "/state", content(7, &["x"])));
    }),
    // Since version 18 the image declares /var/lib/postgresql: what is mounted further down stays empty.
    (&[("volume-misses-data", Risk)], |host| {
        postgres_18(host);
        let old = mount("pgdata", "/var/lib/postgresql/data", content(0, &[]));
        remount(host, old);
        db(host).mounts.push(mount(
            &anonymous('a'),
            "/var/lib/postgresql",
            content(3 * GIB, &["18", "data"]),
        ));
    }),
    // The same with what version 17 left.
    (&[("volume-misses-data", Risk)], |host| {
        postgres_18(host);
        remount(host, mount("pgdata", "/var/lib/postgresql/data", data()));
        db(host).mounts.push(mount(
            &anonymous('a'),
            "/var/lib/postgresql",
            content(3 * GIB, &["18", "data"]),
        ));
    }),
    // And the other way round: up to 17, one level too high, with the point for the anonymous volume in it.
    (&[("volume-misses-data", Risk)], |host| {
        remount(host, mount("pgdata", "/var/lib/postgresql", content(0, &["data"])));
        db(host).mounts.push(mount(&anonymous('a'), "/var/lib/postgresql/data", data()));
    }),
    (&[("volume-misses-data", Loss), ("removes-itself", Risk)], |host| {
        remount(host, mount("pgdata", "/data", content(0, &[])));
        db(host).mounts.push(mount(&anonymous('a'), "/var/lib/postgresql/data", data()));
        db(host).auto_remove = true;
    }),
    // What is mounted read-only was not meant to take the data.
    (&[("data-on-anonymous-volume", Risk)], |host| {
        remount(host, mount("pgdata", "/data", content(0, &[])));
        db(host).mounts[0].read_write = false;
        db(host).mounts.push(mount(&anonymous('a'), "/var/lib/postgresql/data", data()));
    }),
    (&[("data-on-tmpfs", Loss)], |host| {
        unmount(host);
        db(host).mounts = vec![tmpfs("/var/lib/postgresql/data", data())];
    }),
    (&[("data-on-tmpfs", Risk)], |host| {
        unmount(host);
        db(host).mounts = vec![tmpfs("/var/lib/postgresql/data", content(0, &[]))];
    }),
    (&[("data-on-tmpfs", Risk)], |host| {
        unmount(host);
        db(host).state = State::Exited;
        db(host).mounts = vec![Mount { content: None, ..tmpfs("/var/lib/postgresql/data", data()) }];
    }),
    (&[("mount-hides-image-content", Risk)], |host| {
        let mut hiding = bind("/srv/empty", "/usr/share/nginx/html", content(0, &[]));
        (hiding.shadows, hiding.copied_up) = (Some(2), Some(false));
        web(host).mounts.push(hiding);
    }),
    (&[("mount-hides-image-content", Note)], |host| {
        let mut hiding = bind("/srv/html", "/usr/share/nginx/html", content(9, &["index.html"]));
        (hiding.shadows, hiding.copied_up) = (Some(1), None);
        web(host).mounts.push(hiding);
    }),
    (&[("shared-writable", Risk)], |host| {
        let shared = app(host).mounts[0].clone();
        web(host).mounts.push(shared);
    }),
    (&[("shared-writable", Risk)], |host| {
        let second = Container { id: "f".repeat(64), name: "db2".into(), ..db(host).clone() };
        host.containers.push(Container { state: State::Exited, ..second });
    }),
    (&[("mount-not-writable", Risk)], |host| {
        db(host).uid = Some(999);
        db(host).gids = vec![999, 5];
    }),
    // Write permission without the one to search.
    (&[("mount-not-writable", Risk)], |host| {
        (db(host).uid, db(host).gids) = (Some(999), vec![999]);
        db(host).mounts[0].content = Some(Content { mode: 0o706, ..data() });
    }),
    (&[("hostname-not-fixed", Risk)], |host| {
        let broker = mount("rabbit", "/var/lib/rabbitmq", content(5, &["mnesia"]));
        host.volumes.push(volume(&broker, "app"));
        app(host).image = "rabbitmq:4".into();
        app(host).restart_policy = "always".into();
        app(host).hostname = Some(app(host).id[..12].to_owned());
        app(host).mounts = vec![broker];
    }),
    (&[("no-restart-policy", Advice)], |host| db(host).restart_policy = String::new()),
    (&[("moving-tag", Advice)], |host| db(host).image = "docker.io/library/postgres:latest".into()),
    (&[("moving-tag", Advice)], |host| db(host).image = "postgis/postgis".into()),
    (&[("kept-by-rescue", Note)], |host| {
        let kept = Container {
            id: "e".repeat(64),
            name: "db-before-rescue".into(),
            state: State::Exited,
            ..db(host).clone()
        };
        host.containers.push(Container { mounts: Vec::new(), image: "postgres:latest".into(), ..kept });
    }),
    (&[("kept-by-rescue", Risk)], |host| {
        let labels = [("com.docker.compose.project".to_owned(), "shop".to_owned())].into();
        let kept =
            Container { id: "e".repeat(64), name: "db-before-adopt".into(), labels, ..db(host).clone() };
        host.containers.push(Container { mounts: Vec::new(), state: State::Exited, ..kept });
    }),
    // With one that was not asked for.
    (&[("shared-writable", Risk)], |host| {
        let other = Container { id: "f".repeat(64), name: "db2".into(), ..db(host).clone() };
        host.others.push(other);
    }),
    // What it would run as.
    (&[("mount-not-writable", Risk)], |host| {
        db(host).state = State::Exited;
        (db(host).uid, db(host).gids) = (Some(999), vec![999]);
    }),
];

pub(super) const VOLUMES: &[Break] = &[
    (&[("volume-without-history", Risk)], |host| host.volumes[0].protection = Protection::Unknown),
    (&[("volume-without-history", Risk)], |host| host.volumes[0].protection = Protection::None),
    (&[("volume-without-history", Advice)], |host| {
        let other = mount("other", "/x", content(5, &["x"]));
        host.volumes.push(Volume { protection: Protection::Unknown, ..volume(&other, "app") });
    }),
    (&[("history-behind", Risk)], |host| {
        let behind = Some("the last durable cut is 3 hours old".into());
        host.volumes[0].protection = Protection::Protected { behind };
    }),
    (&[("volume-directory-gone", Risk)], |host| {
        let gone = volume(&mount("gone", "/x", Content::default()), "app");
        host.volumes.push(Volume { protection: Protection::Unknown, used_by: vec![], ..gone });
    }),
    (&[("volume-without-history", Risk), ("volume-nearly-full", Risk)], |host| {
        host.volumes[0].protection = Protection::Unknown;
        host.volumes[0].content = Some(own(95));
    }),
    (&[("volume-dangling", Risk)], |host| {
        let left = volume(&mount(&anonymous('c'), "/x", data()), "app");
        host.volumes.push(Volume { protection: Protection::Unknown, used_by: vec![], ..left });
    }),
    (&[("volume-directory-gone", Risk)], |host| {
        let gone = volume(&mount("gone", "/x", Content::default()), "app");
        host.volumes.push(Volume { protection: Protection::Unknown, ..gone });
    }),
    (&[("volume-nearly-full", Risk)], |host| host.volumes[0].content = Some(own(90))),
    (&[("host-nearly-full", Risk)], |host| host.engine.fs_free = Some(10 * GIB)),
];

/// What must say nothing.
pub(super) const FINE: &[fn(&mut Host)] = &[
    |host| host.volumes[0].content = Some(own(89)),
    |host| host.engine.fs_free = Some(11 * GIB),
    |host| db(host).image = "postgres@sha256:0".into(),
    // The group lets it in, or the mode does.
    |host| {
        db(host).uid = Some(999);
        db(host).gids = vec![999, 5];
        let inside = Content { gid: 5, mode: 0o40_770, ..data() };
        db(host).mounts[0].content = Some(inside);
    },
    |host| {
        db(host).uid = Some(999);
        db(host).mounts[0].content = Some(Content { mode: 0o1777, ..data() });
    },
    |host| {
        db(host).uid = Some(999);
        db(host).mounts[0].content = Some(Content { uid: 999, mode: 0o700, ..data() });
    },
    // The file system of the host is not the volume's.
    |host| host.volumes[0].content = Some(Content { fs_is_own: false, ..own(95) }),
    // The orchestrator starts it anew.
    |host| {
        db(host).restart_policy = "no".into();
        db(host).labels.insert("com.docker.swarm.task.id".into(), "x".into());
    },
    // Whether the volume has what the image brings was not seen.
    |host| (db(host).mounts[0].shadows, db(host).mounts[0].copied_up) = (Some(3), None),
    // Version 18 as it should be.
    |host| {
        postgres_18(host);
        let right = mount("pgdata", "/var/lib/postgresql", content(3 * GIB, &["18"]));
        remount(host, right);
    },
    // A write-ahead log on a volume of its own.
    |host| {
        let log = mount("wal", "/var/lib/postgresql/data/pg_wal", content(5, &["archive_status"]));
        host.volumes.push(volume(&log, "db"));
        db(host).mounts.push(log);
    },
    // A cache that was told to keep nothing, with an empty volume that its image declares.
    |host| {
        app(host).image = "redis:8".into();
        app(host).command =
            ["docker-entrypoint.sh", "redis-server", "--save", ""].map(str::to_owned).to_vec();
        app(host).mounts = vec![mount(&anonymous('d'), "/data", content(0, &[]))];
    },
    // A port and a variable of a database do not make one, and neither does a backup that looks into its volume.
    |host| {
        app(host).exposed_ports = vec!["5432/tcp".into()];
        app(host).env.insert("PGDATA".into(), "/var/lib/postgresql/data".into());
        let mut view = mount("pgdata", "/backup", data());
        view.read_write = false;
        app(host).mounts.push(view);
    },
    // The socket of the engine is shared by whoever asks for it.
    |host| {
        let socket = bind("/var/run/docker.sock", "/var/run/docker.sock", content(0, &[]));
        app(host).mounts.push(socket.clone());
        web(host).mounts.push(socket);
    },
    // Mounted by two, written by one.
    |host| {
        let mut read = app(host).mounts[0].clone();
        read.read_write = false;
        web(host).mounts.push(read);
    },
    // The engine filled the volume with what the image has.
    |host| {
        let mut filled = mount("html", "/usr/share/nginx/html", content(9, &["index.html"]));
        filled.shadows = Some(1);
        host.volumes.push(volume(&filled, "web"));
        web(host).mounts.push(filled);
    },
    // A new volume, empty yet.
    |host| {
        let fresh = volume(&mount("fresh", "/x", content(0, &["lost+found"])), "app");
        host.volumes.push(Volume { protection: Protection::Unknown, ..fresh });
    },
    |host| web(host).state = State::Exited,
    // The daemon does not answer, which is said once.
    |host| host.volumes[0].protection = Protection::Unseen,
    // Two that were not asked for have something to settle between them.
    |host| {
        let others = ["one", "two"].map(|name| Container {
            mounts: vec![mount("theirs", "/t", content(5, &["x"]))],
            ..container(name, "busybox:1")
        });
        host.others.extend(others);
    },
];

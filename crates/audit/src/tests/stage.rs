//! Hosts made up for tests. [`healthy`] has nothing to complain of.

use crate::facts::*;
use crate::{Change, Kind, Layer, Rules, Tally};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::LazyLock;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

pub(super) fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

pub(super) fn rules() -> &'static Rules {
    static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::built_in().unwrap());
    &RULES
}

/// A layer with these files, written an hour ago.
pub(super) fn layer(files: &[(&str, u64)]) -> Result<Layer, String> {
    let mut tally = Tally::new(rules()).watching(["/var/lib/postgresql/18/docker"]);
    let then = Timestamp::from_second(now().as_second() - 3600).unwrap();
    for (path, size) in files {
        tally.add(path.as_bytes(), Change::Added, Kind::File, *size, *size, then);
    }
    Ok(tally.finish())
}

/// A running container that is set up as well as can be, without any mount.
pub(super) fn container(name: &str, image: &str) -> Container {
    Container {
        id: format!("{:0<64}", name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()),
        name: name.into(),
        image: image.into(),
        image_id: "sha256:1234".into(),
        state: State::Running,
        hostname: Some(name.into()),
        env: BTreeMap::new(),
        command: vec![],
        processes: vec![],
        exposed_ports: vec![],
        declared_volumes: vec![],
        labels: BTreeMap::new(),
        user: String::new(),
        uid: Some(0),
        gids: vec![0],
        restart_policy: "unless-stopped".into(),
        auto_remove: false,
        read_only_root: true,
        dependents: vec![],
        mounts: vec![],
        layer: layer(&[]),
    }
}

pub(super) fn content(used: u64, names: &[&str]) -> Content {
    Content {
        exists: true,
        empty: used == 0 && names.is_empty(),
        uid: 0,
        gid: 0,
        mode: 0o755,
        used: Some(used),
        fs_size: Some(100 * GIB),
        fs_free: Some(60 * GIB),
        fs_is_own: false,
        signatures: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

pub(super) fn mount(volume: &str, destination: &str, content: Content) -> Mount {
    Mount {
        kind: MountKind::Volume,
        volume: Some(volume.into()),
        anonymous: volume.len() == 64,
        source: format!("/var/lib/docker/volumes/{volume}/_data"),
        destination: destination.into(),
        driver: Some("local".into()),
        read_write: true,
        content: Some(content),
        shadows: Some(0),
        copied_up: Some(true),
    }
}

pub(super) fn bind(source: &str, destination: &str, content: Content) -> Mount {
    let mount = mount("", destination, content);
    Mount { kind: MountKind::Bind, volume: None, source: source.into(), driver: None, ..mount }
}

pub(super) fn tmpfs(destination: &str, content: Content) -> Mount {
    Mount { kind: MountKind::Tmpfs, ..bind("", destination, content) }
}

/// The name of a volume that the engine made up.
pub(super) fn anonymous(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// The volume of a mount, with history.
pub(super) fn volume(mount: &Mount, user: &str) -> Volume {
    Volume {
        name: mount.volume.clone().unwrap(),
        driver: "everhold".into(),
        anonymous: mount.anonymous,
        mountpoint: Some(mount.source.clone()),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        used_by: vec![user.into()],
        content: mount.content.clone(),
        protection: Protection::Protected { behind: None },
    }
}

/// PostgreSQL 16 without any mount.
pub(super) fn postgres(name: &str) -> Container {
    Container {
        env: BTreeMap::from([("PGDATA".into(), "/var/lib/postgresql/data".into())]),
        command: vec!["docker-entrypoint.sh".into(), "postgres".into()],
        processes: vec!["postgres".into()],
        exposed_ports: vec!["5432/tcp".into()],
        declared_volumes: vec!["/var/lib/postgresql/data".into()],
        ..container(name, "postgres:16")
    }
}

pub(super) fn host(containers: Vec<Container>) -> Host {
    Host {
        engine: EngineFacts {
            version: "29.1.2".into(),
            storage_driver: "overlay2".into(),
            root: Some("/var/lib/docker".into()),
            fs_size: Some(100 * GIB),
            fs_free: Some(60 * GIB),
        },
        now: now(),
        containers,
        others: vec![],
        volumes: vec![],
        unreadable: vec![],
    }
}

/// A database on a volume with history, a web server and a cache without data, an application on a host directory.
pub(super) fn healthy() -> Host {
    let data = mount("pgdata", "/var/lib/postgresql/data", content(12 * GIB, &["PG_VERSION", "base"]));
    let volumes = vec![volume(&data, "db")];
    let db = Container { mounts: vec![data], ..postgres("db") };
    let mut web = container("web", "nginx:1.29");
    web.layer = layer(&[("/var/cache/nginx/client_temp/1", 5), ("/run/nginx.pid", 3), ("/tmp/x", 900)]);
    web.exposed_ports = vec!["80/tcp".into()];
    web.mounts = vec![tmpfs("/tmp", content(10, &["x"]))];
    let cache = container("cache", "memcached:1.6");
    let mut app = container("app", "ghcr.io/example/app:2");
    app.mounts = vec![bind("/srv/app", "/srv/app", content(0, &["config.toml"]))];
    app.restart_policy = "no".into();
    Host { volumes, ..host(vec![db, web, cache, app]) }
}

//! What scenarios of whole containers ask of a Docker host.

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testkit::{BUSYBOX, MARIADB, POSTGRES, Sandbox, output_of, until};

/// An engine waits half a minute for each plugin of another sandbox whose daemon is dead just then.
pub const SOON: Duration = Duration::from_secs(180);

pub fn inspect(sandbox: &Sandbox, container: &str) -> Value {
    let text = sandbox.docker(&["inspect", container]);
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

/// Not stopped, and not paused.
pub fn running(sandbox: &Sandbox, container: &str) -> bool {
    let state = &inspect(sandbox, container)["State"];
    state["Running"] == true && state["Paused"] == false
}

/// All settings, without what belongs to one container alone: by other means than the product's own.
pub fn settings(sandbox: &Sandbox, container: &str) -> Value {
    let mut found = inspect(sandbox, container);
    let short = found["Id"].as_str().unwrap()[..12].to_owned();
    let hostname = found["Config"]["Hostname"].clone();
    for network in found["NetworkSettings"]["Networks"].as_object_mut().unwrap().values_mut() {
        let endpoint = network.as_object_mut().unwrap();
        endpoint.retain(|key, _| ["IPAMConfig", "Aliases", "Links", "DriverOpts"].contains(&key.as_str()));
        if let Some(aliases) = endpoint["Aliases"].as_array_mut() {
            // The engine adds both.
            aliases.retain(|alias| *alias != short.as_str() && *alias != hostname);
        }
    }
    found["HostConfig"].as_object_mut().unwrap().remove("Binds");
    plain(serde_json::json!({
        "config": found["Config"], "host": found["HostConfig"], "image": found["Image"], "path": found["Path"],
        "args": found["Args"], "networks": found["NetworkSettings"]["Networks"],
    }))
}

/// The same of a container that was restored, whose image has the writable layer in it; and what it has mounted.
pub fn settings_and_mounts(sandbox: &Sandbox, container: &str) -> Value {
    let mut settings = settings(sandbox, container);
    settings.as_object_mut().unwrap().remove("image");
    settings["config"].as_object_mut().unwrap().remove("Image");
    let mounts = inspect(sandbox, container)["Mounts"].take();
    let told = ["Type", "Name", "Destination", "RW"];
    let mounts = mounts.as_array().unwrap().iter().map(|mount| told.map(|key| mount[key].to_string()));
    let mut mounts: Vec<_> = mounts.collect();
    mounts.sort();
    settings["mounts"] = serde_json::json!(mounts);
    settings
}

/// Without what says nothing, which engines say in many ways.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let plain = map.into_iter().map(|(key, value)| (key, plain(value)));
            let nothing = [
                Value::Null,
                false.into(),
                0.into(),
                "".into(),
                Value::Array(Vec::new()),
                Value::Object(Default::default()),
            ];
            Value::Object(plain.filter(|(_, value)| !nothing.contains(value)).collect())
        }
        other => other,
    }
}

/// The first path in which two documents differ.
#[track_caller]
pub fn assert_same(was: &Value, is: &Value, path: &str) {
    if let (Value::Object(one), Value::Object(other)) = (was, is) {
        for key in one.keys().chain(other.keys()) {
            let null = Value::Null;
            assert_same(
                one.get(key).unwrap_or(&null),
                other.get(key).unwrap_or(&null),
                &format!("{path}/{key}"),
            );
        }
    } else {
        assert_eq!(was, is, "{path}");
    }
}

/// No journal is left, so nobody has anything to finish or undo.
pub fn settled(sandbox: &Sandbox) -> bool {
    let entries = std::fs::read_dir(sandbox.state().join("relocations"));
    entries.map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "json")).count()
    }) == 0
}

/// PostgreSQL without a volume, which answers.
pub fn start_postgres(sandbox: &Sandbox, name: &str, options: &[&str]) {
    sandbox.docker(&[&["run", "-d", "--name", name], options, &[POSTGRES]].concat());
    answers(sandbox, name);
}

pub fn answers(sandbox: &Sandbox, name: &str) {
    until("PostgreSQL answers", SOON, || {
        let words = ["exec", name, "psql", "-h", "/var/run/postgresql", "-qc", "select 1"];
        sandbox.try_docker(&words).status.success()
    });
}

/// MariaDB without a volume, which answers.
pub fn start_mariadb(sandbox: &Sandbox, name: &str, options: &[&str]) {
    sandbox.docker(&[&["run", "-d", "--name", name], options, &[MARIADB]].concat());
    mariadb_answers(sandbox, name);
}

pub fn mariadb_answers(sandbox: &Sandbox, name: &str) {
    until("MariaDB answers", SOON, || {
        sandbox.try_docker(&["exec", name, "mariadb", "-N", "-e", "select 1"]).status.success()
    });
}

/// What MariaDB says to a statement.
pub fn mariadb(sandbox: &Sandbox, name: &str, statement: &str) -> String {
    sandbox.docker(&["exec", name, "mariadb", "-N", "-e", statement])
}

/// Busybox, without a network, at a script that makes `/tmp/ready` when it has written.
pub fn start_box(sandbox: &Sandbox, name: &str, options: &[&str], script: &str) {
    let script = format!("{script}; touch /tmp/ready; exec sleep 1000");
    let run = ["run", "-d", "--name", name, "--network", "none"];
    sandbox.docker(&[&run[..], options, &[BUSYBOX, "sh", "-c", &script]].concat());
    until("it has written", SOON, || {
        sandbox.try_docker(&["exec", name, "ls", "/tmp/ready"]).status.success()
    });
}

/// A container that its engine has given up: it could not be removed, for something of it is in use.
pub fn start_dead(sandbox: &Sandbox, name: &str) {
    start_box(sandbox, name, &[], "true");
    let upper = inspect(sandbox, name)["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap().to_owned();
    let busy = format!("{upper}/tmp/busy");
    std::fs::write(&busy, "x").unwrap();
    let keep = |keep: &str| assert!(Command::new("chattr").args([keep, &busy]).status().unwrap().success());
    keep("+i");
    sandbox.docker_fails(&["rm", "-f", name]);
    keep("-i");
    assert_eq!(inspect(sandbox, name)["State"]["Status"], "dead");
}

/// `docker-compose`.
pub fn compose(sandbox: &Sandbox, words: &[&str]) {
    let host = format!("unix://{}/docker/docker.sock", sandbox.dir().display());
    let output = output_of(Command::new("docker-compose").env("DOCKER_HOST", host).args(words));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Everhold, stopped at a point.
pub struct Waiting(Child);

impl Waiting {
    pub fn at(sandbox: &Sandbox, point: &str, words: &[&str]) -> Self {
        let mut command = sandbox.command(words);
        let command = command.env("EVERHOLD_FAULT", format!("wait-{point}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let waiting = Self(child);
        until(&format!("it has stopped at {point}"), SOON, || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", waiting.0.id())).unwrap_or_default();
            stat.contains(") T ")
        });
        waiting
    }

    /// Lets it go on; whether it succeeds.
    pub fn go_on(mut self) -> bool {
        assert!(Command::new("kill").args(["-CONT", &self.0.id().to_string()]).status().unwrap().success());
        self.0.wait().unwrap().success()
    }
}

pub fn file(sandbox: &Sandbox, name: &str) -> (PathBuf, String) {
    let path = sandbox.dir().join(name);
    let text = path.display().to_string();
    (path, text)
}

/// A network with a subnet of the sandbox's own.
pub fn network(sandbox: &Sandbox, name: &str) -> String {
    // Two engines share the kernel's routes: the number of this process keeps their subnets apart.
    let unique = std::process::id() ^ (name.len() as u32) << 3;
    let prefix = format!("10.{}.{}", 64 + unique % 128, (unique / 128) % 256);
    sandbox.docker(&["network", "create", "--subnet", &format!("{prefix}.0/24"), name]);
    prefix
}

/// Files with all that files have, as a site's uploads would be, and odder.
pub fn make_odd_files(path: &str) {
    let script = "set -e; cd $0; mkdir -p wp-content/uploads/2026 empty; echo '<?php' > index.php; \
        head -c 300000 /dev/urandom > wp-content/uploads/2026/photo.jpg; ln index.php linked.php; ln -s ../index.php wp-content/up; \
        ln -s /etc/passwd absolute; truncate -s 50M sparse; printf end >> sparse; chown 33:33 index.php; chown -h 1000:7 wp-content/up; \
        chmod 4750 index.php; chmod 1777 wp-content/uploads; mkfifo pipe; mknod null c 1 3; touch -d '2001-02-03 04:05:06.789' index.php; \
        touch -h -d 2002-01-01 wp-content/up; touch -d 1999-12-31 empty; printf x > \"$(printf 'odd\\nname\\377')\"; \
        setfattr -n user.colour -v blue index.php; setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= wp-content/uploads/2026/photo.jpg; \
        setfacl -m u:1234:r,g:77:rw index.php; setfacl -d -m u:99:rwx empty; mkdir -p deep/a/b/c/d; chown 123456:654321 deep/a/b; \
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'; touch -d 2003-03-03 .";
    let made = output_of(Command::new("bash").args(["-c", script, path]));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// All that files have, told by other programs than ours.
pub fn listing(path: &str) -> String {
    let script = "cd $0 && find . -printf '%p|%y|%m|%U:%G|%n|%l|%T@|%s\\n' | sed -E 's/(\\|d\\|.*)\\|[0-9]+$/\\1/' | sort && \
            find . -type f -print0 | sort -z | xargs -0 sha256sum && find . -print0 | sort -z | xargs -0 getfattr -hPd -m - 2>/dev/null | grep -v overlay && du -k sparse";
    let output = output_of(Command::new("bash").args(["-c", script, path]));
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = ["user.colour", "posix_acl", "security.capability"];
    assert!(wanted.iter().all(|word| listing.contains(word)), "{listing}");
    listing
}

/// A container with something in its layer, in a local volume, in one of ours, and in an anonymous one.
pub fn busy_box(sandbox: &Sandbox, name: &str, more: &[&str]) {
    // Engines see the plugins of all sandboxes: no two have a volume of one name.
    let ours = format!("{name}-ours");
    sandbox.volume(&ours, &["size=64MiB"]);
    let ours = format!("{ours}:/o");
    let script = "echo layer > /etc/layer; rm -f /seed/file; [ -e /opt/app ] || { mkdir -p /opt/app; echo x > /opt/app/x; ln /opt/app/x /opt/app/y; }; \
        echo l > /l/file; echo o > /o/file; echo a > /a/file; dd if=/dev/urandom of=/l/big bs=1M count=8 2>/dev/null; \
        truncate -s 20M /l/sparse; touch /ready; n=0; while true; do n=$((n + 1)); echo $n > /l/m; mv /l/m /l/n; echo $n > /o/m; mv /o/m /o/n; sleep 0.01; done";
    let run = ["run", "-d", "--name", name, "-v", "local:/l", "-v", &ours, "-v", "/a"];
    sandbox.docker(&[&run[..], more, &[BUSYBOX, "sh", "-c", script]].concat());
    until("it has written", SOON, || sandbox.try_docker(&["exec", name, "ls", "/ready"]).status.success());
}

/// A container with one file in a volume.
pub fn small(sandbox: &Sandbox) {
    let script = "echo unmistakable > /d/x; exec sleep 1000";
    let words =
        ["run", "-d", "--name", "small", "--network", "none", "-v", "data:/d", BUSYBOX, "sh", "-c", script];
    sandbox.docker(&words);
    until("it has written", SOON, || sandbox.try_docker(&["exec", "small", "cat", "/d/x"]).status.success());
}

/// It is gone, and its volume too.
pub fn gone(sandbox: &Sandbox) {
    sandbox.docker(&["rm", "-f", "small"]);
    sandbox.docker(&["volume", "rm", "data"]);
}

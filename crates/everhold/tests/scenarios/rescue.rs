//! Data in the wrong place: found, and moved without losing anything, also when it is killed on the way.

use crate::postgres::{self, Writer};
use crate::{volumes, with_docker};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;
use testkit::{BUSYBOX, MARIADB, POSTGRES, Sandbox, output_of, until};

const DATA: &str = "/var/lib/postgresql/data";
// An engine waits half a minute for each plugin of another sandbox whose daemon is dead just then.
const SOON: Duration = Duration::from_secs(180);

fn inspect(sandbox: &Sandbox, container: &str) -> Value {
    let text = sandbox.docker(&["inspect", container]);
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

fn running(sandbox: &Sandbox, container: &str) -> bool {
    let state = &inspect(sandbox, container)["State"];
    state["Running"] == true && state["Paused"] == false
}

/// All settings, without what belongs to one container alone: by other means than the product's own.
fn settings(sandbox: &Sandbox, container: &str) -> Value {
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
    let host = found["HostConfig"].as_object_mut().unwrap();
    host.remove("Binds");
    serde_json::json!({
        "config": found["Config"], "host": found["HostConfig"], "image": found["Image"], "path": found["Path"],
        "args": found["Args"], "networks": found["NetworkSettings"]["Networks"],
    })
}

/// No journal is left, so nobody has anything to finish or undo.
fn settled(sandbox: &Sandbox) -> bool {
    let entries = std::fs::read_dir(sandbox.state().join("relocations"));
    entries.map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "json")).count()
    }) == 0
}

fn audit(sandbox: &Sandbox, containers: &[&str]) -> (i32, Value) {
    let output = sandbox.run(&[&["audit", "--json"], containers].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().filter_map(|finding| finding["code"].as_str()).collect()
}

fn start_postgres(sandbox: &Sandbox, name: &str, options: &[&str]) {
    sandbox.docker(&[&["run", "-d", "--name", name], options, &[POSTGRES]].concat());
    answers(sandbox, name);
}

fn answers(sandbox: &Sandbox, name: &str) {
    until("PostgreSQL answers", SOON, || {
        let words = ["exec", name, "psql", "-h", "/var/run/postgresql", "-qc", "select 1"];
        sandbox.try_docker(&words).status.success()
    });
}

/// A network with a subnet of the sandbox's own.
fn network(sandbox: &Sandbox, name: &str) -> String {
    // Two engines share the kernel's routes: the number of this process keeps their subnets apart.
    let unique = std::process::id() ^ (name.len() as u32) << 3;
    let prefix = format!("10.{}.{}", 64 + unique % 128, (unique / 128) % 256);
    sandbox.docker(&["network", "create", "--subnet", &format!("{prefix}.0/24"), name]);
    prefix
}

#[test]
fn a_database_without_a_volume_is_found_and_moved_under_load() {
    let sandbox = with_docker(&["postgres", "busybox"]);
    let prefix = network(&sandbox, "back");
    let address = format!("{prefix}.77");
    start_postgres(
        &sandbox,
        "pg",
        &[
            "--network",
            "back",
            "--ip",
            &address,
            "--network-alias",
            "db",
            "--hostname",
            "the-db",
            "-e",
            "APP=x y",
            "--label",
            "team=a",
            "--restart",
            "unless-stopped",
            "--memory",
            "512m",
            "--cpus",
            "1.5",
            "--cap-add",
            "SYS_NICE",
            "--ulimit",
            "nofile=2048:4096",
            "--log-opt",
            "max-size=1m",
            "--health-cmd",
            "psql -h /var/run/postgresql -qc 'select 1'",
            "--health-interval",
            "1s",
            "--stop-timeout",
            "7",
            "--shm-size",
            "96m",
            "--add-host",
            "other:10.9.8.7",
            "--tmpfs",
            "/scratch:size=1m",
            "--stop-signal",
            "SIGINT",
            "--device",
            "/dev/null:/dev/nothing",
            "--security-opt",
            "no-new-privileges",
            "--workdir",
            "/tmp",
        ],
    );
    let (code, report) = audit(&sandbox, &[]);
    assert_eq!(code, 1, "{report}");
    let finding =
        report["findings"].as_array().unwrap().iter().find(|finding| finding["severity"] == "loss").unwrap();
    let command = finding["command"].as_str().unwrap();
    assert!(command.contains("everhold rescue pg --path") && command.contains(DATA), "{command}");
    let said = String::from_utf8_lossy(&sandbox.run(&["audit"]).stdout).into_owned();
    assert!(said.contains("1 container would lose"), "{said}");

    let plan = sandbox.json(&["rescue", "pg"]);
    assert_eq!(plan["moves"][0]["source"]["path"], DATA);
    assert!(running(&sandbox, "pg") && volumes(&sandbox, "volume").is_empty(), "a plan changes nothing");

    sandbox.docker(&[
        "exec",
        "pg",
        "sh",
        "-c",
        "echo tuned > /etc/app.conf; rm /etc/motd || rm /etc/issue; mkdir -p /opt/x",
    ]);
    let was = settings(&sandbox, "pg");
    let writer = Writer::start(&sandbox, "pg");
    writer.wait_for(200);
    let applied = sandbox.json(&["rescue", "pg", "--apply"]);
    let acknowledged = writer.stop();
    answers(&sandbox, "pg");
    postgres::assert_all_there(&sandbox, "pg", &acknowledged);
    assert!(acknowledged.len() >= 200);
    assert_eq!(settings(&sandbox, "pg"), was);
    assert!(applied["paused"].as_f64().unwrap() < applied["away"].as_f64().unwrap());
    assert_eq!(
        sandbox.docker(&["exec", "pg", "cat", "/etc/app.conf"]),
        "tuned",
        "the rest of the layer is there"
    );
    assert!(
        sandbox
            .docker_fails(&["exec", "pg", "sh", "-c", "ls /etc/motd && ls /etc/issue"])
            .contains("No such file")
    );
    let mounts = inspect(&sandbox, "pg")["Mounts"].clone();
    let data = mounts.as_array().unwrap().iter().find(|mount| mount["Destination"] == DATA).unwrap();
    assert_eq!(data["Driver"], sandbox.driver(), "{mounts}");

    let (code, report) = audit(&sandbox, &["pg"]);
    assert!(code == 0 && !codes(&report).contains(&"data-in-layer"), "{report}");

    // And back, and forth, and for good.
    postgres::sql(&sandbox, "pg", "create table after (n int)");
    sandbox.ok(&["rescue", "pg", "--undo"]);
    answers(&sandbox, "pg");
    assert!(
        sandbox
            .docker_fails(&["exec", "pg", "psql", "-h", "/var/run/postgresql", "-c", "select * from after"])
            .contains("does not exist")
    );
    assert_eq!(settings(&sandbox, "pg"), was);
    sandbox.docker(&["rm", "-f", "pg"]);
    sandbox.docker(&["rename", "pg-rescued", "pg"]);
    sandbox.docker(&["start", "pg"]);
    answers(&sandbox, "pg");
    postgres::sql(&sandbox, "pg", "select * from after");
    sandbox.docker(&["rm", "-f", "pg"]);
    sandbox.docker(&["network", "rm", "back"]);
}

#[test]
fn mariadb_too() {
    let sandbox = with_docker(&["mariadb"]);
    sandbox.docker(&["run", "-d", "--name", "maria", "--network", "none", "--restart", "always", MARIADB]);
    let sql = |statement: &str| sandbox.try_docker(&["exec", "maria", "mariadb", "-N", "-e", statement]);
    until("MariaDB answers", SOON, || sql("select 1").status.success());
    assert!(
        sql("create database a; create table a.t (n int primary key); insert into a.t values (1), (2), (3)")
            .status
            .success()
    );
    let (code, report) = audit(&sandbox, &["maria"]);
    assert_eq!(code, 1, "{report}");
    let was = settings(&sandbox, "maria");
    let said = sandbox.ok(&["rescue", "maria", "--apply", "--volume", "tables"]);
    assert!(
        said.contains("--undo") && said.contains("--discard-old") && said.contains("paused for"),
        "{said}"
    );
    until("MariaDB answers", SOON, || sql("select 1").status.success());
    assert_eq!(String::from_utf8_lossy(&sql("select count(*) from a.t").stdout).trim(), "3");
    assert_eq!(settings(&sandbox, "maria"), was);

    // The old one does not come back with the engine, and goes when that is said.
    assert_eq!(inspect(&sandbox, "maria-before-rescue")["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert!(sandbox.ok(&["rescue", "maria", "--discard-old"]).contains("removed for good"));
    assert!(sandbox.docker_fails(&["inspect", "maria-before-rescue"]).contains("No such object"));
    let (code, told) = sandbox.fails(&["rescue", "maria", "--discard-old"]);
    assert!(code == 3 && told.contains("no old container is kept"), "{told}");
}

#[test]
fn killed_at_every_step_a_container_is_never_left_stopped() {
    let sandbox = with_docker(&["postgres"]);
    start_postgres(&sandbox, "pg", &["--network", "none", "--restart", "always", "--label", "x=y"]);
    postgres::sql(&sandbox, "pg", "create table t (n int); insert into t select generate_series(1, 1000)");
    let was = settings(&sandbox, "pg");
    for step in containers::relocate::Step::ALL {
        let name = step.name();
        let mut command = sandbox.command(&["rescue", "pg", "--apply", "--volume", "pgdata"]);
        let output = output_of(command.env("EVERHOLD_FAULT", name));
        assert!(output.status.code().is_none(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        until(&format!("{name}: somebody brings it back"), SOON, || settled(&sandbox));
        assert!(running(&sandbox, "pg"), "{name}");
        answers(&sandbox, "pg");
        assert_eq!(postgres::sql(&sandbox, "pg", "select sum(n) from t"), "500500", "{name}");
        assert_eq!(settings(&sandbox, "pg"), was, "{name}");
        let all = sandbox.docker(&["ps", "-a", "--format", "{{.Names}}"]);
        let finished =
            name == "relocate-started" || name == "relocate-start-noted" || name == "relocate-done";
        if finished {
            assert_eq!(all.lines().count(), 2, "{name}: {all}");
            sandbox.ok(&["rescue", "pg", "--undo"]);
            answers(&sandbox, "pg");
            sandbox.docker(&["rm", "pg-rescued"]);
            sandbox.docker(&["volume", "rm", "pgdata"]);
        }
        assert_eq!(sandbox.docker(&["ps", "-a", "--format", "{{.Names}}"]), "pg", "{name}");
        assert!(volumes(&sandbox, "volume").is_empty(), "{name}: what was begun is in the trash");
        assert!(sandbox.docker_volumes().is_empty(), "{name}");
    }
    sandbox.ok(&["rescue", "pg", "--apply", "--volume", "pgdata"]);
    answers(&sandbox, "pg");
    assert_eq!(postgres::sql(&sandbox, "pg", "select sum(n) from t"), "500500");
}

#[test]
fn when_both_are_killed_the_next_command_brings_it_back() {
    let mut sandbox = with_docker(&["busybox"]);
    let script = "mkdir -p /data; echo kept > /data/file; exec sleep 1000";
    sandbox.docker(&["run", "-d", "--name", "box", "--network", "none", BUSYBOX, "sh", "-c", script]);
    for step in ["relocate-paused", "relocate-ended", "relocate-names-taken"] {
        let mut command = sandbox.command(&["rescue", "box", "--path", "/data", "--apply"]);
        let output = output_of(command.env("EVERHOLD_FAULT", format!("{step},stand-by")));
        assert!(output.status.code().is_none(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!settled(&sandbox), "{step}: nobody could bring it back");
        let (code, told) = sandbox.fails(&["rescue", "box", "--path", "/data", "--apply"]);
        assert!(
            code != 0 && (told.contains("--recover") || told.contains("unpause") || told.contains("already")),
            "{step}: {told}"
        );
        if step == "relocate-ended" {
            // As after the end of the host: the daemon does it when it starts.
            sandbox.kill().start();
            until("the daemon brings it back", SOON, || settled(&sandbox));
        } else {
            let said = sandbox.ok(&["rescue", "--recover"]);
            assert!(said.contains("was undone"), "{step}: {said}");
        }
        assert!(settled(&sandbox) && running(&sandbox, "box"), "{step}");
        assert_eq!(sandbox.docker(&["exec", "box", "cat", "/data/file"]), "kept");
    }
    // What runs on its volume already has written there: somebody who stops it must not lose that.
    let mut command = sandbox.command(&["rescue", "box", "--path", "/data", "--apply"]);
    let output = output_of(command.env("EVERHOLD_FAULT", "relocate-started,stand-by"));
    assert!(output.status.code().is_none(), "{}", String::from_utf8_lossy(&output.stderr));
    sandbox.docker(&["exec", "box", "sh", "-c", "echo new > /data/new"]);
    sandbox.docker(&["stop", "-t", "0", "box"]);
    let said = sandbox.ok(&["rescue", "--recover"]);
    assert!(said.contains("was finished") && settled(&sandbox) && running(&sandbox, "box"), "{said}");
    assert_eq!(sandbox.docker(&["exec", "box", "cat", "/data/new"]), "new");
}

#[test]
fn trees_are_identical_with_all_that_files_have() {
    let sandbox = with_docker(&["busybox"]);
    let script = "cd /; mkdir -p /srv/www; sleep 1000";
    sandbox.docker(&["run", "-d", "--name", "wp", "--network", "none", BUSYBOX, "sh", "-c", script]);
    let layer =
        inspect(&sandbox, "wp")["GraphDriver"]["Data"]["MergedDir"].as_str().unwrap().to_owned() + "/srv/www";
    until("the directory is there", SOON, || std::path::Path::new(&layer).is_dir());
    let make = "set -e; cd $0; mkdir -p wp-content/uploads/2026 empty; echo '<?php' > index.php; \
        head -c 300000 /dev/urandom > wp-content/uploads/2026/photo.jpg; ln index.php linked.php; ln -s ../index.php wp-content/up; \
        ln -s /etc/passwd absolute; truncate -s 50M sparse; printf end >> sparse; chown 33:33 index.php; chown -h 1000:7 wp-content/up; \
        chmod 4750 index.php; chmod 1777 wp-content/uploads; mkfifo pipe; mknod null c 1 3; touch -d '2001-02-03 04:05:06.789' index.php; \
        touch -h -d 2002-01-01 wp-content/up; touch -d 1999-12-31 empty; printf x > \"$(printf 'odd\\nname\\377')\"; \
        setfattr -n user.colour -v blue index.php; setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= wp-content/uploads/2026/photo.jpg; \
        setfacl -m u:1234:r,g:77:rw index.php; setfacl -d -m u:99:rwx empty; mkdir -p deep/a/b/c/d; chown 123456:654321 deep/a/b; \
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'; touch -d 2003-03-03 .";
    let made = output_of(Command::new("bash").args(["-c", make, &layer]));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Told by other programs than ours.
    let listing = |path: &str| -> String {
        let script = "cd $0 && find . -printf '%p|%y|%m|%U:%G|%n|%l|%T@|%s\\n' | sed -E 's/(\\|d\\|.*)\\|[0-9]+$/\\1/' | sort && \
            find . -type f -print0 | sort -z | xargs -0 sha256sum && find . -print0 | sort -z | xargs -0 getfattr -hPd -m - 2>/dev/null | grep -v overlay && du -k sparse";
        let output = output_of(Command::new("bash").args(["-c", script, path]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let was = listing(&layer);
    assert!(
        was.contains("user.colour") && was.contains("posix_acl") && was.contains("security.capability"),
        "{was}"
    );
    sandbox.ok(&["rescue", "wp", "--path", "/srv/www", "--volume", "www", "--apply"]);
    let path = sandbox.json(&["volume", "mount", "www"])["path"].as_str().unwrap().to_owned();
    assert_eq!(listing(&path), was);
}

#[test]
fn anonymous_volumes_are_moved_and_named_ones_are_adopted() {
    let sandbox = with_docker(&["busybox"]);
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "app",
        "--network",
        "none",
        "-v",
        "/cache",
        "-v",
        "shared:/shared",
        BUSYBOX,
        "sh",
        "-c",
        "echo c > /cache/c; echo s > /shared/s; exec sleep 1000",
    ]);
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "reader",
        "--network",
        "none",
        "-v",
        "shared:/in:ro",
        BUSYBOX,
        "sleep",
        "1000",
    ]);
    sandbox.docker(&["create", "--name", "idle", "--network", "none", "-v", "shared:/x", BUSYBOX, "true"]);
    until("it has written", SOON, || {
        sandbox.try_docker(&["exec", "app", "cat", "/shared/s"]).stdout == b"s\n"
    });

    let (code, told) = sandbox.fails(&["rescue", "app", "--path", "/shared"]);
    assert!(code == 2 && told.contains("everhold adopt shared"), "{told}");
    sandbox.ok(&["rescue", "app", "--path", "/cache", "--apply"]);
    assert_eq!(sandbox.docker(&["exec", "app", "cat", "/cache/c", "/shared/s"]), "c\ns");
    sandbox.ok(&["rescue", "app", "--discard-old"]);

    let plan = sandbox.json(&["adopt", "shared", "--dry-run"]);
    assert_eq!(plan["holders"].as_array().unwrap().len(), 3, "{plan}");
    let was = [settings(&sandbox, "app"), settings(&sandbox, "reader"), settings(&sandbox, "idle")];
    sandbox.ok(&["adopt", "shared"]);
    assert_eq!([settings(&sandbox, "app"), settings(&sandbox, "reader"), settings(&sandbox, "idle")], was);
    sandbox.docker(&["exec", "app", "sh", "-c", "echo new > /shared/new"]);
    assert_eq!(
        sandbox.docker(&["exec", "reader", "cat", "/in/s", "/in/new"]),
        "s\nnew",
        "one volume for both"
    );
    assert!(sandbox.docker_fails(&["exec", "reader", "touch", "/in/x"]).contains("Read-only"));
    let (code, told) = sandbox.fails(&["rescue", "app", "--undo"]);
    assert!(
        code == 5 && told.contains("reader runs on shared-everhold too") && running(&sandbox, "app"),
        "{told}"
    );
    assert!(!running(&sandbox, "idle"));
    let mounted = inspect(&sandbox, "app")["Mounts"].to_string();
    assert!(mounted.contains("shared-everhold") && !mounted.contains("\"local\""), "{mounted}");
    // And what lies in memory alone.
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "mem",
        "--network",
        "none",
        "--tmpfs",
        "/m",
        BUSYBOX,
        "sh",
        "-c",
        "[ -e /m/x ] || echo m > /m/x; exec sleep 1000",
    ]);
    until("it has written", SOON, || sandbox.try_docker(&["exec", "mem", "cat", "/m/x"]).stdout == b"m\n");
    sandbox.ok(&["rescue", "mem", "--path", "/m", "--apply"]);
    sandbox.docker(&["restart", "-t", "0", "mem"]);
    assert_eq!(sandbox.docker(&["exec", "mem", "cat", "/m/x"]), "m");
    // The old data is where it was.
    assert!(sandbox.docker(&["volume", "ls", "-q"]).lines().any(|name| name == "shared"));
}

#[test]
fn a_volume_that_nobody_has_gives_up_its_name() {
    let sandbox = with_docker(&["busybox"]);
    sandbox.docker(&["volume", "create", "--label", "tier=gold", "data"]);
    sandbox.shell(&["-v", "data:/d"], "echo kept > /d/file; chown 1000:1000 /d/file");
    for step in ["relocate-copied", "relocate-settled", "relocate-names-given", "relocate-started"] {
        let output = output_of(sandbox.command(&["adopt", "data"]).env("EVERHOLD_FAULT", step));
        assert!(output.status.code().is_none(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
        until("somebody brings it back", SOON, || settled(&sandbox));
        // Engines see the plugins of all sandboxes.
        let listed = sandbox.docker(&["volume", "ls", "--format", "{{.Name}} {{.Driver}}"]);
        let listed: Vec<&str> = listed.lines().filter(|line| line.starts_with("data")).collect();
        assert_eq!(listed, ["data local"], "{step}");
        assert_eq!(sandbox.shell(&["-v", "data:/d"], "cat /d/file"), "kept", "{step}");
    }
    let said = sandbox.ok(&["adopt", "data"]);
    assert!(!said.contains("are on data-adopting"), "{said}");
    assert_eq!(sandbox.shell(&["-v", "data:/d"], "cat /d/file; stat -c %u:%g /d/file"), "kept\n1000:1000");
    let listed = sandbox.docker(&["volume", "ls", "--format", "{{.Name}} {{.Driver}}"]);
    assert!(listed.contains(&format!("data {}", sandbox.driver())), "{listed}");
    assert!(sandbox.docker(&["volume", "inspect", "data"]).contains("gold"));
    assert_eq!(sandbox.shell(&["-v", "data-before-adopt:/d"], "cat /d/file"), "kept");
}

#[test]
fn a_directory_of_the_host_is_adopted() {
    let sandbox = with_docker(&["busybox"]);
    let directory = sandbox.dir().join("hostdata");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("file"), "kept\n").unwrap();
    let (bind, path) = (format!("{}:/d", directory.display()), directory.display().to_string());
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "app",
        "--network",
        "none",
        "-v",
        &bind,
        BUSYBOX,
        "sleep",
        "1000",
    ]);
    sandbox.ok(&["adopt", &path, "--as", "taken"]);
    assert_eq!(sandbox.docker(&["exec", "app", "cat", "/d/file"]), "kept");
    assert!(inspect(&sandbox, "app")["Mounts"].to_string().contains("taken"));
    assert!(directory.join("file").exists(), "the old data is kept");
}

#[test]
fn what_does_not_run_on_its_volume_comes_back_as_it_was() {
    let sandbox = with_docker(&["busybox"]);
    let script = "grep -q ' /data ' /proc/mounts && { echo not on a mount; exit 3; }; mkdir -p /data; echo x > /data/f; exec sleep 1000";
    sandbox.docker(&["run", "-d", "--name", "fussy", "--network", "none", BUSYBOX, "sh", "-c", script]);
    until("it has written", SOON, || {
        sandbox.try_docker(&["exec", "fussy", "cat", "/data/f"]).status.success()
    });
    let was = settings(&sandbox, "fussy");
    // One that is started again and again looks as if it ran.
    sandbox.docker(&["update", "--restart", "always", "fussy"]);
    let (_, told) = sandbox.fails(&["rescue", "fussy", "--path", "/data", "--apply"]);
    assert!(told.contains("as it was before") && running(&sandbox, "fussy"), "{told}");
    sandbox.docker(&["update", "--restart", "no", "fussy"]);
    let (_, told) = sandbox.fails(&["rescue", "fussy", "--path", "/data", "--apply"]);
    assert!(
        told.contains("exit code 3") && told.contains("not on a mount") && told.contains("as it was before"),
        "{told}"
    );
    assert!(
        running(&sandbox, "fussy")
            && settings(&sandbox, "fussy") == was
            && volumes(&sandbox, "volume").is_empty()
    );
}

#[test]
fn bad_input_is_refused_before_anything_is_touched() {
    let sandbox = with_docker(&["busybox"]);
    let run = ["run", "-d", "--network", "none", "--name"];
    let sleep = [BUSYBOX, "sleep", "1000"];
    sandbox.docker(&[&run[..], &["box"], &sleep].concat());
    sandbox.docker(&[&run[..], &["brief", "--rm"], &sleep].concat());
    sandbox.docker(&[&run[..], &["frozen"], &sleep].concat());
    sandbox.docker(&["pause", "frozen"]);
    sandbox.docker(&[&run[..4], &["--name", "main"], &sleep].concat());
    sandbox.docker(&["run", "-d", "--name", "side", "--network", "container:main", BUSYBOX, "sleep", "1000"]);
    for (words, code, said) in [
        (&["rescue", "nobody", "--path", "/data"][..], 3, "there is no container nobody"),
        (&["rescue", "frozen", "--path", "/data"], 5, "docker unpause frozen"),
        (&["rescue", "brief", "--path", "/etc"], 8, "--rm"),
        (&["rescue", "main", "--path", "/etc"], 5, "side"),
        (&["rescue", "box", "--path", "data"], 2, "no absolute path"),
        (&["rescue", "box", "--path", "/"], 2, "all of the container"),
        (&["rescue", "box", "--path", "/proc/1"], 2, "kernel's"),
        (&["rescue", "box", "--path", "/absent"], 3, "/absent"),
        (&["rescue", "box", "--path", "/etc/passwd"], 2, "no directory"),
        (&["rescue", "box", "--path", "/seed/link/x"], 2, "symbolic link"),
        (&["rescue", "box", "--path", "/etc", "--path", "/etc/x"], 2, "lies in"),
        (&["rescue", "box"], 2, "nothing in box looks like data"),
        (&["adopt", "absent"], 3, "no volume absent"),
        (&["audit", "nobody"], 3, "there is no container nobody"),
    ] {
        let (exit, told) = sandbox.fails(words);
        assert!(exit == code && told.contains(said), "{words:?}: {exit}: {told}");
    }
    sandbox.volume("ours", &["size=64MiB"]);
    let (code, told) = sandbox.fails(&["adopt", "ours"]);
    assert!(code == 4 && told.contains("already"), "{told}");
    assert!(running(&sandbox, "box") && settled(&sandbox));
}

#[test]
fn not_enough_space_is_said_before_and_a_full_disk_changes_nothing() {
    let mut sandbox = crate::sandbox();
    let disk = sandbox.small_disk("pool", &["mkfs.ext4", "-q", "-m", "0"], 200 << 20);
    sandbox.configure(&format!("[pool.default]\npath = \"{}\"\nreserve = \"5%\"\n", disk.display()));
    sandbox.start_docker(&["busybox"]).start();
    let script =
        "mkdir /big; dd if=/dev/urandom of=/big/f bs=1M count=300 2>/dev/null; touch /ready; exec sleep 1000";
    sandbox.docker(&["run", "-d", "--name", "big", "--network", "none", BUSYBOX, "sh", "-c", script]);
    until("it has written", SOON, || sandbox.try_docker(&["exec", "big", "ls", "/ready"]).status.success());
    let (code, told) = sandbox.fails(&["rescue", "big", "--path", "/big", "--apply"]);
    assert!(code == 7 && told.contains("to be moved") && told.contains("nothing was changed"), "{told}");
    assert!(
        running(&sandbox, "big")
            && volumes(&sandbox, "volume").is_empty()
            && volumes(&sandbox, "trash").is_empty()
    );
}

#[test]
fn an_engine_that_goes_away_in_the_middle_is_waited_for() {
    let sandbox = with_docker(&["busybox"]);
    let script = "mkdir /data; dd if=/dev/urandom of=/data/f bs=1M count=64 2>/dev/null; touch /ready; exec sleep 1000";
    sandbox.docker(&["run", "-d", "--name", "box", "--network", "none", BUSYBOX, "sh", "-c", script]);
    until("it has written", SOON, || sandbox.try_docker(&["exec", "box", "ls", "/ready"]).status.success());
    let mut rescue = sandbox
        .command(&["rescue", "box", "--path", "/data", "--apply"])
        .env("EVERHOLD_FAULT", "wait-relocate-paused")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("it has stopped at that point", SOON, || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", rescue.id())).unwrap_or_default();
        stat.contains(") T ")
    });
    assert!(inspect(&sandbox, "box")["State"]["Paused"] == true);
    sandbox.kill_docker();
    assert!(Command::new("kill").args(["-CONT", &rescue.id().to_string()]).status().unwrap().success());
    let ended = rescue.wait().unwrap();
    assert!(!ended.success());
    sandbox.restart_docker();
    until("somebody brings it back", SOON, || settled(&sandbox));
    until("it runs", SOON, || running(&sandbox, "box"));
    assert!(volumes(&sandbox, "volume").is_empty());
}

#[test]
fn what_changes_in_the_middle_is_not_lost() {
    let sandbox = with_docker(&["busybox"]);
    let script = "mkdir -p /data; echo early > /data/early; exec sleep 1000";
    let run = ["run", "-d", "--network", "none", "-v", "/anon", "--name", "box", BUSYBOX, "sh", "-c", script];
    sandbox.docker(&run);
    until("it has written", SOON, || {
        sandbox.try_docker(&["exec", "box", "ls", "/data/early"]).status.success()
    });
    let mut rescue = sandbox
        .command(&["rescue", "box", "--path", "/data", "--apply"])
        .env("EVERHOLD_FAULT", "wait-relocate-copied")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("it has stopped at that point", SOON, || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", rescue.id())).unwrap_or_default();
        stat.contains(") T ")
    });
    // Another verb on the same container would let it go on when it must stand still.
    let to = sandbox.dir().join("b.tar").display().to_string();
    let (code, told) = sandbox.fails(&["container", "backup", "box", "--to", &to]);
    assert!(code == 4 && told.contains("rescue"), "{code}: {told}");
    sandbox.docker(&["restart", "-t", "0", "box"]);
    sandbox.docker(&["exec", "box", "sh", "-c", "echo late > /data/late"]);
    assert!(Command::new("kill").args(["-CONT", &rescue.id().to_string()]).status().unwrap().success());
    assert!(
        !rescue.wait().unwrap().success(),
        "what it has open does not show what the restarted container writes"
    );
    assert!(settled(&sandbox) && running(&sandbox, "box"));
    assert_eq!(sandbox.docker(&["exec", "box", "cat", "/data/early", "/data/late"]), "early\nlate");

    let anonymous = inspect(&sandbox, "box")["Mounts"][0]["Name"].as_str().unwrap().to_owned();
    let bind = format!("{anonymous}:/a");
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "too",
        "--network",
        "none",
        "-v",
        &bind,
        BUSYBOX,
        "sleep",
        "1000",
    ]);
    let (code, told) = sandbox.fails(&["rescue", "box", "--path", "/anon", "--apply"]);
    assert!(code == 5 && told.contains("too has the anonymous volume"), "{code}: {told}");
}

#[test]
fn a_hundred_containers_are_looked_at() {
    let sandbox = with_docker(&["busybox"]);
    for number in 0..100 {
        let name = format!("c{number:02}");
        sandbox.docker(&["create", "--name", &name, "--network", "none", BUSYBOX, "sleep", "1000"]);
    }
    let (code, report) = audit(&sandbox, &[]);
    assert_eq!((code, report["containers"].as_array().unwrap().len()), (0, 100), "{}", report["summary"]);
    let html = sandbox.dir().join("report.html");
    sandbox.ok(&["audit", "--html", html.to_str().unwrap()]);
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("c42") && !html.contains("<script"), "{}", &html[..500]);
}

#[test]
fn the_audit_works_without_the_daemon() {
    let mut sandbox = with_docker(&["busybox"]);
    sandbox.volume("ours", &["size=64MiB"]);
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "-v",
        "ours:/o",
        BUSYBOX,
        "sh",
        "-c",
        "dd if=/dev/urandom of=/lost bs=1M count=20; exec sleep 1000",
    ]);
    until("it has written", SOON, || sandbox.try_docker(&["exec", "box", "ls", "/lost"]).status.success());
    sandbox.stop();
    let (code, report) = audit(&sandbox, &[]);
    assert_eq!(code, 1, "{report}");
    assert!(report.to_string().contains("daemon does not answer"), "{report}");
    sandbox.start();
}

/// The codes of the findings about a container or a volume.
fn about(report: &Value, name: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let about = findings.filter(|finding| finding["container"] == name || finding["volume"] == name);
    about.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn findings_are_made_of_what_is_there() {
    let sandbox = with_docker(&["busybox"]);
    let run = |name: &str, options: &[&str], script: &str| {
        let script = format!("{script}; touch /tmp/ready; exec sleep 1000");
        let words = [
            &["run", "-d", "--name", name, "--network", "none"][..],
            options,
            &[BUSYBOX, "sh", "-c", &script],
        ];
        sandbox.docker(&words.concat());
        until("it has written", SOON, || {
            sandbox.try_docker(&["exec", name, "ls", "/tmp/ready"]).status.success()
        });
    };
    let host = sandbox.dir().join("bound");
    std::fs::create_dir(&host).unwrap();
    let full = format!("full-{}", sandbox.driver());
    sandbox.volume(&full, &["size=64MiB"]);
    run("anon", &["-v", "/data"], "echo x > /data/x");
    run("share1", &["-v", "both:/b"], "echo x > /b/x");
    run("share2", &["-v", "both:/b"], "true");
    run("barred", &["-v", "rooted:/d", "--user", "1000:1000"], "true");
    run("hider", &["-v", &format!("{}:/seed", host.display())], "true");
    run(
        "filler",
        &["-v", &format!("{full}:/f")],
        "dd if=/dev/zero of=/f/f bs=1M count=100 2>/dev/null; true",
    );
    run("brief", &["--rm"], "mkdir /data; dd if=/dev/urandom of=/data/f bs=1M count=20 2>/dev/null");
    run("reader", &["-v", "rooted:/d:ro"], "true");
    let gone = sandbox.docker(&["volume", "create", "gone"]);
    let place = sandbox.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &gone]);
    std::fs::remove_dir(&place).unwrap();
    sandbox.docker(&["volume", "create", "left"]);
    sandbox.shell(&["-v", "left:/l"], "dd if=/dev/urandom of=/l/f bs=1M count=2 2>/dev/null");
    let (code, report) = audit(&sandbox, &[]);
    assert_eq!(code, 1);
    for (name, wanted) in [
        ("anon", "data-on-anonymous-volume"),
        ("both", "shared-writable"),
        ("barred", "mount-not-writable"),
        ("hider", "mount-hides-image-content"),
        (full.as_str(), "volume-nearly-full"),
        ("brief", "files-in-layer"),
        ("gone", "volume-directory-gone"),
        ("left", "volume-dangling"),
    ] {
        let codes = about(&report, name);
        assert!(codes.iter().any(|code| code == wanted), "{name}: {wanted} is not in {codes:?}: {report}");
    }
    for (name, unwanted) in [
        ("reader", "mount-not-writable"),
        ("share1", "files-in-layer"),
        ("both", "volume-nearly-full"),
        ("anon", "mount-hides-image-content"),
    ] {
        assert!(!about(&report, name).iter().any(|code| code == unwanted), "{name}: {unwanted}: {report}");
    }
}

#[test]
fn who_may_not_look_into_layers_asks_the_engine() {
    let sandbox = with_docker(&["busybox"]);
    let script = "mkdir /data; dd if=/dev/urandom of=/data/big bs=1M count=20 2>/dev/null; rm /seed/file; echo x >> /etc/passwd; touch /ready; exec sleep 1000";
    sandbox.docker(&["run", "-d", "--name", "box", "--network", "none", BUSYBOX, "sh", "-c", script]);
    until("it has written", SOON, || sandbox.try_docker(&["exec", "box", "ls", "/ready"]).status.success());
    let (_, seen) = audit(&sandbox, &["box"]);
    let socket = sandbox.dir().join("docker/docker.sock");
    let open = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    [sandbox.dir(), &sandbox.dir().join("docker"), &socket].into_iter().for_each(open);
    // As somebody who may use the engine, and nothing else.
    let binary = sandbox.dir().join("everhold");
    std::fs::copy(env!("CARGO_BIN_EXE_everhold"), &binary).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&binary)
        .args(["audit", "--json", "box"]);
    let output = output_of(command.env("EVERHOLD_DOCKER_SOCKET", &socket));
    let asked: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let layer = |report: &Value| report["containers"][0]["layer"].clone();
    assert_eq!(layer(&asked)["matter"], layer(&seen)["matter"], "{asked}");
    assert_eq!(layer(&asked)["deleted"], layer(&seen)["deleted"]);
    assert_eq!(output.status.code(), Some(1));
}

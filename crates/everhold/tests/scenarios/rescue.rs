//! Data in the wrong place is moved without losing anything, also when it is killed on the way.

use crate::audit::{audit, codes};
use crate::host::{
    SOON, Waiting, answers, assert_same, compose, file, inspect, listing, make_odd_files, mariadb,
    mariadb_answers, network, running, settings, settled, start_box, start_dead, start_mariadb,
    start_postgres,
};
use crate::postgres::{self, Writer};
use crate::{volumes, with_docker};
use testkit::{BUSYBOX, Sandbox, output_of, until};

const DATA: &str = "/var/lib/postgresql/data";

#[test]
fn a_database_without_a_volume_is_found_and_moved_under_load() {
    let sandbox = with_docker(&["postgres", "busybox"]);
    let prefix = network(&sandbox, "back");
    let address = format!("{prefix}.77");
    sandbox.docker(&["run", "-d", "--name", "peer", "--network", "back", BUSYBOX, "sleep", "1000"]);
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
            "--publish",
            "127.0.0.1::5432",
            "--link",
            "peer:friend",
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
    let front = network(&sandbox, "front");
    let (ip, words) = (format!("{front}.78"), ["network", "connect", "--alias", "db2", "--ip"]);
    sandbox.docker(&[&words[..], &[&ip, "front", "pg"]].concat());
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
    assert_same(&was, &settings(&sandbox, "pg"), "pg");
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

    let (code, report) = audit(&sandbox, &[]);
    assert!(code == 0 && !codes(&report).contains(&"data-in-layer"), "{report}");
    assert!(codes(&report).contains(&"kept-by-rescue"), "{report}");

    // And back, and forth, and for good.
    postgres::sql(&sandbox, "pg", "create table after (n int)");
    sandbox.ok(&["rescue", "pg", "--undo"]);
    answers(&sandbox, "pg");
    assert!(
        sandbox
            .docker_fails(&["exec", "pg", "psql", "-h", "/var/run/postgresql", "-c", "select * from after"])
            .contains("does not exist")
    );
    assert_same(&was, &settings(&sandbox, "pg"), "pg");
    sandbox.docker(&["rm", "-f", "pg"]);
    sandbox.docker(&["rename", "pg-rescued", "pg"]);
    sandbox.docker(&["start", "pg"]);
    answers(&sandbox, "pg");
    postgres::sql(&sandbox, "pg", "select * from after");
    sandbox.docker(&["rm", "-f", "pg", "peer"]);
    sandbox.docker(&["network", "rm", "back", "front"]);
}

#[test]
fn mariadb_too() {
    let sandbox = with_docker(&["mariadb"]);
    start_mariadb(&sandbox, "maria", &["--network", "none", "--restart", "always"]);
    mariadb(&sandbox, "maria", "create database a; create table a.t (n int primary key)");
    mariadb(&sandbox, "maria", "insert into a.t values (1), (2), (3)");
    let (code, report) = audit(&sandbox, &["maria"]);
    assert_eq!(code, 1, "{report}");
    let was = settings(&sandbox, "maria");
    let said = sandbox.ok(&["rescue", "maria", "--apply", "--volume", "tables"]);
    assert!(
        said.contains("--undo") && said.contains("--discard-old") && said.contains("paused for"),
        "{said}"
    );
    mariadb_answers(&sandbox, "maria");
    assert_eq!(mariadb(&sandbox, "maria", "select count(*) from a.t"), "3");
    assert_eq!(settings(&sandbox, "maria"), was);

    // The old one does not come back with the engine, and goes when that is said.
    assert_eq!(inspect(&sandbox, "maria-before-rescue")["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert!(sandbox.ok(&["rescue", "maria", "--discard-old"]).contains("removed for good"));
    assert!(sandbox.docker_fails(&["inspect", "maria-before-rescue"]).contains("No such object"));
    let (code, told) = sandbox.fails(&["rescue", "maria", "--discard-old"]);
    assert!(code == 3 && told.contains("no old container is kept"), "{told}");
}

/// Each time the container is back with its data, by itself. `sum` asks it for that.
fn killed_at_every_step(sandbox: &Sandbox, name: &str, sum: &dyn Fn() -> String) {
    let was = settings(sandbox, name);
    let volume = format!("{name}data");
    let rescue = ["rescue", name, "--apply", "--volume", &volume];
    for step in containers::relocate::Step::ALL {
        let point = step.name();
        let output = output_of(sandbox.command(&rescue).env("EVERHOLD_FAULT", point));
        assert!(output.status.code().is_none(), "{point}: {}", String::from_utf8_lossy(&output.stderr));
        until(&format!("{point}: somebody brings it back"), SOON, || settled(sandbox));
        assert!(running(sandbox, name), "{point}");
        assert_eq!(sum(), "500500", "{point}");
        assert_eq!(settings(sandbox, name), was, "{point}");
        let all = sandbox.docker(&["ps", "-a", "--format", "{{.Names}}"]);
        if matches!(point, "relocate-started" | "relocate-start-noted" | "relocate-done") {
            assert_eq!(all.lines().count(), 2, "{point}: {all}");
            sandbox.ok(&["rescue", name, "--undo"]);
            assert_eq!(sum(), "500500", "{point}");
            sandbox.docker(&["rm", &format!("{name}-rescued")]);
            sandbox.docker(&["volume", "rm", &volume]);
        }
        assert_eq!(sandbox.docker(&["ps", "-a", "--format", "{{.Names}}"]), name, "{point}");
        assert!(volumes(sandbox, "volume").is_empty(), "{point}: what was begun is in the trash");
        assert!(sandbox.docker_volumes().is_empty(), "{point}");
    }
    sandbox.ok(&rescue);
    assert_eq!(sum(), "500500");
}

#[test]
fn killed_at_every_step_a_container_is_never_left_stopped() {
    let sandbox = with_docker(&["postgres"]);
    start_postgres(&sandbox, "pg", &["--network", "none", "--restart", "always", "--label", "x=y"]);
    postgres::sql(&sandbox, "pg", "create table t (n int); insert into t select generate_series(1, 1000)");
    killed_at_every_step(&sandbox, "pg", &|| {
        answers(&sandbox, "pg");
        postgres::sql(&sandbox, "pg", "select sum(n) from t")
    });
}

#[test]
fn killed_at_every_step_mariadb_has_its_data_too() {
    let sandbox = with_docker(&["mariadb"]);
    start_mariadb(&sandbox, "maria", &["--network", "none", "--restart", "always", "--label", "x=y"]);
    mariadb(&sandbox, "maria", "create database a; create table a.t (n int primary key)");
    mariadb(&sandbox, "maria", "use a; insert into t select seq from seq_1_to_1000");
    killed_at_every_step(&sandbox, "maria", &|| {
        mariadb_answers(&sandbox, "maria");
        mariadb(&sandbox, "maria", "select sum(n) from a.t")
    });
}

#[test]
fn killed_on_the_way_back_one_of_the_two_has_the_name_and_runs() {
    let sandbox = with_docker(&["busybox"]);
    start_box(&sandbox, "box", &["--restart", "always"], "mkdir -p /data; echo kept >> /data/file");
    let rescue = ["rescue", "box", "--path", "/data", "--volume", "boxdata", "--apply"];
    for step in containers::relocate::SwapStep::ALL {
        let point = step.name();
        sandbox.ok(&rescue);
        let output = output_of(sandbox.command(&["rescue", "box", "--undo"]).env("EVERHOLD_FAULT", point));
        assert!(output.status.code().is_none(), "{point}: {}", String::from_utf8_lossy(&output.stderr));
        until(&format!("{point}: somebody goes on with it"), SOON, || settled(&sandbox));
        assert!(running(&sandbox, "box"), "{point}");
        assert!(!inspect(&sandbox, "box")["Mounts"].to_string().contains("boxdata"), "{point}");
        assert_eq!(inspect(&sandbox, "box")["HostConfig"]["RestartPolicy"]["Name"], "always", "{point}");
        let aside = inspect(&sandbox, "box-rescued");
        assert_eq!(aside["HostConfig"]["RestartPolicy"]["Name"], "no", "{point}");
        assert!(!running(&sandbox, "box-rescued"), "{point}");
        sandbox.docker(&["rm", "box-rescued"]);
        sandbox.docker(&["volume", "rm", "boxdata"]);
        sandbox.ok(&["trash", "empty", "--yes"]);
    }
    // The one that is gone back to is not removed meanwhile.
    sandbox.ok(&rescue);
    let undo = Waiting::at(&sandbox, "undo-stopped", &["rescue", "box", "--undo"]);
    let (code, told) = sandbox.fails(&["rescue", "box", "--discard-old"]);
    assert!(code == 4 && told.contains("is not over"), "{code}: {told}");
    assert!(undo.go_on());
    assert!(running(&sandbox, "box") && settled(&sandbox));
}

#[test]
fn what_was_interrupted_is_over_also_when_the_old_container_was_removed() {
    let sandbox = with_docker(&["busybox"]);
    for (step, finished) in [("relocate-containers-made", false), ("relocate-names-given", true)] {
        start_box(&sandbox, "box", &[], "mkdir -p /data; [ -e /data/file ] || echo kept > /data/file");
        let mut command = sandbox.command(&["rescue", "box", "--path", "/data", "--volume", "v", "--apply"]);
        let output = output_of(command.env("EVERHOLD_FAULT", format!("{step},stand-by")));
        assert!(output.status.code().is_none(), "{}", String::from_utf8_lossy(&output.stderr));
        sandbox.docker(&["rm", "-f", if finished { "box-before-rescue" } else { "box" }]);
        let said = sandbox.ok(&["rescue", "--recover"]);
        assert!(said.contains(if finished { "was finished" } else { "was undone" }), "{step}: {said}");
        assert!(settled(&sandbox), "{step}");
        if finished {
            assert_eq!(sandbox.docker(&["exec", "box", "cat", "/data/file"]), "kept");
            assert!(inspect(&sandbox, "box")["Mounts"].to_string().contains("\"v\""));
        } else {
            assert_eq!(sandbox.docker(&["ps", "-aq"]), "", "{step}");
        }
    }
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

/// As docs/operations.md says for the worst case; and what nobody can finish any more.
#[test]
fn what_somebody_has_gone_on_with_by_hand_is_left_alone() {
    let sandbox = with_docker(&["busybox"]);
    start_box(&sandbox, "box", &[], "mkdir -p /data; [ -e /data/file ] || echo kept > /data/file");
    let rescue = ["rescue", "box", "--path", "/data", "--volume", "boxdata", "--apply"];
    let killed = |words: &[&str], point: &str| {
        let output = output_of(sandbox.command(words).env("EVERHOLD_FAULT", format!("{point},stand-by")));
        assert!(output.status.code().is_none(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!settled(&sandbox));
    };
    killed(&rescue, "relocate-started");
    sandbox.docker(&["stop", "-t", "0", "box"]);
    sandbox.docker(&["rename", "box", "box-new"]);
    sandbox.docker(&["rename", "box-before-rescue", "box"]);
    sandbox.docker(&["start", "box"]);
    let said = sandbox.ok(&["rescue", "--recover"]);
    assert!(said.contains("was left as it is") && settled(&sandbox), "{said}");
    assert!(running(&sandbox, "box") && !running(&sandbox, "box-new"));
    assert_eq!(volumes(&sandbox, "volume").len(), 1, "the new one's data is there too");
    sandbox.docker(&["rm", "box-new"]);
    sandbox.docker(&["volume", "rm", "boxdata"]);
    sandbox.ok(&["trash", "empty", "--yes"]);

    // It worked, as far as its user could see.
    sandbox.ok(&rescue);
    killed(&["rescue", "box", "--undo"], "undo-named");
    sandbox.docker(&["rm", "box-rescued"]);
    let said = sandbox.ok(&["rescue", "--recover"]);
    assert!(said.contains("was finished") && settled(&sandbox) && running(&sandbox, "box"), "{said}");
    assert_eq!(sandbox.docker(&["exec", "box", "cat", "/data/file"]), "kept");
    sandbox.docker(&["volume", "rm", "boxdata"]);
    sandbox.ok(&["trash", "empty", "--yes"]);

    // The one to go back to is gone.
    sandbox.ok(&rescue);
    killed(&["rescue", "box", "--undo"], "undo-stopped");
    sandbox.docker(&["rm", "box-before-rescue"]);
    let said = sandbox.ok(&["rescue", "--recover"]);
    assert!(said.contains("was undone") && settled(&sandbox) && running(&sandbox, "box"), "{said}");
    assert!(inspect(&sandbox, "box")["Mounts"].to_string().contains("boxdata"));
}

#[test]
fn trees_are_identical_with_all_that_files_have() {
    let sandbox = with_docker(&["busybox"]);
    let script = "cd /; mkdir -p /srv/www; sleep 1000";
    sandbox.docker(&["run", "-d", "--name", "wp", "--network", "none", BUSYBOX, "sh", "-c", script]);
    let layer =
        inspect(&sandbox, "wp")["GraphDriver"]["Data"]["MergedDir"].as_str().unwrap().to_owned() + "/srv/www";
    until("the directory is there", SOON, || std::path::Path::new(&layer).is_dir());
    make_odd_files(&layer);
    let was = listing(&layer);
    sandbox.ok(&["rescue", "wp", "--path", "/srv/www", "--volume", "www", "--apply"]);
    let path = sandbox.json(&["volume", "mount", "www"])["path"].as_str().unwrap().to_owned();
    assert_eq!(listing(&path), was);
}

/// Compose takes the new container for its own.
#[test]
fn a_service_of_compose_is_rescued() {
    let sandbox = with_docker(&["busybox"]);
    let (path, text) = file(&sandbox, "docker-compose.yml");
    let service = "version: '2.4'\nservices:\n  app:\n    image: everhold-test/busybox:1\n    network_mode: none\n    \
        command: sh -c 'mkdir -p /data; [ -e /data/x ] || echo kept > /data/x; exec sleep 1000'\n";
    std::fs::write(&path, service).unwrap();
    let up = || compose(&sandbox, &["-p", "shop", "-f", &text, "up", "-d"]);
    up();
    let name = sandbox.docker(&["ps", "--format", "{{.Names}}"]);
    until("it has written", SOON, || {
        sandbox.try_docker(&["exec", &name, "cat", "/data/x"]).stdout == b"kept\n"
    });
    let plan = sandbox.json(&["rescue", &name, "--path", "/data", "--volume", "appdata"]);
    assert!(plan["notes"].to_string().contains("appdata:/data"), "{plan}");
    let said = sandbox.ok(&["rescue", &name, "--path", "/data", "--volume", "appdata", "--apply"]);
    let id = || inspect(&sandbox, &name)["Id"].clone();
    let rescued = id();
    assert!(said.contains("before the next `docker compose up`"), "{said}");
    sandbox.ok(&["rescue", &name, "--discard-old"]);
    up();
    assert_eq!(id(), rescued, "nothing has changed for compose");
    // As the note says.
    let volumes = "    volumes: ['appdata:/data']\nvolumes:\n  appdata: {external: true}\n";
    std::fs::write(&path, format!("{service}{volumes}")).unwrap();
    sandbox.docker(&["exec", &name, "sh", "-c", "echo later > /data/x"]);
    up();
    assert_ne!(id(), rescued);
    assert_eq!(sandbox.docker(&["exec", &name, "cat", "/data/x"]), "later");
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
    sandbox.docker(&[&run[..], &["frozen", "-v", "cold:/f"], &sleep].concat());
    sandbox.docker(&["pause", "frozen"]);
    start_dead(&sandbox, "dead");
    sandbox.docker(&[&run[..4], &["--name", "main"], &sleep].concat());
    sandbox.docker(&["run", "-d", "--name", "side", "--network", "container:main", BUSYBOX, "sleep", "1000"]);
    for (words, code, said) in [
        (&["rescue", "nobody", "--path", "/data"][..], 3, "there is no container nobody"),
        (&["rescue", "frozen", "--path", "/data"], 5, "docker unpause frozen"),
        (&["rescue", "dead", "--path", "/tmp"], 8, "dead"),
        (&["container", "backup", "dead", "--to", "/nowhere/x.tar"], 8, "its engine has given it up"),
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
        (&["adopt", "cold"], 5, "docker unpause frozen"),
        (&["audit", "nobody"], 3, "there is no container nobody"),
    ] {
        let (exit, told) = sandbox.fails(words);
        assert!(exit == code && told.contains(said), "{words:?}: {exit}: {told}");
    }
    // To look at them is fine.
    for name in ["frozen", "dead"] {
        assert_eq!(audit(&sandbox, &[name]).1["containers"][0]["name"], name);
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
    let rescue = Waiting::at(&sandbox, "relocate-paused", &["rescue", "box", "--path", "/data", "--apply"]);
    assert!(inspect(&sandbox, "box")["State"]["Paused"] == true);
    sandbox.kill_docker();
    assert!(!rescue.go_on());
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
    let rescue = Waiting::at(&sandbox, "relocate-copied", &["rescue", "box", "--path", "/data", "--apply"]);
    // Another verb on the same container would let it go on when it must stand still.
    let to = sandbox.dir().join("b.tar").display().to_string();
    let (code, told) = sandbox.fails(&["container", "backup", "box", "--to", &to]);
    assert!(code == 4 && told.contains("rescue"), "{code}: {told}");
    sandbox.docker(&["restart", "-t", "0", "box"]);
    sandbox.docker(&["exec", "box", "sh", "-c", "echo late > /data/late"]);
    assert!(!rescue.go_on(), "what it has open does not show what the restarted container writes");
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

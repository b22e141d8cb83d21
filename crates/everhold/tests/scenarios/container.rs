//! Backups of whole containers: one instant, every byte checked, restored where nothing was.

use crate::host::{
    SOON, Waiting, answers, assert_same, busy_box, compose, file, gone, inspect, listing, make_odd_files,
    mariadb, mariadb_answers, running, settings_and_mounts, settled, small, start_mariadb,
};
use crate::postgres::{self, Writer};
use crate::{volumes, with_docker};
use std::os::unix::fs::FileExt;
use std::path::Path;
use testkit::{BUSYBOX, POSTGRES, REDIS, Sandbox, output_of, until};

#[test]
fn one_container_is_as_it_was_with_all_it_had() {
    let sandbox = with_docker(&["busybox"]);
    busy_box(
        &sandbox,
        "one",
        &[
            "--network",
            "none",
            "--label",
            "a=b",
            "-e",
            "X=y",
            "--restart",
            "on-failure:3",
            "--hostname",
            "it",
        ],
    );
    let (bundle, to) = file(&sandbox, "one.tar");
    let made = sandbox.json(&["container", "backup", "one", "--to", &to]);
    assert!(running(&sandbox, "one") && settled(&sandbox), "{made}");
    assert_eq!(made["volumes"].as_array().unwrap().len(), 3, "{made}");
    let (code, told) = sandbox.fails(&["container", "backup", "one", "--to", &to]);
    assert!(code == 4 && told.contains("exists already"), "{told}");
    let inside = sandbox.ok(&["container", "check", &to]);
    assert!(inside.contains("is whole") && inside.contains("volume one-ours"), "{inside}");

    // Beside the one that runs, under another name.
    let was = settings_and_mounts(&sandbox, "one");
    let (code, told) = sandbox.fails(&["container", "restore", &to]);
    assert!(
        code == 4 && told.contains("there is a container one already") && told.contains("--as"),
        "{told}"
    );
    sandbox.ok(&["container", "restore", &to, "--as", "twin"]);
    let told = sandbox.docker(&[
        "exec",
        "twin",
        "sh",
        "-c",
        "cat /etc/layer /l/file /o/file /a/file; ls /seed; stat -c %h /opt/app/x; hostname",
    ]);
    assert_eq!(told, "layer\nl\no\na\nlink\nsub\n2\nit");
    sandbox.docker(&["rm", "-f", "-v", "twin"]);
    sandbox.docker(&["volume", "rm", "twin_local", "twin-ours"]);

    // In its own place, on an engine that has forgotten all of it. Nothing writes to the restored files.
    sandbox.docker(&["rm", "-f", "-v", "one"]);
    sandbox.docker(&["volume", "rm", "local", "one-ours"]);
    sandbox.ok(&["container", "restore", &to, "--no-start"]);
    assert_eq!(settings_and_mounts(&sandbox, "one"), was);
    let numbers = sandbox.shell(&["-v", "local:/l", "-v", "one-ours:/o"], "cat /l/n /o/n");
    let numbers: Vec<u64> = numbers.lines().map(|line| line.parse().unwrap()).collect();
    // The second is written right after the first.
    assert!(numbers[0] == numbers[1] || numbers[0] == numbers[1] + 1, "{numbers:?} are not of one instant");
    let sparse = sandbox.shell(&["-v", "local:/l"], "stat -c '%s %b' /l/sparse");
    assert_eq!(sparse, "20971520 0", "holes stay holes");
    assert_eq!(volumes(&sandbox, "volume").len(), 1);
    sandbox.docker(&["start", "one"]);

    // The images are there for everybody.
    sandbox.docker(&["rm", "-f", "-v", "one"]);
    let image = sandbox.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", "everhold-backup/one"]);
    sandbox.docker(&["rmi", &image]);
    let loaded = sandbox.docker(&["load", "-q", "-i", &to]);
    assert!(loaded.contains(&image), "{loaded}");
    assert_eq!(sandbox.docker(&["run", "--rm", "--network", "none", &image, "cat", "/etc/layer"]), "layer");
    // Another program reads them, too.
    let copied = sandbox.dir().join("copied");
    let (from, into) = (format!("oci-archive:{to}"), format!("dir:{}", copied.display()));
    let words = ["--insecure-policy", "copy", "--quiet", &from, &into];
    let copy = output_of(std::process::Command::new("skopeo").args(words));
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    assert!(copied.join("manifest.json").exists());
    // And volumes, with nothing but tar.
    let script = format!("tar -xOf {to} volumes/local/0.tar | tar -tv | grep -c big");
    assert_eq!(
        String::from_utf8_lossy(&output_of(std::process::Command::new("sh").args(["-c", &script])).stdout)
            .trim(),
        "1"
    );
    drop(bundle);
}

#[test]
fn a_database_under_load_loses_nothing_acknowledged() {
    let sandbox = with_docker(&["postgres"]);
    sandbox.docker(&["volume", "create", "pgdata"]);
    let mount = "pgdata:/var/lib/postgresql/data";
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "pg",
        "--network",
        "none",
        "-v",
        mount,
        "--label",
        "everhold.pre=postgres",
        "--label",
        "everhold.post=echo after >> /tmp/hooks",
        POSTGRES,
    ]);
    answers(&sandbox, "pg");
    let writer = Writer::start(&sandbox, "pg");
    writer.wait_for(200);
    let before = writer.last();
    let (_, to) = file(&sandbox, "pg.tar");
    let made = sandbox.json(&["container", "backup", "pg", "--to", &to]);
    writer.wait_for(50);
    let acknowledged = writer.stop();
    assert!(acknowledged.len() > before as usize + 50, "it went on");
    assert_eq!(sandbox.docker(&["exec", "pg", "cat", "/tmp/hooks"]), "after");
    assert!(made["paused"].as_f64().unwrap() > 0.0);
    sandbox.docker(&["rm", "-f", "pg"]);
    sandbox.docker(&["volume", "rm", "pgdata"]);
    sandbox.ok(&["container", "restore", &to]);
    answers(&sandbox, "pg");
    let until_then = acknowledged.into_iter().filter(|n| *n <= before).collect();
    postgres::assert_all_there(&sandbox, "pg", &until_then);
}

const COMPOSE: &str = r#"
version: "2.4"
services:
  db:
    image: everhold-test/postgres:15
    volumes: ["db:/var/lib/postgresql/data"]
    networks: {back: {aliases: [database]}}
  cache:
    image: everhold-test/busybox:1
    command: sh -c 'echo cached > /cache/x; exec sleep 1000'
    volumes: ["/cache"]
    networks: [back]
  web:
    image: everhold-test/busybox:1
    command: sh -c 'echo page > /srv/page; exec httpd -f -h /srv -p 8000'
    volumes: ["web:/srv"]
    networks: [back, front]
    depends_on: [db]
    environment: {GREETING: hello}
volumes:
  db: {}
  web: {driver: DRIVER, driver_opts: {size: 64MiB}}
networks:
  back: {ipam: {config: [{subnet: BACK}]}}
  front: {ipam: {config: [{subnet: FRONT}]}}
"#;

#[test]
fn a_project_is_restored_on_a_fresh_engine() {
    let sandbox = with_docker(&["busybox", "postgres"]);
    let unique = std::process::id();
    let subnet = |n: u32| format!("10.{}.{}.0/24", 200 + n, unique % 256);
    let project = COMPOSE
        .replace("DRIVER", sandbox.driver())
        .replace("BACK", &subnet(unique / 256 % 16))
        .replace("FRONT", &subnet(16 + unique / 256 % 16));
    let (path, path_text) = file(&sandbox, "docker-compose.yml");
    std::fs::write(&path, project).unwrap();
    let up = |sandbox: &Sandbox, words: &[&str]| {
        compose(sandbox, &[&["-p", "shop", "-f", &path_text], words].concat());
    };
    up(&sandbox, &["up", "-d"]);
    let names = sandbox.docker(&["ps", "--format", "{{.Names}}"]);
    let find = |service: &str| names.lines().find(|name| name.contains(service)).unwrap().to_owned();
    let (db, cache, web) = (find("db"), find("cache"), find("web"));
    answers(&sandbox, &db);
    postgres::sql(&sandbox, &db, "create table t (n int); insert into t values (7)");
    until("the page is there", SOON, || {
        sandbox.try_docker(&["exec", &web, "cat", "/srv/page"]).status.success()
    });

    let was = [
        settings_and_mounts(&sandbox, &db),
        settings_and_mounts(&sandbox, &cache),
        settings_and_mounts(&sandbox, &web),
    ];
    let (_, to) = file(&sandbox, "shop.tar");
    let made = sandbox.json(&["container", "backup", "--project", "shop", "--to", &to]);
    assert_eq!(made["containers"].as_array().unwrap().len(), 3, "{made}");

    // Everything that the engine had is gone, and what the daemon had too.
    up(&sandbox, &["down", "-v"]);
    sandbox.throw_docker_away();
    sandbox.ok(&["trash", "empty", "--yes"]);
    sandbox.restart_docker();
    assert_eq!(sandbox.docker(&["images", "-q"]), "");
    sandbox.ok(&["container", "restore", &to]);
    answers(&sandbox, &db);
    assert_eq!(postgres::sql(&sandbox, &db, "select n from t"), "7");

    for (name, was) in [&db, &cache, &web].into_iter().zip(&was) {
        assert_same(was, &settings_and_mounts(&sandbox, name), name);
    }
    assert_eq!(sandbox.docker(&["exec", &cache, "cat", "/cache/x"]), "cached");
    until("the page is served", SOON, || {
        sandbox.try_docker(&["exec", &cache, "wget", "-qO-", "http://web:8000/page"]).stdout == b"page\n"
    });
    let loaded = sandbox.docker(&["load", "-q", "-i", &to]);
    assert_eq!(loaded.matches("everhold-backup/").count(), 3, "{loaded}");

    // The same beside it, with networks and volumes of its own.
    sandbox.ok(&["container", "restore", &to, "--as", "trial"]);
    answers(&sandbox, &db.replace("shop", "trial"));
    assert_eq!(postgres::sql(&sandbox, &db.replace("shop", "trial"), "select n from t"), "7");
    let labels =
        inspect(&sandbox, &web.replace("shop", "trial"))["Config"]["Labels"]["com.docker.compose.project"]
            .clone();
    assert_eq!(labels, "trial");
    for project in ["shop", "trial"] {
        let ids = sandbox.docker(&[
            "ps",
            "-aq",
            "--filter",
            &format!("label=com.docker.compose.project={project}"),
        ]);
        sandbox.docker(&[&["rm", "-f", "-v"][..], &ids.lines().collect::<Vec<_>>()].concat());
        let networks = sandbox.docker(&["network", "ls", "-q", "--filter", &format!("name={project}")]);
        sandbox.docker(&[&["network", "rm"][..], &networks.lines().collect::<Vec<_>>()].concat());
    }
}

#[test]
fn killed_at_every_step_containers_go_on_and_the_next_try_takes_over() {
    let sandbox = with_docker(&["busybox"]);
    busy_box(&sandbox, "kil", &["--network", "none"]);
    let (path, to) = file(&sandbox, "kil.tar");
    let words = [
        "container",
        "backup",
        "kil",
        "--to",
        &to,
        "--pre",
        "echo pre >> /tmp/h",
        "--post",
        "echo post >> /tmp/h",
    ];
    for step in containers::backup::Step::ALL {
        let name = step.name();
        sandbox.docker(&["exec", "kil", "rm", "-f", "/tmp/h"]);
        let output = output_of(sandbox.command(&words).env("EVERHOLD_FAULT", name));
        assert!(output.status.code().is_none(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        until(&format!("{name}: somebody lets it go on"), SOON, || settled(&sandbox));
        assert!(running(&sandbox, "kil"), "{name}");
        let hooks = sandbox.try_docker(&["exec", "kil", "cat", "/tmp/h"]).stdout;
        let expected: &[u8] = match step {
            containers::backup::Step::Images | containers::backup::Step::Layers => b"",
            _ => b"pre\npost\n",
        };
        assert_eq!(
            String::from_utf8_lossy(&hooks),
            String::from_utf8_lossy(expected),
            "{name}: what is to be run afterwards is run once"
        );
        assert!(!path.exists(), "{name}: no bundle before it is whole");
        let attached = sandbox.json(&["volume", "inspect", "kil-ours"])["attachments"].to_string();
        assert!(!attached.contains("everhold-backup"), "{name}: {attached}");
    }
    assert!(Path::new(&format!("{to}.partial")).exists());
    sandbox.ok(&words);
    sandbox.ok(&["container", "check", &to]);
    assert!(!Path::new(&format!("{to}.partial")).exists());
}

#[test]
fn bad_input_and_damage_are_refused_before_anything_is_touched() {
    let sandbox = with_docker(&["busybox"]);
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "small",
        "--network",
        "none",
        "-v",
        "data:/d",
        BUSYBOX,
        "sh",
        "-c",
        "echo unmistakable > /d/x; exec sleep 1000",
    ]);
    until("it has written", SOON, || sandbox.try_docker(&["exec", "small", "cat", "/d/x"]).status.success());
    let (path, to) = file(&sandbox, "small.tar");
    for (words, code, said) in [
        (&["container", "backup", "nobody", "--to", &to][..], 3, "no container nobody"),
        (&["container", "backup", "--project", "none", "--to", &to], 3, "no container belongs to"),
        (&["container", "backup", "small", "--to", "/nowhere/x.tar"], 3, "/nowhere"),
        (&["container", "backup", "small", "--to", &to, "--pre", "exit 3"], 1, "exit status 3"),
        (&["container", "backup", "small", "--to", &to, "--pre", "postgres"], 1, "psql"),
        (&["container", "restore", "/nowhere/x.tar"], 3, "/nowhere/x.tar"),
        (&["container", "restore", "/etc/passwd"], 2, "not a bundle"),
    ] {
        let (exit, told) = sandbox.fails(words);
        assert!(exit == code && told.contains(said), "{words:?}: {exit}: {told}");
        assert!(running(&sandbox, "small") && settled(&sandbox) && !path.exists(), "{words:?}");
    }
    // What fails afterwards is told, and the instant was taken before.
    let output = sandbox.run(&["container", "backup", "small", "--to", &to, "--post", "exit 4"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && said.contains("exit status 4"), "{said}");
    sandbox.ok(&["container", "check", &to]);
    std::fs::remove_file(&path).unwrap();
    sandbox.ok(&["container", "backup", "small", "--to", &to, "--image-by-reference"]);
    let whole = std::fs::read(&path).unwrap();
    let (cut, cut_text) = file(&sandbox, "cut.tar");
    sandbox.docker(&["rm", "-f", "small"]);
    sandbox.docker(&["volume", "rm", "data"]);
    // The format's own tests cut at every byte.
    for length in [0, 1, 511, 512, whole.len() / 3, whole.len() / 2, whole.len() - 1024, whole.len() - 1] {
        std::fs::write(&cut, &whole[..length]).unwrap();
        let (_, told) = sandbox.fails(&["container", "restore", &cut_text]);
        assert!(told.contains("nothing"), "{length}: {told}");
    }
    std::fs::write(&cut, &whole).unwrap();
    let at = whole.windows(13).position(|window| window == b"unmistakable\n").unwrap() as u64;
    std::fs::OpenOptions::new().write(true).open(&cut).unwrap().write_all_at(b"y", at).unwrap();
    let (code, told) = sandbox.fails(&["container", "restore", &cut_text]);
    assert!(code == 9 && told.contains("volumes/data/0.tar"), "{told}");
    assert_eq!(sandbox.docker(&["ps", "-aq"]), "");
    assert!(!sandbox.docker(&["volume", "ls", "-q"]).lines().any(|name| name == "data"));

    // By reference it needs the image, and finds it.
    sandbox.ok(&["container", "restore", &to]);
    assert_eq!(sandbox.docker(&["exec", "small", "cat", "/d/x"]), "unmistakable");
    sandbox.docker(&["rm", "-f", "small"]);
    sandbox.docker(&["volume", "rm", "data"]);
    let images = sandbox.docker(&["images", "-q"]);
    sandbox.docker(&[&["rmi", "-f"][..], &images.lines().collect::<Vec<_>>()].concat());
    let (code, told) = sandbox.fails(&["container", "restore", &to]);
    assert!(code == 3 && told.contains("docker pull everhold-test/busybox:1"), "{told}");
}

#[test]
fn a_pause_is_bounded_and_room_is_looked_for_before() {
    let sandbox = with_docker(&["busybox"]);
    busy_box(&sandbox, "pau", &["--network", "none"]);
    let (path, to) = file(&sandbox, "pau.tar");
    let (code, told) = sandbox.fails(&["container", "backup", "pau", "--to", &to, "--max-pause", "1ms"]);
    assert!(code == 10 && told.contains("--max-pause"), "{code}: {told}");
    assert!(running(&sandbox, "pau") && !path.exists() && settled(&sandbox));
    let disk = sandbox.small_disk("small", &["mkfs.ext4", "-q", "-m", "0"], 8 << 20);
    let (code, told) =
        sandbox.fails(&["container", "backup", "pau", "--to", disk.join("b.tar").to_str().unwrap()]);
    assert!(code == 7 && told.contains("there is room for"), "{told}");
    assert_eq!(std::fs::read_dir(&disk).unwrap().count(), 1, "lost+found alone");
}

#[test]
fn several_containers_are_of_one_instant() {
    let sandbox = with_docker(&["busybox"]);
    // Each writes the next number when it sees the other's: they are never more than one apart.
    let script =
        "n=0; while true; do [ -e /o/n ] && n=$(cat /o/n); echo $((n + 1)) > /m/m; mv /m/m /m/n; done";
    for (name, mine, other) in [("left", "mine:/m", "other:/o"), ("right", "other:/m", "mine:/o")] {
        let run = ["run", "-d", "--name", name, "--network", "none", "-v", mine, "-v", other];
        sandbox.docker(&[&run[..], &[BUSYBOX, "sh", "-c", script]].concat());
    }
    until("both write", SOON, || {
        sandbox.try_docker(&["exec", "left", "cat", "/m/n", "/o/n"]).status.success()
    });
    let (_, to) = file(&sandbox, "both.tar");
    let made = sandbox.json(&["container", "backup", "left", "right", "--to", &to]);
    assert_eq!(made["containers"].as_array().unwrap().len(), 2);
    sandbox.docker(&["rm", "-f", "left", "right"]);
    sandbox.docker(&["volume", "rm", "mine", "other"]);
    sandbox.ok(&["container", "restore", &to, "--no-start"]);
    let numbers = sandbox.shell(&["-v", "mine:/m", "-v", "other:/o"], "cat /m/n /o/n");
    let numbers: Vec<i64> = numbers.lines().map(|line| line.parse().unwrap()).collect();
    assert!((numbers[0] - numbers[1]).abs() <= 2 && numbers[0] > 0, "{numbers:?} are not of one instant");
}

#[test]
fn no_daemon_is_needed_where_no_volume_is_everhold_s() {
    let mut sandbox = with_docker(&["busybox"]);
    sandbox.stop();
    small(&sandbox);
    let (_, to) = file(&sandbox, "small.tar");
    sandbox.ok(&["container", "backup", "small", "--to", &to]);
    gone(&sandbox);
    sandbox.ok(&["container", "restore", &to]);
    assert_eq!(sandbox.docker(&["exec", "small", "cat", "/d/x"]), "unmistakable");
    assert!(settled(&sandbox));
    sandbox.start();
}

#[test]
fn what_files_have_is_in_a_backup() {
    let sandbox = with_docker(&["busybox"]);
    let words = ["run", "-d", "--name", "odd", "--network", "none", "-v", "files:/f", BUSYBOX, "sh", "-c"];
    sandbox.docker(&[&words[..], &["mkdir -p /srv/www; exec sleep 1000"]].concat());
    let layer = |name: &str| {
        let merged = inspect(&sandbox, name)["GraphDriver"]["Data"]["MergedDir"].as_str().unwrap().to_owned();
        merged + "/srv/www"
    };
    let volume = |name: &str| sandbox.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", name]);
    until("the directory is there", SOON, || Path::new(&layer("odd")).is_dir());
    make_odd_files(&layer("odd"));
    make_odd_files(&volume("files"));
    // A socket is made anew by who listens on it.
    for path in [layer("odd"), volume("files")] {
        std::fs::remove_file(Path::new(&path).join("socket")).unwrap();
        let touch = ["-d", "2003-03-03", &path];
        assert!(std::process::Command::new("touch").args(touch).status().unwrap().success());
    }
    let was = (listing(&layer("odd")), listing(&volume("files")));
    let (_, to) = file(&sandbox, "odd.tar");
    sandbox.ok(&["container", "backup", "odd", "--to", &to]);
    sandbox.ok(&["container", "restore", &to, "--as", "same"]);
    let is = (listing(&layer("same")), listing(&volume("same_files")));
    // The engine's own `docker load` unpacks the layer, and leaves no holes in it.
    let without_blocks = |listing: &str| {
        let lines = listing.lines().filter(|line| !line.ends_with("\tsparse"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_blocks(&is.0), without_blocks(&was.0));
    assert_eq!(is.1, was.1);
}

#[test]
fn what_is_to_run_afterwards_runs_whatever_happens() {
    let sandbox = with_docker(&["busybox"]);
    small(&sandbox);
    let (path, to) = file(&sandbox, "small.tar");
    let after = || sandbox.docker(&["exec", "small", "sh", "-c", "cat /tmp/after; rm /tmp/after"]);
    let backup = ["container", "backup", "small", "--to", &to, "--post", "echo ran > /tmp/after"];
    let (_, told) = sandbox.fails(&[&backup[..], &["--pre", "exit 3"]].concat());
    assert!(told.contains("exit status 3") && after() == "ran", "{told}");
    let (code, told) = sandbox.fails(&[&backup[..], &["--max-pause", "1ms"]].concat());
    assert!(code == 10 && after() == "ran" && !path.exists(), "{told}");

    // One that somebody has paused is as it is, and nothing can run in it.
    sandbox.docker(&["pause", "small"]);
    let (code, told) = sandbox.fails(&backup);
    assert!(code == 2 && told.contains("does not run"), "{told}");
    sandbox.ok(&["container", "backup", "small", "--to", &to]);
    assert_eq!(inspect(&sandbox, "small")["State"]["Paused"], true);
    sandbox.docker(&["unpause", "small"]);
}

#[test]
fn an_engine_that_goes_away_in_the_middle_of_a_backup_is_waited_for() {
    let sandbox = with_docker(&["busybox"]);
    small(&sandbox);
    // An engine that dies takes its containers along; this one comes back with it.
    sandbox.docker(&["update", "--restart", "always", "small"]);
    let (path, to) = file(&sandbox, "small.tar");
    let backup = Waiting::at(&sandbox, "backup-paused", &["container", "backup", "small", "--to", &to]);
    assert_eq!(inspect(&sandbox, "small")["State"]["Paused"], true);
    sandbox.kill_docker();
    assert!(!backup.go_on());
    sandbox.restart_docker();
    until("somebody lets it go on", SOON, || settled(&sandbox));
    until("it runs", SOON, || running(&sandbox, "small"));
    assert!(!path.exists());
    sandbox.ok(&["container", "backup", "small", "--to", &to]);
}

#[test]
fn what_is_started_in_the_middle_stands_still_too() {
    let sandbox = with_docker(&["busybox"]);
    let write = "n=0; while true; do n=$((n + 1)); echo $n > /d/m; mv /d/m /d/n; done";
    let run = ["create", "--network", "none", "-v", "data:/d", "--label", "com.docker.compose.project=two"];
    for (name, script) in [("first", "exec sleep 1000"), ("second", write)] {
        sandbox.docker(&[&run[..], &["--name", name, BUSYBOX, "sh", "-c", script]].concat());
    }
    sandbox.docker(&["start", "first"]);
    let (_, to) = file(&sandbox, "two.tar");
    let backup =
        Waiting::at(&sandbox, "backup-layers", &["container", "backup", "--project", "two", "--to", &to]);
    sandbox.docker(&["start", "second"]);
    let n = || sandbox.try_docker(&["exec", "first", "cat", "/d/n"]).stdout;
    until("it writes", SOON, || !n().is_empty());
    assert!(backup.go_on(), "nobody writes while it looks for the last time");
    assert!(running(&sandbox, "first") && running(&sandbox, "second"));
    sandbox.ok(&["container", "check", &to]);
}

/// The files alone, as after a power failure, of a container that is not started.
#[test]
fn built_in_commands_bring_files_up_to_date() {
    let sandbox = with_docker(&["mariadb", "redis", "busybox"]);
    sandbox.docker(&["run", "-d", "--name", "redis", "--network", "none", "-v", "kept:/data", REDIS]);
    until("Redis answers", SOON, || {
        sandbox.try_docker(&["exec", "redis", "redis-cli", "ping"]).stdout == b"PONG\n"
    });
    sandbox.docker(&["exec", "redis", "redis-cli", "set", "answer", "42"]);
    assert_eq!(sandbox.shell(&["-v", "kept:/k"], "ls /k"), "", "it has it in memory alone");
    let (_, to) = file(&sandbox, "redis.tar");
    sandbox.ok(&["container", "backup", "redis", "--to", &to, "--pre", "redis"]);
    sandbox.docker(&["rm", "-f", "redis"]);
    sandbox.docker(&["volume", "rm", "kept"]);
    sandbox.ok(&["container", "restore", &to]);
    until("Redis answers", SOON, || {
        sandbox.try_docker(&["exec", "redis", "redis-cli", "get", "answer"]).stdout == b"42\n"
    });
    // With a password; and where there is no Redis the backup says so.
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "locked",
        "--network",
        "none",
        "-e",
        "REDIS_PASSWORD=p w",
        REDIS,
    ]);
    let ask = ["exec", "-e", "REDISCLI_AUTH=p w", "locked", "redis-cli", "set", "a", "1"];
    until("Redis answers", SOON, || sandbox.try_docker(&ask).stdout == b"OK\n");
    let (_, to) = file(&sandbox, "locked.tar");
    sandbox.ok(&["container", "backup", "locked", "--to", &to, "--pre", "redis"]);

    start_mariadb(
        &sandbox,
        "maria",
        &["--network", "none", "-v", "tables:/var/lib/mysql", "--label", "everhold.pre=mysql"],
    );
    mariadb(&sandbox, "maria", "create database a; create table a.t (n int) engine=MyISAM");
    mariadb(&sandbox, "maria", "set global delay_key_write='ALL'; insert into a.t values (1), (2), (3)");
    let (_, to) = file(&sandbox, "maria.tar");
    sandbox.ok(&["container", "backup", "maria", "--to", &to]);
    sandbox.docker(&["rm", "-f", "maria"]);
    sandbox.docker(&["volume", "rm", "tables"]);
    sandbox.ok(&["container", "restore", &to]);
    mariadb_answers(&sandbox, "maria");
    // A table that was not closed would be marked as crashed.
    let checked = mariadb(&sandbox, "maria", "check table a.t; select sum(n) from a.t");
    assert!(checked.contains("OK") && !checked.contains("warning") && checked.ends_with('6'), "{checked}");
    let (_, to) = file(&sandbox, "wrong.tar");
    let (_, told) = sandbox.fails(&["container", "backup", "maria", "--to", &to, "--pre", "redis"]);
    assert!(told.contains("redis-cli"), "{told}");
}

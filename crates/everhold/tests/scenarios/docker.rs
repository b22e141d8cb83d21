//! What people do with volumes in Docker.

use crate::{in_kernel, with_docker};
use std::path::Path;
use std::process::Command;
use testkit::BUSYBOX;

#[test]
fn data_outlives_its_container() {
    let sandbox = with_docker(&["busybox"]);
    sandbox.volume("pgdata", &["size=64MiB"]);
    let run =
        ["run", "-d", "--name", "first", "--network", "none", "-v", "pgdata:/data", BUSYBOX, "sh", "-c"];
    sandbox.docker(&[&run[..], &["echo kept > /data/file; sync; sleep 1000"]].concat());
    testkit::until("the file is written", std::time::Duration::from_secs(10), || {
        sandbox.try_docker(&["exec", "first", "cat", "/data/file"]).stdout == b"kept\n"
    });
    sandbox.docker(&["rm", "-f", "first"]);
    assert_eq!(in_kernel(&sandbox), (0, 0), "nothing is mounted without a holder");
    assert_eq!(sandbox.shell(&["-v", "pgdata:/data"], "cat /data/file; ls -A /data"), "kept\nfile");

    // A new volume is empty, with no lost+found, and Docker lists it.
    let driver = sandbox.driver();
    assert_eq!(sandbox.shell(&["-v", "fresh:/data", "--volume-driver", driver], "ls -A /data"), "");
    let listed = sandbox.docker(&["volume", "ls", "--format", "{{.Driver}} {{.Name}}"]);
    assert!(
        listed.contains(&format!("{driver} pgdata")) && listed.contains(&format!("{driver} fresh")),
        "{listed}"
    );
    let metrics = sandbox.metrics();
    assert!(metrics.contains("everhold_verbs_total{verb=\"attach\",result=\"ok\"}"), "{metrics}");
    let inspected = sandbox.docker(&["volume", "inspect", "pgdata"]);
    assert!(inspected.contains("\"local\"") && inspected.contains("image"), "{inspected}");
}

#[test]
fn image_content_is_copied_up_with_its_owner() {
    let sandbox = with_docker(&["busybox"]);
    sandbox.volume("seeded", &["size=64MiB"]);
    let told = sandbox
        .shell(&["-v", "seeded:/seed"], "stat -c '%u:%g %a %n' /seed /seed/file /seed/sub; cat /seed/link");
    assert_eq!(
        told,
        "1000:1000 750 /seed\n1000:1000 640 /seed/file\n1000:1000 750 /seed/sub\nfrom the image, deeper"
    );
    sandbox.shell(&["-v", "seeded:/seed"], "rm /seed/file");
    let again = sandbox.shell(&["-v", "seeded:/seed"], "ls /seed");
    assert_eq!(again, "link\nsub", "a volume that is not empty is left alone");
}

#[test]
fn read_only_use() {
    let sandbox = with_docker(&["busybox"]);
    sandbox.volume("data", &["size=64MiB"]);
    sandbox.shell(&["-v", "data:/data"], "echo x > /data/file");
    let told = sandbox.shell(&["-v", "data:/data:ro"], "cat /data/file; touch /data/new 2>&1 || true");
    assert!(told.contains("x\n") && told.contains("Read-only file system"), "{told}");

    sandbox.volume("sealed", &["size=64MiB", "readonly=true"]);
    let told = sandbox.shell(&["-v", "sealed:/data"], "touch /data/new 2>&1 || true");
    assert!(told.contains("Read-only file system"), "{told}");
}

#[test]
fn sharing_and_exclusive_use() {
    let sandbox = with_docker(&["busybox"]);
    for (name, options) in [("shared", &["size=64MiB"][..]), ("own", &["size=64MiB", "exclusive=true"])] {
        sandbox.volume(name, options);
        let volume = format!("{name}:/data");
        sandbox.docker(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "-v",
            &volume,
            BUSYBOX,
            "sleep",
            "1000",
        ]);
    }
    sandbox.shell(&["-v", "shared:/data"], "echo from-the-other > /data/file");
    assert_eq!(sandbox.docker(&["exec", "shared", "cat", "/data/file"]), "from-the-other");

    let refused =
        sandbox.docker_fails(&["run", "--rm", "--network", "none", "-v", "own:/data", BUSYBOX, "true"]);
    assert!(refused.contains("in use by container own") && refused.contains(BUSYBOX), "{refused}");
    let refused = sandbox.docker_fails(&["volume", "rm", "own"]);
    assert!(refused.contains("in use"), "{refused}");
    let holders = sandbox.ok(&["volume", "holders", "own"]);
    assert!(holders.contains("own") && holders.contains(BUSYBOX), "{holders}");
    // The command line can't take it away either, and says who has it.
    let (code, told) = sandbox.fails(&["volume", "rm", "own"]);
    assert_eq!(code, 5, "{told}");
    assert!(told.contains("container own") && told.contains("Next:"), "{told}");

    sandbox.docker(&["rm", "-f", "own"]);
    sandbox.shell(&["-v", "own:/data"], "true");
}

#[test]
fn volumes_from_a_data_only_container() {
    let sandbox = with_docker(&["busybox"]);
    sandbox.volume("data", &["size=64MiB"]);
    sandbox.docker(&["create", "--name", "keeper", "--network", "none", "-v", "data:/data", BUSYBOX, "true"]);
    sandbox.shell(&["--volumes-from", "keeper"], "echo via-keeper > /data/file");
    assert_eq!(sandbox.shell(&["--volumes-from", "keeper:ro"], "cat /data/file"), "via-keeper");
    assert_eq!(in_kernel(&sandbox), (0, 0));
}

#[test]
fn an_existing_directory_is_used_in_place_and_never_deleted() {
    let sandbox = with_docker(&["busybox"]);
    let srv = sandbox.dir().join("srv/app");
    std::fs::create_dir_all(&srv).unwrap();
    std::fs::write(srv.join("there"), "before\n").unwrap();
    let option = format!("path={}", srv.display());
    sandbox.volume("app", &[&option]);
    assert_eq!(sandbox.shell(&["-v", "app:/data"], "cat /data/there; echo new > /data/made"), "before");
    sandbox.docker(&["volume", "rm", "app"]);
    sandbox.ok(&["trash", "empty", "--yes"]);
    assert_eq!(std::fs::read_to_string(srv.join("made")).unwrap(), "new\n");

    // What must not be a volume, with the reason.
    let outside = sandbox.dir().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, srv.join("link")).unwrap();
    std::fs::write(srv.join("file"), "").unwrap();
    let state = sandbox.state();
    for bad in [
        Path::new("/"),
        &srv.join("file"),
        &srv.join("link"),
        &srv.join("absent"),
        &state,
        &state.join("pools/default"),
    ] {
        let told = sandbox.docker_fails(&[
            "volume",
            "create",
            "-d",
            sandbox.driver(),
            "-o",
            &format!("path={}", bad.display()),
            "bad",
        ]);
        assert!(told.contains("Next:"), "{}: {told}", bad.display());
    }
    sandbox.volume("app", &[&option]);
    let told = sandbox.docker_fails(&["volume", "create", "-d", sandbox.driver(), "-o", &option, "other"]);
    assert!(told.contains("belongs to the volume app"), "{told}");
}

#[test]
fn a_container_without_root_owns_its_volume() {
    let sandbox = with_docker(&["busybox"]);
    for (name, driver) in [("image", "driver=image"), ("dir", "driver=dir"), ("memory", "driver=tmpfs")] {
        let mut options = vec![driver, "uid=1000", "gid=1000", "mode=0700"];
        if name != "dir" {
            options.push("size=64MiB");
        }
        sandbox.volume(name, &options);
        let volume = format!("{name}:/data");
        let told = sandbox.shell(
            &["--user", "1000:1000", "-v", &volume],
            "id -u > /data/me && stat -c '%u:%g %a' /data /data/me",
        );
        assert_eq!(told, "1000:1000 700\n1000:1000 644", "{name}");
    }
}

#[test]
fn removals_can_be_taken_back() {
    let sandbox = with_docker(&["busybox"]);
    for name in ["one", "two"] {
        sandbox.volume(name, &["size=64MiB"]);
        sandbox.shell(&["-v", &format!("{name}:/data")], &format!("echo {name} > /data/file"));
    }
    // Docker prunes volumes of its own driver only. Ours are not even asked about, and if an engine ever does, they go
    // where the others go.
    sandbox.docker(&["volume", "prune", "-f"]);
    if sandbox.docker_volumes().is_empty() {
        sandbox.ok(&["trash", "restore", "one"]);
        sandbox.ok(&["trash", "restore", "two"]);
    }
    sandbox.docker(&["volume", "rm", "one", "two"]);
    assert_eq!(sandbox.docker_volumes(), "");
    let trash = sandbox.ok(&["trash", "ls"]);
    assert!(trash.contains("one") && trash.contains("two"), "{trash}");

    // The name is free meanwhile, and restoring asks for another then.
    sandbox.volume("one", &["size=64MiB"]);
    let (code, told) = sandbox.fails(&["trash", "restore", "one"]);
    assert_eq!(code, 4);
    assert!(told.contains("--as"), "{told}");
    sandbox.ok(&["trash", "restore", "one", "--as", "one-back"]);
    sandbox.ok(&["trash", "restore", "two"]);
    assert_eq!(sandbox.shell(&["-v", "one-back:/data"], "cat /data/file"), "one");
    assert_eq!(sandbox.shell(&["-v", "two:/data"], "cat /data/file"), "two");
}

#[test]
fn compose_down_with_volumes_can_be_taken_back() {
    let sandbox = with_docker(&["busybox"]);
    let file = sandbox.dir().join("docker-compose.yml");
    let text = format!(
        "version: '3.7'\nservices:\n  app:\n    image: {BUSYBOX}\n    network_mode: none\n    command: sh -c 'echo run >> /data/runs; sleep 1000'\n    \
         volumes: ['data:/data']\nvolumes:\n  data:\n    driver: {}\n    driver_opts:\n      size: 64MiB\n      label.tier: web\n",
        sandbox.driver()
    );
    std::fs::write(&file, text).unwrap();
    let compose = |words: &[&str]| {
        let mut command = Command::new("docker-compose");
        command.env("DOCKER_HOST", format!("unix://{}/docker/docker.sock", sandbox.dir().display()));
        let output = testkit::output_of(command.args(["-p", "shop", "-f"]).arg(&file).args(words));
        assert!(
            output.status.success(),
            "docker-compose {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    compose(&["up", "-d"]);
    compose(&["down", "-t", "0"]);
    compose(&["up", "-d"]);
    compose(&["down", "-v", "-t", "0"]);
    assert!(sandbox.ok(&["trash", "ls"]).contains("shop_data"));
    sandbox.ok(&["trash", "restore", "shop_data"]);
    assert_eq!(sandbox.json(&["volume", "inspect", "shop_data"])["labels"]["tier"], "web");
    compose(&["up", "-d"]);
    testkit::until("three runs are counted", std::time::Duration::from_secs(10), || {
        sandbox.shell(&["-v", "shop_data:/data"], "wc -l < /data/runs") == "3"
    });
    compose(&["down", "-v", "-t", "0"]);
}

#[test]
fn bad_input_through_docker_is_answered_with_what_to_do() {
    let sandbox = with_docker(&["busybox"]);
    let create = |options: &[&str], name: &str| {
        let mut words = vec!["volume", "create", "-d", sandbox.driver()];
        options.iter().for_each(|option| words.extend(["-o", option]));
        words.push(name);
        sandbox.docker_fails(&words)
    };
    assert!(create(&["sise=1GiB"], "bad").contains("did you mean `size`"));
    assert!(create(&["size=10XB"], "bad").contains("unknown unit"));
    assert!(create(&["size=0"], "bad").contains("too small"));
    assert!(create(&["size=-1GiB"], "bad").contains("negative"));
    assert!(create(&["size=7PiB"], "bad").contains("more than the whole pool"));
    assert!(create(&["size=16384PiB"], "bad").contains("too large"));
    assert!(create(&["driver=dir", "fs=xfs"], "bad").contains("does not go with driver=dir"));
    assert!(create(&["pool=absent"], "bad").contains("there is no pool absent"));
    sandbox.volume("data", &["size=64MiB"]);
    sandbox.volume("data", &["size=64MiB"]);
    // Docker itself answers a second creation of a name that it knows; our own command line asks the daemon.
    let (code, told) = sandbox.fails(&["volume", "create", "data", "-o", "size=65MiB"]);
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("size: asked 65MiB, has 64MiB"), "{told}");
    assert_eq!(sandbox.docker_volumes(), "data");
}

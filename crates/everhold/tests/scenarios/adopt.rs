//! Volumes of Docker's own and directories of the host become volumes of Everhold.

use crate::host::{SOON, inspect, running, settings, settled};
use crate::with_docker;
use testkit::{BUSYBOX, output_of, until};

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

/// One counts in it, and the other one reads; whatever happens, no number is lost.
#[test]
fn killed_at_every_step_an_adoption_leaves_all_its_containers_running() {
    let sandbox = with_docker(&["busybox"]);
    let count = "[ -e /d/big ] || head -c 8388608 /dev/urandom > /d/big; n=$(cat /d/n 2>/dev/null || echo 0); while true; do n=$((n + 1)); echo $n > /d/m; mv /d/m /d/n; done";
    let start = || {
        for (name, script) in [("count", count), ("read", "exec sleep 1000")] {
            let run =
                ["run", "-d", "--name", name, "--network", "none", "--restart", "always", "-v", "numbers:/d"];
            sandbox.docker(&[&run[..], &[BUSYBOX, "sh", "-c", script]].concat());
        }
    };
    let number = || {
        let read = || sandbox.try_docker(&["exec", "read", "cat", "/d/n"]).stdout;
        until("there is a number", SOON, || !read().is_empty());
        String::from_utf8_lossy(&read()).trim().parse::<u64>().unwrap()
    };
    start();
    for step in containers::relocate::Step::ALL {
        let point = step.name();
        let before = number();
        let output = output_of(sandbox.command(&["adopt", "numbers"]).env("EVERHOLD_FAULT", point));
        assert!(output.status.code().is_none(), "{point}: {}", String::from_utf8_lossy(&output.stderr));
        until(&format!("{point}: somebody brings it back"), SOON, || settled(&sandbox));
        assert!(running(&sandbox, "count") && running(&sandbox, "read"), "{point}");
        assert!(number() >= before, "{point}");
        let all = sandbox.docker(&["ps", "-a", "--format", "{{.Names}}"]);
        if matches!(point, "relocate-started" | "relocate-start-noted" | "relocate-done") {
            assert_eq!(all.lines().count(), 4, "{point}: {all}");
            sandbox.docker(&["rm", "-f", "count", "read", "count-before-adopt", "read-before-adopt"]);
            sandbox.docker(&["volume", "rm", "numbers", "numbers-everhold"]);
            sandbox.ok(&["trash", "empty", "--yes"]);
            start();
        } else {
            assert_eq!(all.lines().count(), 2, "{point}: {all}");
        }
    }
    let before = number();
    sandbox.ok(&["adopt", "numbers"]);
    assert!(
        number() >= before && inspect(&sandbox, "count")["Mounts"].to_string().contains("numbers-everhold")
    );
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

//! What would be lost: what the audit finds, and who may ask.

use crate::host::{SOON, start_box};
use crate::with_docker;
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::{BUSYBOX, Sandbox, output_of, until};

pub fn audit(sandbox: &Sandbox, containers: &[&str]) -> (i32, Value) {
    let output = sandbox.run(&[&["audit", "--json"], containers].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

pub fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().filter_map(|finding| finding["code"].as_str()).collect()
}

/// The codes of the findings about a container or a volume.
fn about(report: &Value, name: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let about = findings.filter(|finding| finding["container"] == name || finding["volume"] == name);
    about.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_hundred_containers_are_looked_at() {
    let sandbox = with_docker(&["busybox"]);
    let script = "mkdir -p /srv/app/a/b; for n in $(seq 200); do echo $n > /srv/app/a/b/$n; done; touch /tmp/ready; exec sleep 1000";
    for number in 0..100 {
        let name = format!("c{number:02}");
        let named = ["--name", &name, "--network", "none", BUSYBOX];
        if number < 20 {
            sandbox.docker(&[&["run", "-d"], &named[..], &["sh", "-c", script]].concat());
        } else {
            sandbox.docker(&[&["create"], &named[..], &["sleep", "1000"]].concat());
        }
    }
    for number in 0..20 {
        let name = format!("c{number:02}");
        until("it has written", SOON, || {
            sandbox.try_docker(&["exec", &name, "ls", "/tmp/ready"]).status.success()
        });
    }
    // An engine that waits for another sandbox's dead plugin just then is asked again.
    let mut took = Vec::new();
    while took.len() < 6 && took.last().is_none_or(|took| *took >= Duration::from_secs(5)) {
        let began = Instant::now();
        let (code, report) = audit(&sandbox, &[]);
        took.push(began.elapsed());
        assert_eq!((code, report["containers"].as_array().unwrap().len()), (0, 100), "{}", report["summary"]);
        assert_eq!(report["containers"][7]["layer"]["matter"]["files"], 200, "{}", report["containers"][7]);
        let headline = report["summary"]["headline"].as_str().unwrap();
        assert!(headline.starts_with("Nothing but small changes would be lost"), "{headline}");
    }
    assert!(took.last().is_some_and(|took| *took < Duration::from_secs(5)), "{took:?}");
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

#[test]
fn findings_are_made_of_what_is_there() {
    let sandbox = with_docker(&["busybox"]);
    let run = |name: &str, options: &[&str], script: &str| start_box(&sandbox, name, options, script);
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
    let unkept = format!("unkept-{}", sandbox.driver());
    sandbox.volume(&unkept, &["size=64MiB"]);
    run("user", &["-v", &format!("{unkept}:/u")], "echo x > /u/x");
    run("plain", &["-v", "both:/b:ro"], "echo x > /tmp/x");
    // What a container says it runs is believed.
    sandbox.docker(&["tag", BUSYBOX, "redis:latest"]);
    let redis = |name: &str, options: &[&str]| {
        let script = "mkdir -p /data; dd if=/dev/urandom of=/data/dump.rdb bs=64k count=4 2>/dev/null; touch /tmp/ready; exec sleep 1000";
        let words = ["run", "-d", "--name", name, "--network", "none"];
        sandbox.docker(&[&words[..], options, &["redis:latest", "sh", "-c", script]].concat());
        until("it has written", SOON, || {
            sandbox.try_docker(&["exec", name, "ls", "/tmp/ready"]).status.success()
        });
    };
    redis("memory", &["--tmpfs", "/data"]);
    redis("fleeting", &["--rm"]);
    redis("astray", &["-v", "meant:/redis-data"]);
    // Nobody starts it, and its user has a name only.
    let options = ["--network", "none", "-v", "rooted:/d", "--user", "app"];
    sandbox.docker(&[&["create", "--name", "named"], &options[..], &[BUSYBOX, "true"]].concat());
    let (code, report) = audit(&sandbox, &[]);
    assert_eq!(code, 1);
    for (name, wanted) in [
        ("memory", "data-on-tmpfs"),
        ("memory", "no-restart-policy"),
        ("memory", "moving-tag"),
        ("fleeting", "removes-itself"),
        ("fleeting", "data-in-layer"),
        ("astray", "volume-misses-data"),
        ("plain", "could-be-read-only"),
        (unkept.as_str(), "volume-without-history"),
        ("named", "mount-not-writable"),
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
    // Whoever shares a volume is named, also where nobody asked for it.
    let (_, alone) = audit(&sandbox, &["share1"]);
    let shared =
        alone["findings"].as_array().unwrap().iter().find(|found| found["code"] == "shared-writable");
    let said = shared.unwrap_or_else(|| panic!("{alone}"))["found"].as_str().unwrap();
    assert!(said.contains("share1") && said.contains("share2"), "{said}");
    // A rescue takes what the audit says would be lost, from where it is.
    let plan = sandbox.json(&["rescue", "astray"]);
    assert_eq!(plan["moves"][0]["source"]["path"], "/data", "{plan}");
    assert_eq!(plan["moves"].as_array().unwrap().len(), 1, "{plan}");
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

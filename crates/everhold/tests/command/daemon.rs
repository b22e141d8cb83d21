//! The daemon's life: start, stop, death, and the repair of what is damaged.

use crate::host::{Host, wait_for};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn finish(mut command: Command) -> (i32, String) {
    let output: Output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_graceful_stop_is_quick_and_leaves_nothing_to_connect_to() {
    let mut host = Host::started();
    host.ok(&["volume", "create", "a"]);
    let mode = std::fs::metadata(host.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    let (status, took) = host.stop();
    assert!(status.success() && took < Duration::from_secs(5), "{status}, {took:?}");
    assert!(!host.socket().exists());
    let (code, said) = host.fails(&["volume", "ls"]);
    assert!(code == 12 && said.contains("systemctl status everhold"), "{said}");
}

#[test]
fn a_second_daemon_is_refused_with_the_first_ones_pid() {
    let host = Host::started();
    let (code, said) = finish(host.daemon(&[]));
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&format!("pid {}", host.pid())), "{said}");
    assert!(host.ok(&["status"]).contains("everhold"), "the first one is not disturbed");
    // Another state, the same socket: refused as well, and the first one's socket is left alone.
    let other = host.dir.path().join("other");
    let (code, said) = finish(host.daemon(&[("EVERHOLD_STATE", other.to_str().unwrap())]));
    assert!(code == 4 && said.contains("another process answers"), "{said}");
    assert!(host.ok(&["status"]).contains("everhold"));
}

#[test]
fn killed_and_started_again_everything_is_there() {
    let mut host = Host::started();
    host.ok(&["volume", "create", "a"]);
    let path = host.ok(&["volume", "mount", "a", "--id", "mine"]);
    host.kill();
    assert!(host.socket().exists(), "a killed daemon leaves its socket");
    host.start(&[]);
    let volume = host.json(&["volume", "inspect", "a"]);
    assert_eq!(volume["attachments"][0]["id"], "mine");
    assert_eq!(volume["path"], path.trim());
}

// A release build has nothing that sets a fault point off.
#[cfg(debug_assertions)]
#[test]
fn a_fault_point_ends_it_and_the_next_start_undoes_what_was_begun() {
    let mut host = Host::new();
    host.start(&[("EVERHOLD_FAULT", "CreateMade")]);
    let (code, said) = host.fails(&["volume", "create", "a"]);
    assert!(code == 12 && said.contains("Data: not known"), "{said}");
    assert!(!host.ended().success());
    host.start(&[]);
    assert_eq!(host.json(&["volume", "ls"])["volumes"], serde_json::json!([]));
    assert_eq!(std::fs::read_dir(host.state().join("pools/default/volumes")).unwrap().count(), 0);
    let (code, said) = finish(Host::new().daemon(&[("EVERHOLD_FAULT", "Nowhere")]));
    assert!(code == 2 && said.contains("no fault point"), "{said}");
}

#[test]
fn a_damaged_catalog_is_refused_and_rebuilt() {
    let mut host = Host::started();
    for name in ["a", "b", "c"] {
        host.ok(&["volume", "create", name, "--label", "env=prod"]);
    }
    host.ok(&["volume", "rm", "c"]);
    let config = host.config();
    let config = config.to_str().unwrap();
    let (code, said) = host.fails(&["recover", "--scan", "--config", config]);
    assert!(code == 4 && said.contains("pid"), "not while the daemon runs: {said}");
    host.stop();

    let catalog = host.state().join("catalog.redb");
    let length = std::fs::metadata(&catalog).unwrap().len() as usize;
    std::fs::write(&catalog, vec![0x5a; length]).unwrap();
    let (code, said) = finish(host.daemon(&[]));
    assert!(code == 9 && said.contains("recover --scan"), "{said}");

    let before = std::fs::read(&catalog).unwrap();
    let dry = host.json(&["recover", "--scan", "--dry-run", "--config", config]);
    assert_eq!(
        (dry["result"].as_str(), dry["volumes"].as_array().map(Vec::len)),
        (Some("would-rebuild"), Some(3))
    );
    assert_eq!(std::fs::read(&catalog).unwrap(), before, "a dry run changes nothing");
    let rebuilt = host.json(&["recover", "--scan", "--config", config]);
    let kept = rebuilt["old_catalog"].as_str().unwrap();
    assert_eq!(std::fs::read(kept).unwrap(), before);

    host.start(&[]);
    let volumes = host.json(&["volume", "ls"]);
    let names: Vec<_> =
        volumes["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(volumes["volumes"][0]["labels"]["env"], "prod");
    assert_eq!(host.ok(&["trash", "restore", "c"]), "c is back.\n");
}

#[test]
fn a_wrong_configuration_is_named() {
    let host = Host::new();
    for (text, words) in [
        ("[defaults]\nsise = \"1GiB\"", "did you mean `size`?"),
        ("[log]\nlevel = \"everhold=loud\"", "log.level"),
        ("[api]\ngroup = \"no-such-group\"", "no such group"),
    ] {
        let dir = host.dir.path().display();
        let paths = format!("[paths]\nstate = \"{dir}/s\"\nrun = \"{dir}/r\"\n[docker]\nenabled = false\n");
        std::fs::write(host.config(), format!("{paths}{text}\n")).unwrap();
        let (code, said) = finish(host.daemon(&[]));
        assert!(code == 2 && said.contains(words), "{text}: {code}: {said}");
    }
}

#[test]
fn the_service_manager_is_told() {
    let mut host = Host::new();
    let address = host.dir.path().join("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let told = |wanted: &str| {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        assert!(text.contains(wanted), "{text}");
    };
    host.start(&[("NOTIFY_SOCKET", address.to_str().unwrap())]);
    told("READY=1");
    host.ok(&["status"]);
    host.stop();
    told("STOPPING=1");
}

#[test]
fn logs_in_json_are_one_object_a_line() {
    let host = Host::new();
    let mut child = host.daemon(&[("EVERHOLD_LOG_FORMAT", "json")]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines.by_ref().map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let ready = ready.into_iter().find(|line| line["message"] == "ready").unwrap();
    assert_eq!((ready["level"].as_str(), ready["volumes"].as_u64()), (Some("INFO"), Some(0)));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_guard_ignores_signals_until_its_input_ends() {
    let host = Host::new();
    let mut guard = host.command().arg("guard").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut orders = guard.stdin.take().unwrap();
    let mut answers = BufReader::new(guard.stdout.take().unwrap());
    let mut ask = |order: &str| {
        writeln!(orders, "{order}").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        answer
    };
    assert_eq!(ask("release /nowhere"), "ok\n");
    let pid = rustix::process::Pid::from_child(&guard);
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP]
    {
        rustix::process::kill_process(pid, signal).unwrap();
    }
    assert!(ask("protect /nowhere").starts_with("error"));
    assert_eq!(ask("release /nowhere"), "ok\n");
    drop(orders);
    assert!(wait_for("the guard's end", || guard.try_wait().unwrap()).success());
}

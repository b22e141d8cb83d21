//! A host disk that runs full, in every step, and is freed again.

use crate::postgres::{Writer, assert_all_there, assert_no_errors, start};
use crate::{growing_fs, sandbox, volumes};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::{Sandbox, until};

const MIB: u64 = 1 << 20;

/// A file that takes all space but `leave` bytes.
fn fill(disk: &Path, leave: u64) -> PathBuf {
    let path = disk.join("filler");
    let file = std::fs::File::create(&path).unwrap();
    let mut take = linux::fs::space(disk).unwrap().available.saturating_sub(leave);
    while take > 4096 && linux::fs::allocate(&file, take).is_err() {
        take -= take / 64 + 4096;
    }
    // What the allocator keeps back for its own blocks.
    let mut rest = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    while linux::fs::space(disk).unwrap().available > leave
        && rest.write_all(&[1; 4096]).is_ok()
        && rest.sync_all().is_ok()
    {}
    path
}

fn with_pool(hold: &str, reserve: &str, bytes: u64) -> (Sandbox, PathBuf) {
    let mut sandbox = sandbox();
    let disk = sandbox.small_disk("disk", &["mkfs.ext4", "-q", "-m", "0"], bytes);
    sandbox.configure(&format!(
        "[pool.default]\npath = \"{}\"\nhold = \"{hold}\"\nreserve = \"{reserve}\"\n",
        disk.display()
    ));
    (sandbox, disk)
}

#[test]
fn writers_are_held_before_the_disk_is_full_and_go_on_when_space_returns() {
    let (mut sandbox, disk) = with_pool("96MiB", "10%", 2048 * MIB);
    sandbox.start_docker(&["postgres"]).start();
    sandbox.volume("pgdata", &["size=1GiB"]);
    start(&sandbox, "pg", "pgdata");
    let writer = Writer::start(&sandbox, "pg");
    writer.wait_for(50);
    let filler = fill(&disk, 48 * MIB);
    until("the writers are held", Duration::from_secs(20), || sandbox.ok(&["status"]).contains("held"));
    assert!(sandbox.log().contains("the pool is full"), "said loudly");
    let inspected = sandbox.ok(&["volume", "inspect", "pgdata"]);
    assert!(inspected.contains("pool release"), "it says what to do: {inspected}");
    let pools = sandbox.ok(&["pool", "ls"]).to_lowercase();
    assert!(pools.contains("held"), "{pools}");
    let refused =
        sandbox.docker_fails(&["volume", "create", "-d", sandbox.driver(), "-o", "size=64MiB", "more"]);
    assert!(refused.contains("reserve"), "{refused}");
    // Everything still answers, and the rows stand still.
    sandbox.docker(&["ps"]);
    sandbox.docker(&["volume", "ls"]);
    until("the row in flight is out", Duration::from_secs(10), || {
        let last = writer.last();
        std::thread::sleep(Duration::from_millis(500));
        writer.last() == last
    });

    std::fs::remove_file(filler).unwrap();
    writer.wait_for(50);
    assert!(!sandbox.ok(&["status"]).contains("held"));

    // Again, and this time the operator decides.
    let filler = fill(&disk, 48 * MIB);
    until("the writers are held", Duration::from_secs(20), || sandbox.ok(&["status"]).contains("held"));
    sandbox.ok(&["pool", "release", "default"]);
    writer.wait_for(20);
    std::fs::remove_file(filler).unwrap();
    let acknowledged = writer.stop();
    assert_no_errors(&sandbox, "pg");
    assert_all_there(&sandbox, "pg", &acknowledged);
}

#[test]
fn the_guard_lets_writers_go_when_the_daemon_dies() {
    held_and_killed(false);
}

#[test]
fn a_guard_that_is_killed_is_replaced() {
    held_and_killed(true);
}

/// The process IDs of the daemon's guards.
fn guards(sandbox: &Sandbox) -> Vec<String> {
    let children = format!("/proc/{0}/task", sandbox.pid());
    let threads = std::fs::read_dir(children).unwrap().flatten();
    let text: String =
        threads.filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok()).collect();
    let is_guard = |pid: &&str| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("\0guard"))
    };
    text.split_whitespace().filter(is_guard).map(str::to_owned).collect()
}

fn held_and_killed(guard_first: bool) {
    let (mut sandbox, disk) = with_pool("96MiB", "10%", 1024 * MIB);
    sandbox.start();
    sandbox.ok(&["volume", "create", "data", "-o", "size=256MiB"]);
    let path = PathBuf::from(sandbox.ok(&["volume", "mount", "data", "--id", "h"]).trim());
    std::fs::write(path.join("file"), "x").unwrap();
    let filler = fill(&disk, 64 * MIB);
    until("the writers are held", Duration::from_secs(60), || {
        sandbox.json(&["volume", "inspect", "data"])["held"] == serde_json::json!(true)
    });
    let (told, finished) = std::sync::mpsc::channel();
    let at = path.clone();
    let writer = std::thread::spawn(move || told.send(std::fs::write(at.join("other"), "y").is_ok()));
    assert!(finished.recv_timeout(Duration::from_secs(1)).is_err(), "the writer waits");
    if guard_first {
        let first = guards(&sandbox);
        assert_eq!(first.len(), 1);
        assert!(std::process::Command::new("kill").args(["-9", &first[0]]).status().unwrap().success());
        until("another guard is there", Duration::from_secs(10), || {
            guards(&sandbox).iter().any(|pid| *pid != first[0])
        });
        until("it knows what is frozen", Duration::from_secs(10), || {
            let descriptors =
                std::fs::read_dir(format!("/proc/{}/fd", guards(&sandbox)[0])).unwrap().flatten();
            descriptors
                .filter_map(|fd| std::fs::read_link(fd.path()).ok())
                .any(|file| file.starts_with(sandbox.state()))
        });
    }
    sandbox.kill();
    assert_eq!(finished.recv_timeout(Duration::from_secs(10)), Ok(true), "the guard has thawed");
    writer.join().unwrap().unwrap();
    std::fs::remove_file(filler).unwrap();
    sandbox.start();
    sandbox.ok(&["volume", "unmount", "data", "--id", "h"]);
}

/// With so much space left, a verb either succeeds or leaves nothing of itself.
const LEAVE: [u64; 8] = [0, 8 << 10, 64 << 10, 256 << 10, MIB, 2 * MIB, 8 * MIB, 24 * MIB];

#[test]
fn a_full_disk_in_every_step_of_create() {
    let (mut sandbox, disk) = with_pool("off", "0%", 160 * MIB);
    sandbox.start();
    let mut refused = 0;
    for leave in LEAVE {
        let filler = fill(&disk, leave);
        for provisioning in ["thin", "thick"] {
            let words = [
                "volume",
                "create",
                "new",
                "-o",
                "size=16MiB",
                "-o",
                &format!("provisioning={provisioning}"),
            ];
            let output = sandbox.run(&words);
            let told = String::from_utf8_lossy(&output.stderr);
            let homes = std::fs::read_dir(disk.join("volumes")).unwrap().count();
            if output.status.success() {
                sandbox.ok(&["volume", "rm", "new"]);
                sandbox.ok(&["trash", "empty", "--yes"]);
            } else {
                refused += 1;
                assert_eq!(output.status.code(), Some(7), "{leave}: {told}");
                assert!(told.contains("Next:"), "{told}");
                assert_eq!(homes, 0, "{leave} {provisioning}: nothing remains");
                assert!(volumes(&sandbox, "volume").is_empty());
            }
        }
        std::fs::remove_file(filler).unwrap();
    }
    assert!(refused >= LEAVE.len() / 2, "the disk was hardly ever full: {refused}");
}

#[test]
fn a_full_disk_in_every_step_of_grow() {
    let (mut sandbox, disk) = with_pool("off", "0%", 768 * MIB);
    sandbox.start();
    let thick =
        ["volume", "create", "data", "-o", "size=320MiB", "-o", "provisioning=thick", "-o", growing_fs()];
    sandbox.ok(&thick);
    let path = PathBuf::from(sandbox.ok(&["volume", "mount", "data", "--id", "h"]).trim());
    std::fs::write(path.join("file"), "kept").unwrap();
    sandbox.ok(&["volume", "unmount", "data", "--id", "h"]);
    let mut refused = 0;
    for (step, leave) in (1..).zip(LEAVE) {
        let filler = fill(&disk, leave);
        let size = format!("{}MiB", 320 + 16 * step);
        if let Some(7) = sandbox.run(&["volume", "grow", "data", &size]).status.code() {
            refused += 1;
        }
        std::fs::remove_file(filler).unwrap();
        sandbox.ok(&["volume", "grow", "data", &size]);
        let path = PathBuf::from(sandbox.ok(&["volume", "mount", "data", "--id", "h"]).trim());
        assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "kept");
        sandbox.ok(&["volume", "unmount", "data", "--id", "h"]);
    }
    assert!(refused >= 3, "growing met hardly any full disk: {refused}");
}

#[test]
fn a_full_disk_under_the_catalog() {
    let mut sandbox = sandbox();
    let disk = sandbox.small_disk("state", &["mkfs.ext4", "-q", "-m", "0"], 96 * MIB);
    sandbox.configure(&format!("[pool.default]\npath = \"{}/pool\"\n", sandbox.dir().display())).start();
    sandbox.ok(&["volume", "create", "data", "-o", "size=16MiB"]);
    for (n, leave) in [0, 4 << 10, 64 << 10].into_iter().enumerate() {
        let filler = fill(&disk, leave);
        let name = format!("new{n}");
        let made = sandbox.run(&["volume", "create", &name, "-o", "size=16MiB"]).status.success();
        std::fs::remove_file(filler).unwrap();
        // No restart: with space back, verbs work again at once, and after one everything is as before it.
        sandbox.ok(&["volume", "label", "data", &format!("step={n}")]);
        if n == 1 {
            sandbox.kill().start();
        }
        let listed = sandbox.ok(&["volume", "ls"]);
        assert!(listed.contains("data"), "{listed}");
        assert_eq!(
            listed.contains(&name),
            made,
            "what was acknowledged is there, what was refused is not: {listed}"
        );
        let known = volumes(&sandbox, "volume").len();
        assert_eq!(std::fs::read_dir(sandbox.dir().join("pool/volumes")).unwrap().count(), known);
    }
}

#[test]
fn a_full_pool_can_be_freed_by_removing_volumes() {
    let (mut sandbox, disk) = with_pool("off", "0%", 160 * MIB);
    sandbox.start();
    sandbox.ok(&["volume", "create", "large", "-o", "size=64MiB", "-o", "provisioning=thick"]);
    let filler = fill(&disk, 0);
    sandbox.ok(&["volume", "rm", "large"]);
    sandbox.ok(&["trash", "restore", "large", "--as", "back"]);
    sandbox.ok(&["volume", "rm", "back"]);
    sandbox.ok(&["trash", "empty", "--yes"]);
    assert!(linux::fs::space(&disk).unwrap().available > 60 * MIB, "the space is back");
    std::fs::remove_file(filler).unwrap();
}

#[test]
fn a_thick_volume_leaves_room_for_what_others_have_written_already() {
    let (mut sandbox, disk) = with_pool("32MiB", "3%", 1024 * MIB);
    sandbox.start();
    sandbox.ok(&["volume", "create", "thin", "-o", "size=800MiB"]);
    let path = PathBuf::from(sandbox.ok(&["volume", "mount", "thin", "--id", "h"]).trim());
    std::fs::write(path.join("dirty"), vec![7; 300 * MIB as usize]).unwrap();
    let free = linux::fs::space(&disk).unwrap().available / MIB;
    let size = format!("size={}MiB", free - 80);
    let made = sandbox.run(&["volume", "create", "thick", "-o", &size, "-o", "provisioning=thick"]);
    // Either it was refused, or all of the data was on the disk by then; the writer is told of no error in any case.
    std::fs::File::open(path.join("dirty")).and_then(|file| file.sync_all()).expect("nothing is lost");
    if !made.status.success() {
        assert_eq!(made.status.code(), Some(7), "{}", String::from_utf8_lossy(&made.stderr));
    }
    assert_eq!(std::fs::read(path.join("dirty")).unwrap(), vec![7; 300 * MIB as usize]);
    sandbox.ok(&["volume", "unmount", "thin", "--id", "h"]);
}

#[test]
fn a_disk_that_is_filled_at_one_blow_loses_nothing_acknowledged() {
    let (mut sandbox, disk) = with_pool("96MiB", "10%", 1024 * MIB);
    sandbox.start_docker(&["postgres"]).start();
    sandbox.volume("pgdata", &["size=800MiB"]);
    start(&sandbox, "pg", "pgdata");
    let writer = Writer::start(&sandbox, "pg");
    writer.wait_for(50);
    // Faster than anybody can look: the last block is gone before the writers can be held. The database may stop, as it does
    // on any full disk; what it has acknowledged must be there.
    let filler = fill(&disk, 0);
    until("the pool is seen to be full", Duration::from_secs(20), || {
        sandbox.ok(&["status"]).to_lowercase().contains("held")
    });
    std::fs::remove_file(filler).unwrap();
    until("space is seen to be back", Duration::from_secs(60), || {
        !sandbox.ok(&["status"]).to_lowercase().contains("held")
    });
    let acknowledged = writer.stop();
    sandbox.docker(&["rm", "-f", "pg"]);
    start(&sandbox, "pg", "pgdata");
    assert_all_there(&sandbox, "pg", &acknowledged);
}

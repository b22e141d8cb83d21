//! Restores of whole containers: all of it is there afterwards, or nothing, and what others have is theirs.

use crate::host::{SOON, Waiting, busy_box, file, gone, network, running, settled, small};
use crate::{volumes, with_docker};
use testkit::{BUSYBOX, output_of, until};

#[test]
fn what_can_not_be_finished_is_removed_again() {
    let sandbox = with_docker(&["busybox"]);
    // A device of the host that will be gone.
    let device = format!("/dev/everhold-test-{}", std::process::id());
    let made = std::process::Command::new("mknod").args([&device, "c", "1", "3"]).status().unwrap();
    assert!(made.success());
    busy_box(&sandbox, "und", &["--network", "none", "--device", &device]);
    let (_, to) = file(&sandbox, "und.tar");
    sandbox.ok(&["container", "backup", "und", "--to", &to]);
    sandbox.docker(&["rm", "-f", "-v", "und"]);
    sandbox.docker(&["volume", "rm", "local"]);
    // One of its volumes exists: refused before. It can't be started: in the middle.
    let (code, told) = sandbox.fails(&["container", "restore", &to]);
    assert!(code == 4 && told.contains("there is a volume und-ours already"), "{told}");
    assert!(!sandbox.docker(&["volume", "ls", "-q"]).lines().any(|name| name == "local"));
    std::fs::remove_file(&device).unwrap();
    let (_, told) = sandbox.fails(&["container", "restore", &to, "--as", "other"]);
    assert!(told.contains("starting other") && told.contains("are in the trash"), "{told}");
    assert!(!sandbox.docker_volumes().contains("other"));
    assert_eq!(sandbox.docker(&["ps", "-aq"]), "");
    assert_eq!(sandbox.docker(&["images", "-q", "everhold-backup/und"]), "");
    // Without Everhold's driver, as a plain volume.
    let made = std::process::Command::new("mknod").args([&device, "c", "1", "3"]).status().unwrap();
    assert!(made.success());
    sandbox.ok(&["container", "restore", &to, "--as", "plain", "--volume-driver", "local"]);
    assert_eq!(sandbox.docker(&["exec", "plain", "cat", "/o/file"]), "o");
    std::fs::remove_file(&device).unwrap();
}

#[test]
fn a_restore_that_does_not_fit_is_refused_before_anything_is_made() {
    let mut sandbox = crate::sandbox();
    let disk = sandbox.small_disk("pool", &["mkfs.ext4", "-q", "-m", "0"], 64 << 20);
    sandbox.configure(&format!("[pool.default]\npath = \"{}\"\nreserve = \"5%\"\n", disk.display()));
    sandbox.start_docker(&["busybox"]).start();
    let script = "dd if=/dev/urandom of=/d/f bs=1M count=100 2>/dev/null; touch /ready; exec sleep 1000";
    let words =
        ["run", "-d", "--name", "large", "--network", "none", "-v", "data:/d", BUSYBOX, "sh", "-c", script];
    sandbox.docker(&words);
    until("it has written", SOON, || sandbox.try_docker(&["exec", "large", "ls", "/ready"]).status.success());
    let (_, to) = file(&sandbox, "large.tar");
    sandbox.ok(&["container", "backup", "large", "--to", &to]);
    let restore = ["container", "restore", &to, "--as", "other", "--volume-driver", sandbox.driver()];
    let (code, told) = sandbox.fails(&restore);
    assert!(
        code == 7 && told.contains("in the pool") && told.contains("nothing was changed"),
        "{code}: {told}"
    );
    assert!(volumes(&sandbox, "volume").is_empty() && volumes(&sandbox, "trash").is_empty());
    assert_eq!(sandbox.docker(&["ps", "-aq", "--filter", "name=other"]), "");
}

#[test]
fn a_restore_that_is_killed_leaves_all_or_nothing() {
    let sandbox = with_docker(&["busybox"]);
    network(&sandbox, "whole-net");
    busy_box(&sandbox, "whole", &["--network", "whole-net"]);
    let (_, to) = file(&sandbox, "whole.tar");
    sandbox.ok(&["container", "backup", "whole", "--to", &to]);
    let local = || sandbox.docker(&["volume", "ls", "-q", "--filter", "driver=local"]);
    let clear = || {
        sandbox.docker(&["rm", "-f", "whole"]);
        // The anonymous one, too: it was named when it was restored.
        sandbox.docker(&[&["volume", "rm", "whole-ours"][..], &local().lines().collect::<Vec<_>>()].concat());
        sandbox.docker(&["network", "rm", "whole-net"]);
        sandbox.ok(&["trash", "empty", "--yes"]);
    };
    clear();
    for step in containers::restore::Step::ALL {
        let point = step.name();
        let mut command = sandbox.command(&["container", "restore", &to]);
        let output = output_of(command.env("EVERHOLD_FAULT", point));
        assert!(output.status.code().is_none(), "{point}: {}", String::from_utf8_lossy(&output.stderr));
        until(&format!("{point}: somebody clears up"), SOON, || settled(&sandbox));
        if matches!(point, "restore-starting" | "restore-done") {
            assert!(running(&sandbox, "whole"), "{point}");
            assert_eq!(sandbox.docker(&["exec", "whole", "cat", "/o/file", "/l/file"]), "o\nl", "{point}");
            clear();
            sandbox.docker(&["rmi", &sandbox.docker(&["images", "-q", "everhold-backup/whole"])]);
            continue;
        }
        assert_eq!(sandbox.docker(&["ps", "-aq"]), "", "{point}");
        assert_eq!(sandbox.docker(&["images", "-q", "everhold-backup/whole"]), "", "{point}");
        assert_eq!(sandbox.docker(&["network", "ls", "-q", "--filter", "name=whole-net"]), "", "{point}");
        assert_eq!(local(), "", "{point}");
        assert!(volumes(&sandbox, "volume").is_empty(), "{point}: in the trash");
    }
    // Nobody was there to clear up; what others have made meanwhile is theirs.
    let mut command = sandbox.command(&["container", "restore", &to]);
    output_of(command.env("EVERHOLD_FAULT", "restore-networks,stand-by"));
    assert!(!settled(&sandbox));
    sandbox.docker(&["volume", "rm", "local"]);
    sandbox.shell(&["-v", "local:/l"], "echo other > /l/other");
    let (code, told) = sandbox.fails(&["container", "restore", &to]);
    assert!(code == 4, "{code}: {told}");
    let said = sandbox.ok(&["rescue", "--recover"]);
    assert!(said.contains("was undone") && settled(&sandbox), "{said}");
    assert_eq!(sandbox.shell(&["-v", "local:/l"], "ls /l"), "other");
    sandbox.docker(&["volume", "rm", "local"]);
    sandbox.ok(&["container", "restore", &to]);
    assert!(running(&sandbox, "whole"));
}

#[test]
fn what_others_have_or_have_written_meanwhile_is_not_removed() {
    let sandbox = with_docker(&["busybox"]);
    small(&sandbox);
    let (_, to) = file(&sandbox, "small.tar");
    sandbox.ok(&["container", "backup", "small", "--to", &to]);
    gone(&sandbox);
    // Killed before it was started, and somebody has started it, and used it.
    let mut command = sandbox.command(&["container", "restore", &to]);
    output_of(command.env("EVERHOLD_FAULT", "restore-containers,stand-by"));
    sandbox.docker(&["start", "small"]);
    sandbox.docker(&["exec", "small", "sh", "-c", "echo new > /d/new"]);
    let said = sandbox.ok(&["rescue", "--recover"]);
    assert!(said.contains("was finished") && settled(&sandbox) && running(&sandbox, "small"), "{said}");
    assert_eq!(sandbox.docker(&["exec", "small", "cat", "/d/new"]), "new");
    gone(&sandbox);
    // Somebody makes the volume while the images are loaded.
    let restore = Waiting::at(&sandbox, "restore-images", &["container", "restore", &to]);
    sandbox.shell(&["-v", "data:/d"], "echo other > /d/other");
    assert!(!restore.go_on());
    assert!(settled(&sandbox));
    assert_eq!(sandbox.shell(&["-v", "data:/d"], "ls /d"), "other");
    assert_eq!(sandbox.docker(&["ps", "-aq"]), "");
}

#[test]
fn an_engine_that_goes_away_in_the_middle_of_a_restore_is_cleared_up() {
    let sandbox = with_docker(&["busybox"]);
    small(&sandbox);
    let (_, to) = file(&sandbox, "small.tar");
    sandbox.ok(&["container", "backup", "small", "--to", &to]);
    gone(&sandbox);
    let restore = Waiting::at(&sandbox, "restore-volumes", &["container", "restore", &to]);
    sandbox.kill_docker();
    assert!(!restore.go_on());
    sandbox.restart_docker();
    until("somebody clears up", SOON, || settled(&sandbox));
    assert_eq!(sandbox.docker(&["ps", "-aq"]), "");
    assert_eq!(sandbox.docker(&["volume", "ls", "-q", "--filter", "driver=local"]), "");
    sandbox.ok(&["container", "restore", &to]);
    assert_eq!(sandbox.docker(&["exec", "small", "cat", "/d/x"]), "unmistakable");
}

//! Docker blocks on a plugin that does not answer, so every answer comes in time, whatever hangs.

use crate::{sandbox, with_docker};
use std::time::{Duration, Instant};
use testkit::until;

/// Longer than the plugin's limit in these scenarios, shorter than Docker's own 30 s.
const IN_TIME: Duration = Duration::from_secs(15);

#[test]
fn a_driver_that_hangs_holds_up_nobody_else() {
    let mut sandbox = sandbox();
    let disk = sandbox.small_disk("disk", &["mkfs.ext4", "-q"], 256 << 20);
    sandbox.configure(&format!(
        "[pool.default]\npath = \"{}/pool\"\n[pool.stuck]\npath = \"{}\"\nhold = \"off\"\n",
        sandbox.dir().display(),
        disk.display()
    ));
    sandbox.configure_docker("call-deadline = \"3s\"");
    sandbox.start_docker(&["busybox"]).start();
    sandbox.volume("free", &["size=32MiB"]);
    // Everything that writes to this pool now hangs in the kernel, and can't even be killed.
    linux::freeze::freeze(&disk).unwrap();
    let create =
        ["volume", "create", "-d", sandbox.driver(), "-o", "size=32MiB", "-o", "pool=stuck", "stuck"];
    let begun = Instant::now();
    let told = sandbox.docker_fails(&create);
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    assert!(told.contains("goes on in the background") || told.contains("still"), "{told}");
    let begun = Instant::now();
    sandbox.docker(&["volume", "ls"]);
    sandbox.docker(&["ps", "-a"]);
    sandbox.shell(&["-v", "free:/data"], "echo x > /data/file");
    sandbox.ok(&["status"]);
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    linux::freeze::thaw(&disk).unwrap();
    until("asking again succeeds", Duration::from_secs(30), || sandbox.try_docker(&create).status.success());
    sandbox.shell(&["-v", "stuck:/data"], "echo x > /data/file");
}

#[test]
fn a_graceful_stop_leaves_volumes_mounted_for_their_containers() {
    let mut sandbox = with_docker(&["busybox"]);
    sandbox.volume("data", &["size=64MiB"]);
    sandbox.docker(&[
        "run",
        "-d",
        "--name",
        "app",
        "--network",
        "none",
        "-v",
        "data:/data",
        testkit::BUSYBOX,
        "sleep",
        "1000",
    ]);
    sandbox.stop();
    sandbox.docker(&["exec", "app", "sh", "-c", "echo alive > /data/file && sync"]);
    sandbox.start();
    assert_eq!(sandbox.docker(&["exec", "app", "cat", "/data/file"]), "alive");
    sandbox.docker(&["rm", "-f", "app"]);
    assert_eq!(crate::in_kernel(&sandbox), (0, 0));
}

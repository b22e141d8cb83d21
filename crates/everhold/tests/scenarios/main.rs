//! Scenarios with real parts: a real kernel, a real Docker Engine, a real PostgreSQL, and `kill -9`.
//!
//! Each has a sandbox of its own, which is taken down also when the scenario fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod adopt;
mod audit;
mod behind_our_back;
mod container;
mod container_restores;
mod container_vaults;
mod crashes;
mod database;
mod docker;
mod full_disk;
mod gone;
mod history;
mod host;
mod in_time;
mod moments;
mod outages;
mod postgres;
mod rescue;
mod restores;
mod untracked;
mod vaults;
mod verification;

use testkit::{S3Server, Sandbox};

/// A sandbox with nothing running.
fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_everhold"))
}

/// A sandbox with a Docker Engine that has these images, and a daemon.
fn with_docker(images: &[&str]) -> Sandbox {
    let mut sandbox = sandbox();
    sandbox.start_docker(images).start();
    sandbox
}

/// A sandbox whose daemon will know the keys of this server.
fn with_vault_keys(server: &S3Server) -> Sandbox {
    let mut sandbox = sandbox();
    for (key, value) in server.environment() {
        sandbox.env(&key, &value);
    }
    sandbox
}

/// A daemon without Docker.
fn alone() -> Sandbox {
    let mut sandbox = sandbox();
    sandbox.start();
    sandbox
}

/// The volume's ID.
fn id(sandbox: &Sandbox, name: &str) -> String {
    sandbox.json(&["volume", "inspect", name])["id"].as_str().expect("an id").to_owned()
}

/// Mounts and loop devices that belong to the sandbox.
fn in_kernel(sandbox: &Sandbox) -> (usize, usize) {
    // What tracks changed blocks is pinned there, and outlives the daemon on purpose.
    let tracking = sandbox.state().join("bpf");
    let mounts = linux::mounts::below(&sandbox.state()).expect("mounts");
    let mounts = mounts.iter().filter(|mount| mount.target != tracking).count();
    let loops = linux::loopdev::list().expect("loop devices");
    let own = loops.iter().filter(|device| device.backing_file.starts_with(sandbox.state())).count();
    (mounts, own)
}

/// What `everhold volume ls` or `everhold trash ls` lists.
fn volumes(sandbox: &Sandbox, group: &str) -> Vec<serde_json::Value> {
    sandbox.json(&[group, "ls"])["volumes"].as_array().expect("a list of volumes").clone()
}

/// The file system that can grow here: for ext4 the kernel wants a capability that not every test host gives. Under Debian's
/// own kernel both are proven (`storage/tests/qemu.rs`).
fn growing_fs() -> &'static str {
    if linux::host::has_cap_sys_resource().expect("capabilities") { "fs=ext4" } else { "fs=xfs" }
}

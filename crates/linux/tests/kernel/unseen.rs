//! What the machine's kernel keeps from BPF programs.
//!
//! Kernels of some microVMs run no BPF program while a thread of the VM's own init is the current task; ftrace they let see. A soft
//! interrupt there may complete requests of anybody, and a test that counts on every completion must know which it could not have.

use crate::sandbox::Sandbox;
use everhold_linux::mounts::{self, MountFlags};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Records the requests of one device that complete while init is the current task. Goes before its sandbox does.
pub struct Unseen {
    instance: PathBuf,
}

impl Unseen {
    pub fn of(sandbox: &Sandbox, device: u64) -> Self {
        let tracefs = sandbox.dir("tracefs");
        mounts::mount(Path::new("tracefs"), &tracefs, "tracefs", MountFlags::empty(), "").unwrap();
        let name = sandbox.path().file_name().unwrap().to_str().unwrap().replace('.', "everhold-test-");
        let instance = tracefs.join("instances").join(name);
        fs::create_dir(&instance).unwrap();
        let unseen = Self { instance };
        let threads = fs::read_dir("/proc/1/task").unwrap();
        let threads: Vec<_> =
            threads.map(|thread| thread.unwrap().file_name().into_string().unwrap()).collect();
        unseen.say("set_event_pid", &threads.join(" "));
        // And the threads that these begin.
        unseen.say("options/event-fork", "1");
        let device = rustix::fs::major(device) << 20 | rustix::fs::minor(device);
        let event = "events/block/block_rq_complete";
        unseen.say(&format!("{event}/filter"), &format!("dev == {device}"));
        unseen.say(&format!("{event}/enable"), "1");
        unseen
    }

    fn say(&self, file: &str, what: &str) {
        fs::write(self.instance.join(file), what).unwrap_or_else(|error| panic!("{file}: {what:?}: {error}"));
    }

    /// The blocks (of 4 KiB) of all of them.
    pub fn blocks(&self) -> BTreeSet<u64> {
        let trace = fs::read_to_string(self.instance.join("trace")).unwrap();
        let events = trace.lines().filter(|line| !line.starts_with('#'));
        // … block_rq_complete: 7,0 WS () 109720 + 8 be,0,4 [0]
        events
            .flat_map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                let plus = words.iter().position(|word| *word == "+").unwrap_or_else(|| panic!("{line}"));
                let [first, count] = [words[plus - 1], words[plus + 1]].map(|n| n.parse::<u64>().unwrap());
                first / 8..(first + count).div_ceil(8)
            })
            .collect()
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.instance) {
            eprintln!("{}: {error}", self.instance.display());
        }
    }
}

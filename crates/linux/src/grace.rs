//! The kernel's grace periods (RCU), which freezing a file system waits for.
//!
//! Freezing raises a barrier at each of three levels (`percpu_down_write`, `fs/super.c`), and each waits for a grace period: 5 to 30 ms
//! on a quiet host, and hundreds on a busy one. From the first level on writers wait with it, so nearly all of a short freeze is
//! that. The kernel can hurry (`/sys/kernel/rcu_expedited`, Documentation/RCU): then a grace period takes some 0.1 ms, and
//! interrupts all processors for it. So it hurries only while it freezes. A host that must not be interrupted is booted with
//! `rcupdate.rcu_normal=1`, which wins.

use std::fs;
use std::sync::{Mutex, PoisonError};

const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// How many want it to hurry.
static WANTED: Mutex<u32> = Mutex::new(0);

/// While this is there, the kernel hurries.
#[derive(Debug)]
pub struct Hurry(());

/// Lets the kernel hurry. `None`: it does already, or it has no such switch, or not for us.
pub fn hurry() -> Option<Hurry> {
    let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
    if *wanted == 0 {
        if !is_calm() {
            return None;
        }
        if let Err(error) = fs::write(SWITCH, "1") {
            tracing::debug!(%error, "the kernel can't be hurried; freezing takes longer");
            return None;
        }
    }
    *wanted += 1;
    Some(Hurry(()))
}

/// Whether the switch is there and off.
pub fn is_calm() -> bool {
    fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "0")
}

/// Turns the switch off, whoever turned it on: for who outlives a process that did.
///
/// # Errors
/// What the kernel says.
pub fn calm() -> std::io::Result<()> {
    fs::write(SWITCH, "0")
}

impl Drop for Hurry {
    fn drop(&mut self) {
        let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted -= 1;
        if *wanted == 0
            && let Err(error) = calm()
        {
            tracing::warn!(%error, "{SWITCH} stays on");
        }
    }
}

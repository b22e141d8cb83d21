//! Waiting for something that has no event to wait for, with a limit.

use std::time::{Duration, Instant};

/// Asks until `ready` says yes; panics with `what` after `limit`.
#[track_caller]
pub fn until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
    until_some(what, limit, || ready().then_some(()));
}

/// Asks until there is an answer; panics with `what` after `limit`.
#[track_caller]
pub fn until_some<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! Running programs that might hang, so that a test fails instead of hanging with them.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Longer than anything that a test runs takes on a slow machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a command to its end, with nothing on its standard input; panics with what it printed if it does not come to one.
#[track_caller]
pub fn output_of(command: &mut Command) -> Output {
    output_within(command, LIMIT)
}

#[track_caller]
fn output_within(command: &mut Command, limit: Duration) -> Output {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id();
    let (ended, told) = channel::<()>();
    // The process can't be another's: it is waited for only below, and nobody else does.
    let watch = std::thread::spawn(move || {
        let hangs = told.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if hangs {
            let _killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        hangs
    });
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    drop(ended);
    let hung = watch.join().expect("who watches");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(!hung, "{command:?} did not end in {limit:?}:\n{}{}", text(&output.stdout), text(&output.stderr));
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_is_told() {
        let output = output_of(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        assert_eq!(
            (output.status.code(), &output.stdout[..], &output.stderr[..]),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
    }

    #[test]
    #[should_panic(expected = "did not end in")]
    fn what_hangs_is_ended() {
        output_within(Command::new("sleep").arg("100"), Duration::from_millis(50));
    }
}

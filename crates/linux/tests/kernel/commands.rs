//! Helper programs: their output, their environment, their end.

use crate::sandbox::Sandbox;
use everhold_linux::command::{CommandError, Tool, Tools};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const TOOL: Tool = Tool::new("tool");
const NO_ARGS: &[&str] = &[];

/// A program `tool` that runs this script.
fn tools(sandbox: &Sandbox, script: &str) -> Tools {
    let path = sandbox.dir("bin").join("tool");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Tools::with_dirs(vec![sandbox.join("nowhere"), sandbox.join("bin")])
}

/// Waits for the end of the process whose ID is in a file.
fn assert_ends(pid_file: &Path) {
    let pid = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    match pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => {}
        Err(other) => panic!("{other}"),
        Ok(pidfd) => {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            let time = Timespec { tv_sec: 10, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut fds, Some(&time)).unwrap(), 1, "process {pid} lives on");
        }
    }
}

#[test]
fn output_and_failure_are_told() {
    let sandbox = Sandbox::new();
    let run = |script: &str| tools(&sandbox, script).run(TOOL, &["a b", "c"], LONG);
    let output = run("echo \"$1/$2\"; echo why >&2").unwrap();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("a b/c\n", "why\n"));
    match run("echo partly; echo because >&2; exit 3").unwrap_err() {
        CommandError::Failed { tool, args, code, stdout, stderr } => {
            assert_eq!((tool, code), ("tool", Some(3)));
            assert_eq!(args, [OsString::from("a b"), OsString::from("c")]);
            assert_eq!((stdout.as_str(), stderr.as_str()), ("partly\n", "because\n"));
        }
        other => panic!("{other}"),
    }
    let error = run("echo because >&2; exit 3").unwrap_err();
    assert_eq!(error.to_string(), "tool failed (exit code 3): because");
    assert!(matches!(run("kill -9 $$").unwrap_err(), CommandError::Failed { code: None, .. }));
}

#[test]
fn a_program_that_is_not_there_is_named_with_its_package() {
    let sandbox = Sandbox::new();
    let none = Tools::with_dirs(vec![sandbox.path().to_owned()]);
    let error = none.run(Tool::new("mkfs.xfs"), NO_ARGS, LONG).unwrap_err();
    assert_eq!(error.to_string(), "mkfs.xfs is not installed (Debian package xfsprogs)");
    assert!(matches!(error, CommandError::NotFound { tool: "mkfs.xfs", package: Some("xfsprogs") }));
    // A file that is not a program, and a program that can't be started.
    fs::write(sandbox.join("tool"), "#!/no/such/interpreter\n").unwrap();
    assert!(matches!(none.run(TOOL, NO_ARGS, LONG), Err(CommandError::NotFound { .. })));
    fs::set_permissions(sandbox.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(none.run(TOOL, NO_ARGS, LONG), Err(CommandError::Io { .. })));
    assert!(Tools::default().find(Tool::new("mkfs.ext4")).is_some());
    assert!(Tools::default().find(Tool::new("../bin/no-such-tool")).is_none());
}

#[test]
fn nothing_of_ours_reaches_it() {
    let sandbox = Sandbox::new();
    let output = tools(&sandbox, "env; read -r line || echo no input; ls /proc/self/fd | wc -l")
        .run(TOOL, NO_ARGS, LONG)
        .unwrap();
    let mut names: Vec<_> =
        output.stdout.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.retain(|name| !["PWD", "_", "OLDPWD", "SHLVL"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["LC_ALL", "PATH"]);
    // 0, 1, 2 and the directory that ls reads.
    assert!(output.stdout.ends_with("no input\n4\n"), "{}", output.stdout);
}

#[test]
fn the_deadline_ends_the_whole_group() {
    let sandbox = Sandbox::new();
    let (own, child) = (sandbox.join("own"), sandbox.join("child"));
    // Deaf to all signals that can be ignored; its child too.
    let script = format!(
        "trap '' TERM INT HUP; sleep 1000 & echo $! >{}; echo $$ >{}; wait",
        child.display(),
        own.display()
    );
    let before = Instant::now();
    let error = tools(&sandbox, &script).run(TOOL, NO_ARGS, Duration::from_secs(1)).unwrap_err();
    assert!(
        matches!(error, CommandError::TimedOut { tool: "tool", after } if after == Duration::from_secs(1))
    );
    let took = before.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&took), "{took:?}");
    assert_ends(&own);
    assert_ends(&child);
}

#[test]
fn what_it_leaves_behind_ends_with_it() {
    let sandbox = Sandbox::new();
    let child = sandbox.join("child");
    // The child keeps the pipes open.
    let script = format!("sleep 1000 & echo $! >{}; echo done", child.display());
    let before = Instant::now();
    let output = tools(&sandbox, &script).run(TOOL, NO_ARGS, LONG).unwrap();
    assert_eq!(output.stdout, "done\n");
    assert!(before.elapsed() < Duration::from_secs(30));
    assert_ends(&child);
}

#[test]
fn more_output_than_a_pipe_holds_is_no_stop() {
    let sandbox = Sandbox::new();
    let output = tools(&sandbox, "head -c 3000000 /dev/zero; head -c 300000 /dev/zero >&2")
        .run(TOOL, NO_ARGS, LONG)
        .unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (1 << 20, 300_000));
    // One that closes its output and goes on is waited for.
    let output = tools(&sandbox, "exec >&- 2>&-; sleep 0.3; exit 0").run(TOOL, NO_ARGS, LONG).unwrap();
    assert_eq!(output.stdout, "");
}

#[test]
fn it_ends_with_the_thread_that_ran_it() {
    // A thread can't be killed, so a second program of ours would be needed; what can be seen is that the wish is set.
    let sandbox = Sandbox::new();
    let script = "exec python3 -c 'import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)'";
    let output = tools(&sandbox, script).run(TOOL, NO_ARGS, LONG).unwrap();
    assert_eq!(output.stdout, "9\n");
}

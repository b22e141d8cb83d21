//! The guard: a child process that thaws whatever its parent froze, should the parent die.
//!
//! It holds an open descriptor of each frozen file system, so that nothing has to be looked up when it matters. It reads
//! one line for each order from its standard input and answers each with one line; the end of its input
//! means that the parent is gone.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use crate::engine::lock;

/// The parent's end.
pub struct Guard {
    command: Vec<OsString>,
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Guard {
    /// A guard that is started with this command when it is first needed; it must call [`run_guard`].
    pub fn new(command: Vec<OsString>) -> Self {
        Self { command, running: Mutex::default() }
    }

    /// From now on, the file system mounted at `mountpoint` is thawed if this process ends.
    pub(crate) fn protect(&self, mountpoint: &Path) -> io::Result<()> {
        self.order("protect", mountpoint)
    }

    /// The file system mounted at `mountpoint` is thawed by its owner; the guard lets go of it.
    pub(crate) fn release(&self, mountpoint: &Path) -> io::Result<()> {
        self.order("release", mountpoint)
    }

    fn order(&self, verb: &str, mountpoint: &Path) -> io::Result<()> {
        let mut slot = lock(&self.running);
        let running = match slot.take() {
            Some(running) => slot.insert(running),
            None => slot.insert(self.start()?),
        };
        let answer = running.ask(verb, mountpoint);
        if answer.is_err() {
            // A guard that does not answer guards nothing: the next order starts another.
            if let Some(mut gone) = slot.take() {
                let _killed = gone.child.kill();
                gone.child.wait()?;
            }
        }
        answer?.map_or(Ok(()), |error| Err(io::Error::other(error)))
    }

    fn start(&self) -> io::Result<Running> {
        use std::os::unix::process::CommandExt;
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| io::Error::other("no guard command is set"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Out of the daemon's process group: a Ctrl-C there must not end the guard before it has thawed.
            .process_group(0)
            .spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(orders), Some(answers)) => Ok(Running { child, orders, answers: BufReader::new(answers) }),
            _ => Err(io::Error::other("the guard has no pipes")),
        }
    }
}

impl Running {
    /// `Ok(None)`: done. `Ok(Some(_))`: the guard refused, in words. `Err(_)`: no guard.
    fn ask(&mut self, verb: &str, mountpoint: &Path) -> io::Result<Option<String>> {
        writeln!(self.orders, "{verb} {}", mountpoint.display())?;
        self.orders.flush()?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the guard process is gone"));
        }
        Ok(answer.trim().strip_prefix("error ").map(str::to_owned))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(Running { mut child, orders, .. }) = lock(&self.running).take() {
            drop(orders);
            if let Err(error) = child.wait() {
                tracing::warn!(%error, "waiting for the guard");
            }
        }
    }
}

/// The guard's own work: serves orders until its input ends, then thaws what is left.
///
/// # Errors
/// When its output is gone; everything is thawed all the same.
pub fn run_guard(orders: impl BufRead, answers: impl Write) -> io::Result<()> {
    let mut answers = BufWriter::new(answers);
    let mut guarded: HashMap<PathBuf, File> = HashMap::new();
    let mut outcome = Ok(());
    for line in orders.lines() {
        let Ok(line) = line else { break };
        let said = match line.split_once(' ') {
            Some(("protect", path)) => File::open(path)
                .map(|file| drop(guarded.insert(path.into(), file)))
                .map_err(|e| e.to_string()),
            Some(("release", path)) => {
                guarded.remove(Path::new(path));
                Ok(())
            }
            _ => Err("unknown order".to_owned()),
        };
        let written = match said {
            Ok(()) => writeln!(answers, "ok"),
            Err(error) => writeln!(answers, "error {error}"),
        };
        outcome = written.and_then(|()| answers.flush());
        if outcome.is_err() {
            break;
        }
    }
    for (path, file) in &guarded {
        if let Err(error) = linux::freeze::thaw_fd(file, path) {
            tracing::error!(path = %path.display(), %error, "could not thaw");
        }
    }
    outcome
}

//! The guard: a child process that thaws whatever its parent froze, should the parent die.
//!
//! It holds an open descriptor of each frozen file system, so that nothing has to be looked up when it matters. It reads
//! one line for each order from its standard input and answers each with one line; the end of its input
//! means that the parent is gone.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::engine::lock;

/// The parent's end.
pub struct Guard {
    command: Vec<OsString>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// What the guard looks after; a new one is told of all of it.
    protected: BTreeSet<PathBuf>,
}

struct Running {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<io::Result<String>>,
}

/// How long the guard may take to answer. It only opens a directory, and whoever waits for it has a volume in hand.
const ANSWER: Duration = Duration::from_secs(2);

impl Guard {
    /// A guard that is started with this command when it is first needed; it must call [`run_guard`].
    pub fn new(command: Vec<OsString>) -> Self {
        Self { command, state: Mutex::default() }
    }

    /// From now on, the file system mounted at `mountpoint` is thawed if this process ends.
    pub(crate) fn protect(&self, mountpoint: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        self.order(&mut state, "protect", mountpoint)?;
        state.protected.insert(mountpoint.to_owned());
        Ok(())
    }

    /// The file system mounted at `mountpoint` is thawed by its owner; the guard lets go of it.
    pub(crate) fn release(&self, mountpoint: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.protected.remove(mountpoint);
        self.order(&mut state, "release", mountpoint)
    }

    /// Makes sure that a guard is there and knows all that it should look after.
    pub(crate) fn check(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let alive =
            state.running.as_mut().is_some_and(|running| matches!(running.child.try_wait(), Ok(None)));
        if alive { Ok(()) } else { self.start_anew(&mut state) }
    }

    fn order(&self, state: &mut State, verb: &str, mountpoint: &Path) -> io::Result<()> {
        if state.running.is_none() {
            self.start_anew(state)?;
        }
        let Some(running) = &mut state.running else {
            return Err(io::Error::other("the guard did not start"));
        };
        match running.ask(verb, mountpoint) {
            Ok(None) => Ok(()),
            Ok(Some(refusal)) => Err(io::Error::other(refusal)),
            Err(error) => {
                // A guard that does not answer guards nothing.
                self.start_anew(state)?;
                Err(error)
            }
        }
    }

    /// Ends the guard that is there, if any, and starts one that knows everything.
    fn start_anew(&self, state: &mut State) -> io::Result<()> {
        if let Some(mut gone) = state.running.take() {
            tracing::warn!("the guard process is gone or does not answer; starting another");
            // It may have ended by itself, and then there is nothing to kill. It is reaped either way.
            let _killed = gone.child.kill();
            gone.child.wait()?;
        }
        let mut running = self.start()?;
        for mountpoint in &state.protected {
            if let Some(refusal) = running.ask("protect", mountpoint)? {
                return Err(io::Error::other(refusal));
            }
        }
        state.running = Some(running);
        Ok(())
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
        let (Some(orders), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the guard has no pipes"));
        };
        let (tell, answers) = channel();
        // A thread of its own, as a pipe can't be read with a time limit. It ends with the guard.
        std::thread::Builder::new().name("guard".into()).spawn(move || {
            for line in BufReader::new(output).lines() {
                if tell.send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Running { child, orders, answers })
    }
}

impl Running {
    /// `Ok(None)`: done. `Ok(Some(_))`: the guard refused, in words. `Err(_)`: no guard.
    fn ask(&mut self, verb: &str, mountpoint: &Path) -> io::Result<Option<String>> {
        writeln!(self.orders, "{verb} {}", mountpoint.display())?;
        self.orders.flush()?;
        let answer = self
            .answers
            .recv_timeout(ANSWER)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the guard process does not answer"))??;
        Ok(answer.trim().strip_prefix("error ").map(str::to_owned))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(Running { mut child, orders, .. }) = lock(&self.state).running.take() {
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
    // The daemon turns this on while it freezes, and can't turn it off when it is killed there.
    let was_calm = linux::grace::is_calm();
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
    if was_calm
        && !linux::grace::is_calm()
        && let Err(error) = linux::grace::calm()
    {
        tracing::error!(%error, "the kernel goes on to hurry (/sys/kernel/rcu_expedited)");
    }
    outcome
}

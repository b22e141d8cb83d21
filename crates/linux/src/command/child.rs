//! One child process: started apart from us, watched by its pidfd, killed with its whole group. It does not know which
//! program it is.

#![allow(unsafe_code)]

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a killed process may take to go before it is left to a thread.
const GRACE: Duration = Duration::from_secs(3);
/// How much of each output is kept. What comes after is read, so that the program can go on, and dropped.
const KEEP: usize = 1 << 20;

/// How a child ended.
pub(super) struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs a program. `None`: it did not end in time, and was killed.
pub(super) fn run<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    deadline: Duration,
) -> io::Result<Option<Ended>> {
    let until = Instant::now().checked_add(deadline);
    let mut child = start(program, args)?;
    let mut watch = match Watch::new(&mut child) {
        Ok(watch) => watch,
        Err(error) => {
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
    };
    let watched = watch.until_end(until);
    // Before it is reaped: until then nobody else can have its number. Also on success: no helper leaves others behind.
    watch.kill_group();
    let ended = match watched {
        Ok(true) => {
            let status = child.wait()?;
            watch.stdout.drain()?;
            watch.stderr.drain()?;
            Some(Ended { status, stdout: watch.stdout.kept, stderr: watch.stderr.kept })
        }
        Ok(false) => {
            reap_killed(child, &watch)?;
            None
        }
        Err(error) => {
            reap_killed(child, &watch)?;
            return Err(error);
        }
    };
    Ok(ended)
}

fn start<S: AsRef<OsStr>>(program: &Path, args: &[S]) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let end_with_us = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // Rust opens everything close-on-exec; who started us may not have.
        crate::sys::close_all_on_exec()?;
        // The parent may have died before the death signal was set.
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: between fork and exec the closure only makes system calls; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(end_with_us) };
    command.spawn()
}

/// Waits for a killed process, but not for ever: one that is stuck in the kernel dies when the kernel lets go of it.
fn reap_killed(mut child: Child, watch: &Watch) -> io::Result<()> {
    if watch.ended_within(GRACE)? {
        return child.wait().map(drop);
    }
    tracing::warn!(pid = child.id(), "a helper program does not die; left behind");
    std::thread::Builder::new().name("reaper".to_owned()).spawn(move || {
        if let Err(error) = child.wait() {
            tracing::warn!(%error, "waiting for a helper program");
        }
    })?;
    Ok(())
}

struct Watch {
    pid: Pid,
    pidfd: OwnedFd,
    stdout: Stream,
    stderr: Stream,
}

impl Watch {
    fn new(child: &mut Child) -> io::Result<Self> {
        let missing = || io::Error::other("no pipe to the child");
        let pid = Pid::from_child(child);
        Ok(Self {
            pid,
            pidfd: rustix::process::pidfd_open(pid, PidfdFlags::empty())?,
            stdout: Stream::new(child.stdout.take().ok_or_else(missing)?.into())?,
            stderr: Stream::new(child.stderr.take().ok_or_else(missing)?.into())?,
        })
    }

    /// Reads what the child prints until it ends (`true`) or the time is up (`false`).
    fn until_end(&mut self, until: Option<Instant>) -> io::Result<bool> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            let open = [&self.stdout, &self.stderr].into_iter().filter_map(|stream| stream.pipe.as_ref());
            fds.extend(open.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            let ready = poll(&mut fds, left)?;
            let ended = !fds[0].revents().is_empty();
            self.stdout.drain()?;
            self.stderr.drain()?;
            if ended {
                return Ok(true);
            }
            if !ready || left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
        }
    }

    fn ended_within(&self, time: Duration) -> io::Result<bool> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            if poll(&mut fds, Some(left))? && !fds[0].revents().is_empty() {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    fn kill_group(&self) {
        match rustix::process::kill_process_group(self.pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(pid = %self.pid.as_raw_nonzero(), %error, "could not kill a helper program")
            }
        }
    }
}

/// Whether something is ready; `true` too when a signal came. `None`: waits as long as it takes.
fn poll(fds: &mut [PollFd<'_>], time: Option<Duration>) -> io::Result<bool> {
    let time = time.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    match rustix::event::poll(fds, time.as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// One output of the child.
struct Stream {
    /// `None` after its end.
    pipe: Option<File>,
    kept: Vec<u8>,
}

impl Stream {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        // Whoever inherited the other end may keep it open for ever; only what is there is read.
        rustix::io::ioctl_fionbio(pipe.as_fd(), true)?;
        Ok(Self { pipe: Some(pipe.into()), kept: Vec::new() })
    }

    /// Reads all that is there now.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let room = KEEP.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

//! Helper programs (mkfs, e2fsck, resize2fs, …): from fixed directories, with a clean environment and a time limit.

use crate::ioctl;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Where helper programs are looked for; `PATH` is not asked.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// How long to wait for a killed program. One that the kernel can't end (state D) is left to a thread of its own.
const GRACE: Duration = Duration::from_secs(1);

/// A helper program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool(&'static str);

/// What a program said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed.
    #[error("the program {tool} is not installed (Debian package {package})")]
    NotFound {
        /// Its name.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// It ended with an error.
    #[error("{tool} failed ({}): {}", code.map_or("killed".to_owned(), |code| format!("exit code {code}")), said(stdout, stderr))]
    Failed {
        /// Its name.
        tool: &'static str,
        /// Its exit code; `None` if a signal ended it.
        code: Option<i32>,
        /// Its standard output.
        stdout: String,
        /// Its standard error.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("{tool} did not finish within {} s and was killed", after.as_secs())]
    TimedOut {
        /// Its name.
        tool: &'static str,
        /// The limit.
        after: Duration,
    },
    /// It could not be started or watched.
    #[error("{tool}: {source}")]
    Io {
        /// Its name.
        tool: &'static str,
        /// The reason.
        source: io::Error,
    },
}

fn said(stdout: &str, stderr: &str) -> String {
    let text = if stderr.trim().is_empty() { stdout } else { stderr };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Tool {
    /// The program of this name.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// Where it is installed, if it is.
    pub fn find(self) -> Option<PathBuf> {
        DIRECTORIES.iter().map(|directory| Path::new(directory).join(self.0)).find(|path| path.is_file())
    }

    /// The Debian package that has it.
    pub fn package(self) -> &'static str {
        match self.0 {
            "mkfs.xfs" | "xfs_growfs" | "xfs_repair" => "xfsprogs",
            "mkfs.ext4" | "e2fsck" | "resize2fs" => "e2fsprogs",
            _ => "util-linux",
        }
    }

    /// Runs it and waits for its end, at most until `limit` is over.
    ///
    /// # Errors
    /// See [`CommandError`]; after [`CommandError::TimedOut`] neither the program nor its children run any more, unless
    /// the kernel can't end them.
    pub fn run<A: AsRef<OsStr>>(self, arguments: &[A], limit: Duration) -> Result<Output, CommandError> {
        let path = self.find().ok_or(CommandError::NotFound { tool: self.0, package: self.package() })?;
        let mut command = Command::new(path);
        command.args(arguments);
        run(self.0, command, limit)
    }
}

fn run(tool: &'static str, mut command: Command, limit: Duration) -> Result<Output, CommandError> {
    let failed = |source| CommandError::Io { tool, source };
    command
        .env_clear()
        .env("PATH", DIRECTORIES.join(":"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that its children can be ended with it.
        .process_group(0);
    // The kernel ends it with the thread that starts it, so that thread has to be the one that waits for it.
    ioctl::die_with_parent(&mut command);
    let (tell, ended) = mpsc::channel();
    let (tell_pid, started) = mpsc::channel();
    thread::Builder::new()
        .name(format!("run-{tool}"))
        .spawn(move || {
            let outcome = command.spawn().and_then(|child| {
                let _told = tell_pid.send(child.id());
                drop(command);
                wait(child)
            });
            let _told = tell.send(outcome);
        })
        .map_err(failed)?;
    let outcome = match ended.recv_timeout(limit) {
        Ok(outcome) => outcome.map_err(failed)?,
        Err(_) => {
            if let Some(group) =
                started.try_recv().ok().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
            {
                // It may have ended in this moment, which is as good.
                let _killed = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _end = ended.recv_timeout(GRACE);
            return Err(CommandError::TimedOut { tool, after: limit });
        }
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (status, stdout, stderr) = (outcome.0, text(outcome.1), text(outcome.2));
    match status.code() {
        Some(0) => Ok(Output { stdout, stderr }),
        code => {
            debug_assert!(code.is_some() || status.signal().is_some());
            Err(CommandError::Failed { tool, code, stdout, stderr })
        }
    }
}

type Ended = (std::process::ExitStatus, Vec<u8>, Vec<u8>);

fn wait(mut child: Child) -> io::Result<Ended> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes)).map(|_| bytes)
        })
    };
    let stderr = drain(err.map(|pipe| Box::new(pipe) as _));
    let mut stdout = Vec::new();
    if let Some(mut pipe) = out {
        pipe.read_to_end(&mut stdout)?;
    }
    let status = child.wait()?;
    let stderr = stderr.join().map_err(|_| io::Error::other("reading its output failed"))??;
    Ok((status, stdout, stderr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const SH: Tool = Tool::new("sh");
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn says_what_the_program_said() {
        assert_eq!(SH.run(&["-c", "echo out; echo $LC_ALL$HOME"], LONG).unwrap().stdout, "out\nC\n");
        let error = SH.run(&["-c", "echo why >&2; exit 3"], LONG).unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit code 3): why");
        let absent = Tool::new("no-such-program").run::<&str>(&[], LONG).unwrap_err();
        assert!(matches!(absent, CommandError::NotFound { .. }));
    }

    #[test]
    fn ends_what_takes_too_long_and_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
        let begun = Instant::now();
        let error = SH.run(&["-c", &script], Duration::from_millis(500)).unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(100));
        let child = std::fs::read_to_string(&pid_file).unwrap();
        let comm = std::fs::read_to_string(format!("/proc/{}/cmdline", child.trim())).unwrap_or_default();
        assert!(!comm.contains("sleep"), "the child lives on");
    }

    #[test]
    fn large_outputs_do_not_block() {
        let output = SH.run(&["-c", "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero"], LONG).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
    }
}

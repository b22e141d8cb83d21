//! Running helper programs (mkfs, e2fsck, resize2fs, …) with a deadline. It does not know what they do.
//!
//! They are looked up in fixed directories and not in `PATH`, get nothing of our environment and no input, and end with us:
//! when the thread that runs one ends, when the deadline passes, or when the program leaves others behind.

mod child;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// A helper program, by the name of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tool(&'static str);

/// What a program that succeeded has printed. Each is cut after 1 MiB, and what is not UTF-8 is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Why a program did not do what it should.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CommandError {
    /// It is not installed.
    #[error("{tool} is not installed{}", hint(*package))]
    NotFound {
        tool: &'static str,
        /// The Debian package that has it, where that is known.
        package: Option<&'static str>,
    },
    /// It ended with an exit code other than 0, or by a signal.
    #[error("{tool} failed ({}): {}", ending(*code), said(stdout, stderr))]
    Failed {
        tool: &'static str,
        args: Vec<OsString>,
        /// `None`: a signal ended it.
        code: Option<i32>,
        stdout: String,
        stderr: String,
    },
    /// It took too long and was killed, with all that it had started.
    #[error("{tool} took longer than {after:?} and was stopped")]
    TimedOut { tool: &'static str, after: Duration },
    /// It could not be started or watched.
    #[error("{tool} could not be run: {source}")]
    Io { tool: &'static str, source: io::Error },
}

fn hint(package: Option<&str>) -> String {
    package.map(|package| format!(" (Debian package {package})")).unwrap_or_default()
}

fn ending(code: Option<i32>) -> String {
    code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit code {code}"))
}

fn said<'a>(stdout: &'a str, stderr: &'a str) -> &'a str {
    [stderr.trim(), stdout.trim(), "it said nothing"]
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

impl Tool {
    /// The program with this file name.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Its file name.
    pub const fn name(&self) -> &'static str {
        self.0
    }

    /// Runs it from the system's directories; see [`Tools::run`].
    ///
    /// # Errors
    /// As [`Tools::run`].
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S], deadline: Duration) -> Result<Output, CommandError> {
        Tools::default().run(*self, args, deadline)
    }

    /// The Debian package that has it.
    fn package(self) -> Option<&'static str> {
        Some(match self.0 {
            "mkfs.ext4" | "mke2fs" | "e2fsck" | "resize2fs" | "tune2fs" | "dumpe2fs" | "debugfs"
            | "e2image" => "e2fsprogs",
            "mkfs.xfs" | "xfs_growfs" | "xfs_repair" | "xfs_admin" | "xfs_io" | "xfs_db" | "xfs_quota" => {
                "xfsprogs"
            }
            "mkfs.btrfs" | "btrfs" => "btrfs-progs",
            "mount" | "umount" | "losetup" => "mount",
            _ => return None,
        })
    }
}

/// Where helper programs are.
#[derive(Debug, Clone)]
pub struct Tools {
    dirs: Vec<PathBuf>,
}

impl Default for Tools {
    /// The directories of the system, those of the administrator first.
    fn default() -> Self {
        Self::with_dirs(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from).to_vec())
    }
}

impl Tools {
    /// Programs of these directories, the first one that has it.
    pub fn with_dirs(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// The file of a program, if it is there and can be run.
    pub fn find(&self, tool: Tool) -> Option<PathBuf> {
        let runnable = |path: &PathBuf| {
            path.metadata()
                .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        };
        self.dirs.iter().map(|dir| dir.join(tool.0)).find(runnable)
    }

    /// Runs a program to its end, or to the deadline.
    ///
    /// After the deadline the whole process group is killed. A process that the kernel does not let go of (stuck in I/O) is waited
    /// for by a thread in the background, so that this returns all the same, some seconds later.
    ///
    /// # Errors
    /// Each kind of [`CommandError`].
    pub fn run<S: AsRef<OsStr>>(
        &self,
        tool: Tool,
        args: &[S],
        deadline: Duration,
    ) -> Result<Output, CommandError> {
        let program =
            self.find(tool).ok_or(CommandError::NotFound { tool: tool.0, package: tool.package() })?;
        tracing::debug!(tool = tool.0, args = ?args.iter().map(AsRef::as_ref).collect::<Vec<&OsStr>>(), "run");
        let ended = child::run(&program, args, deadline)
            .map_err(|source| CommandError::Io { tool: tool.0, source })?;
        let Some(child::Ended { status, stdout, stderr }) = ended else {
            return Err(CommandError::TimedOut { tool: tool.0, after: deadline });
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(stdout), text(stderr));
        if status.success() {
            return Ok(Output { stdout, stderr });
        }
        let args = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        Err(CommandError::Failed { tool: tool.0, args, code: status.code(), stdout, stderr })
    }
}

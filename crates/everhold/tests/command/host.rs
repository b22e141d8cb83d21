//! A directory with everything that one daemon needs, and that daemon.

use serde_json::Value;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_everhold");

pub struct Host {
    pub dir: tempfile::TempDir,
    daemon: Option<Child>,
}

pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Host {
    pub fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap(), daemon: None };
        let dir = host.dir.path().display();
        let text = format!(
            "[paths]\nstate = \"{dir}/state\"\nrun = \"{dir}/run\"\n[docker]\nenabled = false\n\
             [defaults]\ndriver = \"dir\"\n[pool.default]\nreserve = \"0%\"\nhold = \"off\"\n"
        );
        std::fs::write(host.config(), text).unwrap();
        host
    }

    pub fn started() -> Self {
        let mut host = Self::new();
        host.start(&[]);
        host
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("run/everhold.sock")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// `everhold` with a clean environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command
    }

    pub fn daemon(&self, env: &[(&str, &str)]) -> Command {
        let mut command = self.command();
        command.arg("daemon").arg("--config").arg(self.config()).envs(env.iter().copied());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub fn start(&mut self, env: &[(&str, &str)]) {
        let mut child = self.daemon(env).spawn().unwrap();
        let socket = self.socket();
        wait_for("an answer", || {
            if let Some(status) = child.try_wait().unwrap() {
                let mut log = String::new();
                child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
                panic!("the daemon ended with {status}:\n{log}");
            }
            UnixStream::connect(&socket).ok()
        });
        self.daemon = Some(child);
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    pub fn kill(&mut self) {
        let mut child = self.daemon.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and what the daemon made of it.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.daemon.take().unwrap();
        let begin = Instant::now();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = child.wait().unwrap();
        (status, begin.elapsed())
    }

    /// Waits for the daemon to end by itself.
    pub fn ended(&mut self) -> ExitStatus {
        self.daemon.take().unwrap().wait().unwrap()
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command().env("EVERHOLD_SOCKET", self.socket()).args(words).output().unwrap()
    }

    /// What it prints; it must succeed.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "everhold {}: {}\n{stderr}", words.join(" "), output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[words, &["--json"]].concat())).unwrap()
    }

    /// Its exit code and what it says; it must fail.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        assert!(!output.status.success(), "everhold {} succeeded", words.join(" "));
        assert!(output.stdout.is_empty(), "an error goes to standard error: {output:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // What tracks changed blocks outlives the daemon on purpose, and would outlive the directory.
        for mount in linux::mounts::below(self.dir.path()).unwrap_or_default().iter().rev() {
            if let Err(error) = linux::mounts::unmount_lazy(&mount.target) {
                tracing::warn!(%error, "a mount is left");
            }
        }
    }
}

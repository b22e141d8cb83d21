//! `everhold daemon` and its command line.

use crate::sandbox::{Sandbox, expect_success};
use crate::{output_of, until};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const START: Duration = Duration::from_secs(20);

impl Sandbox {
    /// The daemon's API socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/everhold.sock")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The default pool's directory, unless the configuration names pools.
    pub fn pool(&self) -> PathBuf {
        self.state().join("pools/default")
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default()
    }

    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Further sections of the configuration file, such as `[pool.x]`; takes effect at the next start.
    pub fn configure(&mut self, toml: &str) -> &mut Self {
        toml.clone_into(&mut self.config);
        self
    }

    /// Further lines of the section `[docker]`.
    pub fn configure_docker(&mut self, lines: &str) -> &mut Self {
        lines.clone_into(&mut self.docker_section);
        self
    }

    /// Sets an environment variable of the daemon; takes effect at the next start.
    pub fn env(&mut self, key: &str, value: &str) -> &mut Self {
        self.env.retain(|(known, _)| known != key);
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Removes an environment variable of the daemon.
    pub fn no_env(&mut self, key: &str) -> &mut Self {
        self.env.retain(|(known, _)| known != key);
        self
    }

    /// The configuration file, written anew.
    pub fn config_file(&self) -> PathBuf {
        let (dir, docker) = (self.dir.display(), self.docker);
        let boot_id = self.dir.join("boot_id");
        let boot_id =
            if boot_id.exists() { boot_id } else { PathBuf::from("/proc/sys/kernel/random/boot_id") };
        // Unless a test is about histories.
        let history = if self.config.contains("[history]") { "" } else { "[history]\nprotect = \"off\"\n\n" };
        let text = format!(
            "[paths]\nstate = \"{dir}/state\"\nrun = \"{dir}/run\"\nboot-id = \"{}\"\n\n\
             [docker]\nenabled = {docker}\nsocket = \"{dir}/docker/docker.sock\"\n\
             plugin-socket = \"/run/docker/plugins/{}.sock\"\n{}\n\n\
             [dir]\nallowed-paths = [\"{dir}/srv\"]\n\n{history}{}\n",
            boot_id.display(),
            self.plugin,
            self.docker_section,
            self.config
        );
        let path = self.dir.join("config.toml");
        std::fs::write(&path, text).expect("write the configuration");
        path
    }

    fn spawn(&self) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("daemon.log"));
        Command::new(&self.binary)
            .arg("daemon")
            .arg("--config")
            .arg(self.config_file())
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("open the log"))
            .spawn()
            .expect("start the daemon")
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub fn start(&mut self) -> &mut Self {
        assert!(self.daemon.is_none(), "the daemon is running already");
        let mut child = self.spawn();
        let socket = self.socket();
        until("the daemon answers", START, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the daemon ended with {status}:\n{}", self.log_tail(20));
            }
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        self.daemon = Some(child);
        self
    }

    /// Starts the daemon and does not wait: a fault point may end it before it answers.
    pub fn begin(&mut self) -> &mut Self {
        assert!(self.daemon.is_none(), "the daemon is running already");
        self.daemon = Some(self.spawn());
        self
    }

    /// Starts the daemon although it will fail; returns its log when it has ended.
    #[track_caller]
    pub fn start_in_vain(&self) -> String {
        let before = self.log().len();
        let mut child = self.spawn();
        until("the daemon gives up", START, || child.try_wait().is_ok_and(|ended| ended.is_some()));
        let status = child.wait().expect("its end");
        assert!(!status.success(), "the daemon should have failed");
        self.log()[before..].to_owned()
    }

    /// The daemon's process ID.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a running daemon").id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> &mut Self {
        let mut daemon = self.daemon.take().expect("a running daemon");
        daemon.kill().expect("kill");
        daemon.wait().expect("its end");
        self
    }

    /// `SIGTERM`, and its graceful end.
    #[track_caller]
    pub fn stop(&mut self) -> &mut Self {
        let mut daemon = self.daemon.take().expect("a running daemon");
        super::sandbox::checked(Command::new("kill").arg(daemon.id().to_string()));
        until("the daemon stops within its 5 s", Duration::from_secs(8), || {
            daemon.try_wait().is_ok_and(|ended| ended.is_some())
        });
        self
    }

    /// Waits until the daemon has ended by itself (at a fault point).
    #[track_caller]
    pub fn wait_for_crash(&mut self) -> &mut Self {
        let mut daemon = self.daemon.take().expect("a running daemon");
        until("the daemon crashes", START, || daemon.try_wait().is_ok_and(|ended| ended.is_some()));
        self
    }

    /// Whether the daemon is still running.
    pub fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|daemon| daemon.try_wait().is_ok_and(|ended| ended.is_none()))
    }

    /// `everhold` with these words, for this sandbox.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("EVERHOLD_SOCKET", self.socket()).args(words);
        let config = self.dir.join("config.toml");
        if config.exists() {
            command.env("EVERHOLD_CONFIG", config);
        }
        command
    }

    /// Runs `everhold` with these words.
    pub fn run(&self, words: &[&str]) -> Output {
        output_of(&mut self.command(words))
    }

    /// What `/metrics` says.
    #[track_caller]
    pub fn metrics(&self) -> String {
        self.get("/metrics")
    }

    /// What `GET` of a path of the REST API answers.
    #[track_caller]
    pub fn rest(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_else(|error| panic!("GET {path}: {error}: {answer}"))
    }

    #[track_caller]
    fn get(&self, path: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket()).expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("ask");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the answer");
        text
    }

    /// Runs `everhold`, which must succeed; returns what it printed.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        expect_success(&format!("everhold {}", words.join(" ")), &self.run(words))
    }

    /// Runs `everhold … --json`, which must succeed.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        let text = self.ok(&[words, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("everhold {words:?}: {error}: {text}"))
    }

    /// Runs `everhold`, which must fail; returns the exit code and what it said.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        assert!(!output.status.success(), "everhold {} succeeded", words.join(" "));
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

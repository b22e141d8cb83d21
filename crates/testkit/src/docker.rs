//! A Docker Engine of the sandbox's own, and its command line.

use crate::sandbox::{Sandbox, checked, expect_success};
use crate::{output_of, until};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A small image: busybox, a user `app` (1000), and `/seed` with files that belong to it.
pub const BUSYBOX: &str = "everhold-test/busybox:1";
/// PostgreSQL 15 as user 999, data in `/var/lib/postgresql/data`.
pub const POSTGRES: &str = "everhold-test/postgres:15";
/// MariaDB 10.11 as user 999, data in `/var/lib/mysql`.
pub const MARIADB: &str = "everhold-test/mariadb:10";
/// Redis 7 as user 999, data in `/data`; a password where there is `REDIS_PASSWORD`.
pub const REDIS: &str = "everhold-test/redis:7";

/// A script of the repository.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}

impl Sandbox {
    fn docker_dir(&self) -> PathBuf {
        self.dir.join("docker")
    }

    /// Starts a Docker Engine for this sandbox alone, with these images (`busybox`, `postgres`, `mariadb`, `redis`).
    #[track_caller]
    pub fn start_docker(&mut self, images: &[&str]) -> &mut Self {
        self.docker = true;
        self.restart_docker();
        let socket = self.docker_dir().join("docker.sock");
        checked(Command::new(script("images.sh")).args(["load", "-H"]).arg(socket).args(images));
        self
    }

    /// Starts the Docker Engine again after it was killed.
    #[track_caller]
    pub fn restart_docker(&self) {
        checked(Command::new(script("dockerd.sh")).arg("start").arg(self.docker_dir()));
    }

    /// Ends the Docker Engine and deletes all that it had: containers, images, volumes, networks.
    #[track_caller]
    pub fn throw_docker_away(&self) {
        self.end_containers();
        checked(Command::new(script("dockerd.sh")).arg("stop").arg(self.docker_dir()));
        for part in ["data", "exec", "containerd"] {
            let path = self.docker_dir().join(part);
            if path.exists() {
                std::fs::remove_dir_all(&path).expect("remove what the engine had");
            }
        }
    }

    /// `kill -9` of the Docker Engine; its containers go on.
    #[track_caller]
    pub fn kill_docker(&self) {
        let pid = std::fs::read_to_string(self.docker_dir().join("dockerd.pid")).expect("the engine's pid");
        let pid = pid.trim();
        checked(Command::new("kill").args(["-9", pid]));
        until("the engine is gone", Duration::from_secs(10), || {
            // A zombie has no command line; not every init reaps at once.
            std::fs::read(Path::new("/proc").join(pid).join("cmdline")).is_ok_and(|line| line.is_empty())
                || !Path::new("/proc").join(pid).exists()
        });
    }

    /// `docker` against the sandbox's engine.
    pub fn docker_command(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}/docker.sock", self.docker_dir().display()))
            .stdin(Stdio::null());
        command
    }

    /// Runs `docker` with these words.
    pub fn try_docker(&self, words: &[&str]) -> Output {
        output_of(self.docker_command().args(words))
    }

    /// Runs `docker`, which must succeed; returns what it printed, trimmed.
    #[track_caller]
    pub fn docker(&self, words: &[&str]) -> String {
        expect_success(&format!("docker {}", words.join(" ")), &self.try_docker(words)).trim().to_owned()
    }

    /// Runs `docker`, which must fail; returns what it said.
    #[track_caller]
    pub fn docker_fails(&self, words: &[&str]) -> String {
        let output = self.try_docker(words);
        assert!(!output.status.success(), "docker {} succeeded", words.join(" "));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// `docker volume create -d <this daemon> …`.
    #[track_caller]
    pub fn volume(&self, name: &str, options: &[&str]) -> String {
        let mut words = vec!["volume", "create", "-d", &self.plugin];
        for option in options {
            words.extend(["-o", option]);
        }
        words.push(name);
        self.docker(&words)
    }

    /// The names that `docker volume ls` shows for this daemon. All engines of a host see all plugins.
    #[track_caller]
    pub fn docker_volumes(&self) -> String {
        self.docker(&["volume", "ls", "-q", "-f", &format!("driver={}", self.plugin)])
    }

    /// `docker run --rm --network none … busybox sh -c SCRIPT`.
    #[track_caller]
    pub fn shell(&self, options: &[&str], script: &str) -> String {
        self.docker(
            &[&["run", "--rm", "--network", "none"], options, &[BUSYBOX, "sh", "-c", script]].concat(),
        )
    }

    /// Ends all containers, so that nothing uses a mount any more.
    pub(crate) fn end_containers(&self) {
        if !self.docker_dir().join("docker.sock").exists() {
            return;
        }
        let listed = self.try_docker(&["ps", "-aq"]);
        let ids = String::from_utf8_lossy(&listed.stdout).into_owned();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.try_docker(&[&["rm", "-f", "-v"], &ids[..]].concat());
        }
    }
}

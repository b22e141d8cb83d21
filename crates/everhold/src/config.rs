//! The daemon's configuration: a TOML file, flags over it, and built-in defaults under both.

mod duration;
mod file;
#[cfg(test)]
mod tests;

use api::v1::Problem;
use model::{Defaults, DriverKind, ErrorKind, FsKind, PoolName, Provisioning, Size};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use engine::PoolSettings;

/// A duration as people write it, on a command line.
///
/// # Errors
/// In words.
pub fn duration(text: &str) -> Result<Duration, String> {
    duration::HumanDuration::try_from(text.to_owned()).map(Duration::from)
}

/// Read if it is there and no other file is named.
pub const DEFAULT_FILE: &str = "/etc/everhold/config.toml";

/// A verb waits this long for another one on the same volume: shorter than Docker's patience (30 s), so that its user
/// reads what is at work and not that the plugin did not answer.
const CLAIM_WAIT: Duration = Duration::from_secs(15);

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// All settings, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directory of the catalog and the mount points.
    pub state: PathBuf,
    /// The file with the kernel's boot ID.
    pub boot_id_file: PathBuf,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// The API's socket.
    pub api_socket: PathBuf,
    /// The group, by name or number, that may use the API besides root.
    pub api_group: Option<String>,
    /// How long an API call may take.
    pub api_deadline: Duration,
    /// The directories of sockets and the like.
    pub run: PathBuf,
    /// Whether there is a Docker Engine to serve.
    pub docker: bool,
    /// The Docker Engine's own socket.
    pub docker_socket: PathBuf,
    /// The plugin's socket, whose name is the driver's name.
    pub plugin_socket: PathBuf,
    /// How long a plugin call may take.
    pub call_deadline: Duration,
    /// What holds where a request is silent.
    pub defaults: Defaults,
    /// How histories are kept.
    pub history: engine::HistorySettings,
    /// How long a removed volume stays restorable.
    pub trash_ttl: Duration,
    /// Where existing directories may be used with `path=`.
    pub allowed_paths: Vec<PathBuf>,
    /// How long a helper program such as mkfs may take.
    pub tool_deadline: Duration,
    /// The pools; at least one.
    pub pools: Vec<PoolSettings>,
}

/// What flags and environment say over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// Configuration file [default: /etc/everhold/config.toml if it is there]
    #[arg(long, value_name = "FILE", env = "EVERHOLD_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Directory of the catalog, the mount points and the default pool
    #[arg(long, value_name = "DIR", env = "EVERHOLD_STATE", hide_env_values = true)]
    pub state: Option<PathBuf>,
    /// Directory of the API socket
    #[arg(long, value_name = "DIR", env = "EVERHOLD_RUN", hide_env_values = true)]
    pub run: Option<PathBuf>,
    /// Socket of the Docker volume plugin; its file name is the driver's name
    #[arg(long, value_name = "PATH", env = "EVERHOLD_PLUGIN_SOCKET", hide_env_values = true)]
    pub plugin_socket: Option<PathBuf>,
    /// Socket of the Docker Engine
    #[arg(long, value_name = "PATH", env = "EVERHOLD_DOCKER_SOCKET", hide_env_values = true)]
    pub docker_socket: Option<PathBuf>,
    /// What to log: a level, or `tracing` filter directives
    #[arg(long, value_name = "FILTER", env = "EVERHOLD_LOG", hide_env_values = true)]
    pub log_level: Option<String>,
    /// How to log
    #[arg(long, value_name = "FORMAT", env = "EVERHOLD_LOG_FORMAT", hide_env_values = true)]
    pub log_format: Option<LogFormat>,
}

/// The configuration is wrong.
fn wrong(detail: String) -> Problem {
    Problem::new(ErrorKind::InvalidInput, detail, "correct the configuration, then start again")
}

impl Config {
    /// Reads the file that `overrides` names, or the default one if it is there, and lays `overrides` over it.
    ///
    /// # Errors
    /// A file that can't be read or is wrong, with the line and what was probably meant.
    pub fn load(overrides: &Overrides, api_socket: Option<&Path>) -> Result<Self, Problem> {
        let (path, wanted) = match &overrides.config {
            Some(path) => (path.as_path(), true),
            None => (Path::new(DEFAULT_FILE), false),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !wanted => String::new(),
            Err(error) => return Err(wrong(format!("{}: {error}", path.display()))),
        };
        let name = path.display().to_string();
        Self::from_toml(&text, overrides, api_socket).map_err(|why| wrong(format!("{name}: {why}")))
    }

    fn from_toml(text: &str, overrides: &Overrides, api_socket: Option<&Path>) -> Result<Self, String> {
        let file::File { paths, log, api, docker, defaults, history, trash, dir, tools, pool } =
            file::parse(text)?;
        let over = |flag: &Option<PathBuf>, file: Option<PathBuf>, default: &str| {
            flag.clone().or(file).unwrap_or_else(|| PathBuf::from(default))
        };
        let state = over(&overrides.state, paths.state, "/var/lib/everhold");
        let run = over(&overrides.run, paths.run, "/run/everhold");
        let pools = file::pools(pool, &state)?;
        let default_pool: PoolName = match &defaults.pool {
            Some(name) => name.clone(),
            None => "default".parse().map_err(|error: model::NameError| error.to_string())?,
        };
        if !pools.iter().any(|pool| pool.name == default_pool) {
            let known: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
            return Err(format!(
                "defaults.pool is {default_pool}, and there is no [pool.{default_pool}]; pools: {}",
                known.join(", ")
            ));
        }
        let usual = engine::HistorySettings::default();
        let history_settings = engine::HistorySettings {
            // The host's own bpffs for the one daemon that there usually is; another has one in its state directory.
            tracking: history.tracking.unwrap_or_else(|| {
                if state == Path::new("/var/lib/everhold") { usual.tracking } else { state.join("bpf") }
            }),
            volatile: run.join("history"),
            spool: history.spool.map_or(usual.spool, |word| word.0),
            frozen: history.frozen.map_or(usual.frozen, Duration::from),
            compare_every: history.compare.map_or(usual.compare_every, Duration::from),
            upkeep_every: history.upkeep.map_or(usual.upkeep_every, Duration::from),
            grace: history.grace.map_or(usual.grace, Duration::from),
            verify_every: match history.verify {
                Some(word) => word.0.map(Duration::from),
                None => usual.verify_every,
            },
            minute: history.minute.map_or(usual.minute, Duration::from),
        };
        let config = Self {
            api_socket: api_socket.map_or_else(|| run.join("everhold.sock"), Path::to_owned),
            boot_id_file: paths.boot_id.unwrap_or_else(|| "/proc/sys/kernel/random/boot_id".into()),
            log_level: overrides.log_level.clone().or(log.level).unwrap_or_else(|| "info".into()),
            log_format: overrides.log_format.or(log.format).unwrap_or(LogFormat::Text),
            api_group: api.group.filter(|group| !group.is_empty()),
            api_deadline: api.deadline.map_or(Duration::from_secs(60), Duration::from),
            docker: docker.enabled.unwrap_or(true),
            docker_socket: over(&overrides.docker_socket, docker.socket, "/var/run/docker.sock"),
            plugin_socket: over(
                &overrides.plugin_socket,
                docker.plugin_socket,
                "/run/docker/plugins/everhold.sock",
            ),
            call_deadline: docker.call_deadline.map_or(Duration::from_secs(20), Duration::from),
            defaults: Defaults {
                driver: defaults.driver.map_or(DriverKind::Image, |word| word.0),
                pool: default_pool,
                image_size: defaults.size.map_or(Size::from_gib(10), |word| word.0),
                tmpfs_size: defaults.tmpfs_size.map_or(Size::from_mib(256), |word| word.0),
                fs: defaults.fs.map_or(FsKind::Ext4, |word| word.0),
                provisioning: defaults.provisioning.map_or(Provisioning::Thin, |word| word.0),
                protect: history.protect.is_none_or(|protect| protect.0),
                protection: model::Protection {
                    interval: history.interval.map(|word| word.0).unwrap_or_default(),
                    vault: history.vault.unwrap_or_default(),
                    keep: history.keep.unwrap_or_default(),
                    group: None,
                },
            },
            history: history_settings,
            trash_ttl: trash.ttl.map_or(Duration::from_secs(7 * 24 * 3600), Duration::from),
            allowed_paths: dir
                .allowed_paths
                .unwrap_or_else(|| ["/srv", "/mnt", "/data"].into_iter().map(PathBuf::from).collect()),
            tool_deadline: tools.deadline.map_or(Duration::from_secs(15), Duration::from),
            pools,
            state,
            run,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let paths = [&self.state, &self.run, &self.api_socket, &self.docker_socket, &self.plugin_socket];
        let pools = self.pools.iter().map(|pool| &pool.path);
        for path in paths.into_iter().chain(pools).chain(&self.allowed_paths) {
            if !path.is_absolute() {
                return Err(format!("{} is not an absolute path", path.display()));
            }
        }
        for (one, pool) in self.pools.iter().enumerate() {
            if let Some(other) = self.pools[..one].iter().find(|other| other.path == pool.path) {
                return Err(format!("the pools {} and {} have the same path", other.name, pool.name));
            }
        }
        for (key, deadline) in [
            ("api.deadline", self.api_deadline),
            ("docker.call-deadline", self.call_deadline),
            ("tools.deadline", self.tool_deadline),
        ] {
            if deadline.is_zero() {
                return Err(format!("{key} is zero: nothing could ever be done in time"));
            }
        }
        Ok(())
    }

    /// What the engine is told.
    pub fn settings(&self) -> engine::Settings {
        engine::Settings {
            state: self.state.clone(),
            boot_id_file: self.boot_id_file.clone(),
            defaults: self.defaults.clone(),
            trash_ttl: self.trash_ttl,
            pools: self.pools.clone(),
            claim_wait: CLAIM_WAIT.min(self.call_deadline.mul_f32(0.75)),
            history: self.history.clone(),
        }
    }

    /// Directories of Everhold's own, which no volume's `path=` may reach.
    pub fn off_limits(&self) -> Vec<PathBuf> {
        let pools = self.pools.iter().map(|pool| pool.path.clone());
        [self.state.clone(), self.run.clone()].into_iter().chain(pools).collect()
    }
}

//! The plugin and the Engine API against a real Docker Engine: one of the test's own, started by `scripts/dockerd.sh`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a surprise ends the test")]

mod common;

use common::{Served, Setup, name, open, until};
use engine::{Clock, Containers, Engine, SystemClock};
use everhold_docker::plugin::Settings;
use everhold_docker::{DockerEngine, follow_labels};
use jiff::{SignedDuration, Timestamp};
use model::{DriverKind, Labels};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

const BUSYBOX: &str = "everhold-test/busybox:1";
const LIMIT: Duration = Duration::from_secs(15);

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}

#[track_caller]
fn checked(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A Docker Engine; ended, with its containers, when dropped.
struct Docker {
    dir: TempDir,
    plugin_socket: PathBuf,
}

impl Docker {
    fn start(plugin_socket: &Path) -> Self {
        // Not TMPDIR: the path of a socket is short.
        let dir = tempfile::Builder::new().prefix("eh-docker-").tempdir_in("/tmp").unwrap();
        let docker = Self { dir, plugin_socket: plugin_socket.to_owned() };
        docker.start_again();
        checked(Command::new(script("images.sh")).args(["load", "-H"]).arg(docker.socket()).arg("busybox"));
        docker
    }

    fn start_again(&self) {
        checked(Command::new(script("dockerd.sh")).arg("start").arg(self.dir.path()));
    }

    fn stop(&self) {
        checked(Command::new(script("dockerd.sh")).arg("stop").arg(self.dir.path()));
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(self.dir.path().join("dockerd.pid")).unwrap();
        checked(Command::new("kill").args(["-KILL", pid.trim()]));
        // A dead process that nobody has waited for has a directory, and no command line.
        while std::fs::read(Path::new("/proc").join(pid.trim()).join("cmdline"))
            .is_ok_and(|line| !line.is_empty())
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display())).args(words);
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        checked(&mut self.command(words))
    }

    #[track_caller]
    fn fails(&self, words: &[&str]) -> String {
        let output: Output = self.command(words).output().unwrap();
        assert!(!output.status.success(), "docker {words:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A container that does nothing, for long.
    #[track_caller]
    fn container(&self, name: &str, mount: &str) -> String {
        let words = ["run", "-d", "--name", name, "--network", "none", "--stop-timeout", "0", "-v", mount];
        self.run(&[&words[..], &[BUSYBOX, "sleep", "1000"]].concat())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let ids = self.command(&["ps", "-aq"]).output().map(|output| output.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&ids).split_whitespace() {
            let _removed = self.command(&["rm", "-f", id]).output();
        }
        let _stopped = Command::new(script("dockerd.sh")).arg("stop").arg(self.dir.path()).output();
        let _removed = std::fs::remove_file(&self.plugin_socket);
    }
}

/// The wall clock, and then some.
#[derive(Default)]
struct AheadClock(AtomicI64);

impl Clock for AheadClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// An engine with its plugin and a Docker Engine that uses it. Docker goes first when it is dropped: it
/// needs the plugin to end its containers.
struct World {
    docker: Docker,
    api: DockerEngine,
    driver: String,
    served: Served,
    follower: JoinHandle<()>,
    clock: Arc<AheadClock>,
    _dir: TempDir,
}

impl World {
    async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let driver = format!("ehd{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let socket = Path::new("/run/docker/plugins").join(format!("{driver}.sock"));
        let docker = Docker::start(&socket);
        let api = DockerEngine::new(docker.socket(), &driver, Handle::current());
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(AheadClock::default());
        let setup = Setup {
            driver: DriverKind::Dir,
            real_drivers: true,
            containers: Arc::new(api.clone()),
            clock: clock.clone(),
        };
        let engine = open(dir.path(), setup);
        let served = Served::new(Arc::clone(&engine), socket, Settings::default()).await;
        let follow = follow_labels(api.clone(), engine, Arc::clone(&served.newly), std::future::pending());
        Self { docker, api, driver, served, follower: tokio::spawn(follow), clock, _dir: dir }
    }

    fn engine(&self) -> &Engine {
        &self.served.engine
    }

    fn labels(&self, volume: &str) -> Labels {
        self.engine().volume(&name(volume)).unwrap().spec.labels.clone()
    }

    fn create(&self, volume: &str, words: &[&str]) {
        self.docker.run(&[&["volume", "create", "-d", &self.driver], words, &[volume]].concat());
    }

    fn attachments(&self, volume: &str) -> usize {
        self.engine().volume(&name(volume)).unwrap().attachments.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn labels_come_over_once() {
    let world = World::new().await;
    world.create("vol", &["--label", "env=prod", "--label", "tier=db", "-o", "label.env=test"]);
    until("the labels come over", LIMIT, || world.labels("vol").len() == 2).await;
    assert_eq!(
        (&*world.labels("vol")["env"], &*world.labels("vol")["tier"]),
        ("test", "db"),
        "what was there wins"
    );

    // What the operator takes off stays off, whatever Docker still thinks, also over a restart of Docker.
    world.engine().label(&name("vol"), &Labels::new(), &["tier".to_owned()]).unwrap();
    world.docker.stop();
    world.docker.start_again();
    // By the time that this one's labels are there, the stream is back and has been caught up with.
    world.create("new", &["--label", "env=new"]);
    until("labels come over again", LIMIT, || !world.labels("new").is_empty()).await;
    assert!(!world.labels("vol").contains_key("tier"));
    assert_eq!(world.docker.run(&["volume", "inspect", "-f", "{{.Labels.tier}}", "vol"]), "db");
    world.follower.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn labels_that_were_missed_come_over_later() {
    let world = World::new().await;
    world.follower.abort();
    world.create("vol", &["--label", "env=prod"]);
    assert!(world.labels("vol").is_empty());
    let engine = Arc::clone(&world.served.engine);
    let newly = Arc::clone(&world.served.newly);
    let follow = tokio::spawn(follow_labels(world.api.clone(), engine, newly, std::future::pending()));
    until("the labels come over", LIMIT, || !world.labels("vol").is_empty()).await;
    follow.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn holders_have_names_and_a_copy_takes_nothing_away() {
    let world = World::new().await;
    world.create("vol", &["-o", "exclusive=true"]);
    let id = world.docker.container("first", "vol:/data:ro");
    let uses = world.api.using(&name("vol")).unwrap();
    let [used] = &uses[..] else { panic!("one container: {uses:?}") };
    assert_eq!((&*used.id, &*used.name, &*used.image, &*used.state), (&*id, "first", BUSYBOX, "running"));
    assert_eq!((&*used.destination, used.read_only, used.is_active()), ("/data", true, true));

    // The engine asks Docker who it is while Docker waits for our answer.
    let words = ["run", "--rm", "--name", "second", "--network", "none", "-v", "vol:/data", BUSYBOX, "true"];
    let error = world.docker.fails(&words);
    assert!(error.contains(&format!("container first ({BUSYBOX}, running)")), "{error}");
    assert!(error.contains("Next: stop the holders"), "{error}");

    world.docker.run(&["cp", "first:/data", "-"]);
    assert_eq!(world.attachments("vol"), 1, "docker cp ended its own use only");
    let path = world.engine().path_of(world.engine().volume(&name("vol")).unwrap().id);
    assert!(path.is_some_and(|path| path.is_dir()));

    let error = world.docker.fails(&["volume", "create", "-d", &world.driver, "-o", "sise=1G", "new"]);
    assert!(error.contains("did you mean `size`"), "{error}");
    world.docker.run(&["rm", "-f", "first"]);
    assert_eq!((world.attachments("vol"), world.api.using(&name("vol")).unwrap().len()), (0, 0));
    world.docker.run(&["volume", "rm", "vol"]);
    assert_eq!(world.engine().trash().len(), 1);
    world.follower.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_docker_is_and_knows() {
    let world = World::new().await;
    world.create("vol", &[]);
    world.docker.container("db", "vol:/data");
    let facts = world.api.facts().await.unwrap();
    assert_eq!(facts.plugin, Ok(()));
    assert!(facts.version.starts_with(|c: char| c.is_ascii_digit()), "{facts:?}");
    assert_eq!((facts.rootless, facts.live_restore), (false, false));
    assert!(!facts.storage_driver.is_empty() && !facts.api_version.is_empty(), "{facts:?}");

    let known = world.api.volumes_of_ours().await.unwrap();
    assert_eq!(known.listed.iter().collect::<Vec<_>>(), ["vol"]);
    assert_eq!(known.mounted["vol"], ["db"]);
    let stranger = DockerEngine::new(world.docker.socket(), "nobody", Handle::current());
    assert!(stranger.facts().await.unwrap().plugin.unwrap_err().contains("/run/docker/plugins/nobody.sock"));
    assert_eq!(stranger.volumes_of_ours().await.unwrap().mounted.len(), 0);
    world.follower.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_docker_engine_leaves_nothing_attached_once_it_is_back() {
    let world = World::new().await;
    world.create("vol", &[]);
    world.docker.container("db", "vol:/data");
    assert_eq!(world.attachments("vol"), 1);
    world.docker.kill();
    assert_eq!(world.attachments("vol"), 1, "nothing is decided while nobody knows");
    // Young attachments are not judged: their containers may be about to start.
    world.clock.0.store(60, Ordering::SeqCst);
    world.docker.start_again();
    until("the stale attachment is dropped", LIMIT, || world.attachments("vol") == 0).await;
    world.docker.run(&["start", "db"]);
    assert_eq!(world.attachments("vol"), 1);
    world.follower.abort();
}

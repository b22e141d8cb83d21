//! Volumes that are not real: for tests of whoever calls a driver, at the speed of a small file.
//!
//! It keeps the rules of the real drivers, and what they keep: its state is one small file in the volume's home, so a
//! new [`SimDriver`] on the same home finds the volume made, grown and attached as the last one left it. Mounts
//! survive the daemon, and so do these. Nothing is synced: it simulates a killed process, not a power cut.

use crate::driver::{Attached, Driver, Observation, Place, Problem, Usage};
use crate::{Error, Result};
use linux::{Change, KernelError};
use model::{DriverKind, Size, Spec};
use std::fs;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The state, in the volume's home.
const STATE: &str = "sim.state";
/// The state while it is written.
const STATE_NEW: &str = "sim.state.new";

/// A verb of [`Driver`], to say where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// [`Driver::admit`]
    Admit,
    /// [`Driver::create`]
    Create,
    /// [`Driver::attach`]
    Attach,
    /// [`Driver::detach`]
    Detach,
    /// [`Driver::grow`]
    Grow,
    /// [`Driver::destroy`]
    Destroy,
    /// [`Driver::usage`]
    Usage,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The verb fails and has done nothing.
    Before,
    /// The verb does all of its work and fails then: the caller can't tell from [`Trouble::Before`].
    After,
    /// The verb takes this long, as a stuck mkfs or unmount does, and then works.
    Slow(Duration),
}

#[derive(Debug)]
struct Planned {
    verb: Verb,
    /// Calls of the verb that still work.
    calls_before: u32,
    trouble: Trouble,
}

/// The driver that only pretends. Clones share what [`SimDriver::plan`] has planned, so a test can keep one
/// and give the other away.
#[derive(Debug, Clone, Default)]
pub struct SimDriver {
    planned: Arc<Mutex<Vec<Planned>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    /// `None`: no limit.
    size: Option<u64>,
    used: u64,
    attached: bool,
}

impl SimDriver {
    /// A driver in which nothing goes wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next call of `verb` fail, with nothing done.
    pub fn fail_next(&self, verb: Verb) {
        self.plan(verb, 1, Trouble::Before);
    }

    /// Makes the `nth` call of `verb` from now (1: the next) go wrong, once.
    pub fn plan(&self, verb: Verb, nth: u32, trouble: Trouble) {
        self.planned().push(Planned { verb, calls_before: nth.saturating_sub(1), trouble });
    }

    /// How much of what was planned has not happened: a test that expects trouble checks that it met it.
    pub fn still_planned(&self) -> usize {
        self.planned().len()
    }

    /// Takes the mount of the volume in `home` away, as a reboot or someone's `umount` does.
    ///
    /// # Errors
    /// No such volume.
    pub fn lose_mount(&self, home: &Path) -> Result<()> {
        let state = State::needed(home)?;
        State { attached: false, ..state }.write(home)
    }

    /// Pretends that `used` bytes are written in the volume in `home`.
    ///
    /// # Errors
    /// No such volume.
    pub fn fill(&self, home: &Path, used: u64) -> Result<()> {
        let state = State::needed(home)?;
        State { used, ..state }.write(home)
    }

    fn planned(&self) -> std::sync::MutexGuard<'_, Vec<Planned>> {
        // Every change of the list is one step, so a panic elsewhere leaves it whole.
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self, verb: Verb) -> Option<Trouble> {
        let mut planned = self.planned();
        let mut due = None;
        for (at, plan) in planned.iter_mut().enumerate().filter(|(_, plan)| plan.verb == verb) {
            match plan.calls_before.checked_sub(1) {
                Some(left) => plan.calls_before = left,
                None => due = due.or(Some(at)),
            }
        }
        due.map(|at| planned.remove(at).trouble)
    }

    fn run<T>(&self, verb: Verb, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let trouble = self.due(verb);
        match trouble {
            Some(Trouble::Before) => return Err(injected(verb)),
            Some(Trouble::Slow(time)) => std::thread::sleep(time),
            Some(Trouble::After) | None => {}
        }
        let result = work()?;
        if trouble == Some(Trouble::After) { Err(injected(verb)) } else { Ok(result) }
    }
}

fn injected(verb: Verb) -> Error {
    let source = std::io::Error::other(format!("a test planned that {verb:?} fails"));
    KernelError { op: "sim", path: None, source }.into()
}

fn failed(op: &'static str, path: &Path, source: std::io::Error) -> Error {
    KernelError { op, path: Some(path.to_owned()), source }.into()
}

impl State {
    fn encode(&self) -> String {
        let size = self.size.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string());
        format!("{size} {} {}\n", self.used, self.attached)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let size = match words.next()? {
            "none" => None,
            bytes => Some(bytes.parse().ok()?),
        };
        let used = words.next()?.parse().ok()?;
        let attached = words.next()?.parse().ok()?;
        Some(Self { size, used, attached })
    }

    fn read(home: &Path) -> Result<Option<Self>> {
        let path = home.join(STATE);
        match fs::read_to_string(&path) {
            Ok(text) => match Self::decode(&text) {
                Some(state) => Ok(Some(state)),
                None => Err(Error::Replaced { path, found: format!("{text:?}") }),
            },
            Err(error) if error.kind() == Io::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    fn needed(home: &Path) -> Result<Self> {
        Self::read(home)?.ok_or_else(|| Error::Missing { path: home.join(STATE) })
    }

    fn write(&self, home: &Path) -> Result<()> {
        // Renamed into place: the process may be killed here, and the next one reads it.
        let (new, path) = (home.join(STATE_NEW), home.join(STATE));
        fs::write(&new, self.encode()).map_err(|error| failed("write", &new, error))?;
        fs::rename(&new, &path).map_err(|error| failed("rename", &path, error))
    }
}

fn path_of(place: &Place<'_>) -> PathBuf {
    place.mountpoint.join("data")
}

impl Driver for SimDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Sim
    }

    fn admit(&self, spec: Spec, _pool: &Path) -> Result<Spec> {
        self.run(Verb::Admit, || Ok(spec))
    }

    fn create(&self, place: &Place<'_>) -> Result<()> {
        self.run(Verb::Create, || match State::read(place.home)? {
            Some(_) => Ok(()),
            None => {
                let size = place.spec.size().map(Size::bytes);
                State { size, used: 0, attached: false }.write(place.home)
            }
        })
    }

    fn attach(&self, place: &Place<'_>) -> Result<Attached> {
        self.run(Verb::Attach, || {
            let state = State::needed(place.home)?;
            let change = if state.attached { Change::AlreadyThere } else { Change::Done };
            if change == Change::Done {
                State { attached: true, ..state }.write(place.home)?;
            }
            Ok(Attached { path: path_of(place), change })
        })
    }

    fn detach(&self, place: &Place<'_>) -> Result<Change> {
        self.run(Verb::Detach, || match State::read(place.home) {
            Ok(Some(state)) if state.attached => {
                State { attached: false, ..state }.write(place.home)?;
                Ok(Change::Done)
            }
            // What is damaged can be detached and destroyed all the same.
            Ok(_) | Err(Error::Replaced { .. }) => Ok(Change::AlreadyThere),
            Err(error) => Err(error),
        })
    }

    fn grow(&self, place: &Place<'_>, to: Size) -> Result<Change> {
        self.run(Verb::Grow, || {
            let state = State::needed(place.home)?;
            if state.size.is_none_or(|size| size >= to.bytes()) {
                return Ok(Change::AlreadyThere);
            }
            State { size: Some(to.bytes()), ..state }.write(place.home)?;
            Ok(Change::Done)
        })
    }

    fn destroy(&self, place: &Place<'_>) -> Result<Change> {
        self.run(Verb::Destroy, || {
            let mut change = Change::AlreadyThere;
            for path in [place.home.join(STATE), place.home.join(STATE_NEW)] {
                match fs::remove_file(&path) {
                    Ok(()) => change = Change::Done,
                    Err(error) if error.kind() == Io::NotFound => {}
                    Err(error) => return Err(failed("unlink", &path, error)),
                }
            }
            Ok(change)
        })
    }

    fn usage(&self, place: &Place<'_>) -> Result<Usage> {
        self.run(Verb::Usage, || {
            let state = State::needed(place.home)?;
            Ok(Usage { size: state.size, used: Some(state.used), allocated: Some(state.used), inodes: None })
        })
    }

    fn observe(&self, place: &Place<'_>) -> Observation {
        let mut seen =
            Observation { notes: vec!["simulated: it holds nothing".to_owned()], ..Observation::default() };
        match State::needed(place.home) {
            Ok(state) => seen.path = state.attached.then(|| path_of(place)),
            Err(error) => seen.problems.push(Problem { what: error.to_string(), next: error.next_step() }),
        }
        seen
    }

    fn freezable(&self, _place: &Place<'_>) -> Option<PathBuf> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{DriverSpec, Mode, Owner, Sim, VolumeId};

    struct Home {
        dir: tempfile::TempDir,
        spec: Spec,
    }

    impl Home {
        fn new() -> Self {
            let spec = Spec {
                driver: DriverSpec::Sim(Sim { size: Size::from_mib(1) }),
                pool: "default".parse().unwrap(),
                owner: Owner { uid: 0, gid: 0, mode: Mode::DEFAULT },
                exclusive: false,
                readonly: false,
                protection: None,
                labels: model::Labels::new(),
            };
            Self { dir: tempfile::tempdir().unwrap(), spec }
        }

        fn place(&self) -> Place<'_> {
            let id = VolumeId::from_uuid(uuid::Uuid::nil());
            Place {
                id,
                uuid: id,
                spec: &self.spec,
                home: self.dir.path(),
                mountpoint: Path::new("/nowhere"),
                project: None,
            }
        }
    }

    #[test]
    fn a_new_driver_finds_what_the_last_one_left() {
        let home = Home::new();
        let first = SimDriver::new();
        first.create(&home.place()).unwrap();
        first.grow(&home.place(), Size::from_mib(2)).unwrap();
        first.attach(&home.place()).unwrap();
        first.fill(home.dir.path(), 77).unwrap();

        let second = SimDriver::new();
        assert_eq!(second.attach(&home.place()).unwrap().change, Change::AlreadyThere);
        let usage = second.usage(&home.place()).unwrap();
        assert_eq!((usage.size, usage.used), (Some(2 << 20), Some(77)));

        second.lose_mount(home.dir.path()).unwrap();
        assert_eq!(second.observe(&home.place()).path, None);
        assert_eq!(second.attach(&home.place()).unwrap().change, Change::Done);
    }

    #[test]
    fn trouble_comes_when_it_is_planned_and_once() {
        let home = Home::new();
        let driver = SimDriver::new();
        driver.clone().plan(Verb::Create, 2, Trouble::Before);
        driver.create(&home.place()).unwrap();
        driver.create(&home.place()).unwrap_err();
        driver.create(&home.place()).unwrap();

        driver.fail_next(Verb::Attach);
        driver.attach(&home.place()).unwrap_err();
        assert_eq!(driver.observe(&home.place()).path, None, "failed before it did anything");
        driver.plan(Verb::Attach, 1, Trouble::After);
        driver.attach(&home.place()).unwrap_err();
        assert!(driver.observe(&home.place()).path.is_some(), "failed after it did everything");
        assert_eq!(driver.still_planned(), 0);
    }

    #[test]
    fn a_killed_write_of_the_state_is_cleaned_up() {
        let home = Home::new();
        let driver = SimDriver::new();
        fs::write(home.dir.path().join(STATE_NEW), "half").unwrap();
        assert_eq!(driver.destroy(&home.place()).unwrap(), Change::Done);
        assert_eq!(fs::read_dir(home.dir.path()).unwrap().count(), 0);
        fs::write(home.dir.path().join(STATE), "not a state").unwrap();
        assert_eq!(driver.attach(&home.place()).unwrap_err().kind(), model::ErrorKind::Damaged);
    }
}

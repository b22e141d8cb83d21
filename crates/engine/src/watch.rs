//! The engine's own threads: pools that run full, volumes that should grow, and a trash that expires, and
//! vaults that come and go.

use crate::{Engine, Schedule};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const TRASH: Duration = Duration::from_secs(60);
/// A first copy or a restore leaves memory behind that was freed, and that only this process could use. So much does not matter.
const SET_ASIDE: u64 = 64 << 20;
const MEMORY: Duration = Duration::from_secs(10);

/// The threads, until stopped or dropped.
pub struct Watch {
    stops: Vec<Sender<()>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    schedule: Option<Schedule>,
}

impl Watch {
    /// Starts them.
    ///
    /// # Errors
    /// When the host gives no threads.
    pub fn start(engine: &Arc<Engine>) -> std::io::Result<Self> {
        let mut watch = Self { stops: Vec::new(), threads: Mutex::default(), schedule: None };
        watch.every("watch-pools", engine, Engine::watch_pools)?;
        watch.every("autogrow", engine, |engine| engine.grow_by_rule())?;
        watch.every("finish-restores", engine, |engine| engine.finish_restores())?;
        watch.every("start-containers", engine, |engine| engine.start_stopped())?;
        watch.every("expire-trash", engine, |engine| {
            engine.expire_trash();
            TRASH
        })?;
        watch.every("watch-vaults", engine, |engine| engine.watch_vaults())?;
        watch.every("verify", engine, |engine| engine.verify_by_schedule())?;
        watch.every("memory", engine, |_| {
            if linux::memory::resident().is_some_and(|resident| resident > SET_ASIDE) {
                linux::memory::give_back();
            }
            MEMORY
        })?;
        watch.schedule = Some(Schedule::start(engine)?);
        Ok(watch)
    }

    fn every(
        &mut self,
        name: &str,
        engine: &Arc<Engine>,
        look: impl Fn(&Arc<Engine>) -> Duration + Send + 'static,
    ) -> std::io::Result<()> {
        let (stop, stopped) = channel();
        let engine = Arc::clone(engine);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || while stopped.recv_timeout(look(&engine)) == Err(RecvTimeoutError::Timeout) {})?;
        self.stops.push(stop);
        self.threads.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Tells them to end; does not wait for one that is at work.
    pub fn stop(&mut self) {
        self.stops.clear();
        self.schedule = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

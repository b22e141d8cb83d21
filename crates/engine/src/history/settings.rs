//! What histories are told at start-up.

use model::Size;
use std::path::PathBuf;
use std::time::Duration;

/// What histories are told at start-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySettings {
    /// Where the kernel's tracking is pinned: a directory in a bpffs.
    pub tracking: PathBuf,
    /// Where is kept what has to outlive the daemon and not the host; best in memory.
    pub volatile: PathBuf,
    /// How much may wait on this host, for each volume, while its vault is slow or absent.
    pub spool: Size,
    /// How long writers may be made to wait for the copy in a cut.
    pub frozen: Duration,
    /// How often a volume whose blocks can't be tracked is compared.
    pub compare_every: Duration,
    /// How often a stream is merged and cleaned.
    pub upkeep_every: Duration,
    /// How long a minute is, when segments that age are merged: a real one but in tests.
    pub minute: Duration,
    /// How long an object that is not needed any more stays, for readers that have begun.
    pub grace: Duration,
    /// How often the newest cut of each volume is verified. `None`: only when asked.
    pub verify_every: Option<Duration>,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self {
            tracking: PathBuf::from("/sys/fs/bpf/everhold"),
            volatile: PathBuf::from("/run/everhold/history"),
            spool: Size::from_gib(1),
            frozen: Duration::from_millis(250),
            compare_every: Duration::from_secs(60),
            upkeep_every: Duration::from_secs(20),
            minute: Duration::from_secs(60),
            grace: history::GRACE,
            verify_every: Some(Duration::from_secs(7 * 86_400)),
        }
    }
}

//! One protected volume: its next point, and the blocks that go into it.

use crate::changes::{Changes, count};
use crate::error::{Error, Result, file};
use crate::journal::Journal;
use crate::noted::{Noted, Standing};
use crate::outbox::{Outbox, Places, Wake};
use crate::run::{Comparing, SealedBlock, seal_run};
use crate::step::{Step, Steps};
use bytes::Bytes;
use linux::direct::{Pool, Reader};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use vault::format::{BLOCK, Entry, Kind, PART_ENTRIES, PartBuilder, PartName, Salt, Sealed, Sealer};
use vault::read::Access;

/// A block's size, for offsets.
pub(crate) const SIZE: u64 = BLOCK as u64;

/// What is held in memory before a partial point is made of it, in blocks: as much as a part has.
pub const PORTION: usize = PART_ENTRIES;

/// By what right a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The vault is claimed, in this epoch.
    Epoch(u32),
    /// The vault is away. What is cut goes on from what this host knows to be there, and waits in the spool until the stream is
    /// opened by a claim.
    Away,
}

/// So many blocks, in one go, are worth threads of their own, which leave the processors to the applications.
const SHARED: u64 = 512;

/// What a writer is made from.
pub struct Parts {
    /// The stream in the vault.
    pub access: Access,
    /// By what right it is written.
    pub right: Right,
    /// The daemon's own directory for this volume: the spool.
    pub home: PathBuf,
    /// A directory for what has to outlive the daemon and not the host: what was taken. Best in memory, as writers wait
    /// while something is written there.
    pub volatile: PathBuf,
    /// The image file.
    pub image: PathBuf,
    /// Reads it.
    pub pool: Arc<Pool>,
    /// How many bytes the spool may hold.
    pub spool: u64,
    /// How many blocks are held in memory before a partial point is made of them; [`PORTION`] but in tests.
    pub portion: usize,
    /// Called when something waits for the vault.
    pub wake: Wake,
    /// Where tests end the process.
    pub steps: Steps,
}

/// What was found when a writer opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The marks and what was written down say all that has changed since the newest point.
    Trusted,
    /// What has changed has to be found by comparing, and why.
    Compare(&'static str),
}

/// What is kept beside the marks to know them again.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    vault: [u8; 16],
    token: u64,
}

/// One protected volume.
pub struct Writer {
    pub(crate) access: Access,
    home: PathBuf,
    volatile: PathBuf,
    pub(crate) reader: Reader,
    pub(crate) pool: Arc<Pool>,
    pub(crate) point: u64,
    pub(crate) time: u64,
    /// Of the newest point, if there is one.
    kind: Option<Kind>,
    pub(crate) steps: Steps,
    pub(crate) must_compare: Option<&'static str>,
    /// The number of the next point.
    next: u64,
    outbox: Arc<Outbox>,
    journal: Journal,
    sealer: Sealer,
    /// Memory to seal in.
    scratch: Vec<u8>,
    pending: BTreeMap<u64, SealedBlock>,
    portion: usize,
}

/// Random bytes.
pub fn salt() -> Salt {
    let mut salt = Salt::default();
    #[expect(
        clippy::expect_used,
        reason = "without randomness nothing can be sealed; the kernel always has some"
    )]
    SystemRandom::new().fill(&mut salt).expect("the kernel's random numbers");
    salt
}

pub(crate) fn random_u32() -> u32 {
    let [a, b, c, d, ..] = salt();
    u32::from_le_bytes([a, b, c, d])
}

fn random_u64() -> u64 {
    let salt = salt();
    let mut word = [0; 8];
    word.copy_from_slice(&salt[..8]);
    u64::from_le_bytes(word).max(1)
}

impl Writer {
    /// Opens the stream for writing. `changes` are the volume's marks, if it has any.
    ///
    /// # Errors
    /// When the vault can't be listed, or the daemon's own files can't be used; [`Error::NeedsVault`] when it is away, and what has
    /// changed can only be found by comparing with it. Nothing has changed then.
    pub fn open(parts: Parts, changes: Option<&dyn Changes>) -> Result<(Self, Opened)> {
        let Parts { access, right, home, volatile, image, pool, spool, portion, wake, steps } = parts;
        for dir in [&home, &volatile] {
            fs::create_dir_all(dir).map_err(file(format!("make {}", dir.display())))?;
        }
        let standing = match right {
            Right::Epoch(_) => Standing::of(&access.state()?),
            Right::Away => {
                let noted = Noted::read(&home, access.vault).filter(|noted| noted.standing.newest.0 > 0);
                noted.ok_or_else(|| needs_vault(&access, "nothing is known of the last cut"))?.standing
            }
        };
        let places = Places { home: &home, volatile: &volatile };
        let outbox = Outbox::open(access.clone(), right, &places, spool, &standing, wake, steps.clone())?;
        let (newest, time) = outbox.newest();
        let reader = Reader::open(&image)?;
        let sealer = Sealer::new(&access.keys, access.stream.0, salt());
        let journal = Journal::new(&volatile);
        let mut writer = Self {
            journal,
            access,
            home,
            volatile,
            reader,
            pool,
            point: newest,
            time,
            kind: outbox.newest_kind(),
            steps,
            must_compare: None,
            next: outbox.next(),
            outbox: Arc::new(outbox),
            sealer,
            scratch: Vec::new(),
            pending: BTreeMap::new(),
            portion,
        };
        writer.must_compare = writer.trust(&standing, changes)?;
        let opened = match writer.must_compare {
            None => Opened::Trusted,
            Some(why) if right == Right::Away => return Err(needs_vault(&writer.access, why)),
            Some(why) => Opened::Compare(why),
        };
        Ok((writer, opened))
    }

    /// `None`: the marks can be trusted, and what was taken before has been marked again.
    fn trust(&self, standing: &Standing, changes: Option<&dyn Changes>) -> Result<Option<&'static str>> {
        let known: Option<Known> =
            fs::read(self.known()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let why = match (changes, &known) {
            _ if self.point == 0 => Some("it is the first cut"),
            (None, _) => Some("changes are not tracked"),
            (_, None) => Some("nothing is known of the last cut"),
            (Some(changes), _) if changes.is_broken() => Some("the marks are not complete"),
            (Some(changes), Some(known)) if changes.token() == 0 || changes.token() != known.token => {
                Some("the marks are new: the host was restarted, or the volume was not tracked")
            }
            (_, Some(known)) if known.vault != self.access.vault => Some("it went to another vault before"),
            _ if self.outbox.has_lost() => Some("the vault has lost cuts that were in it"),
            _ if standing.newest.0 == 0 => Some("the vault has lost the history"),
            _ => None,
        };
        if why.is_some() {
            return Ok(why);
        }
        let left = Journal::left(&self.volatile, self.point)?;
        if let Some(changes) = changes {
            changes.mark(&left);
        }
        Ok(None)
    }

    /// Beside what was taken: where that is gone, the marks alone must not be trusted.
    fn known(&self) -> PathBuf {
        self.volatile.join("known.json")
    }

    /// From now on the marks, with what is written down as taken, say all that changes.
    pub(crate) fn begin_trust(&mut self, changes: &dyn Changes) -> Result<()> {
        let token = random_u64();
        let known = Known { vault: self.access.vault, token };
        let text = serde_json::to_vec(&known).map_err(|error| file("known.json")(error.into()))?;
        fs::write(self.known(), text).map_err(file(format!("write {}", self.known().display())))?;
        changes.set_token(token);
        self.must_compare = None;
        Ok(())
    }

    /// Everything will be compared at the next cut.
    pub fn distrust(&mut self, why: &'static str) {
        self.must_compare.get_or_insert(why);
    }

    /// Why the next cut compares, if it does.
    pub fn compares(&self) -> Option<&'static str> {
        self.must_compare
    }

    /// What puts its segments into the vault.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The newest point, durable or not, and its time in milliseconds.
    pub fn newest(&self) -> (u64, u64) {
        (self.point, self.time)
    }

    /// Whether the newest point can be restored. It can't while a large cut is under way, or when it failed half-way.
    pub(crate) fn is_at_cut(&self) -> bool {
        self.kind == Some(Kind::Cut)
    }

    /// Whether no other blocks than these have been taken that no point has yet.
    pub(crate) fn holds_only(&self, blocks: &Range<u64>) -> bool {
        self.pending.values().all(|(entry, _)| blocks.start <= entry.block && entry.end() <= blocks.end)
    }

    /// The stream.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The daemon's own directory for this volume.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Writes these marks down and clears them. What is read after this is at least as new.
    pub(crate) fn take(&mut self, changes: &dyn Changes, ranges: &[Range<u64>]) -> Result<()> {
        self.note(ranges)?;
        self.steps.at(Step::CutTaken);
        changes.clear(ranges);
        self.steps.at(Step::CutCleared);
        Ok(())
    }

    /// Writes down that these blocks go into the next point.
    pub(crate) fn note(&mut self, ranges: &[Range<u64>]) -> Result<()> {
        self.journal.append(self.next, ranges)
    }

    /// Reads these blocks until the deadline, and hands runs of them to `each`: the number of the first, and their content. What was
    /// not read is given back.
    pub(crate) fn read(
        &self,
        ranges: &[Range<u64>],
        deadline: Option<Instant>,
        mut each: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<Vec<Range<u64>>> {
        read_blocks(&self.reader, &self.pool, ranges, deadline, &mut each)
    }

    /// Takes and copies these blocks, a portion at a time: what is taken goes into the point that it is written down for.
    pub(crate) fn copy(
        &mut self,
        changes: &dyn Changes,
        ranges: &[Range<u64>],
        volume_size: u64,
    ) -> Result<u64> {
        let (reader, pool) = (self.reader.clone(), Arc::clone(&self.pool));
        for portion in portions(ranges, self.portion as u64) {
            self.take(changes, &portion)?;
            let copied = if count(&portion) < SHARED {
                read_blocks(&reader, &pool, &portion, None, &mut |first, content| {
                    self.hold(first, content);
                    Ok(())
                })
                .map(drop)
            } else {
                self.copy_shared(&reader, &pool, &portion)
            };
            if let Err(error) = copied {
                changes.mark(&portion);
                return Err(error);
            }
            self.flush_if_full(volume_size)?;
        }
        Ok(count(ranges))
    }

    /// Copies these blocks, which were taken, with several threads.
    fn copy_shared(&mut self, reader: &Reader, pool: &Pool, portion: &[Range<u64>]) -> Result<()> {
        let (keys, stream) = (self.access.keys.clone(), self.access.stream.0);
        let sealer = || Sealer::new(&keys, stream, salt());
        Comparing::with(&keys, &sealer, |sealing| {
            read_blocks(reader, pool, portion, None, &mut |first, content| {
                self.hold_sealed(sealing.compare(first, content, None));
                Ok(())
            })?;
            self.hold_sealed(sealing.rest());
            Ok(())
        })
    }

    /// Seals a run of blocks that was read, for the next point.
    pub(crate) fn hold(&mut self, first: u64, content: &[u8]) {
        if u64::from(self.sealer.left()) < content.len() as u64 / SIZE {
            self.sealer = self.new_sealer();
        }
        let sealed = seal_run(&mut self.sealer, &mut self.scratch, first, content);
        self.hold_sealed(sealed);
    }

    /// Holds blocks that are sealed already for the next point.
    pub(crate) fn hold_sealed(&mut self, sealed: Vec<SealedBlock>) {
        self.pending.extend(sealed.into_iter().map(|sealed| (sealed.0.block, sealed)));
    }

    /// Holds blocks that are zeros for the next point.
    pub(crate) fn hold_zeros(&mut self, block: u64, count: u32) {
        let entry = Entry { block, content: vault::format::Content::Zeros { count } };
        self.pending.insert(block, (entry, Bytes::new()));
    }

    /// Makes a partial point of what is held, if that is as much as it should be.
    pub(crate) fn flush_if_full(&mut self, volume_size: u64) -> Result<()> {
        if self.held() >= self.portion {
            self.flush(Kind::Partial, self.time, volume_size)?;
        }
        Ok(())
    }

    /// A sealer under a new salt.
    pub(crate) fn new_sealer(&self) -> Sealer {
        Sealer::new(&self.access.keys, self.access.stream.0, salt())
    }

    pub(crate) fn held(&self) -> usize {
        self.pending.len()
    }

    /// Makes the next point of what is held. Its segment is in the outbox when this returns.
    pub(crate) fn flush(&mut self, kind: Kind, time: u64, volume_size: u64) -> Result<u64> {
        let pending = std::mem::take(&mut self.pending);
        let name = PartName {
            stream: self.access.stream,
            from: self.point,
            to: self.next,
            time: time.max(self.time),
            epoch: self.outbox.epoch(),
            run: random_u32(),
            kind,
            part: 0,
            last: false,
        };
        let mut parts = Vec::new();
        let mut building = PartBuilder::new();
        for (entry, bytes) in pending.values() {
            if building.is_full() {
                let name = PartName { part: parts.len() as u32, ..name };
                let full = std::mem::take(&mut building);
                parts.push(full.build(&self.access.keys, &self.access.vault, name, volume_size, salt()));
            }
            building.copy(Sealed { entry: *entry, bytes });
        }
        let name = PartName { part: parts.len() as u32, last: true, ..name };
        parts.push(building.build(&self.access.keys, &self.access.vault, name, volume_size, salt()));
        let bytes = parts.iter().map(|part| part.body.len() as u64).sum();
        if let Err(error) = self.outbox.push(parts, kind == Kind::Partial) {
            self.pending = pending;
            return Err(error);
        }
        self.point = self.next;
        self.next += 1;
        self.time = name.time;
        self.kind = Some(kind);
        self.sealer = self.new_sealer();
        self.steps.at(Step::CutQueued);
        Ok(bytes)
    }
}

fn needs_vault(access: &Access, why: &'static str) -> Error {
    Error::NeedsVault { url: access.store.url().to_owned(), why }
}

/// [`Reader::read_many`], in blocks.
pub(crate) fn read_blocks(
    reader: &Reader,
    pool: &Pool,
    ranges: &[Range<u64>],
    deadline: Option<Instant>,
    each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<Vec<Range<u64>>> {
    let bytes: Vec<_> = ranges.iter().map(|range| range.start * SIZE..range.end * SIZE).collect();
    let left = reader.read_many(pool, &bytes, deadline, |range, data| each(range.start / SIZE, data))?;
    Ok(left.into_iter().map(|range| range.start / SIZE..range.end.div_ceil(SIZE)).collect())
}

/// The same blocks in portions of at most `most`.
fn portions(ranges: &[Range<u64>], most: u64) -> Vec<Vec<Range<u64>>> {
    let mut portions = Vec::new();
    let (mut portion, mut room) = (Vec::new(), most);
    for range in ranges {
        let mut range = range.clone();
        while !range.is_empty() {
            let piece = range.start..range.end.min(range.start + room);
            room -= piece.end - piece.start;
            range.start = piece.end;
            portion.push(piece);
            if room == 0 {
                portions.push(std::mem::take(&mut portion));
                room = most;
            }
        }
    }
    if !portion.is_empty() {
        portions.push(portion);
    }
    portions
}

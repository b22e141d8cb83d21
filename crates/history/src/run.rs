//! Runs of neighbouring blocks: sealing them, also with several threads, and finding those that differ from what a point has.

use crate::error::Result;
use bytes::Bytes;
use linux::KernelError;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use vault::format::{BLOCK, Content, Entry, Keys, Sealer, is_zero, seal_block};
use vault::read::Located;

/// A block, sealed; no bytes of zeros.
pub(crate) type SealedBlock = (Entry, Bytes);

/// Threads that compare and seal at most. They leave something to the applications.
const MOST_THREADS: usize = 4;

/// Seals these blocks, the first of which has this number. `scratch` is memory to work in, best the same again each time.
pub(crate) fn seal_run(
    sealer: &mut Sealer,
    scratch: &mut Vec<u8>,
    first: u64,
    content: &[u8],
) -> Vec<SealedBlock> {
    let (blocks, _) = content.as_chunks::<BLOCK>();
    seal_these(sealer, scratch, (first..).zip(blocks))
}

/// The sealed bytes of all of them stand in one piece of memory.
fn seal_these<'a>(
    sealer: &mut Sealer,
    scratch: &mut Vec<u8>,
    blocks: impl Iterator<Item = (u64, &'a [u8; BLOCK])>,
) -> Vec<SealedBlock> {
    scratch.clear();
    let mut entries = Vec::new();
    for (block, content) in blocks {
        let begin = scratch.len();
        let entry = seal_block(sealer, block, content, scratch);
        entries.push((entry, begin..scratch.len()));
    }
    let sealed = Bytes::copy_from_slice(scratch);
    entries.into_iter().map(|(entry, range)| (entry, sealed.slice(range))).collect()
}

/// Some blocks of the image, and what the newest point has there.
struct Run {
    /// The number of the first.
    first: u64,
    /// What the image has.
    content: Vec<u8>,
    /// What the point has, for each block. `None`: all of it is sealed.
    expected: Option<Vec<Option<Located>>>,
}

impl Run {
    /// Seals the blocks that are not as expected, or all.
    fn differing(&self, keys: &Keys, sealer: &mut Sealer, scratch: &mut Vec<u8>) -> Vec<SealedBlock> {
        let Some(expected) = &self.expected else {
            return seal_run(sealer, scratch, self.first, &self.content);
        };
        let (blocks, _) = self.content.as_chunks::<BLOCK>();
        let differs = |(content, expected): &(&[u8; BLOCK], &Option<Located>)| match expected
            .as_ref()
            .map(|located| located.entry.content)
        {
            Some(Content::Data { hash, .. }) => hash != keys.hash(&content[..]),
            Some(Content::Zeros { .. }) | None => !is_zero(content),
        };
        let blocks = (self.first..).zip(blocks.iter().zip(expected)).filter(|(_, both)| differs(both));
        seal_these(sealer, scratch, blocks.map(|(block, (content, _))| (block, content)))
    }
}

/// A run that was compared.
struct Compared {
    /// The blocks that differ, in order.
    differing: Vec<SealedBlock>,
    /// Memory for another run.
    spare: Vec<u8>,
}

/// Threads that compare and seal runs. What they found comes in no order.
pub(crate) struct Comparing {
    runs: SyncSender<Run>,
    found: Receiver<Compared>,
    under_way: usize,
    most: usize,
    spare: Vec<Vec<u8>>,
}

impl Comparing {
    /// Hands these threads to `work`; they have ended when this returns. `sealer` makes one for each.
    ///
    /// # Errors
    /// What `work` says, or no thread to be had.
    pub(crate) fn with<T>(
        keys: &Keys,
        sealer: &dyn Fn() -> Sealer,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let (runs, waiting) = sync_channel::<Run>(threads);
        let waiting = Mutex::new(waiting);
        let (tell, found) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (tell, waiting, mut sealer) = (tell.clone(), &waiting, sealer());
                std::thread::Builder::new()
                    .name("compare".to_owned())
                    .spawn_scoped(scope, move || {
                        linux::host::be_nice();
                        let mut scratch = Vec::new();
                        loop {
                            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                            let Ok(run) = next else { return };
                            let differing = run.differing(keys, &mut sealer, &mut scratch);
                            if tell.send(Compared { differing, spare: run.content }).is_err() {
                                return;
                            }
                        }
                    })
                    .map_err(|source| KernelError { op: "clone", path: None, source })?;
            }
            let mut comparing = Self { runs, found, under_way: 0, most: threads * 3, spare: Vec::new() };
            work(&mut comparing)
            // The channels end with it, and so do the threads.
        })
    }

    /// Hands a run of blocks over; gives back what has been found meanwhile. `expected` is what the point has, for each block. `None`:
    /// that does not matter, all of it is sealed.
    pub(crate) fn compare(
        &mut self,
        first: u64,
        content: &[u8],
        expected: Option<Vec<Option<Located>>>,
    ) -> Vec<SealedBlock> {
        let mut memory = self.spare.pop().unwrap_or_default();
        memory.clear();
        memory.extend_from_slice(content);
        let run = Run { first, content: memory, expected };
        let mut found = Vec::new();
        // A thread that is gone has panicked, and the scope will say so.
        if self.runs.send(run).is_ok() {
            self.under_way += 1;
        }
        while self.under_way >= self.most {
            let Ok(compared) = self.found.recv() else { break };
            self.take(compared, &mut found);
        }
        while let Ok(compared) = self.found.try_recv() {
            self.take(compared, &mut found);
        }
        found
    }

    /// What is still to be found.
    pub(crate) fn rest(&mut self) -> Vec<SealedBlock> {
        let mut found = Vec::new();
        while self.under_way > 0 {
            let Ok(compared) = self.found.recv() else { break };
            self.take(compared, &mut found);
        }
        found
    }

    fn take(&mut self, compared: Compared, found: &mut Vec<SealedBlock>) {
        self.under_way -= 1;
        found.extend(compared.differing);
        self.spare.push(compared.spare);
    }
}

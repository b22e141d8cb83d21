//! Bringing the data of a file that is written already to what the file is now, without moving anything.

use super::model::Object;
use crate::tar::sparse::Extent;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tree::content::{Failed, Piece, Scan};
use tree::marks::{Hashing, Marks};

/// Files from this size on are looked at by several threads.
const LARGE: u64 = 32 << 20;
/// How many. While somebody waits for the last look, all processors may be taken; more than these gain little, as memory is what limits.
const THREADS: usize = 4;

/// What came of it.
pub(super) enum Outcome {
    /// What is written is the file now.
    Done {
        /// The marks of its blocks.
        marks: Marks,
        /// What was overwritten: positions in the bundle and sizes.
        patched: Vec<(u64, u64)>,
        /// The file ended early.
        short: bool,
    },
    /// There is data where a hole was written: it has to be written anew as a whole.
    Unfit,
}

/// Why it failed.
pub(super) enum Failure {
    /// The file could not be read.
    Read(io::Error),
    /// The bundle could not be written.
    Write(io::Error),
}

/// Why a piece was not taken.
enum Refused {
    Unfit,
    Write(io::Error),
}

/// Compares a file of the same size as the object with what is written, and overwrites what differs.
pub(super) fn patch(
    bundle: &File,
    object: &Object,
    file: File,
    hashing: Hashing,
) -> Result<Outcome, Failure> {
    let size = object.head.meta.size;
    let scan = Scan::new(file, size, Arc::clone(&object.marks), hashing);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if size >= LARGE { processors.min(THREADS) } else { 1 };
    let unfit = AtomicBool::new(false);
    let work = || worker(bundle, object, &scan, &unfit);
    let found = if threads == 1 {
        vec![work()]
    } else {
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut found = vec![work()];
            let lost = || Err(Failure::Read(io::Error::other("a thread that read it panicked")));
            found.extend(others.into_iter().map(|other| other.join().unwrap_or_else(|_| lost())));
            found
        })
    };
    let (mut marks, mut patched, mut short) = (Vec::new(), Vec::new(), false);
    for found in found {
        let found = found?;
        // Parts of different threads lie between each other: they can't be joined thread by thread.
        marks.extend(found.marks);
        patched.extend(found.patched);
        short |= found.short;
    }
    if unfit.load(Ordering::Relaxed) {
        return Ok(Outcome::Unfit);
    }
    Ok(Outcome::Done { marks: Marks::join(marks), patched, short })
}

/// What one thread found.
#[derive(Default)]
struct Found {
    /// Of each part that it took.
    marks: Vec<Marks>,
    patched: Vec<(u64, u64)>,
    short: bool,
}

fn worker(bundle: &File, object: &Object, scan: &Scan, unfit: &AtomicBool) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut buffer = Vec::new();
    let mut take = |piece: Piece<'_>| write(bundle, object, piece, &mut found.patched);
    while !unfit.load(Ordering::Relaxed) {
        match scan.part(&mut buffer, &mut take) {
            Ok(None) => break,
            Ok(Some(part)) => {
                found.short |= part.short;
                found.marks.push(part.marks);
            }
            Err(Failed::Taken(Refused::Unfit)) => unfit.store(true, Ordering::Relaxed),
            Err(Failed::Taken(Refused::Write(error))) => return Err(Failure::Write(error)),
            Err(Failed::Read { source, .. }) => return Err(Failure::Read(source)),
        }
    }
    Ok(found)
}

/// Overwrites one piece, wherever its parts lie.
fn write(
    bundle: &File,
    object: &Object,
    piece: Piece<'_>,
    ranges: &mut Vec<(u64, u64)>,
) -> Result<(), Refused> {
    let (begin, len) = match piece {
        Piece::Data { offset, bytes } => (offset, bytes.len() as u64),
        Piece::Hole { offset, length } => (offset, length),
    };
    let mut covered = 0;
    // Where the data of the extent at hand begins in the bundle.
    let mut stored = object.data;
    for Extent { offset, len: extent } in object.extents.iter().copied() {
        let (from, to) = (begin.max(offset), (begin + len).min(offset + extent));
        if from < to {
            covered += to - from;
            let at = stored + (from - offset);
            match piece {
                Piece::Data { bytes, .. } => {
                    let bytes = &bytes[(from - begin) as usize..(to - begin) as usize];
                    bundle.write_all_at(bytes, at).map_err(Refused::Write)?;
                }
                Piece::Hole { .. } => zeros(bundle, at, to - from).map_err(Refused::Write)?,
            }
            ranges.push((at, to - from));
        }
        stored += extent;
    }
    // A hole where a hole is, is right as it is.
    if covered < len && matches!(piece, Piece::Data { .. }) { Err(Refused::Unfit) } else { Ok(()) }
}

fn zeros(bundle: &File, mut at: u64, mut len: u64) -> io::Result<()> {
    let zeros = vec![0; len.min(1 << 20) as usize];
    while len > 0 {
        let some = len.min(zeros.len() as u64);
        bundle.write_all_at(&zeros[..some as usize], at)?;
        at += some;
        len -= some;
    }
    Ok(())
}

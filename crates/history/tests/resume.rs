//! Restores that are interrupted go on from what they noted, believe no other note, and hold no more in memory than they say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use common::cut_at_rest;
use everhold_history::restore::{Note, Progress, Restore, chain_to, most_in_flight};
use everhold_history::{Error, PORTION, Parts, Right, Step, Steps, Wake, Writer};
use jiff::Timestamp;
use linux::direct::Pool;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use vault::claim::{Epoch, Writer as Claimant, claim};
use vault::format::{Keys, StreamId};
use vault::read::Access;
use vault::store::MemoryStore;

const SIZE: u64 = 88 << 20;
/// Not to the end, so that the image ends with a hole.
const FILLED: usize = 80 << 20;
const WORKERS: usize = 3;

/// Bytes that don't compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(FILLED);
    while bytes.len() < FILLED {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// A vault with the cuts of an image that held each of these.
fn vault_with(dir: &Path, contents: &[Vec<u8>]) -> (Access, Vec<u64>) {
    let store = MemoryStore::new();
    let me = Claimant {
        node: "00112233445566778899aabbccddeeff".into(),
        host: "here".into(),
        boot_id: "boot".into(),
        since: Timestamp::UNIX_EPOCH,
        version: "test".into(),
    };
    let Epoch(epoch) = claim(&store, &me, false).unwrap();
    let access = Access {
        store: Arc::new(store),
        keys: Keys::new(&[7; 32]),
        vault: [9; 16],
        stream: StreamId([3; 16]),
    };
    let image = image(&dir.join("source"));
    image.set_len(SIZE).unwrap();
    let mut points = Vec::new();
    for (at, content) in contents.iter().enumerate() {
        image.write_all_at(content, 0).unwrap();
        image.sync_all().unwrap();
        let parts = Parts {
            access: access.clone(),
            right: Right::Epoch(epoch),
            home: dir.join(format!("home{at}")),
            volatile: dir.join("volatile"),
            image: dir.join("source"),
            pool: Arc::new(Pool::new(2).unwrap()),
            spool: 1 << 30,
            portion: PORTION,
            wake: Wake::default(),
            steps: Steps::default(),
        };
        let (mut writer, _) = Writer::open(parts, None).unwrap();
        let outbox = Arc::clone(writer.outbox());
        let made = std::thread::scope(|scope| {
            let uploads = scope.spawn(|| {
                while Arc::strong_count(&outbox) > 1 {
                    outbox.upload().unwrap();
                    std::thread::yield_now();
                }
                outbox.upload().unwrap();
            });
            let made = cut_at_rest(&mut writer, None, 1_700_000_000_000 + at as u64 * 1000).unwrap();
            drop(writer);
            uploads.join().unwrap();
            made
        });
        points.push(made.expect("a cut").point);
    }
    (access, points)
}

fn image(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Stops the restore when it has noted how far it is.
fn stop_when_noted(progress: &Arc<Progress>) -> Steps {
    let progress = Arc::clone(progress);
    Steps::new(move |step| {
        if step == Step::RestoreNoted {
            progress.stop.store(true, Relaxed);
        }
    })
}

fn noted(path: &PathBuf) -> u64 {
    let note: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    note["block"].as_u64().unwrap() * 4096
}

fn holds(image: &File, content: &[u8]) -> bool {
    let mut is = vec![0; SIZE as usize];
    image.read_exact_at(&mut is, 0).unwrap();
    is[..FILLED] == *content && is[FILLED..].iter().all(|byte| *byte == 0)
}

#[test]
fn an_interrupted_restore_goes_on_from_its_note() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let contents = [noise(1), noise(2)];
    let (access, points) = vault_with(dir.path(), &contents);
    let state = access.state().unwrap();
    let chain = |point| chain_to(&state.listing.segments, point).unwrap();
    let (first, second) = (chain(points[0]), chain(points[1]));
    let path = dir.path().join("note");
    let into = image(&dir.path().join("image"));
    let note = Note::new(path.clone(), "first".to_owned());
    let run = |note: &Note, progress: &Progress, steps: &Steps, over: Option<()>| {
        let restore =
            Restore { access: &access, into: &into, workers: WORKERS, progress, steps, note: Some(note) };
        match over {
            None => restore.point(&first),
            Some(()) => restore.difference(&second, &first),
        }
    };
    let bound = most_in_flight(WORKERS) as u64;

    let stopped = Arc::new(Progress::default());
    let ended = run(&note, &stopped, &stop_when_noted(&stopped), None);
    assert!(matches!(ended, Err(Error::Stopped)), "{ended:?}");
    let kept = noted(&path);
    assert!(kept > 0 && kept < FILLED as u64, "{kept}");
    // A host that goes down loses what was not synced.
    linux::fs::punch(&into, kept, SIZE - kept).unwrap();
    let again = Progress::default();
    run(&note, &again, &Steps::default(), None).unwrap();
    assert!(holds(&into, &contents[0]));
    assert_eq!((again.resumed.load(Relaxed), again.position.load(Relaxed)), (kept, SIZE));
    // What had been durable was not fetched again; sealed, a block has 16 bytes more.
    assert_eq!(again.fetched.load(Relaxed), (FILLED as u64 - kept) / 4096 * 4112);
    for progress in [&*stopped, &again] {
        let most = progress.in_flight.load(Relaxed);
        assert!((1..=bound).contains(&most), "{most} of {bound}");
    }

    // A note for something else is worth nothing, and neither is what it was noted for.
    into.write_all_at(&contents[1], 0).unwrap();
    let other = Progress::default();
    run(&Note::new(path.clone(), "other".to_owned()), &other, &Steps::default(), None).unwrap();
    assert!(holds(&into, &contents[0]) && other.resumed.load(Relaxed) == 0);

    // In place, over another cut.
    Note::remove(&path).unwrap();
    into.write_all_at(&contents[1], 0).unwrap();
    let note = Note::new(path.clone(), "first over second".to_owned());
    let stopped = Arc::new(Progress::default());
    let ended = run(&note, &stopped, &stop_when_noted(&stopped), Some(()));
    assert!(matches!(ended, Err(Error::Stopped)), "{ended:?}");
    let kept = noted(&path);
    into.write_all_at(&contents[1][kept as usize..], kept).unwrap();
    let again = Progress::default();
    run(&note, &again, &Steps::default(), Some(())).unwrap();
    assert!(holds(&into, &contents[0]));
    assert_eq!(again.fetched.load(Relaxed), (FILLED as u64 - kept) / 4096 * 4112);
}

use super::*;
use crate::walk::{Skip, Walk};
use std::fs;
use std::os::unix::fs::FileExt;

const SETTLING: Duration = Duration::from_millis(20);

/// Looks at a tree as a copier does, and says what had to be looked at.
fn look(tracker: &mut Tracker, root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (tree, skip) = (Tree::open(root).unwrap(), Skip::new());
    tracker.begin(&tree).unwrap();
    let mut looked_at = Vec::new();
    for entry in Walk::new(&tree, &skip).unwrap() {
        let entry = entry.unwrap();
        if tracker.judge(&entry) != Verdict::Unchanged {
            tracker.note(&entry, None, true);
            looked_at.push(entry.path);
        }
    }
    (looked_at, tracker.finish())
}

/// A tree of two files, one of them old enough to be settled.
fn settled(tracker: &mut Tracker) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), "a").unwrap();
    fs::write(root.path().join("b"), "b").unwrap();
    settle();
    assert_eq!(look(tracker, root.path()).0, paths(["", "a", "b"]));
    root
}

/// File times move on by more than the settling time: nothing can be waited for but that.
fn settle() {
    std::thread::sleep(SETTLING * 3);
}

fn paths<const N: usize>(names: [&str; N]) -> Vec<PathBuf> {
    names.map(PathBuf::from).to_vec()
}

#[test]
fn what_is_settled_is_not_looked_at_again() {
    let mut tracker = Tracker::with_settling(SETTLING);
    let root = settled(&mut tracker);
    assert_eq!(look(&mut tracker, root.path()), (vec![], vec![]));
}

#[test]
fn what_was_written_just_before_a_look_is_looked_at_once_more() {
    let mut tracker = Tracker::with_settling(SETTLING);
    let root = settled(&mut tracker);
    fs::write(root.path().join("a"), "A").unwrap();
    assert_eq!(look(&mut tracker, root.path()).0, paths(["a"]));
    settle();
    assert_eq!(look(&mut tracker, root.path()).0, paths(["a"]));
    assert_eq!(look(&mut tracker, root.path()).0, paths([]));
}

#[test]
fn a_time_that_was_set_back_does_not_hide_a_change() {
    let mut tracker = Tracker::with_settling(SETTLING);
    let root = settled(&mut tracker);
    let file = fs::File::options().write(true).open(root.path().join("a")).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_at(b"A", 0).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(look(&mut tracker, root.path()).0, paths(["a"]));
}

#[test]
fn what_is_gone_is_forgotten_and_what_is_new_is_new() {
    let mut tracker = Tracker::with_settling(SETTLING);
    let root = settled(&mut tracker);
    fs::rename(root.path().join("a"), root.path().join("c")).unwrap();
    let (looked_at, gone) = look(&mut tracker, root.path());
    assert_eq!((looked_at, gone), (paths(["", "c"]), paths(["a"])));
    assert_eq!(tracker.len(), 3);
}

#[test]
fn what_was_not_steady_is_looked_at_again() {
    let mut tracker = Tracker::with_settling(SETTLING);
    let root = settled(&mut tracker);
    let (tree, skip) = (Tree::open(root.path()).unwrap(), Skip::new());
    tracker.begin(&tree).unwrap();
    for entry in Walk::new(&tree, &skip).unwrap() {
        let entry = entry.unwrap();
        tracker.note(&entry, None, entry.path != Path::new("b"));
    }
    assert_eq!(look(&mut tracker, root.path()).0, paths(["b"]));
}

#[test]
fn a_last_look_settles_nothing_and_unsettles_nothing() {
    let mut tracker = Tracker::with_settling(SETTLING);
    let root = settled(&mut tracker);
    fs::write(root.path().join("a"), "A").unwrap();
    settle();
    let (tree, skip) = (Tree::open(root.path()).unwrap(), Skip::new());
    tracker.begin_last();
    for entry in Walk::new(&tree, &skip).unwrap() {
        let entry = entry.unwrap();
        let wanted = entry.path == Path::new("a");
        assert_eq!(tracker.judge(&entry) != Verdict::Unchanged, wanted);
        if wanted {
            tracker.note(&entry, None, true);
            assert!(tracker.is_as_noted(&entry));
        }
    }
    assert_eq!(look(&mut tracker, root.path()).0, paths(["a"]));
    assert_eq!(look(&mut tracker, root.path()).0, paths([]));
}

#[test]
fn on_tmpfs_everything_is_looked_at() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::write(root.path().join("a"), "a").unwrap();
    let mut tracker = Tracker::with_settling(SETTLING);
    for _ in 0..2 {
        settle();
        assert_eq!(look(&mut tracker, root.path()).0, paths(["", "a"]));
    }
}

#[test]
fn times_are_counted_back_over_the_second() {
    let time = |seconds, nanoseconds| Time { seconds, nanoseconds };
    assert_eq!(before(10, 5, Duration::from_nanos(6)), time(9, 999_999_999));
    assert_eq!(before(0, 0, Duration::from_secs(1)), time(-1, 0));
    assert_eq!(before(7, 9, Duration::ZERO), time(7, 9));
}

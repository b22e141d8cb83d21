//! A bundle that is not whole is refused, whatever is missing or changed.

use crate::ground::{bundle_of, preamble, verified, volume};
use bundle::{Digest, Error, Image, Preamble, Reader, Skip, Writer};
use std::fs;
use std::path::Path;

/// A bundle with a member of each sort, as small as may be.
fn small(dir: &Path) -> Vec<u8> {
    let (tree, file) = (dir.join("tree"), dir.join("b.tar"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content").unwrap();
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    let config = br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let image = Image::by_reference(config.to_vec(), vec!["a:1".into()]).unwrap();
    writer.image(&image).unwrap();
    let mut live = writer.layer(&tree, volume("data"), Skip::new()).unwrap();
    writer.last_look(&mut live).unwrap();
    writer.seal(live).unwrap();
    writer.container("one", b"{\"a\":1}").unwrap();
    writer.project(b"[]").unwrap();
    writer.finish().unwrap();
    fs::read(file).unwrap()
}

fn check(file: &Path) -> Result<(), Error> {
    let mut reader = Reader::open(file)?;
    reader.verify(&mut |_| true)
}

#[test]
fn a_file_that_is_cut_off_at_any_byte_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("b.tar")).unwrap();
    check(&dir.path().join("b.tar")).unwrap();
    for len in (0..whole.len() as u64).rev() {
        file.set_len(len).unwrap();
        let error = Reader::open(&dir.path().join("b.tar")).map(drop).unwrap_err();
        assert!(matches!(error, Error::NotBundle { .. }), "{len}: {error}");
    }
}

#[test]
fn a_change_of_any_byte_is_noticed() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let path = dir.path().join("b.tar");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in 0..whole.len() {
        for flip in [0x01, 0x80] {
            file.write_all_at(&[whole[at] ^ flip], at as u64).unwrap();
            let error = check(&path);
            assert!(error.is_err(), "byte {at} of {} was flipped and nobody noticed", whole.len());
        }
        file.write_all_at(&[whole[at]], at as u64).unwrap();
    }
    check(&path).unwrap();
}

#[test]
fn anything_behind_the_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut whole = small(dir.path());
    whole.extend([0; 512]);
    fs::write(dir.path().join("b.tar"), whole).unwrap();
    assert!(matches!(Reader::open(&dir.path().join("b.tar")), Err(Error::NotBundle { .. })));
}

#[test]
fn errors_say_which_member_is_damaged_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let mut whole = small(dir.path());
    let path = dir.path().join("b.tar");
    let reader = Reader::open(&path).unwrap();
    let volume = reader.members().iter().find(|member| member.path == "volumes/data/0.tar").unwrap().clone();
    whole[volume.offset as usize + 700] ^= 1;
    fs::write(&path, whole).unwrap();
    let error = check(&path).unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { member, offset, .. } if *member == volume.path && *offset == volume.offset)
    );
    assert!(error.to_string().contains("volumes/data/0.tar at byte"), "{error}");
}

#[test]
fn a_later_version_says_who_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let whole = small(dir.path());
    let at = whole.windows(11).position(|bytes| bytes == b"\"version\":1").unwrap();
    let mut later = whole;
    later[at + 10] = b'7';
    fs::write(dir.path().join("b.tar"), later).unwrap();
    let error = Reader::open(&dir.path().join("b.tar")).unwrap_err();
    assert!(matches!(&error, Error::Version { found: 7, by, .. } if by == "everhold 0.0.0"), "{error}");
}

#[test]
fn nothing_is_given_out_unverified() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let mut reader = Reader::open(&dir.path().join("b.tar")).unwrap();
    let refused = |error: Error| matches!(error, Error::Unverified { .. });
    assert!(refused(reader.documents().unwrap_err()));
    assert!(refused(reader.image_stream().map(drop).unwrap_err()));
    assert!(refused(reader.unpack_volume("data", dir.path(), &mut |_| true).unwrap_err()));
    assert!(refused(reader.blob(&Digest::of(b"")).unwrap_err()));
    reader.trust();
    reader.documents().unwrap();
}

#[test]
fn documents_come_out_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let reader = verified(&dir.path().join("b.tar"));
    let documents = reader.documents().unwrap();
    assert_eq!(documents.project.as_deref(), Some(&b"[]"[..]));
    assert_eq!(documents.containers.into_iter().collect::<Vec<_>>(), [("one".into(), b"{\"a\":1}".to_vec())]);
    assert_eq!(reader.preamble(), &Preamble { made: preamble().made, by: preamble().by });
    let mut names = Vec::new();
    let mut listing = std::process::Command::new("tar");
    listing.arg("-tf").arg(dir.path().join("b.tar"));
    names.extend(String::from_utf8(listing.output().unwrap().stdout).unwrap().lines().map(str::to_owned));
    assert_eq!(names.first().map(String::as_str), Some("everhold-bundle.json"));
    assert_eq!(names.last().map(String::as_str), Some("everhold-end"));
}

#[test]
fn names_that_are_no_names_of_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let file = dir.path().join("b.tar");
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    for name in ["../../etc", "a/b", &"x".repeat(300)] {
        let mut live = writer.layer(&tree, volume(name), Skip::new()).unwrap();
        writer.last_look(&mut live).unwrap();
        writer.seal(live).unwrap();
        writer.container(name, b"1").unwrap();
    }
    assert!(writer.container("a/b", b"1").is_err());
    assert!(writer.container("c", b"{").is_err());
    writer.finish().unwrap();
    let reader = verified(&file);
    let names: Vec<String> = reader.volumes().into_iter().map(|volume| volume.name).collect();
    assert_eq!(names, ["../../etc".into(), "a/b".into(), "x".repeat(300)]);
    assert_eq!(reader.documents().unwrap().containers.len(), 3);
    assert!(reader.members().iter().all(|member| !member.path.contains("..")));
    assert_eq!(bundle_of(&tree, &dir.path().join("other.tar")).volumes().len(), 1);
}

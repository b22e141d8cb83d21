//! Writers that are killed, run out of space, or meet each other.

use crate::ground::{Chance, Garden, assert_same, preamble, unpack, verified, volume};
use bundle::{Digest, Error, Image, Layer, Skip, Writer};
use linux::mounts;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Names the directory in which this program, started again by a test, writes a bundle and is killed.
const VICTIM: &str = "EVERHOLD_TEST_BUNDLE_VICTIM";

fn partial(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.partial", file.display()))
}

/// What `docker save` of an old engine would send: these layers, in the order of the archive.
pub fn saved(layers: &[Vec<u8>]) -> (Vec<u8>, Vec<Digest>) {
    let digests: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config =
        serde_json::json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": digests } }).to_string();
    let name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir(dir.path().join(format!("{number}id"))).unwrap();
        paths.push(format!("{number}id/layer.tar"));
        fs::write(dir.path().join(&paths[number]), layer).unwrap();
    }
    fs::write(dir.path().join(&name), &config).unwrap();
    let manifest = serde_json::json!([{ "Config": name, "RepoTags": ["a:1"], "Layers": paths }]);
    fs::write(dir.path().join("manifest.json"), manifest.to_string()).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "-cf", "-", "."]).current_dir(dir.path());
    (tar.output().unwrap().stdout, digests)
}

fn layers(seed: u64) -> Vec<Vec<u8>> {
    let mut chance = Chance::new(seed);
    (0..6).map(|number| chance.bytes(200_000 + 100_000 * number)).collect()
}

/// Not a test of its own: what is killed. Without the variable it does nothing.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM).map(PathBuf::from) else { return };
    let (archive, _) = saved(&layers(7));
    println!("begun");
    std::io::stdout().flush().unwrap();
    let mut writer = Writer::resume(&dir.join("b.tar"), &preamble()).unwrap();
    let images = writer.image_archive(&archive[..]).unwrap();
    writer.image(&images[0]).unwrap();
    let mut live = writer.layer(&dir.join("tree"), volume("data"), Skip::new()).unwrap();
    writer.last_look(&mut live).unwrap();
    writer.seal(live).unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_writer_that_is_killed_at_any_time_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    Garden::new(&dir.path().join("tree"), 5).grow(60);
    let file = dir.path().join("b.tar");
    let mut chance = Chance::new(99);
    let (mut left, mut kept) = (0, 0);
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["interrupted::victim", "--exact", "--nocapture"])
            .env(VICTIM, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // From the moment at which it begins to write.
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        while lines.next().is_some_and(|line| !line.unwrap().contains("begun")) {}
        std::thread::sleep(Duration::from_micros(chance.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        if file.exists() {
            verified(&file);
            fs::remove_file(&file).unwrap();
        }
        left += u32::from(partial(&file).exists());
        let writer = match Writer::create(&file, &preamble()) {
            Err(Error::Interrupted { .. }) => Writer::resume(&file, &preamble()).unwrap(),
            other => other.unwrap(),
        };
        let has = layers(7).iter().filter(|layer| writer.has_blob(&Digest::of(layer))).count();
        kept += has;
        // Half of the rounds begin where the one before was killed.
        if round % 2 == 0 { writer.abandon().unwrap() } else { drop(writer) }
    }
    assert!(left > 0 && kept > 0, "killed too early or too late each time: {left} {kept}");
    let mut writer = Writer::resume(&file, &preamble()).unwrap();
    let (archive, digests) = saved(&layers(7));
    let images = writer.image_archive(&archive[..]).unwrap();
    assert!(digests.iter().all(|digest| writer.has_blob(digest)));
    writer.image(&images[0]).unwrap();
    let mut live = writer.layer(&dir.path().join("tree"), volume("data"), Skip::new()).unwrap();
    writer.last_look(&mut live).unwrap();
    writer.seal(live).unwrap();
    writer.finish().unwrap();
    assert!(!partial(&file).exists());
    unpack(&verified(&file), "data", &dir.path().join("out"));
    assert_same(&dir.path().join("tree"), &dir.path().join("out"));
}

#[test]
fn a_partial_file_is_resumed_whatever_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.tar");
    let mut chance = Chance::new(1);
    let small: Vec<Vec<u8>> = [700, 512, 0].map(|size| chance.bytes(size)).to_vec();
    let (archive, digests) = saved(&small);
    let write = |writer: &mut Writer| {
        let images = writer.image_archive(&archive[..]).unwrap();
        writer.image(&images[0]).unwrap();
    };
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    write(&mut writer);
    let image = writer.kept_image(&writer_id(&archive)).unwrap().unwrap();
    assert_eq!(image.layers.iter().map(|layer: &Layer| layer.digest).collect::<Vec<_>>(), digests);
    drop(writer);
    let whole = fs::read(partial(&file)).unwrap();
    let mut most = 0;
    for len in 0..=whole.len() {
        fs::write(partial(&file), &whole[..len]).unwrap();
        let mut writer = Writer::resume(&file, &preamble()).unwrap();
        let has = digests.iter().filter(|digest| writer.has_blob(digest)).count();
        assert!(has >= most, "{len}");
        most = has;
        if len % 37 == 0 {
            write(&mut writer);
            writer.finish().unwrap();
            assert_eq!(verified(&file).members().len(), 2 + 3 + 2 + 2);
            fs::remove_file(&file).unwrap();
        }
    }
    assert_eq!(most, 3);
}

fn writer_id(archive: &[u8]) -> Digest {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&dir.path().join("b.tar"), &preamble()).unwrap();
    writer.image_archive(archive).unwrap()[0].id()
}

#[test]
fn what_is_damaged_in_a_partial_file_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.tar");
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    let (archive, digests) = saved(&layers(3));
    writer.image_archive(&archive[..]).unwrap();
    drop(writer);
    let mut bytes = fs::read(partial(&file)).unwrap();
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    fs::write(partial(&file), bytes).unwrap();
    let mut writer = Writer::resume(&file, &preamble()).unwrap();
    let has = digests.iter().filter(|digest| writer.has_blob(digest)).count();
    assert!(has > 0 && has < digests.len(), "{has}");
    writer.image_archive(&archive[..]).unwrap();
    writer.finish().unwrap();
    verified(&file);
}

#[test]
fn names_that_are_taken_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.tar");
    let writer = Writer::create(&file, &preamble()).unwrap();
    assert!(matches!(Writer::resume(&file, &preamble()), Err(Error::Busy { .. })));
    // Somebody else makes the file while the bundle is written.
    fs::write(&file, "mine").unwrap();
    assert!(matches!(writer.finish(), Err(Error::Exists { .. })));
    assert!(matches!(Writer::resume(&file, &preamble()), Err(Error::Exists { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    fs::remove_file(&file).unwrap();
    fs::write(partial(&file), "not a bundle").unwrap();
    assert!(matches!(Writer::resume(&file, &preamble()), Err(Error::Foreign { .. })));
    assert_eq!(fs::read(partial(&file)).unwrap(), b"not a bundle");
    fs::remove_file(partial(&file)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", partial(&file)).unwrap();
    assert!(Writer::create(&file, &preamble()).is_err());
}

/// A small file system that goes with the test.
struct Small(PathBuf);

impl Small {
    fn new(dir: &Path, mebibytes: u64) -> Self {
        let (image, at) = (dir.join("image"), dir.join("small"));
        fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        fs::create_dir(&at).unwrap();
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let done = Command::new(program).args(args).output().unwrap();
            assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
        };
        run("mkfs.ext4", &["-q".as_ref(), "-m".as_ref(), "0".as_ref(), image.as_os_str()]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), at.as_os_str()]);
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = mounts::unmount(&self.0).or_else(|_| mounts::unmount_lazy(&self.0)) {
            eprintln!("{error}");
        }
    }
}

#[test]
fn a_full_disk_keeps_what_is_there_for_the_next_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let small = Small::new(dir.path(), 16);
    let (file, tree) = (small.0.join("b.tar"), dir.path().join("tree"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("large"), Chance::new(1).bytes(20 << 20)).unwrap();
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    let (archive, digests) = saved(&layers(3));
    let image: Image = writer.image_archive(&archive[..]).unwrap().remove(0);
    let error = writer.layer(&tree, volume("data"), Skip::new()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(error.to_string().contains("kept for the next attempt"));
    assert!(matches!(writer.image(&image), Err(Error::Broken { .. })));
    drop(writer);
    let mut writer = Writer::resume(&file, &preamble()).unwrap();
    assert!(digests.iter().all(|digest| writer.has_blob(digest)));
    fs::remove_file(tree.join("large")).unwrap();
    let mut live = writer.layer(&tree, volume("data"), Skip::new()).unwrap();
    writer.last_look(&mut live).unwrap();
    writer.seal(live).unwrap();
    writer.image(&image).unwrap();
    writer.finish().unwrap();
    verified(&file);
}

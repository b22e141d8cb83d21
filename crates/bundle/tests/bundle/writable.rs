//! The writable layer of a container: what overlayfs keeps becomes layers that an engine puts on top of the image.

use crate::ground::{Garden, changed, preamble, snapshot, verified};
use bundle::{Error, LayerForm, Skip, Writer};
use linux::mounts::{self, MountFlags};
use proptest::prelude::*;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An overlay that is mounted at `merged`, and goes with the test.
struct Overlay {
    upper: PathBuf,
    merged: PathBuf,
}

impl Overlay {
    fn mount(dir: &Path, lower: &[PathBuf], name: &str) -> Self {
        let [upper, work, merged] =
            ["upper", "work", "merged"].map(|part| dir.join(format!("{name}-{part}")));
        for made in [&upper, &work, &merged] {
            fs::create_dir_all(made).unwrap();
        }
        let lower: Vec<&str> = lower.iter().map(|path| path.to_str().unwrap()).collect();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), upper.display(), work.display());
        mounts::mount(Path::new("overlay"), &merged, "overlay", MountFlags::empty(), &options).unwrap();
        Self { upper, merged }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Err(error) = mounts::unmount(&self.merged).or_else(|_| mounts::unmount_lazy(&self.merged)) {
            eprintln!("{error}");
        }
    }
}

/// Unpacks a layer as Docker does for overlay2: into a directory of its own, whiteouts becoming overlayfs's.
fn layer_directory(tar: &Path, dest: &Path) {
    // Whiteouts come late, and would change the times of directories.
    let marks = dest.with_extension("marks");
    for to in [dest, &marks] {
        fs::create_dir(to).unwrap();
        let mut unpack = Command::new("tar");
        unpack
            .args(["--delay-directory-restore", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
            .arg(tar)
            .arg("-C")
            .arg(to);
        if to == dest {
            let done = unpack.arg("--exclude=.wh.*").output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        } else {
            // There may be none, which it takes for a failure.
            unpack.args(["--wildcards", ".wh.*", "*/.wh.*"]).output().unwrap();
        }
    }
    for path in snapshot(&marks).keys() {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let Some(gone) = name.strip_prefix(b".wh.") else { continue };
        let full = dest.join(path);
        let parent = full.parent().unwrap();
        let before = fs::metadata(parent).unwrap();
        if name == b".wh..wh..opq" {
            use rustix::fs::XattrFlags;
            rustix::fs::setxattr(parent, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        } else if parent.join(OsStr::from_bytes(gone)).symlink_metadata().is_err() {
            use rustix::fs::{CWD, FileType, Mode};
            let whiteout = parent.join(OsStr::from_bytes(gone));
            rustix::fs::mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        let times = fs::FileTimes::new().set_modified(before.modified().unwrap());
        fs::File::open(parent).unwrap().set_times(times).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_container_is_the_same_on_top_of_its_image(seed in any::<u64>(), before in 0..60_u64, after in 0..40_u64) {
        let dir = tempfile::tempdir().unwrap();
        let (lower, file) = (dir.path().join("lower"), dir.path().join("b.tar"));
        let mut garden = Garden::new(&lower, seed);
        garden.plain = true;
        garden.grow(40);
        let container = Overlay::mount(dir.path(), std::slice::from_ref(&lower), "container");
        let mut garden = Garden::new(&container.merged, seed ^ 0x33);
        garden.plain = true;
        garden.grow(before);
        let mut writer = Writer::create(&file, &preamble()).unwrap();
        let mut live = writer.layer(&container.upper, LayerForm::Writable, Skip::new()).unwrap();
        garden.grow(after);
        writer.last_look(&mut live).unwrap();
        let layers = writer.seal(live).unwrap();
        writer.finish().unwrap();
        verified(&file);
        // The image's layers, the topmost first.
        let mut stack = vec![lower];
        for (number, layer) in layers.iter().enumerate() {
            let tar = dir.path().join(format!("{number}.tar"));
            let path = format!("blobs/sha256/{}", layer.digest.hex());
            let out = Command::new("tar").arg("-xOf").arg(&file).arg(path).output().unwrap();
            prop_assert_eq!(out.stdout.len() as u64, layer.size);
            fs::write(&tar, out.stdout).unwrap();
            let unpacked = dir.path().join(format!("layer-{number}"));
            layer_directory(&tar, &unpacked);
            stack.insert(0, unpacked);
        }
        let restored = Overlay::mount(dir.path(), &stack, "restored");
        let (mut there, mut here) = (snapshot(&container.merged), snapshot(&restored.merged));
        // The root is the business of the image.
        there.remove(Path::new(""));
        here.remove(Path::new(""));
        let found = changed(&there, &here);
        prop_assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn a_container_that_changed_nothing_has_no_layer() {
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let mut writer = Writer::create(&dir.path().join("b.tar"), &preamble()).unwrap();
    let mut live = writer.layer(&upper, LayerForm::Writable, Skip::new()).unwrap();
    writer.last_look(&mut live).unwrap();
    assert_eq!(writer.seal(live).unwrap(), []);
    writer.finish().unwrap();
}

#[test]
fn what_layers_of_images_cannot_say_is_an_error() {
    use rustix::fs::XattrFlags;
    for (name, attribute) in
        [("moved", "trusted.overlay.redirect"), ("meta", "trusted.overlay.metacopy"), (".wh.x", "")]
    {
        let dir = tempfile::tempdir().unwrap();
        let upper = dir.path().join("upper");
        fs::create_dir(&upper).unwrap();
        fs::write(upper.join(name), "").unwrap();
        if !attribute.is_empty() {
            rustix::fs::setxattr(upper.join(name), attribute, b"/elsewhere", XattrFlags::empty()).unwrap();
        }
        let mut writer = Writer::create(&dir.path().join("b.tar"), &preamble()).unwrap();
        let error = writer.layer(&upper, LayerForm::Writable, Skip::new()).map(drop).unwrap_err();
        assert!(matches!(&error, Error::Unrepresentable { path, .. } if path.ends_with(name)), "{error}");
        writer.abandon().unwrap();
    }
}

//! The checks. Each makes its own volumes and takes them away again.

use super::volume::{Volume, mounts_below, write_as};
use super::{Check, Fixture};
use crate::Driver;
use linux::Change;
use linux::Change::{AlreadyThere, Done};
use model::{ErrorKind, Owner, Size, Spec};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

macro_rules! checks {
    ($($name:ident),+ $(,)?) => {
        /// Every check, in the order in which a volume meets what they check.
        pub const CHECKS: &[Check] = &[$((stringify!($name), $name)),+];
    };
}

checks![
    a_new_volume_is_empty_with_its_owner_and_mode,
    create_again_keeps_what_is_there,
    create_finishes_what_was_interrupted,
    attach_before_create_is_refused,
    attach_twice_is_one_attachment,
    detach_twice_and_detach_of_nothing,
    data_survives_detach,
    a_readonly_volume_refuses_writes,
    grow_attached,
    grow_detached,
    the_size_is_a_limit,
    usage_follows_writes,
    observe_finds_nothing_wrong_with_a_sound_volume,
    a_lost_mount_is_healed_by_attach,
    lost_parts_are_noticed,
    destroy_twice_and_destroy_of_nothing,
    destroy_of_an_attached_volume_leaves_all_or_nothing,
    destroy_removes_what_an_interrupted_create_left,
    destroy_removes_what_is_left_of_a_damaged_volume,
    create_after_destroy_is_a_new_volume,
    volumes_do_not_see_each_other,
];

fn done_if(changed: bool) -> Change {
    if changed { Done } else { AlreadyThere }
}

/// Writes `text` as the volume's owner would find it.
fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name} in {}: {error}", dir.display()))
}

fn names_in(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What the driver has mounted; the root itself may be a mount of the test's.
fn mounted(fixture: &Fixture) -> Vec<PathBuf> {
    ["mnt", "pool"].iter().flat_map(|part| mounts_below(&fixture.root.join(part))).collect()
}

fn assert_owner(dir: &Path, owner: Owner) {
    let top = fs::symlink_metadata(dir).unwrap();
    assert!(top.is_dir(), "{} is a directory", dir.display());
    let seen = (top.uid(), top.gid(), format!("{:o}", top.mode() & 0o7777));
    assert_eq!(seen, (owner.uid, owner.gid, format!("{:o}", owner.mode.bits())), "owner, group and mode");
}

fn assert_new(volume: &Volume<'_>, fixture: &Fixture) {
    let path = volume.attach().path;
    if fixture.abilities.files {
        assert_eq!(names_in(&path), Vec::<PathBuf>::new(), "a new volume is empty");
        assert_owner(&path, volume.spec.owner);
    }
}

fn a_new_volume_is_empty_with_its_owner_and_mode(driver: &dyn Driver, fixture: &Fixture) {
    for (uid, gid, mode) in [(0, 0, "0755"), (1234, 4321, "2770"), (1234, 0, "1777"), (7, 8, "0000")] {
        let owner = Owner { uid, gid, mode: mode.parse().unwrap() };
        let volume = Volume::created(driver, fixture, Spec { owner, ..fixture.spec.clone() });
        assert_new(&volume, fixture);
        volume.end();
    }
}

fn create_again_keeps_what_is_there(driver: &dyn Driver, fixture: &Fixture) {
    let volume = Volume::created(driver, fixture, fixture.spec.clone());
    volume.create();
    let path = volume.attach().path;
    if fixture.abilities.files {
        write(&path, "kept", "yes");
    }
    volume.create();
    volume.detach();
    volume.create();
    let path = volume.attach().path;
    if fixture.abilities.files {
        assert_eq!(read(&path, "kept"), "yes");
    }
    volume.end();
}

fn create_finishes_what_was_interrupted(driver: &dyn Driver, fixture: &Fixture) {
    for interruption in &fixture.interruptions {
        let volume = Volume::nothing(driver, fixture, fixture.spec.clone());
        (interruption.leave)(&volume.place());
        driver
            .create(&volume.place())
            .unwrap_or_else(|error| panic!("create after {}: {error}", interruption.name));
        let made = driver.observe(&volume.place());
        assert_eq!(made.problems, [], "after {}", interruption.name);
        if fixture.abilities.attaches {
            assert_eq!(made.path, None, "created, not attached, after {}", interruption.name);
        }
        // Twice: what is attached the first time must be what was made, not what was left.
        for _ in 0..2 {
            assert_new(&volume, fixture);
            volume.detach();
        }
        volume.end();
    }
}

fn attach_before_create_is_refused(driver: &dyn Driver, fixture: &Fixture) {
    if !fixture.abilities.kept_in_home {
        return;
    }
    let volume = Volume::nothing(driver, fixture, fixture.spec.clone());
    let error = driver.attach(&volume.place()).expect_err("there is nothing to attach");
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(mounts_below(&volume.mountpoint), Vec::<PathBuf>::new());
    volume.end();
}

fn attach_twice_is_one_attachment(driver: &dyn Driver, fixture: &Fixture) {
    let volume = Volume::created(driver, fixture, fixture.spec.clone());
    let first = volume.attach();
    let mounts = mounted(fixture);
    let second = volume.attach();
    assert_eq!((first.change, second.change), (done_if(fixture.abilities.attaches), AlreadyThere));
    assert_eq!(first.path, second.path);
    assert_eq!(mounted(fixture), mounts, "the second attach mounts nothing");
    volume.end();
}

fn detach_twice_and_detach_of_nothing(driver: &dyn Driver, fixture: &Fixture) {
    let volume = Volume::nothing(driver, fixture, fixture.spec.clone());
    assert_eq!(volume.detach(), AlreadyThere, "not created");
    volume.create();
    assert_eq!(volume.detach(), AlreadyThere, "never attached");
    volume.attach();
    let undoes = fixture.abilities.attaches && fixture.abilities.detaches;
    assert_eq!((volume.detach(), volume.detach()), (done_if(undoes), AlreadyThere));
    assert_eq!(volume.attach().change, done_if(undoes), "attach after detach");
    volume.end();
}

fn data_survives_detach(driver: &dyn Driver, fixture: &Fixture) {
    if !fixture.abilities.files {
        return;
    }
    let volume = Volume::created(driver, fixture, fixture.spec.clone());
    let path = volume.attach().path;
    write(&path, "kept", "yes");
    // The application owns the top directory too: what it changes there is as much its data.
    std::os::unix::fs::chown(&path, Some(99), Some(98)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o3711)).unwrap();
    volume.detach();
    let path = volume.attach().path;
    assert_eq!(read(&path, "kept"), "yes");
    assert_owner(&path, Owner { uid: 99, gid: 98, mode: "3711".parse().unwrap() });
    volume.end();
}

fn a_readonly_volume_refuses_writes(driver: &dyn Driver, fixture: &Fixture) {
    let volume = Volume::created(driver, fixture, Spec { readonly: true, ..fixture.spec.clone() });
    let first = volume.attach();
    let second = volume.attach();
    assert_eq!((second.path.as_path(), second.change), (first.path.as_path(), AlreadyThere));
    if fixture.abilities.files {
        let error = fs::write(first.path.join("new"), "x").expect_err("it is read-only");
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{error}");
        assert_eq!(names_in(&first.path), Vec::<PathBuf>::new());
    }
    let undone = volume.detach();
    assert_eq!(undone, done_if(fixture.abilities.detaches), "a read-only volume is always a mount");
    assert_eq!(volume.detach(), AlreadyThere);
    volume.end();
}

fn grow_attached(driver: &dyn Driver, fixture: &Fixture) {
    let Some(to) = fixture.abilities.grows_to else { return };
    let mut volume = Volume::created(driver, fixture, fixture.spec.clone());
    let path = volume.attach().path;
    if fixture.abilities.files {
        write(&path, "kept", "yes");
    }
    let before = driver.usage(&volume.place()).expect("usage").size;
    if !fixture.abilities.grows_here {
        let error = driver.grow(&volume.place(), to).expect_err("it can't grow here");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(driver.usage(&volume.place()).expect("usage").size, before, "refused, and unchanged");
        assert_eq!(driver.observe(&volume.place()).problems, []);
        if fixture.abilities.files {
            write(&path, "more", "yes");
        }
        volume.detach();
        assert_eq!(volume.attach().change, Done);
        volume.end();
        return;
    }
    assert_eq!(driver.grow(&volume.place(), to).expect("grow"), Done);
    // As after a crash: the volume has grown and nobody has recorded it.
    assert_eq!(driver.grow(&volume.place(), to).expect("grow"), AlreadyThere, "not recorded");
    assert_eq!(volume.grow(to), AlreadyThere);
    assert_eq!(volume.grow(to), AlreadyThere, "recorded");
    let after = driver.usage(&volume.place()).expect("usage").size;
    assert!(after > before, "usable size {before:?} has grown to {after:?}");
    assert_eq!(volume.attach().change, AlreadyThere, "it was attached all the time");
    if fixture.abilities.files {
        assert_eq!(read(&path, "kept"), "yes");
        write(&path, "more", "yes");
    }
    volume.end();
}

fn grow_detached(driver: &dyn Driver, fixture: &Fixture) {
    let Some(to) = fixture.abilities.grows_to.filter(|_| fixture.abilities.grows_here) else { return };
    let mut volume = Volume::created(driver, fixture, fixture.spec.clone());
    let path = volume.attach().path;
    if fixture.abilities.files {
        write(&path, "kept", "yes");
    }
    let before = driver.usage(&volume.place()).expect("usage").size;
    volume.detach();
    let mounts = mounted(fixture);
    volume.grow(to);
    assert_eq!(volume.grow(to), AlreadyThere);
    assert_eq!(mounted(fixture), mounts, "growing attaches nothing");
    let path = volume.attach().path;
    let after = driver.usage(&volume.place()).expect("usage").size;
    assert!(after > before, "usable size {before:?} has grown to {after:?}");
    if fixture.abilities.files {
        assert_eq!(read(&path, "kept"), "yes");
    }
    volume.end();

    let mut never = Volume::created(driver, fixture, fixture.spec.clone());
    never.grow(to);
    never.attach();
    let after = driver.usage(&never.place()).expect("usage").size;
    assert!(after > before, "usable size {before:?} has grown to {after:?} before the first attach");
    never.end();
}

/// Fills the volume as its owner, checks that it held at least half and at most all of `size`, and deletes the file.
fn fill_and_free(volume: &Volume<'_>, path: &Path, size: Size) -> u64 {
    let owner = volume.spec.owner;
    let file = path.join("fill");
    let mib = size.bytes() / (1 << 20);
    let full = write_as(owner.uid, owner.gid, &file, mib + 8);
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(!full.status.success(), "{} MiB went into a volume of {size}", mib + 8);
    assert!(said.contains("No space left on device") || said.contains("quota exceeded"), "{said:?}");
    let held = fs::metadata(&file).unwrap().len();
    assert!(held >= size.bytes() / 2 && held <= size.bytes(), "{held} bytes went into a volume of {size}");
    fs::remove_file(&file).unwrap();
    let again = write_as(owner.uid, owner.gid, &file, 1);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success(), "it works again once there is room: {said}");
    fs::remove_file(&file).unwrap();
    held
}

fn the_size_is_a_limit(driver: &dyn Driver, fixture: &Fixture) {
    if !fixture.abilities.limit {
        return;
    }
    let mut volume = Volume::created(driver, fixture, fixture.spec.clone());
    let path = volume.attach().path;
    let size = volume.spec.size().expect("a limit is a size");
    let held = fill_and_free(&volume, &path, size);
    if let Some(to) = fixture.abilities.grows_to {
        if !fixture.abilities.grows_here {
            return volume.end();
        }
        volume.grow(to);
        volume.attach();
        let more = fill_and_free(&volume, &path, to);
        assert!(more > held, "growing makes room: {held} bytes before, {more} after");
    }
    volume.end();
}

fn usage_follows_writes(driver: &dyn Driver, fixture: &Fixture) {
    if !fixture.abilities.files {
        return;
    }
    let volume = Volume::created(driver, fixture, fixture.spec.clone());
    let path = volume.attach().path;
    let before = driver.usage(&volume.place()).expect("usage");
    let owner = volume.spec.owner;
    assert!(write_as(owner.uid, owner.gid, &path.join("file"), 4).status.success());
    let after = driver.usage(&volume.place()).expect("usage");
    assert_eq!(before.size, after.size);
    assert_eq!(before.used.is_some(), after.used.is_some());
    if let (Some(before), Some(after)) = (before.used, after.used) {
        // XFS takes deleted files off a project in the background: the last check's may still have been on it before.
        let least = if fixture.project.is_some() { 4 << 20 } else { before + (4 << 20) };
        assert!(after >= least && after < before + (5 << 20), "4 MiB: {before} to {after}");
    }
    if let (Some(used), Some(size)) = (after.used, after.size) {
        assert!(used <= size, "{used} of {size}");
        assert!(size <= volume.spec.size().expect("usage has a size").bytes(), "no more than was asked for");
    }
    volume.end();
}

fn observe_finds_nothing_wrong_with_a_sound_volume(driver: &dyn Driver, fixture: &Fixture) {
    let volume = Volume::created(driver, fixture, fixture.spec.clone());
    let made = driver.observe(&volume.place());
    assert_eq!(made.problems, [], "created");
    if fixture.abilities.attaches {
        assert_eq!(made.path, None, "not attached yet");
    }
    let path = volume.attach().path;
    let attached = driver.observe(&volume.place());
    assert_eq!((attached.problems, attached.path), (vec![], Some(path)), "attached");
    volume.detach();
    let detached = driver.observe(&volume.place());
    assert_eq!(detached.problems, [], "detached");
    if fixture.abilities.attaches && fixture.abilities.detaches {
        assert_eq!((detached.path, detached.device), (None, None), "not attached any more");
    }
    volume.end();
}

fn a_lost_mount_is_healed_by_attach(driver: &dyn Driver, fixture: &Fixture) {
    for readonly in [false, true] {
        let volume = Volume::created(driver, fixture, Spec { readonly, ..fixture.spec.clone() });
        let first = volume.attach();
        let mounts = mounted(fixture);
        if mounts.is_empty() {
            volume.end();
            continue;
        }
        let writable = fixture.abilities.files && !readonly;
        if writable {
            write(&first.path, "kept", "yes");
        }
        for point in &mounts {
            linux::mounts::unmount(point).expect("unmounted behind the driver's back");
        }
        assert_eq!(mounted(fixture), Vec::<PathBuf>::new());
        let again = volume.attach();
        assert_eq!((again.path, again.change), (first.path.clone(), Done), "it was not there any more");
        assert_eq!(mounted(fixture), mounts);
        if writable && fixture.abilities.kept_in_home {
            assert_eq!(read(&first.path, "kept"), "yes");
        }
        assert_eq!(driver.observe(&volume.place()).problems, []);
        volume.end();
    }
}

fn lost_parts_are_noticed(driver: &dyn Driver, fixture: &Fixture) {
    if !fixture.abilities.kept_in_home {
        return;
    }
    let volume = Volume::created(driver, fixture, fixture.spec.clone());
    volume.delete_parts();
    let seen = driver.observe(&volume.place());
    assert!(!seen.problems.is_empty(), "deleted while detached, and observe found nothing wrong");
    let error = driver.attach(&volume.place()).expect_err("its parts are deleted");
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(!error.next_step().is_empty());
    volume.end();

    let volume = Volume::created(driver, fixture, fixture.spec.clone());
    volume.attach();
    volume.delete_parts();
    let seen = driver.observe(&volume.place());
    assert!(!seen.problems.is_empty(), "deleted while attached, and observe found nothing wrong");
    volume.end();
}

fn destroy_twice_and_destroy_of_nothing(driver: &dyn Driver, fixture: &Fixture) {
    let volume = Volume::nothing(driver, fixture, fixture.spec.clone());
    assert_eq!(volume.destroy(), AlreadyThere, "nothing was there");
    volume.create();
    let path = volume.attach().path;
    if fixture.abilities.files {
        fs::create_dir_all(path.join("a/b/c")).unwrap();
        write(&path, "a/b/file", "x");
        std::os::unix::fs::symlink("/", path.join("a/root")).unwrap();
    }
    volume.detach();
    let change = volume.destroy();
    assert_eq!(change, done_if(fixture.abilities.kept_in_home || fixture.abilities.attaches));
    volume.assert_gone();
    assert_eq!(volume.destroy(), AlreadyThere);
    volume.end();
}

fn destroy_of_an_attached_volume_leaves_all_or_nothing(driver: &dyn Driver, fixture: &Fixture) {
    let volume = Volume::created(driver, fixture, fixture.spec.clone());
    let path = volume.attach().path;
    if fixture.abilities.files {
        write(&path, "kept", "yes");
    }
    match driver.destroy(&volume.place()) {
        Ok(_) => volume.assert_gone(),
        Err(_) if fixture.abilities.files => assert_eq!(read(&path, "kept"), "yes"),
        Err(_) => {}
    }
    volume.end();
}

fn destroy_removes_what_an_interrupted_create_left(driver: &dyn Driver, fixture: &Fixture) {
    for interruption in &fixture.interruptions {
        let volume = Volume::nothing(driver, fixture, fixture.spec.clone());
        (interruption.leave)(&volume.place());
        let change = driver
            .destroy(&volume.place())
            .unwrap_or_else(|error| panic!("destroy after {}: {error}", interruption.name));
        assert_eq!(change, Done, "{}", interruption.name);
        volume.assert_gone();
        volume.end();
    }
}

fn destroy_removes_what_is_left_of_a_damaged_volume(driver: &dyn Driver, fixture: &Fixture) {
    let parts = {
        let whole = Volume::created(driver, fixture, fixture.spec.clone());
        let parts = whole.parts().len();
        whole.end();
        parts
    };
    for lost in 0..parts {
        let volume = Volume::created(driver, fixture, fixture.spec.clone());
        let part = &volume.parts()[lost];
        if part.is_dir() {
            fs::remove_dir_all(part).unwrap();
        } else {
            fs::File::options().write(true).open(part).and_then(|file| file.set_len(0)).unwrap();
        }
        volume.detach();
        volume.destroy();
        volume.assert_gone();
        volume.end();
    }
}

fn create_after_destroy_is_a_new_volume(driver: &dyn Driver, fixture: &Fixture) {
    let volume = Volume::created(driver, fixture, fixture.spec.clone());
    let path = volume.attach().path;
    if fixture.abilities.files {
        write(&path, "old", "x");
    }
    volume.detach();
    volume.destroy();
    volume.create();
    assert_new(&volume, fixture);
    volume.end();
}

fn volumes_do_not_see_each_other(driver: &dyn Driver, fixture: &Fixture) {
    let one = Volume::created(driver, fixture, fixture.spec.clone());
    let other = Volume::created(driver, fixture, fixture.spec.clone());
    let (path, other_path) = (one.attach().path, other.attach().path);
    assert_ne!(path, other_path);
    if fixture.abilities.files {
        write(&path, "mine", "x");
        assert_eq!(names_in(&other_path), Vec::<PathBuf>::new());
    }
    other.end();
    if fixture.abilities.files {
        assert_eq!(read(&path, "mine"), "x", "the other's end is not mine");
    }
    one.end();
}

//! The user that a container would run as, by its configuration and the two files that name its users: `/etc/passwd` and
//! `/etc/group`, as engines read them.

use crate::container::Container;
use crate::files::Layers;
use std::io::Read;
use std::path::Path;

/// More of these files is not read.
const MOST: u64 = 1 << 20;

/// Its number, and those of its groups. `None` where that is not known.
pub(super) fn of(container: &Container, layers: &Layers) -> Option<(u32, Vec<u32>)> {
    let user = container.document()["Config"]["User"].as_str().filter(|user| !user.is_empty())?;
    let added: Vec<&str> = container.texts("/HostConfig/GroupAdd").collect();
    resolve(user, &added, &read(layers, "etc/passwd")?, &read(layers, "etc/group")?)
}

/// The rules of engines: numbers need not be in the files, and only a user without a group has the groups that name it.
fn resolve(user: &str, added: &[&str], passwd: &str, group: &str) -> Option<(u32, Vec<u32>)> {
    let (user, own) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let number: Option<u32> = user.parse().ok();
    let is_it = |fields: &Vec<&str>| match number {
        Some(number) => field(fields, 2) == Some(number),
        None => fields[0] == user,
    };
    let known = lines(passwd).find(is_it);
    let uid = number.or_else(|| field(known.as_ref()?, 2))?;
    let gid_of = |name: &str| -> Option<u32> {
        let listed = || lines(group).find(|fields| fields[0] == name).and_then(|fields| field(&fields, 2));
        name.parse().ok().or_else(listed)
    };
    let mut gids = match (own, &known) {
        (Some(own), _) => vec![gid_of(own)?],
        (None, Some(known)) => {
            let name = known[0];
            let has = |fields: &Vec<&str>| {
                fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
            };
            let mut gids = vec![field(known, 3)?];
            gids.extend(lines(group).filter(has).filter_map(|fields| field(&fields, 2)));
            gids
        }
        (None, None) => vec![0],
    };
    for name in added {
        gids.push(gid_of(name)?);
    }
    Some((uid, gids))
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn field(fields: &[&str], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok()
}

/// A small file, empty where there is none. Names in layers are the container's: `None` for a symbolic link, or what is no file.
fn read(layers: &Layers, path: &str) -> Option<String> {
    let mut all = [&layers.upper].into_iter().chain(&layers.lower);
    let found = all.find_map(|layer| Some((layer, layer.join(path).symlink_metadata().ok()?)));
    let Some((layer, metadata)) = found else { return Some(String::new()) };
    let text = metadata.is_file().then(|| read_in(layer, path).ok()).flatten()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn read_in(layer: &Path, path: &str) -> std::io::Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(layer, flags, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?;
    let mut text = Vec::new();
    std::fs::File::from(file).take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:998::/var/lib/postgresql:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\npostgres:x:998:\nssl:x:101:other,postgres\nempty:x:7\n";

    #[test]
    fn users_are_resolved_as_engines_do() {
        let resolved = |user: &str, added: &[&str]| resolve(user, added, PASSWD, GROUP);
        assert_eq!(resolved("postgres", &[]), Some((999, vec![998, 101])));
        assert_eq!(resolved("999", &[]), Some((999, vec![998, 101])));
        assert_eq!(resolved("postgres:ssl", &[]), Some((999, vec![101])));
        assert_eq!(resolved("postgres:5", &["empty", "44"]), Some((999, vec![5, 7, 44])));
        // A number that nobody has is in the group of root.
        assert_eq!(resolved("1000", &[]), Some((1000, vec![0])));
        assert_eq!(resolved("1000:1000", &[]), Some((1000, vec![1000])));
        assert_eq!(resolved("nobody", &[]), None);
        assert_eq!(resolved("1000:nobody", &[]), None);
        assert_eq!(resolved("broken", &[]), None);
    }

    #[test]
    fn the_uppermost_file_counts_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.join("etc")).unwrap();
            path
        };
        let (upper, lower) = (layer("upper"), layer("lower"));
        std::fs::write(lower.join("etc/passwd"), "below").unwrap();
        let container = Container::from_document(serde_json::json!({ "GraphDriver": {
            "Name": "overlay2", "Data": { "UpperDir": upper, "LowerDir": lower, "MergedDir": upper },
        } }));
        let layers = Layers::of(&container).unwrap();
        assert_eq!(read(&layers, "etc/passwd").as_deref(), Some("below"));
        std::os::unix::fs::symlink(lower.join("etc/passwd"), upper.join("etc/passwd")).unwrap();
        assert_eq!(read(&layers, "etc/passwd"), None);
        assert_eq!(read(&layers, "etc/group").as_deref(), Some(""));
    }
}

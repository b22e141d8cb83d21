//! What the tar files written so far say when they are unpacked one over the other, and where in the bundle they say it.

use crate::tar::Meta;
use crate::tar::sparse::Extent;
use std::collections::BTreeMap;
use std::sync::Arc;
use tree::marks::Marks;

/// All names.
#[derive(Default)]
pub(super) struct Model {
    /// By path; the root's is empty.
    names: BTreeMap<Vec<u8>, Name>,
    /// What the names lead to. Grows only: what no name leads to any more stays.
    objects: Vec<Object>,
    /// How many looks there were.
    pub looks: u32,
}

/// One name.
#[derive(Clone)]
pub(super) struct Name {
    pub what: What,
    /// The look in which it was last seen.
    pub seen: u32,
}

/// What a name is.
#[derive(Clone)]
pub(super) enum What {
    /// The first name of an object, which the object's own entry has.
    First(usize),
    /// Another one: an entry of its own that links.
    Link(usize, Head),
    /// It says that what is below in other layers is gone; only in image layers.
    Whiteout,
}

impl What {
    pub fn object(&self) -> Option<usize> {
        match self {
            Self::First(object) | Self::Link(object, _) => Some(*object),
            Self::Whiteout => None,
        }
    }
}

/// An entry's header as it is written.
#[derive(Clone)]
pub(super) struct Head {
    pub member: usize,
    /// Where it begins in the file, with its extended header.
    pub at: u64,
    pub len: u64,
    pub meta: Meta,
}

/// A file, directory, … with its own entry.
pub(super) struct Object {
    pub inode: (u64, u64),
    pub head: Head,
    /// Whether what lower layers have in this directory is hidden; only in image layers.
    pub opaque: bool,
    /// Where the data begins in the file.
    pub data: u64,
    /// Which parts of the file the data is.
    pub extents: Vec<Extent>,
    /// How much the data may grow in place: the size of the data and what follows it as filler, in whole blocks. 0: not at all.
    pub room: u64,
    pub marks: Arc<Marks>,
}

impl Model {
    pub fn get(&self, path: &[u8]) -> Option<&Name> {
        self.names.get(path)
    }

    /// Notes that a name was seen.
    pub fn see(&mut self, path: &[u8], look: u32) {
        if let Some(name) = self.names.get_mut(path) {
            name.seen = look;
        }
    }

    pub fn insert(&mut self, path: &[u8], what: What, look: u32) {
        self.names.insert(path.to_vec(), Name { what, seen: look });
    }

    pub fn add(&mut self, object: Object) -> usize {
        self.objects.push(object);
        self.objects.len() - 1
    }

    pub fn object(&self, at: usize) -> &Object {
        &self.objects[at]
    }

    pub fn object_mut(&mut self, at: usize) -> &mut Object {
        &mut self.objects[at]
    }

    /// The header of a name that is a link.
    pub fn link_mut(&mut self, path: &[u8]) -> Option<&mut Head> {
        match &mut self.names.get_mut(path)?.what {
            What::Link(_, head) => Some(head),
            _ => None,
        }
    }

    /// Whether the name is a directory.
    pub fn is_directory(&self, path: &[u8]) -> bool {
        let object = self.names.get(path).and_then(|name| name.what.object());
        object.is_some_and(|object| self.objects[object].head.meta.kind == crate::tar::Kind::Directory)
    }

    /// Takes out all that is below a name other than the root's, and the name itself if `itself`.
    pub fn remove(&mut self, path: &[u8], itself: bool) {
        if itself {
            self.names.remove(path);
        }
        let below = [path, b"/"].concat();
        let inside = self.names.range(below.clone()..).map(|(name, _)| name);
        let gone: Vec<Vec<u8>> = inside.take_while(|name| name.starts_with(&below)).cloned().collect();
        for name in gone {
            self.names.remove(&name);
        }
    }

    /// The names that were not seen in a look, without those below others of them.
    pub fn gone(&self, look: u32) -> Vec<Vec<u8>> {
        let mut gone: Vec<Vec<u8>> = Vec::new();
        let unseen = |name: &&Name| name.seen != look && !matches!(name.what, What::Whiteout);
        // In the order of bytes a name that begins like another may stand between that and what is below it.
        let mut paths: Vec<&Vec<u8>> =
            self.names.iter().filter(|(_, name)| unseen(name)).map(|(path, _)| path).collect();
        paths.sort_by(|one, other| one.split(|byte| *byte == b'/').cmp(other.split(|byte| *byte == b'/')));
        for path in paths {
            let below = gone
                .last()
                .is_some_and(|last| path.strip_prefix(&last[..]).is_some_and(|rest| rest.starts_with(b"/")));
            if !below {
                gone.push(path.clone());
            }
        }
        gone
    }
}

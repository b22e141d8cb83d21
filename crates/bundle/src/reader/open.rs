//! Whether a file is a bundle at all, and whether its table of contents tells the truth about where everything is.

use super::Reader;
use crate::contents::{self, Contents, Member, Role};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::frame::{self, END_SIZE, End, Preamble, PreambleDocument};
use crate::tar::header::{Block, Header};
use crate::tar::{BLOCK, BLOCK64};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The most that a table of contents may have: more than a million members. It is read into memory.
const CONTENTS_MAX: u64 = 512 << 20;

/// What every version's table of contents has.
#[derive(Deserialize)]
struct Version {
    format: String,
    version: u64,
}

/// A file that may be a bundle.
struct Candidate<'a> {
    file: &'a File,
    path: &'a Path,
    size: u64,
}

impl Reader {
    /// Opens a bundle: checks its end, its table of contents, and that what this says tiles the file. Reads no content.
    ///
    /// # Errors
    /// It can't be read, is no bundle or was cut off, was written by a later version, or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("could not open", path))?;
        let size = file.metadata().map_err(Error::io("could not look at", path))?.len();
        let candidate = Candidate { file: &file, path, size };
        candidate.beginning()?;
        let end = candidate.end()?;
        let contents = candidate.contents(end)?;
        candidate.tiles(&contents, end)?;
        roles(&contents).map_err(|(member, what)| candidate.damaged(&member.path, member.offset, what))?;
        let preamble = candidate.preamble(contents.members.first())?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), size, preamble, contents, verified: false })
    }
}

impl Candidate<'_> {
    fn damaged(&self, member: &str, offset: u64, what: impl Into<String>) -> Error {
        let (path, member, what) = (self.path.to_owned(), member.to_owned(), what.into());
        Error::Damaged { path, member, offset, what }
    }

    fn not_a_bundle(&self, why: &str) -> Error {
        Error::NotBundle { path: self.path.to_owned(), why: why.to_owned() }
    }

    fn read(&self, offset: u64, size: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, offset).map_err(Error::io("could not read", self.path))?;
        Ok(bytes)
    }

    /// The preamble's name and version: before anything else, since a later version may have another end.
    fn beginning(&self) -> Result<()> {
        if self.size < BLOCK64 + frame::PREAMBLE_SIZE {
            return Err(self.not_a_bundle("it is too short"));
        }
        let block: Block = self.read(0, BLOCK64)?.try_into().unwrap_or([0; BLOCK]);
        let header = Header::parse(&block).filter(|header| header.path() == frame::PREAMBLE.as_bytes());
        let Some(header) = header else {
            return Err(self.not_a_bundle("it does not begin like one"));
        };
        let bytes = self.read(BLOCK64, header.size.min(frame::PREAMBLE_SIZE))?;
        let version = serde_json::from_slice::<Version>(&bytes);
        let version = version.map_err(|_| self.damaged(frame::PREAMBLE, BLOCK64, "it can't be read"))?;
        if version.format != frame::FORMAT {
            return Err(self.not_a_bundle("it says that it is something else"));
        }
        if version.version > crate::VERSION {
            let by = serde_json::from_slice::<PreambleDocument>(&bytes)
                .map_or_else(|_| "unknown".into(), |it| it.by);
            return Err(Error::Version { path: self.path.to_owned(), found: version.version, by });
        }
        Ok(())
    }

    fn end(&self) -> Result<End> {
        let offset = self.size.saturating_sub(END_SIZE);
        let end = End::parse(&self.read(offset, END_SIZE.min(self.size))?);
        end.ok_or_else(|| self.not_a_bundle("its end is missing or damaged, as when a copy was cut off"))
    }

    fn contents(&self, end: End) -> Result<Contents> {
        let at = end.offset;
        let bad = |what: &str| self.damaged(frame::CONTENTS, at, what);
        // The numbers are hashed, but with nothing secret: whoever made the file may have written any.
        let fits = at >= BLOCK64
            && end.size <= CONTENTS_MAX
            && at.checked_add(end.size).is_some_and(|_| {
                frame::after(at, end.size).checked_add(END_SIZE).is_some_and(|size| size == self.size)
            });
        if !fits {
            return Err(bad("it is not where the end says"));
        }
        if self.read(at - BLOCK64, BLOCK64)? != frame::header(frame::CONTENTS, end.size, end.mtime) {
            return Err(bad("its header is not as it was written"));
        }
        let mut bytes = self.read(at, frame::after(at, end.size) - at)?;
        let filler = bytes.split_off(end.size as usize);
        if blake3::hash(&bytes) != end.blake3 || filler.iter().any(|byte| *byte != 0) {
            return Err(bad("it is not as it was written"));
        }
        let version: Version = serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
        if version.format != contents::FORMAT || version.version != crate::VERSION {
            return Err(bad("it is not a table of contents of this version"));
        }
        serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))
    }

    /// Whether the members follow each other without a gap from the beginning to the table of contents, each with its header.
    fn tiles(&self, contents: &Contents, end: End) -> Result<()> {
        let mut at = 0_u64;
        for member in &contents.members {
            let bad = |what: &str| self.damaged(&member.path, at, what);
            // The size is bounded first, so that no sum can overflow.
            if member.size > self.size || member.offset != at + BLOCK64 || member.offset > self.size {
                return Err(bad("the table of contents has it elsewhere"));
            }
            if frame::after(member.offset, member.size) > end.offset - BLOCK64 {
                return Err(bad("it is larger than the place for it"));
            }
            if self.read(at, BLOCK64)? != frame::header(&member.path, member.size, end.mtime) {
                return Err(bad("its header is not as it was written"));
            }
            at = frame::after(member.offset, member.size);
        }
        if at + BLOCK64 != end.offset {
            return Err(self.damaged("the place after the last member", at, "there is a gap"));
        }
        Ok(())
    }

    fn preamble(&self, first: Option<&Member>) -> Result<Preamble> {
        let bad = |what: &str| self.damaged(frame::PREAMBLE, BLOCK64, what);
        let first = first.filter(|first| first.path == frame::PREAMBLE && first.role == Role::Preamble);
        let first = first.ok_or_else(|| bad("it is not the first member"))?;
        let bytes = self.read(first.offset, first.size.min(frame::PREAMBLE_SIZE))?;
        if blake3::hash(&bytes).to_hex().as_str() != first.blake3 {
            return Err(bad("it is not as it was written"));
        }
        let document: PreambleDocument =
            serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
        Ok(Preamble { made: document.made, by: document.by })
    }
}

/// Whether each member's path and role fit together, no path is there twice, and no volume lacks a layer.
fn roles(contents: &Contents) -> std::result::Result<(), (&Member, String)> {
    let mut paths = BTreeSet::new();
    let mut layers: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for member in &contents.members {
        let path = member.path.as_str();
        let blob = path.strip_prefix(frame::BLOBS).is_some_and(|hex| Digest::from_hex(hex).is_some());
        let fits = match &member.role {
            Role::Preamble => path == frame::PREAMBLE,
            Role::Image => blob || [frame::OCI_LAYOUT, frame::INDEX, frame::MANIFEST].contains(&path),
            Role::Volume { name, layer } => {
                layers.entry(name).or_default().insert(*layer);
                path == volume_path(name, *layer)
            }
            Role::Container { name } => {
                names.insert(name) && path == format!("containers/{}.json", frame::safe(name))
            }
            Role::Project => path == frame::PROJECT,
            Role::Unused => blob || path.strip_prefix("unused/").is_some_and(|at| at.parse::<u64>().is_ok()),
        };
        if !fits {
            return Err((member, "its name and what it is said to be for do not fit together".into()));
        }
        if !paths.insert(path) {
            return Err((member, "it is there twice".into()));
        }
    }
    for (name, layers) in layers {
        if !layers.iter().copied().eq(0..layers.len() as u32) {
            let first = contents
                .members
                .iter()
                .find(|member| matches!(&member.role, Role::Volume { name: of, .. } if of == name));
            if let Some(first) = first {
                return Err((first, "one of the volume's tar files is missing".into()));
            }
        }
    }
    Ok(())
}

/// The path of a volume's tar file.
pub(crate) fn volume_path(name: &str, layer: u32) -> String {
    format!("volumes/{}/{layer}.tar", frame::safe(name))
}

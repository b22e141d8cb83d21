//! Reading a bundle: first whether it is one, whole, and then what is in it.

mod images;
mod open;
mod place;
mod unpack;
mod verify;

use crate::contents::{Contents, Member, Role};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::frame::Preamble;
use crate::tar::read::Archive;
pub use images::ImageStream;
pub(crate) use open::volume_path;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A bundle whose beginning, end and table of contents are sound.
///
/// Nothing of its content is given out before [`Reader::verify`] has read all of it, or [`Reader::trust`] was called.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Arc<File>,
    size: u64,
    preamble: Preamble,
    contents: Contents,
    verified: bool,
}

/// The most that a document may have: it is read into memory.
const DOCUMENT: u64 = 64 << 20;

/// The documents of a bundle, and the names of what else is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// What is common to the containers, if it was handed in.
    pub project: Option<Vec<u8>>,
    /// The settings of the containers by name.
    pub containers: BTreeMap<String, Vec<u8>>,
    /// `manifest.json`, as `docker load` reads it.
    pub manifest: Vec<u8>,
}

/// A volume in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// How many tar files it has.
    pub layers: u32,
    /// Their sizes together, in bytes; holes do not count, and what was replaced counts twice.
    pub size: u64,
}

/// A part of the file, from its beginning.
#[derive(Debug)]
pub(crate) struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = self.left.min(buffer.len() as u64) as usize;
        if some == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..some], self.at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Reader {
    /// When and by whom it was made.
    pub fn preamble(&self) -> &Preamble {
        &self.preamble
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All members but the table of contents and the end, in the order of the file.
    pub fn members(&self) -> &[Member] {
        &self.contents.members
    }

    /// The layers that images in here need and that are not in here.
    pub fn absent(&self) -> &[Digest] {
        &self.contents.absent
    }

    /// The volumes, by name.
    pub fn volumes(&self) -> Vec<Volume> {
        let mut volumes: BTreeMap<&str, Volume> = BTreeMap::new();
        for member in &self.contents.members {
            if let Role::Volume { name, .. } = &member.role {
                let new = || Volume { name: name.clone(), layers: 0, size: 0 };
                let volume = volumes.entry(name).or_insert_with(new);
                volume.layers += 1;
                volume.size += member.size;
            }
        }
        volumes.into_values().collect()
    }

    /// Gives out content without having verified it: for somebody who has but a damaged copy, and knows it.
    pub fn trust(&mut self) {
        self.verified = true;
    }

    fn checked(&self) -> Result<()> {
        if self.verified { Ok(()) } else { Err(Error::Unverified { path: self.path.clone() }) }
    }

    /// The documents.
    ///
    /// # Errors
    /// The bundle is not verified, or can't be read.
    pub fn documents(&self) -> Result<Documents> {
        self.checked()?;
        let mut documents = Documents { project: None, containers: BTreeMap::new(), manifest: Vec::new() };
        for member in &self.contents.members {
            match &member.role {
                Role::Project => documents.project = Some(self.content(member)?),
                Role::Container { name } => {
                    documents.containers.insert(name.clone(), self.content(member)?);
                }
                Role::Image if member.path == crate::frame::MANIFEST => {
                    documents.manifest = self.content(member)?
                }
                _ => {}
            }
        }
        Ok(documents)
    }

    /// A blob of an image, if it is in the bundle and a document (at most 8 MiB): a config by the image's ID, for instance.
    ///
    /// # Errors
    /// The bundle is not verified, or can't be read.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        self.checked()?;
        let path = format!("{}{}", crate::frame::BLOBS, digest.hex());
        let small = |member: &&Member| member.path == path && member.size <= 8 << 20;
        self.contents.members.iter().find(small).map(|member| self.content(member)).transpose()
    }

    fn content(&self, member: &Member) -> Result<Vec<u8>> {
        if member.size > DOCUMENT {
            let why = format!("it has {} bytes, which is too large for a document", member.size);
            return Err(Error::Document { what: member.path.clone(), why });
        }
        let mut bytes = vec![0; member.size as usize];
        self.file
            .read_exact_at(&mut bytes, member.offset)
            .map_err(Error::io("could not read", &self.path))?;
        Ok(bytes)
    }

    /// The data of a member as a stream.
    fn part(&self, member: &Member) -> Part {
        Part { file: Arc::clone(&self.file), at: member.offset, left: member.size }
    }

    /// Unpacks a volume into an empty directory: data, owners, modes, times, attributes and lists of rights, links, holes, devices; the
    /// directory itself becomes what the volume's was. All of it is on the disk when this returns. `progress` is told
    /// now and then how many bytes of the bundle were read since the last time; when it answers false, unpacking stops.
    ///
    /// # Errors
    /// The bundle is not verified, there is no such volume, the directory is not empty, or something could not be made in it. In the last
    /// case a part of the volume is in the directory.
    pub fn unpack_volume(
        &self,
        name: &str,
        dest: &Path,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<()> {
        self.checked()?;
        let mut layers: Vec<(u32, &Member)> = Vec::new();
        for member in &self.contents.members {
            match &member.role {
                Role::Volume { name: of, layer } if of == name => layers.push((*layer, member)),
                _ => {}
            }
        }
        layers.sort_by_key(|(layer, _)| *layer);
        if layers.is_empty() {
            return Err(Error::Absent { path: self.path.clone(), what: format!("volume {name}") });
        }
        let mut unpacker = unpack::Unpacker::new(dest)?;
        for (_, member) in layers {
            unpacker.layer(&member.path, &mut Archive::new(self.part(member)), progress)?;
        }
        unpacker.finish()
    }
}

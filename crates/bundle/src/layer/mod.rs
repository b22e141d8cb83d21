//! Trees as tar files, while they are in use.
//!
//! The first look writes the whole tree as one member of the bundle and notes where everything lies. Each later look brings
//! the bundle to what the tree is now: blocks of files and what headers say are overwritten in place where their size permits
//! it; what is new, what has another size and what is gone goes into one more tar file, to be applied on top. The last
//! look does the same while the application is paused, and then the tar files together are the tree, exactly.
//!
//! What the tar files say together is kept in a [`model`](model::Model), which is changed with every entry that is written, so
//! it does not matter what a tree in use shows to a look in its middle: the last look compares with what was written.

mod content;
mod emit;
mod filler;
mod model;
mod pass;
mod patch;
mod upper;

use crate::contents::Role;
use crate::digest::Sha;
use crate::error::{Error, Result};
use crate::image;
use crate::reader::volume_path;
use crate::writer::{Open, Writer};
use model::Model;
use std::path::{Path, PathBuf};
use tree::{Skip, Tracker, Tree};

/// What a tree becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerForm {
    /// The volume of this name.
    Volume {
        /// Its name.
        name: String,
    },
    /// Layers of an image: the tree is the upper directory of a container's overlayfs, whose own marks of what is gone become those of
    /// image layers.
    Writable,
}

/// A tree of which a part is in the bundle already.
pub struct LiveLayer {
    root: PathBuf,
    tree: Tree,
    skip: Skip,
    form: LayerForm,
    tracker: Tracker,
    model: Model,
    members: Vec<LayerMember>,
    /// Whether the last look was had.
    settled: bool,
}

/// One of the tar files of a tree.
pub(crate) struct LayerMember {
    open: Open,
    /// The digest so far, while nothing that it counted was overwritten; only of image layers.
    sha: Option<Sha>,
}

/// What a look found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Entries of the tree.
    pub entries: u64,
    /// Bytes of files that were overwritten in place.
    pub patched: u64,
    /// Bytes of tar files that were written: new entries, and files that have another size.
    pub written: u64,
    /// Names that are gone.
    pub removed: u64,
}

impl Looked {
    /// How much there was to do, in bytes: when it does not shrink any more from look to look, it is time for the last one.
    pub fn bytes(&self) -> u64 {
        self.patched + self.written
    }
}

impl LiveLayer {
    /// What it becomes.
    pub fn form(&self) -> &LayerForm {
        &self.form
    }
}

impl Writer {
    /// Writes a tree while it is in use. `skip` are directories, relative to `root`, whose content is left out. What lies on other
    /// file systems below `root` is left out too, and sockets, which no tar file can hold.
    ///
    /// # Errors
    /// The tree can't be read or has something that can't be written down, or writing failed.
    pub fn layer(&mut self, root: &Path, form: LayerForm, skip: Skip) -> Result<LiveLayer> {
        if let LayerForm::Volume { name } = &form
            && !self.volumes.insert(name.clone())
        {
            let what = format!("the volume {name}");
            return Err(Error::Document { what, why: "it was written already".into() });
        }
        let tree = Tree::open(root).map_err(|error| Error::source(root, error))?;
        let mut live = LiveLayer {
            root: root.to_owned(),
            tree,
            skip,
            form,
            tracker: Tracker::with_settling(self.settling),
            model: Model::default(),
            members: Vec::new(),
            settled: false,
        };
        self.look(&mut live, false)?;
        Ok(live)
    }

    /// Looks again at a tree that is in use, so that less is left for the last look. It syncs the tree's file system.
    ///
    /// # Errors
    /// As with [`Writer::layer`].
    pub fn settle(&mut self, live: &mut LiveLayer) -> Result<Looked> {
        self.look(live, false)
    }

    /// Looks for the last time: nobody writes to the tree from before this call until after it. It neither syncs nor hashes what
    /// did not change. Does nothing when it was done already.
    ///
    /// # Errors
    /// As with [`Writer::layer`], and [`Error::Moving`] when somebody does write.
    pub fn last_look(&mut self, live: &mut LiveLayer) -> Result<Looked> {
        if live.settled {
            return Ok(Looked::default());
        }
        let looked = self.look(live, true)?;
        live.settled = true;
        Ok(looked)
    }

    fn look(&mut self, live: &mut LiveLayer, last: bool) -> Result<Looked> {
        self.step(|writer| pass::run(writer, live, last))
    }

    /// Closes the tar files of a tree, after the pause. Those of a writable layer are answered, for
    /// [`Image::with_layers`](crate::Image::with_layers); there is none when nothing was changed in the container.
    ///
    /// # Errors
    /// There was no last look, or writing failed.
    pub fn seal(&mut self, live: LiveLayer) -> Result<Vec<image::Layer>> {
        if !live.settled {
            let what = live.root.display().to_string();
            return Err(Error::Document {
                what,
                why: "it had no last look, so it is not of one instant".into(),
            });
        }
        self.step(|writer| {
            let mut layers = Vec::new();
            for (number, member) in (0..).zip(live.members) {
                match &live.form {
                    LayerForm::Volume { name } => {
                        let role = Role::Volume { name: name.clone(), layer: number };
                        writer.close_member(member.open, volume_path(name, number), role)?;
                    }
                    LayerForm::Writable => {
                        let size = member.open.sums.size();
                        let sha = match member.sha {
                            Some(sha) => sha,
                            None => writer.hash(&member.open)?,
                        };
                        let digest = sha.finish();
                        writer.close_blob(member.open, digest)?;
                        layers.push(image::Layer { digest, size, absent: false });
                    }
                }
            }
            Ok(layers)
        })
    }

    /// Reads a member again.
    fn hash(&mut self, open: &Open) -> Result<Sha> {
        let mut sha = Sha::new();
        let (size, mut done) = (open.sums.size(), 0);
        let mut buffer = vec![0; 1 << 20];
        while done < size {
            let some = (size - done).min(buffer.len() as u64) as usize;
            self.out.read(open.data() + done, &mut buffer[..some])?;
            sha.update(&buffer[..some]);
            done += some as u64;
        }
        Ok(sha)
    }
}

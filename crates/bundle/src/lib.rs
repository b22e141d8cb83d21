//! A container backup in one tar file: settings, images with the writable layers as layers, and volumes, all of one instant.
//!
//! The file is written as one stream while the containers still run, and made exact by a short last look while they are
//! paused. It is refused as a whole when it is damaged. `docs/bundle-format.md` describes it byte by byte.
//!
//! This room knows no engine: documents and image archives are handed in and given out. It knows no clock either.

mod archive;
mod contents;
mod digest;
mod error;
mod frame;
mod image;
mod layer;
mod reader;
mod sums;
mod tar;
mod writer;

pub use contents::{Member, Role};
pub use digest::Digest;
pub use error::{Error, Result};
pub use frame::Preamble;
pub use image::{Change, Image, Layer};
pub use layer::{LayerForm, LiveLayer, Looked};
pub use reader::{Documents, ImageStream, Reader, Volume};
pub use tree::Skip;
pub use writer::{Summary, Watch, Writer};

/// The version of the format that is written, and the latest that is read.
pub const VERSION: u64 = 1;

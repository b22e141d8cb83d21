//! How members stand in the file, to the byte: their headers, the preamble at the beginning and the mark of the end.
//!
//! All of it can be made again from what the table of contents says, and is compared whole: so there is no byte outside the
//! members' data that could be other than it was written without being noticed.

use crate::tar::header::{Block, Header, NAME_MAX};
use crate::tar::{BLOCK, BLOCK64, padding};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The names of the members that are always there.
pub(crate) const PREAMBLE: &str = "everhold-bundle.json";
pub(crate) const OCI_LAYOUT: &str = "oci-layout";
pub(crate) const PROJECT: &str = "project.json";
pub(crate) const INDEX: &str = "index.json";
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const CONTENTS: &str = "everhold-contents.json";
pub(crate) const END: &str = "everhold-end";
/// What the names of blobs begin with.
pub(crate) const BLOBS: &str = "blobs/sha256/";

/// The content of `oci-layout`.
pub(crate) const OCI_LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The preamble's size: always the same, so that it can be written anew in place.
pub(crate) const PREAMBLE_SIZE: u64 = 1024;

/// The size of all that follows the table of contents: header and body of the end member, and two blocks of zeros.
pub(crate) const END_SIZE: u64 = 4 * BLOCK64;

/// What the caller says about a bundle at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    /// When it was made.
    pub made: Timestamp,
    /// By whom: `everhold 0.1.0`. At most 100 bytes.
    pub by: String,
}

/// The preamble as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreambleDocument {
    pub format: String,
    pub version: u64,
    pub made: Timestamp,
    pub by: String,
    #[serde(rename = "what to do")]
    pub what_to_do: String,
}

/// The name of the format in the preamble.
pub(crate) const FORMAT: &str = "everhold-bundle";

const WHAT_TO_DO: &str = "This is a backup of containers. `everhold container restore FILE` brings all of it back. \
     Without everhold: `docker load -i FILE` reads the images; a volume is in volumes/NAME/0.tar, 1.tar and so on, each to be \
     unpacked over the one before; settings are in containers/ and project.json. docs/bundle-format.md of everhold tells it all.";

impl Preamble {
    /// The member's data, filled up with blanks.
    pub(crate) fn render(&self) -> Option<Vec<u8>> {
        let document = PreambleDocument {
            format: FORMAT.into(),
            version: crate::VERSION,
            made: self.made,
            by: self.by.clone(),
            what_to_do: WHAT_TO_DO.into(),
        };
        let mut bytes = serde_json::to_vec(&document).ok()?;
        if bytes.len() as u64 >= PREAMBLE_SIZE {
            return None;
        }
        bytes.resize(PREAMBLE_SIZE as usize - 1, b' ');
        bytes.push(b'\n');
        Some(bytes)
    }
}

/// The header of a member. All have the same owner and mode, and the time at which the bundle was made.
pub(crate) fn header(path: &str, size: u64, mtime: i64) -> Block {
    let (prefix, name) = match path.rsplit_once('/') {
        Some((prefix, name)) if path.len() > NAME_MAX => (prefix, name),
        _ => ("", path),
    };
    Header {
        name: name.into(),
        prefix: prefix.into(),
        mode: 0o644,
        size,
        mtime: mtime.max(0),
        kind: b'0',
        ..Header::default()
    }
    .render()
}

/// The mark of the end: where the table of contents is, how large, and its blake3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Where the table's data begins in the file.
    pub offset: u64,
    /// Its size.
    pub size: u64,
    /// Its blake3.
    pub blake3: blake3::Hash,
    /// The time in all headers.
    pub mtime: i64,
}

impl End {
    /// The last [`END_SIZE`] bytes of the file.
    pub fn render(&self) -> Vec<u8> {
        let mut bytes = header(END, BLOCK64, self.mtime).to_vec();
        let text = format!(
            "everhold-end 1\noffset {}\nsize {}\nblake3 {}\nmade {}\n",
            self.offset,
            self.size,
            self.blake3.to_hex(),
            self.mtime
        );
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(2 * BLOCK, b'\n');
        bytes.resize(END_SIZE as usize, 0);
        bytes
    }

    /// Reads it. `None` unless every byte is as [`End::render`] writes it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.get(BLOCK..2 * BLOCK)?).ok()?;
        let mut lines = text.lines().skip(1);
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let end = Self {
            offset: field("offset")?.parse().ok()?,
            size: field("size")?.parse().ok()?,
            blake3: blake3::Hash::from_hex(field("blake3")?).ok()?,
            mtime: field("made")?.parse().ok()?,
        };
        (end.render() == bytes).then_some(end)
    }
}

/// The name that a volume or a container has in a member's path: its own where that is safe, else a part of it and a digest.
/// Which is whose is in the table of contents.
pub(crate) fn safe(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.len() <= 80 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(safe) {
        return name.to_owned();
    }
    let some: String = name.chars().filter(|c| safe(*c)).skip_while(|c| *c == '.').take(40).collect();
    // A tilde is in no name that is safe as it is: the two sorts never meet.
    format!("{some}~{}", &blake3::hash(name.as_bytes()).to_hex()[..24])
}

/// Where the header of the member after one whose data begins at `offset` is.
pub(crate) fn after(offset: u64, size: u64) -> u64 {
    offset + size + padding(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_preamble_fits() {
        let preamble = Preamble { made: Timestamp::MAX, by: "x".repeat(100) };
        assert_eq!(preamble.render().map(|bytes| bytes.len() as u64), Some(PREAMBLE_SIZE));
    }

    proptest! {
        #[test]
        fn the_end_is_read_as_written(offset in any::<u64>(), size in any::<u64>(), sum in any::<[u8; 32]>(), mtime in 0..1_i64 << 40) {
            let end = End { offset, size, blake3: sum.into(), mtime };
            let bytes = end.render();
            prop_assert_eq!(bytes.len() as u64, END_SIZE);
            prop_assert_eq!(End::parse(&bytes), Some(end));
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 1;
                prop_assert_ne!(End::parse(&other), Some(end));
            }
        }

        #[test]
        fn names_in_paths_are_safe_and_different(one in "\\PC{1,120}", two in "[a-z./~]{1,90}") {
            for name in [&one, &two] {
                let safe = safe(name);
                prop_assert!(safe.len() <= 80 && !safe.is_empty());
                prop_assert!(!safe.starts_with('.') && !safe.contains('/'));
            }
            prop_assert!(one == two || safe(&one) != safe(&two));
        }
    }
}

//! The images of a bundle as one tar stream.

use super::Reader;
use crate::contents::Role;
use crate::error::Result;
use crate::frame;
use crate::tar::BLOCK64;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A tar file for `POST /images/load`: the OCI layout and `manifest.json`, and nothing of the volumes.
#[derive(Debug)]
pub struct ImageStream {
    file: Arc<File>,
    /// Parts of the file that are left: position and size. Each is a member with its header and what fills its last block.
    parts: VecDeque<(u64, u64)>,
    /// How many zeros are left of the mark of the end.
    zeros: u64,
}

impl ImageStream {
    /// How many bytes are left.
    pub fn len(&self) -> u64 {
        self.parts.iter().map(|(_, size)| size).sum::<u64>() + self.zeros
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Reader {
    /// The images as a stream for an engine.
    ///
    /// # Errors
    /// The bundle is not verified.
    pub fn image_stream(&self) -> Result<ImageStream> {
        self.checked()?;
        let images = self.contents.members.iter().filter(|member| member.role == Role::Image);
        let parts = images.map(|member| {
            let begin = member.offset - BLOCK64;
            (begin, frame::after(member.offset, member.size) - begin)
        });
        Ok(ImageStream { file: Arc::clone(&self.file), parts: parts.collect(), zeros: 2 * BLOCK64 })
    }
}

impl Read for ImageStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let Some((at, left)) = self.parts.front_mut() else {
            let some = self.zeros.min(buffer.len() as u64) as usize;
            buffer[..some].fill(0);
            self.zeros -= some as u64;
            return Ok(some);
        };
        let some = (*left).min(buffer.len() as u64) as usize;
        let read = self.file.read_at(&mut buffer[..some], *at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *at += read as u64;
        *left -= read as u64;
        if *left == 0 {
            self.parts.pop_front();
        }
        Ok(read)
    }
}

//! Reading all of a bundle and comparing it with its digests.

use super::Reader;
use crate::contents::Member;
use crate::digest::{Digest, Sha};
use crate::error::{Error, Result};
use crate::frame;
use crate::tar::padding;
use std::os::unix::fs::FileExt;

impl Reader {
    /// Reads all of it and proves every member by its blake3, blobs also by the sha256 that is their name. `progress` is
    /// told now and then how many bytes were read since the last time; when it answers false, that is the end.
    ///
    /// # Errors
    /// It can't be read, or is damaged: the error names the first member that is not as it was written.
    pub fn verify(&mut self, progress: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        for member in &self.contents.members {
            self.prove(member, &mut buffer, progress)?;
        }
        self.verified = true;
        Ok(())
    }

    fn prove(&self, member: &Member, buffer: &mut [u8], progress: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let bad = |what: &str| Error::Damaged {
            path: self.path.clone(),
            member: member.path.clone(),
            offset: member.offset,
            what: what.into(),
        };
        let digest = member.path.strip_prefix(frame::BLOBS).and_then(Digest::from_hex);
        let mut blake3 = blake3::Hasher::new();
        let mut sha = digest.map(|_| Sha::new());
        let mut done = 0;
        while done < member.size {
            let some = (member.size - done).min(buffer.len() as u64) as usize;
            let data = &mut buffer[..some];
            self.file
                .read_exact_at(data, member.offset + done)
                .map_err(Error::io("could not read", &self.path))?;
            blake3.update(data);
            if let Some(sha) = &mut sha {
                sha.update(data);
            }
            done += some as u64;
            if !progress(some as u64) {
                return Err(Error::Stopped);
            }
        }
        if blake3.finalize().to_hex().as_str() != member.blake3 {
            return Err(bad("its data is not as it was written"));
        }
        if sha.map(Sha::finish) != digest {
            return Err(bad("its data is not what its name says"));
        }
        let filler = &mut buffer[..padding(member.size) as usize];
        self.file
            .read_exact_at(filler, member.offset + member.size)
            .map_err(Error::io("could not read", &self.path))?;
        if filler.iter().any(|byte| *byte != 0) {
            return Err(bad("what fills its last block is not zeros"));
        }
        Ok(())
    }
}

//! Measures a mirror against `cp -a`, side by side: a first pass over a tree in the page cache, and a last pass with little
//! left to copy.
//!
//! `cargo run --release -p everhold-tree --example mirror -- DIRECTORY [GIB [DESTINATION]]`, with room for three times as
//! much. With a tmpfs as the destination no disk blurs the numbers.

#![allow(clippy::print_stdout, reason = "a program for people")]

use everhold_tree::{Mirror, Options, Tree, compare};
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Numbers that look random, and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes());
        }
    }
}

const LARGE: u64 = 4;
const SMALL: u64 = 5_000;
const PAGES: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let ground = arguments.next().ok_or("which directory?")?;
    let gib: u64 = arguments.next().and_then(|gib| gib.to_str()?.parse().ok()).unwrap_or(4);
    let ground = tempfile::tempdir_in(ground)?;
    let elsewhere = arguments.next().map(tempfile::tempdir_in).transpose()?;
    let to = elsewhere.as_ref().unwrap_or(&ground).path();
    let (source, dest, other) = (ground.path().join("source"), to.join("dest"), to.join("cp"));
    let size = (gib << 30) / LARGE;
    let mut numbers = Numbers(88_172_645_463_325_252);
    make(&source, size, &mut numbers)?;
    let (cancel, mut quiet) = (AtomicBool::new(false), |_| {});
    let begin = || -> Result<Mirror, Box<dyn Error>> {
        fs::create_dir(&dest)?;
        Ok(Mirror::new(Tree::open(&source)?, Tree::open(&dest)?, Options::default())?)
    };
    for _ in 0..3 {
        settle()?;
        let begun = Instant::now();
        let copied = Command::new("cp").arg("-a").arg(&source).arg(&other).status()?;
        println!("cp -a:      {:>6.2} s ({copied})", begun.elapsed().as_secs_f64());
        fs::remove_dir_all(&other)?;
        settle()?;
        let first = begin()?.pass(&cancel, &mut quiet)?;
        println!("first pass: {:>6.2} s", first.took.as_secs_f64());
        fs::remove_dir_all(&dest)?;
    }
    let mut mirror = begin()?;
    let first = mirror.pass(&cancel, &mut quiet)?;
    println!("first pass: {:>6.2} s ({first:?})", first.took.as_secs_f64());

    for round in 0..3 {
        change(&source, size, &mut numbers)?;
        let last = mirror.last_pass(&cancel, &mut quiet)?;
        println!("last pass {round}: {:>5.2} s ({last:?})", last.took.as_secs_f64());
    }
    let nothing = mirror.last_pass(&cancel, &mut quiet)?;
    println!("nothing new: {:>5.2} s ({nothing:?})", nothing.took.as_secs_f64());
    let begun = Instant::now();
    mirror.sync()?;
    println!("sync:       {:>6.2} s", begun.elapsed().as_secs_f64());
    let differences = compare(&Tree::open(&source)?, &Tree::open(&dest)?, &Default::default())?;
    println!("{} differences", differences.len());
    Ok(())
}

fn make(source: &Path, size: u64, numbers: &mut Numbers) -> Result<(), Box<dyn Error>> {
    fs::create_dir(source)?;
    let mut bytes = vec![0; 1 << 20];
    for name in 0..LARGE {
        let file = File::create(source.join(format!("large {name}")))?;
        for offset in (0..size).step_by(bytes.len()) {
            numbers.fill(&mut bytes);
            file.write_all_at(&bytes, offset)?;
        }
    }
    for name in 0..SMALL {
        let dir = source.join(format!("dir {}", name % 50));
        fs::create_dir_all(&dir)?;
        let length = 8 * (numbers.next() % 2_000) as usize;
        numbers.fill(&mut bytes[..length]);
        fs::write(dir.join(format!("small {name}")), &bytes[..length])?;
    }
    Ok(())
}

fn change(source: &Path, size: u64, numbers: &mut Numbers) -> Result<(), Box<dyn Error>> {
    let mut page = [0; 8192];
    for name in 0..LARGE {
        let file = File::options().write(true).open(source.join(format!("large {name}")))?;
        for _ in 0..PAGES {
            numbers.fill(&mut page);
            file.write_all_at(&page, numbers.next() % (size / 8192) * 8192)?;
        }
    }
    Ok(())
}

/// Everything written, so that nothing measured waits for what came before.
fn settle() -> Result<(), Box<dyn Error>> {
    Command::new("sync").status()?;
    Ok(())
}

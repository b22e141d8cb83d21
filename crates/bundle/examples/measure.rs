//! How long a volume of 4 GiB takes beside `tar -cf` of the same, and how long the last look takes after 200 pages of 8 KiB changed
//! in each of its four files. usage: measure DIR (about 13 GiB are written below it, and removed)

#![allow(clippy::print_stdout, clippy::expect_used, reason = "it is a program for people who measure")]

use bundle::{LayerForm, Preamble, Reader, Skip, Writer};
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: measure DIR")?).join("everhold-measure");
    let tree = dir.join("tree");
    fs::create_dir_all(&tree)?;
    let mut number = 88_172_645_463_325_252_u64;
    let mut next = move || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number
    };
    for name in 0..4 {
        let mut file = File::create(tree.join(name.to_string()))?;
        for _ in 0..1024 {
            let block: Vec<u8> = (0..1 << 17).flat_map(|_| next().to_le_bytes()).collect();
            file.write_all(&block)?;
        }
    }
    rustix::fs::sync();
    let small = dir.join("small");
    for directory in 0..100 {
        fs::create_dir_all(small.join(directory.to_string()))?;
        for name in 0..500 {
            fs::write(small.join(format!("{directory}/{name}")), vec![7; (next() % 8192) as usize])?;
        }
    }
    rustix::fs::sync();
    for (what, tree) in [("four files of 1 GiB", &tree), ("50,000 small files", &small)] {
        for round in 0..2 {
            let begin = Instant::now();
            Command::new("tar").arg("-cf").arg(dir.join("tar.tar")).arg("-C").arg(tree).arg(".").status()?;
            let written = begin.elapsed();
            File::open(dir.join("tar.tar"))?.sync_all()?;
            let tar = begin.elapsed();
            fs::remove_file(dir.join("tar.tar"))?;
            println!("{what}, round {round}: tar {written:.2?}, with fsync {tar:.2?}");
            bundle(&dir.join("b.tar"), tree, &mut next)?;
        }
    }
    fs::remove_dir_all(dir)?;
    Ok(())
}

fn bundle(path: &Path, tree: &Path, next: &mut impl FnMut() -> u64) -> Result<(), Box<dyn Error>> {
    let preamble = Preamble { made: jiff::Timestamp::UNIX_EPOCH, by: "measure".into() };
    let mut writer = Writer::create(path, &preamble)?;
    let begin = Instant::now();
    let mut live = writer.layer(tree, LayerForm::Volume { name: "data".into() }, Skip::new())?;
    let first = begin.elapsed();
    let begin = Instant::now();
    let settled = writer.settle(&mut live)?;
    let settle = begin.elapsed();
    for name in 0..4 {
        let Ok(file) = OpenOptions::new().write(true).open(tree.join(name.to_string())) else { continue };
        if file.metadata()?.is_file() {
            for _ in 0..200 {
                file.write_all_at(&[next() as u8; 8192], next() % (1 << 17) * 8192)?;
            }
        }
    }
    let begin = Instant::now();
    let looked = writer.last_look(&mut live)?;
    let last = begin.elapsed();
    let begin = Instant::now();
    writer.seal(live)?;
    let seal = begin.elapsed();
    let begin = Instant::now();
    writer.finish()?;
    let finish = begin.elapsed();
    let begin = Instant::now();
    let mut reader = Reader::open(path)?;
    reader.verify(&mut |_| true)?;
    let verify = begin.elapsed();
    println!(
        "  bundle: first look {first:.2?}, settle {settle:.2?} ({} MiB), last look {last:.2?} ({} MiB), seal {seal:.2?}, \
         finish {finish:.2?}, verify {verify:.2?}",
        settled.bytes() >> 20,
        looked.bytes() >> 20
    );
    fs::remove_file(path)?;
    Ok(())
}

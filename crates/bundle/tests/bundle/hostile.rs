//! Archives that want to leave the directory they are unpacked into.

use crate::ground::{preamble, snapshot};
use bundle::{Error, Reader};
use std::fs;
use std::path::Path;

/// One header and its data, made by hand: nothing of ours would write these.
fn entry(name: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// An archive that takes a name away, as our own do.
fn whiteout(name: &str) -> Vec<u8> {
    let mut bytes = entry("x", b'x', "", b"23 EVERHOLD.whiteout=1\n");
    bytes.extend(entry(name, b'0', "", b""));
    bytes
}

/// A sound bundle whose volume is these archives. It is made by the tool that hostile people have: knowledge of the format.
fn bundle(file: &Path, layers: &[Vec<Vec<u8>>]) -> Reader {
    let preamble = preamble();
    let mut members: Vec<(String, Vec<u8>, serde_json::Value)> = Vec::new();
    let mut first = serde_json::json!({
        "format": "everhold-bundle", "version": 1, "made": preamble.made, "by": preamble.by, "what to do": "",
    })
    .to_string()
    .into_bytes();
    first.resize(1024, b' ');
    members.push(("everhold-bundle.json".into(), first, serde_json::json!({ "kind": "preamble" })));
    for (number, entries) in layers.iter().enumerate() {
        let mut tar = entries.concat();
        tar.resize(tar.len() + 1024, 0);
        let role = serde_json::json!({ "kind": "volume", "name": "v", "layer": number });
        members.push((format!("volumes/v/{number}.tar"), tar, role));
    }
    let mtime = preamble.made.as_second();
    let header = |name: &str, size: usize| {
        let mut block = entry(name, b'0', "", b"");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(format!("{mtime:011o}").as_bytes());
        block[329..336].copy_from_slice(b"0000000");
        block[337..344].copy_from_slice(b"0000000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    };
    let mut bytes = Vec::new();
    let mut table = Vec::new();
    for (path, data, role) in &members {
        bytes.extend(header(path, data.len()));
        table.push(serde_json::json!({
            "path": path, "offset": bytes.len(), "size": data.len(), "role": role,
            "blake3": blake3::hash(data).to_hex().to_string(),
        }));
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    let contents =
        serde_json::json!({ "format": "everhold-bundle-contents", "version": 1, "members": table })
            .to_string();
    bytes.extend(header("everhold-contents.json", contents.len()));
    let offset = bytes.len();
    bytes.extend_from_slice(contents.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(header("everhold-end", 512));
    let sum = blake3::hash(contents.as_bytes()).to_hex();
    let mut end =
        format!("everhold-end 1\noffset {offset}\nsize {}\nblake3 {sum}\nmade {mtime}\n", contents.len())
            .into_bytes();
    end.resize(512, b'\n');
    bytes.extend(end);
    bytes.resize(bytes.len() + 1024, 0);
    fs::write(file, bytes).unwrap();
    let mut reader = Reader::open(file).unwrap();
    reader.verify(&mut |_| true).unwrap();
    reader
}

/// Unpacks and answers the error, after making sure that nothing outside was touched.
fn refused(layers: &[Vec<Vec<u8>>]) -> Result<(), Error> {
    let dir = tempfile::tempdir().unwrap();
    let (dest, outside) = (dir.path().join("dest"), dir.path().join("outside"));
    fs::create_dir(&dest).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "precious").unwrap();
    fs::write(dir.path().join("beside"), "precious").unwrap();
    let reader = bundle(&dir.path().join("b.tar"), layers);
    let before = (snapshot(&outside), fs::read(dir.path().join("beside")).unwrap());
    let result = reader.unpack_volume("v", &dest, &mut |_| true);
    assert_eq!((snapshot(&outside), fs::read(dir.path().join("beside")).unwrap()), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    result
}

#[test]
fn archives_that_want_out_are_refused() {
    let link = || entry("out", b'2', "../outside", b"");
    let root = || entry("./", b'5', "", b"");
    for (what, entries) in [
        ("upwards", vec![entry("../beside", b'0', "", b"evil")]),
        (
            "upwards in the middle",
            vec![entry("a", b'5', "", b""), entry("a/../../beside", b'0', "", b"evil")],
        ),
        ("absolute", vec![entry("/tmp/everhold-evil", b'0', "", b"evil")]),
        ("through a link", vec![link(), entry("out/file", b'0', "", b"evil")]),
        ("a directory through a link", vec![link(), entry("out/new", b'5', "", b"")]),
        ("a hard link to outside", vec![link(), entry("mine", b'1', "out/file", b"")]),
        ("a hard link upwards", vec![entry("mine", b'1', "../beside", b"")]),
        ("a hard link to nothing", vec![entry("mine", b'1', "nothing", b"")]),
        ("a hard link to a directory", vec![root(), entry("mine", b'1', "./", b"")]),
        ("a whiteout through a link", vec![link(), whiteout("out/.wh.file")]),
        ("a whiteout upwards", vec![whiteout(".wh..."), whiteout(".wh...")]),
        ("a whiteout of nothing", vec![whiteout(".wh.")]),
        ("a root that is a file", vec![entry("./", b'0', "", b"evil")]),
        ("no directory", vec![entry("a/b", b'0', "", b"evil")]),
        ("a directory that is a file", vec![entry("a", b'0', "", b""), entry("a/b", b'0', "", b"evil")]),
    ] {
        let error = refused(&[entries]).expect_err(what);
        assert!(matches!(error, Error::Hostile { .. }), "{what}: {error}");
    }
}

#[test]
fn a_directory_that_becomes_a_link_takes_nothing_along() {
    // The directory's owner and time are set at the end, when its name is a link to outside.
    let entries = vec![
        entry("out", b'5', "", b""),
        entry("out/file", b'0', "", b"mine"),
        entry("out", b'2', "../outside", b""),
    ];
    refused(std::slice::from_ref(&entries)).unwrap();
    refused(&[entries, vec![entry("out", b'5', "", b""), entry("out/file", b'0', "", b"mine")]]).unwrap();
}

#[test]
fn rubbish_in_a_volume_is_refused() {
    assert!(matches!(refused(&[vec![vec![7; 512]]]), Err(Error::Hostile { .. })));
    let mut cut = entry("file", b'0', "", &[7; 5000]);
    cut.truncate(1024);
    assert!(matches!(refused(&[vec![cut]]), Err(Error::Hostile { .. })));
}

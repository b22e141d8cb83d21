//! Images go through a bundle, from both forms of `docker save` to what `docker load` takes.

use crate::ground::{preamble, verified};
use crate::interrupted::saved;
use bundle::{Change, Digest, Error, Image, Layer, LayerForm, Skip, Writer};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

fn writer(dir: &Path) -> Writer {
    Writer::create(&dir.join("b.tar"), &preamble()).unwrap()
}

fn tar(dir: &Path) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "-cf", "-", "."]).current_dir(dir);
    tar.output().unwrap().stdout
}

/// Takes an archive apart that was saved by hand.
fn take(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Result<Vec<Image>, Error> {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    for (path, to) in links {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, path).unwrap();
    }
    let mut writer = writer(out.path());
    let result = writer.image_archive(&tar(dir.path())[..]);
    // A bad stream does no harm to what else is in the bundle.
    writer.project(b"{}").unwrap();
    writer.finish().unwrap();
    verified(&out.path().join("b.tar"));
    result
}

fn config(layers: &[&[u8]]) -> String {
    let digests: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    serde_json::json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": digests } }).to_string()
}

fn manifest(config: &str, layers: &[&str]) -> String {
    serde_json::json!([{ "Config": config, "RepoTags": ["a:1", "a:2"], "Layers": layers }]).to_string()
}

#[test]
fn both_forms_of_archives_are_understood() {
    let (one, two) = (b"first layer".as_slice(), b"{ second layer, which begins like a document".as_slice());
    let config = config(&[one, two, one]);
    let id = Digest::of(config.as_bytes());
    // Up to Docker 24, where a layer that is there twice is a link.
    let old = manifest(&format!("{}.json", id.hex()), &["x/layer.tar", "y/layer.tar", "z/layer.tar"]);
    let images = take(
        &[
            ("x/layer.tar", one),
            ("y/layer.tar", two),
            ("x/VERSION", b"1.0"),
            ("repositories", b"{}"),
            (&format!("{}.json", id.hex()), config.as_bytes()),
            ("manifest.json", old.as_bytes()),
        ],
        &[("z/layer.tar", "../x/layer.tar")],
    )
    .unwrap();
    // Since 25.
    let blob = |content: &[u8]| format!("blobs/sha256/{}", Digest::of(content).hex());
    let paths = [one, two, one].map(blob);
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let new = manifest(&blob(config.as_bytes()), &paths);
    let again = take(
        &[
            (&blob(one), one),
            (&blob(two), two),
            (&blob(config.as_bytes()), config.as_bytes()),
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json", b"{}"),
            ("manifest.json", new.as_bytes()),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(images, again);
    let layer =
        |content: &[u8]| Layer { digest: Digest::of(content), size: content.len() as u64, absent: false };
    let tags = vec!["a:1".to_owned(), "a:2".to_owned()];
    assert_eq!(
        images,
        [Image { config: config.into_bytes(), layers: [one, two, one].map(layer).to_vec(), tags }]
    );
}

#[test]
fn compressed_layers_are_stored_as_what_they_are() {
    use std::io::Write;
    let layer: Vec<u8> = (0..3_000_000_u32).flat_map(|at| (at / 7).to_le_bytes()).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&layer[..], 1).unwrap();
    let config = config(&[&layer]);
    for packed in [&gzip, &zstd] {
        let blob = |content: &[u8]| format!("blobs/sha256/{}", Digest::of(content).hex());
        let manifest = manifest(&blob(config.as_bytes()), &[&blob(packed)]);
        let files = |packed: &[u8], name: &[u8]| {
            take(
                &[
                    (&blob(name), packed),
                    (&blob(config.as_bytes()), config.as_bytes()),
                    ("manifest.json", manifest.as_bytes()),
                ],
                &[],
            )
        };
        let image = files(packed, packed).unwrap().remove(0);
        let whole = Layer { digest: Digest::of(&layer), size: layer.len() as u64, absent: false };
        assert_eq!(image.layers, [whole]);
        let mut damaged = packed.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        for bad in [&damaged[..], &packed[..packed.len() - 1], &[&packed[..], &[0]].concat()[..]] {
            let result = files(bad, packed);
            assert!(matches!(result, Err(Error::Archive { .. })), "{result:?}");
        }
    }
}

#[test]
fn archives_that_lie_are_refused() {
    let layer = b"a layer".as_slice();
    let config = config(&[layer]);
    let wrong = [(&b"another layer"[..]), b"a layer, longer"];
    let name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let good = manifest(&name, &["x/layer.tar"]);
    let (config, good) = (config.as_bytes(), good.as_bytes());
    assert!(take(&[("x/layer.tar", layer), (&name, config), ("manifest.json", good)], &[]).is_ok());
    let short = manifest(&name, &[]);
    let other = format!("{}.json", Digest::of(b"").hex());
    let renamed = manifest(&other, &["x/layer.tar"]);
    let blob = format!("blobs/sha256/{}", Digest::of(b"").hex());
    let cases: [&[(&str, &[u8])]; 8] = [
        &[("x/layer.tar", wrong[0]), (&name, config), ("manifest.json", good)],
        &[("x/layer.tar", wrong[1]), (&name, config), ("manifest.json", good)],
        &[("x/layer.tar", layer), (&name, config)],
        &[("x/layer.tar", layer), ("manifest.json", good)],
        &[(&name, config), ("manifest.json", good)],
        &[("x/layer.tar", layer), (&name, config), ("manifest.json", short.as_bytes())],
        &[("x/layer.tar", layer), (&other, config), ("manifest.json", renamed.as_bytes())],
        &[(&blob, wrong[0]), ("x/layer.tar", layer), (&name, config), ("manifest.json", good)],
    ];
    for (number, files) in cases.iter().enumerate() {
        let result = take(files, &[]);
        assert!(matches!(result, Err(Error::Archive { .. })), "{number}: {result:?}");
    }
}

#[test]
fn a_stream_that_ends_early_is_refused() {
    let (archive, _) = saved(&[vec![7; 3000], vec![8; 100]]);
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    let end = archive.len() - 9000;
    for len in (0..end).step_by(311) {
        assert!(matches!(writer.image_archive(&archive[..len]), Err(Error::Archive { .. })), "{len}");
    }
    writer.image_archive(&archive[..]).unwrap();
}

#[test]
fn the_stream_for_an_engine_has_images_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    fs::write(upper.join("new"), "x").unwrap();
    let (archive, digests) = saved(&[vec![7; 3000], vec![8; 100]]);
    let mut writer = writer(dir.path());
    let image = writer.image_archive(&archive[..]).unwrap().remove(0);
    let mut live = writer.layer(&upper, LayerForm::Writable, Skip::new()).unwrap();
    let volume = LayerForm::Volume { name: "data".into() };
    let mut data = writer.layer(&upper, volume, Skip::new()).unwrap();
    writer.last_look(&mut live).unwrap();
    writer.last_look(&mut data).unwrap();
    let layers = writer.seal(live).unwrap();
    writer.seal(data).unwrap();
    let change = Change { created: preamble().made, created_by: "x".into(), tags: vec!["b:1".into()] };
    let with = image.with_layers(&layers, &change).unwrap();
    writer.image(&with).unwrap();
    writer.finish().unwrap();
    let reader = verified(&dir.path().join("b.tar"));
    let mut stream = reader.image_stream().unwrap();
    let len = stream.len();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, len);
    // It is itself an archive that is understood.
    let again = tempfile::tempdir().unwrap();
    let mut other = Writer::create(&again.path().join("b.tar"), &preamble()).unwrap();
    let images = other.image_archive(&bytes[..]).unwrap();
    assert_eq!(images, [with]);
    assert_eq!(images[0].layers.iter().map(|layer| layer.digest).collect::<Vec<_>>()[..2], digests);
    let out = again.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(again.path().join("stream.tar"), &bytes).unwrap();
    Command::new("tar").arg("-xf").arg(again.path().join("stream.tar")).arg("-C").arg(&out).status().unwrap();
    let mut names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["blobs", "index.json", "manifest.json", "oci-layout"]);
}

#[test]
fn images_by_reference_say_what_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    let base = b"a layer that the registry has".as_slice();
    let image = Image::by_reference(config(&[base]).into_bytes(), vec!["a:1".into()]).unwrap();
    writer.image(&image).unwrap();
    let mut lying = image.clone();
    lying.layers[0].absent = false;
    assert!(matches!(writer.image(&lying), Err(Error::NoBlob { .. })));
    let summary = writer.finish().unwrap();
    assert_eq!(summary.absent, [Digest::of(base)]);
    assert_eq!(verified(&dir.path().join("b.tar")).absent(), [Digest::of(base)]);
}

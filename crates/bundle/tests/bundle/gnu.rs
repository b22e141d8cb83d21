//! Without our program: GNU tar and a shell get a volume out of a bundle.

use crate::ground::{Garden, differences, preamble, verified, volume};
use bundle::{Skip, Writer};
use proptest::prelude::*;
use std::path::Path;
use std::process::Command;

/// As `docs/bundle-format.md` says.
const BY_HAND: &str = r#"
set -e
export LC_ALL=C # names that are no text are names too
bundle=$1 out=$2
n=0
while tar -tf "$bundle" "volumes/data/$n.tar" > /dev/null 2>&1; do
  gone=$(mktemp -d)
  tar -xOf "$bundle" "volumes/data/$n.tar" | tar -xf - -C "$gone" --wildcards '.wh.*' '*/.wh.*' 2> /dev/null || true
  (cd "$gone" && find . -name '.wh.*' -printf '%h/%f\0') | while IFS= read -r -d '' path; do
    name=${path##*/}
    rm -rf -- "$out/${path%/*}/${name#.wh.}"
  done
  rm -rf "$gone"
  tar -xOf "$bundle" "volumes/data/$n.tar" |
    tar -xpf - -C "$out" --delay-directory-restore --numeric-owner --xattrs --xattrs-include='*' --acls --exclude='.wh.*'
  n=$((n + 1))
done
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gnu_tar_unpacks_a_volume(seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let (tree, file) = (dir.path().join("tree"), dir.path().join("b.tar"));
        let mut garden = Garden::new(&tree, seed);
        // Names that look like whiteouts are for our own program.
        garden.plain = true;
        garden.grow(60);
        let mut writer = Writer::create(&file, &preamble()).unwrap();
        let mut live = writer.layer(&tree, volume("data"), Skip::new()).unwrap();
        garden.grow(30);
        writer.last_look(&mut live).unwrap();
        writer.seal(live).unwrap();
        writer.finish().unwrap();
        verified(&file);
        by_hand(dir.path());
        let found = differences(&tree, &dir.path().join("out"));
        prop_assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

fn by_hand(dir: &Path) {
    std::fs::create_dir(dir.join("out")).unwrap();
    let done = Command::new("bash")
        .args(["-c", BY_HAND, "bash"])
        .arg(dir.join("b.tar"))
        .arg(dir.join("out"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

//! Sums are those of a naive computation, whatever the order.

use super::layer::is_below;
use super::*;
use proptest::prelude::*;

const RULES: &str = r#"
[[noise]]
name = "scratch"
paths = ["/scratch/**", "/**/*.tmp"]

[[service]]
name = "Deep"
class = "database"
images = ["deep"]
data = ["/a/b/c/d/e/f/g/h", "/data"]
advice = "none"
"#;

type Entry = (String, Change, Kind, u64, i64);

fn tally<'a>(rules: &Rules, entries: impl IntoIterator<Item = &'a Entry>) -> Layer {
    let mut tally = Tally::new(rules);
    for (path, change, kind, size, at) in entries {
        let mtime = Timestamp::from_second(*at).unwrap();
        tally.add(path.as_bytes(), *change, *kind, *size, *size, mtime);
    }
    tally.finish()
}

fn is_noise(path: &str) -> bool {
    is_below(path, "/scratch") || path.ends_with(".tmp") || is_below(path, "/tmp")
}

/// Files that are there, with their sizes, that lie at or below a path.
fn naive(entries: &[Entry], below: &str, noise: bool) -> Amount {
    let mut sum = Amount::default();
    for (path, change, kind, size, _) in entries {
        let counts = *kind == Kind::File && *change != Change::Deleted;
        if counts && is_below(path, below) && is_noise(path) == noise {
            sum.add(Amount { bytes: *size, files: 1 });
        }
    }
    sum
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let name = "[a-h]|data|scratch|tmp|x\\.tmp";
    let path = prop::collection::vec(name, 1..10).prop_map(|parts| format!("/{}", parts.join("/")));
    let change = prop_oneof![Just(Change::Added), Just(Change::Changed), Just(Change::Deleted)];
    let kind = prop_oneof![4 => Just(Kind::File), 1 => Just(Kind::Directory), 1 => Just(Kind::Other)];
    prop::collection::vec((path, change, kind, 0_u64..100_000, 0_i64..1000), 0..60)
}

proptest! {
    #[test]
    fn sums_are_those_of_a_naive_computation(entries in entries()) {
        let rules = Rules::with("test", RULES).unwrap();
        let layer = tally(&rules, &entries);
        prop_assert_eq!(layer.matter, naive(&entries, "/", false));
        let of_image: Vec<_> = entries.iter().filter(|entry| entry.1 == Change::Changed).cloned().collect();
        prop_assert_eq!(layer.matter_changed, naive(&of_image, "/", false));
        prop_assert_eq!(layer.noise_total(), naive(&entries, "/", true));
        prop_assert_eq!(layer.added + layer.changed + layer.deleted, entries.len() as u64);
        for path in ["/data", "/a", "/a/b/c/d/e/f/g/h", "/b/c/d", "/scratch", "/"] {
            let below = layer.below(path);
            prop_assert!(below.exact, "{}", path);
            let want = (naive(&entries, path, false), naive(&entries, path, true));
            // A file of that very name is no directory; only what a rule names is known as a file too.
            let named = entries.iter().any(|(entry, ..)| entry == path) && !["/data", "/a/b/c/d/e/f/g/h"].contains(&path);
            if !named {
                prop_assert_eq!((below.matter, below.noise), want, "{}", path);
            }
        }
        let mut places = Amount::default();
        layer.places.iter().for_each(|place| places.add(place.amount));
        prop_assert_eq!(places, layer.matter, "{:?}", layer.places);
        prop_assert!(layer.places.len() <= 8 && layer.largest.len() <= FILES);
        let mut sizes: Vec<u64> = entries.iter()
            .filter(|(path, change, kind, ..)| *kind == Kind::File && *change != Change::Deleted && !is_noise(path))
            .map(|(_, _, _, size, _)| *size).collect();
        sizes.sort_by(|a, b| b.cmp(a));
        sizes.truncate(layer.largest.len().max(1));
        prop_assert_eq!(layer.largest.iter().map(|file| file.bytes).collect::<Vec<_>>(), sizes);
    }

    #[test]
    fn the_order_does_not_matter(entries in entries(), seed in any::<u64>()) {
        let rules = Rules::with("test", RULES).unwrap();
        // One entry for each path, as in a layer.
        let mut once: Vec<Entry> = Vec::new();
        for entry in entries {
            if !once.iter().any(|(path, ..)| *path == entry.0) {
                once.push(entry);
            }
        }
        let straight = tally(&rules, &once);
        let mut mixed: Vec<_> = once.iter().enumerate().collect();
        mixed.sort_by_key(|(at, _)| (*at as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        prop_assert_eq!(tally(&rules, mixed.into_iter().map(|(_, entry)| entry)), straight);
    }
}

/// Far more directories than are kept, at every depth.
fn wide(count: u64) -> Vec<Entry> {
    let path = |at: u64| format!("/w/{}/{}/{}/file{at}", at % 7, at % 97, at % 9973);
    let mut entries: Vec<Entry> =
        (0..count).map(|at| (path(at), Change::Added, Kind::File, at % 5000, 1)).collect();
    entries.push(("/a/b/c/d/e/f/g/h/i".into(), Change::Added, Kind::File, 77, 2));
    entries
}

#[test]
fn many_directories_are_bounded_and_the_paths_of_rules_stay_exact() {
    let rules = Rules::with("test", RULES).unwrap();
    let entries = wide(30_000);
    let layer = tally(&rules, &entries);
    assert!(layer.nodes.len() <= DIRECTORIES + 200, "{}", layer.nodes.len());
    assert_eq!(layer.depth, 3);
    assert_eq!(layer.below("/a/b/c/d/e/f/g/h").matter, Amount { bytes: 77, files: 1 });
    assert_eq!(layer.below("/w/3").matter, naive(&entries, "/w/3", false));
    assert!(!layer.below("/w/3/3/3").exact, "deeper than what is kept");
    assert!(layer.below("/nothing/here/at/all/really/no").exact);
    assert_eq!(tally(&rules, entries.iter().rev()), layer);
}

#[test]
fn a_million_entries_take_seconds() {
    let rules = Rules::built_in().unwrap();
    let begun = std::time::Instant::now();
    let layer = tally(&rules, &wide(300_000));
    assert_eq!(layer.matter.files, 300_001);
    assert!(begun.elapsed().as_secs() < 20, "300,000 without optimisation in {:?}", begun.elapsed());
}

#[test]
fn the_first_noise_rule_has_a_file() {
    let rule = |name: &str, path: &str| format!("[[noise]]\nname = \"{name}\"\npaths = [\"{path}\"]\n");
    let of = |rules: [String; 2]| {
        let rules = Rules::with("test", &rules.concat()).unwrap();
        let entry = ("/x/a.y".to_owned(), Change::Added, Kind::File, 5, 1);
        tally(&rules, &[entry]).noise.into_iter().map(|noise| noise.name).collect::<Vec<_>>()
    };
    let (any, here) = (rule("anywhere", "/**/*.y"), rule("here", "/x/**"));
    assert_eq!(of([any.clone(), here.clone()]), ["anywhere"]);
    assert_eq!(of([here, any]), ["here"]);
}

#[test]
fn holes_do_not_count_and_small_files_in_the_inode_do() {
    assert_eq!(held(1 << 40, 4096), 4096);
    assert_eq!(held(100, 4096), 100);
    assert_eq!(held(100, 0), 100);
    assert_eq!(held(1 << 40, 0), 0);
}

#[test]
fn what_a_read_only_root_would_need_is_remembered() {
    let rules = Rules::built_in().unwrap();
    let entry = |path: &str, change, kind| (path.to_owned(), change, kind, 10, 1);
    let entries = [
        entry("/var", Change::Changed, Kind::Directory),
        entry("/var/cache/nginx/proxy_temp", Change::Added, Kind::Directory),
        entry("/tmp/a/b/c", Change::Added, Kind::File),
        entry("/var/log/app/today", Change::Added, Kind::File),
        entry("/usr/lib/x/__pycache__/a.pyc", Change::Added, Kind::File),
        entry("/etc/hosts", Change::Added, Kind::File),
    ];
    let layer = tally(&rules, &entries);
    assert_eq!(layer.written, ["/tmp", "/var/cache/nginx", "/var/log/app"]);
    assert_eq!((layer.stray_count, layer.written_more), (0, false));
    let layer = tally(&rules, &[entry("/srv", Change::Added, Kind::Directory)]);
    assert_eq!(layer.strays, ["/srv"]);
}

#[test]
fn paths_in_any_form_and_any_bytes_are_counted() {
    let rules = Rules::built_in().unwrap();
    let mut tally = Tally::new(&rules).watching(["/srv/x/", "relative"]);
    let mut add = |path: &[u8]| tally.add(path, Change::Added, Kind::File, 5, 5, Timestamp::UNIX_EPOCH);
    add(b"srv/x/a");
    add(b"/srv/x/\xff\xfe");
    add(b"/");
    add(b"");
    let layer = tally.finish();
    assert_eq!(layer.below("/srv/x").matter, Amount { bytes: 10, files: 2 });
    assert_eq!(layer.added, 2);
}

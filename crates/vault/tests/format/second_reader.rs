//! A second reader of vaults, written from `docs/vault-format.md` and using none of the vault's code: what it restores
//! shows that the document says enough.

use crate::raw::{Name, block_aad, header, open, purpose};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::str::FromStr;

pub type Objects = BTreeMap<String, Vec<u8>>;
type Result<T> = std::result::Result<T, String>;

/// A volume's history.
#[derive(Debug, Default)]
pub struct History {
    pub about: Value,
    /// The time and the content of every cut, by point.
    pub cuts: BTreeMap<u64, (u64, Vec<u8>)>,
    pub snapshots: Vec<Value>,
    /// Objects that the inventory lists, and that are not there.
    pub missing: Vec<String>,
    /// The salts in the tables of segments, by (from, to).
    pub salts: BTreeMap<(u64, u64), BTreeSet<Vec<u8>>>,
}

struct Vault<'a> {
    objects: &'a Objects,
    id: [u8; 16],
    key: [u8; 32],
}

/// Reads everything in a vault, with a recovery kit.
pub fn read(objects: &Objects, kit: &str) -> Result<BTreeMap<String, History>> {
    let text = String::from_utf8(objects["everhold-vault"].clone()).map_err(|e| e.to_string())?;
    let (first, rest) = text.split_once('\n').ok_or("a descriptor has two lines")?;
    if first != "everhold-vault 1" {
        return Err(format!("{first}: another version"));
    }
    let rest: Value = serde_json::from_str(rest).map_err(|e| e.to_string())?;
    let field = |name: &str| rest[name].as_str().ok_or("a field is missing");
    let key = key(objects, field("id")?, kit)?;
    let signed = format!("everhold-vault 1\n{}\n{}\n", field("id")?, field("created")?);
    let check = blake3::keyed_hash(&purpose(&key, "everhold 1 vault descriptor check"), signed.as_bytes());
    if check.to_hex().as_str() != field("check")? {
        return Err("the descriptor was changed".into());
    }
    let vault = Vault { objects, id: unhex(field("id")?)?.try_into().map_err(|_| "the id")?, key };
    let streams: BTreeSet<&str> =
        objects.keys().filter_map(|name| name.strip_prefix("h/")?.get(..32)).collect();
    let (all, missing) = vault.missing("", &BTreeSet::new())?;
    let listed = all["streams"].as_array().ok_or("a list of streams")?;
    if !missing.is_empty() || listed.iter().any(|id| !id.as_str().is_some_and(|id| streams.contains(id))) {
        return Err(format!("the vault lacks {missing:?}, or a stream"));
    }
    streams.into_iter().map(|stream| Ok((stream.to_owned(), vault.history(stream)?))).collect()
}

fn key(objects: &Objects, vault: &str, kit: &str) -> Result<[u8; 32]> {
    let line = kit.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).ok_or("no identity")?;
    let identity = age::x25519::Identity::from_str(line)?;
    let fingerprint = kit.lines().find_map(|line| line.strip_prefix("# fingerprint: "));
    let fingerprint = fingerprint.map(|digits| unhex(&digits.replace('-', ""))).transpose()?;
    for slot in objects.range("k/".to_owned().."k0".to_owned()).map(|(_, slot)| slot) {
        let line = slot.iter().position(|b| *b == b'\n').ok_or("a slot's first line")?;
        let head: Value = serde_json::from_slice(&slot[..line]).map_err(|e| e.to_string())?;
        if head["everhold-key"] != 1 || head["vault"] != vault || head["kind"] != "recipient" {
            continue;
        }
        let opened = age::Decryptor::new_buffered(&slot[line + 1..]).map_err(|e| e.to_string())?;
        let Ok(mut opened) = opened.decrypt(std::iter::once(&identity as &dyn age::Identity)) else {
            continue;
        };
        let mut text = String::new();
        opened.read_to_string(&mut text).map_err(|e| e.to_string())?;
        let rest = text.strip_prefix(&format!("everhold data key 1\n{vault}\n")).ok_or("another's key")?;
        let key = unhex(rest.trim_end())?.try_into().map_err(|_| "the key's length")?;
        let is = blake3::keyed_hash(&purpose(&key, "everhold vault 1: fingerprint"), &unhex(vault)?);
        if fingerprint.as_ref().is_none_or(|says| says[..] == is.as_bytes()[..16]) {
            return Ok(key);
        }
    }
    Err("no slot opens with a key that the kit is for".into())
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|e| e.to_string()))
        .collect()
}

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// What an attempt is told apart by: to, from, epoch, run, time, and whether it is partial.
type Key = (u64, u64, u32, u32, u64, bool);

impl Vault<'_> {
    fn small(&self, name: &str) -> Result<Value> {
        serde_json::from_slice(&self.text(name)?).map_err(|e| e.to_string())
    }

    /// What the inventory of the highest epoch lists below `dir` and is not there, but for what is `gone`.
    fn missing(&self, dir: &str, gone: &BTreeSet<String>) -> Result<(Value, Vec<String>)> {
        let mut names = self.objects.keys().filter(|name| name.starts_with(&format!("{dir}i/")));
        let text = zstd::decode_all(&self.text(names.next_back().ok_or("no inventory")?)?[..]);
        let all: Value =
            serde_json::from_slice(&text.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let hashes = purpose(&self.key, "everhold vault 1: plain objects");
        let mut missing = Vec::new();
        for listed in all["objects"].as_array().ok_or("a list of objects")? {
            let name = format!("{dir}{}", listed["name"].as_str().ok_or("a name")?);
            let Some(object) = self.objects.get(&name) else {
                if !gone.contains(&name) {
                    missing.push(name);
                }
                continue;
            };
            if listed["size"].as_u64().is_some_and(|size| size != object.len() as u64) {
                return Err(format!("{name}: its size"));
            }
            let hash = blake3::keyed_hash(&hashes, &[name.as_bytes(), b"\n", object].concat());
            if listed["hash"].as_str().is_some_and(|listed| listed != hash.to_hex().as_str()) {
                return Err(format!("{name}: its hash"));
            }
        }
        Ok((all, missing))
    }

    fn text(&self, name: &str) -> Result<Vec<u8>> {
        let object = &self.objects[name];
        if object.len() < 42 || object[..10] != *b"EVHOBJ\r\n\x01\x00" {
            return Err(format!("{name}: not a sealed object"));
        }
        let objects = purpose(&self.key, "everhold vault 1: objects");
        Ok(open(&objects, &object[10..26], 0, name.as_bytes(), &object[26..]).ok_or("its seal")?)
    }

    fn history(&self, stream: &str) -> Result<History> {
        let dir = format!("h/{stream}/");
        let (mut history, mut gone) = (History::default(), BTreeSet::new());
        let mut eras: Vec<(u32, u64)> = Vec::new();
        let mut attempts: BTreeMap<Key, Vec<(Name, &str)>> = BTreeMap::new();
        for name in self.objects.keys().filter(|name| name.starts_with(&dir)) {
            let rest = &name[dir.len()..];
            let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|e| e.to_string());
            match rest.split_at(rest.find('/').map_or(0, |at| at + 1)) {
                ("", "about") => history.about = self.small(name)?,
                ("n/", _) => history.snapshots.push(self.small(name)?),
                ("d/", _) => {
                    let list = self.small(name)?;
                    let names = list["names"].as_array().ok_or("a list of names")?;
                    gone.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                ("e/", era) => eras.push((hex(&era[..8])? as u32, hex(&era[9..])?)),
                ("s/", part) => {
                    let parsed = Name {
                        stream: unhex(stream)?.try_into().map_err(|_| "the stream")?,
                        to: hex(&part[..16])?,
                        from: hex(&part[17..33])?,
                        time: hex(&part[34..46])?,
                        epoch: hex(&part[47..55])? as u32,
                        run: hex(&part[56..64])? as u32,
                        cut: &part[65..66] == "c",
                        part: hex(&part[67..73])? as u32,
                        last: &part[73..] == "e",
                    };
                    let n = &parsed;
                    let key = (n.to, n.from, n.epoch, n.run, n.time, !n.cut);
                    attempts.entry(key).or_default().push((parsed, name));
                }
                ("i/", _) => {}
                other => return Err(format!("what is {other:?}?")),
            }
        }
        history.missing = self.missing(&dir, &gone)?.1;
        let mut segments: Vec<Vec<(Name, &str)>> = Vec::new();
        for mut parts in attempts.into_values() {
            parts.sort_by_key(|(name, _)| name.part);
            let first = &parts[0].0;
            let last = parts.len() - 1;
            let finished =
                parts.iter().enumerate().all(|(i, (n, _))| n.part as usize == i && n.last == (i == last));
            let void = eras.iter().any(|(epoch, after)| *epoch > first.epoch && first.to > *after);
            let twice = segments.iter().any(|s| (s[0].0.from, s[0].0.to) == (first.from, first.to));
            if finished && !void && !twice {
                segments.push(parts);
            }
        }
        segments.retain(|parts| parts.iter().all(|(_, name)| !gone.contains(*name)));
        for segment in &segments {
            let (from, to) = (segment[0].0.from, segment[0].0.to);
            for (name, object) in segment {
                let (_, rows, _) = self.table(name, &self.objects[*object])?;
                let salts = rows.chunks(48).filter(|row| row[7] > 0).map(|row| row[16..32].to_vec());
                history.salts.entry((from, to)).or_default().extend(salts);
            }
            if segment[0].0.cut {
                history.cuts.insert(to, (segment[0].0.time, self.restore(&segments, to)?));
            }
        }
        Ok(history)
    }

    /// Any segments that tile (0, point], the newest first.
    fn restore(&self, segments: &[Vec<(Name, &str)>], point: u64) -> Result<Vec<u8>> {
        let (mut at, mut chain) = (point, Vec::new());
        while at > 0 {
            // The longest that ends here: good enough, if not the fewest.
            let next = segments.iter().filter(|s| s[0].0.to == at).min_by_key(|s| s[0].0.from);
            let next = next.ok_or_else(|| format!("nothing leads to point {at}"))?;
            chain.push(next);
            at = next[0].0.from;
        }
        let (mut volume, mut size) = (Vec::new(), 0);
        for segment in chain.into_iter().rev() {
            for (name, object) in segment {
                size = self.apply(name, &self.objects[*object], &mut volume)?;
            }
        }
        volume.resize(size, 0);
        Ok(volume)
    }

    /// The sealed blocks, the rows of the table, and the volume's size.
    fn table<'a>(&self, name: &Name, object: &'a [u8]) -> Result<(&'a [u8], Vec<u8>, u64)> {
        let (body, trailer) = object.split_at_checked(object.len().wrapping_sub(112)).ok_or("too short")?;
        let table_at = le(&trailer[0..8]) as usize;
        if trailer[104..] != *b"\r\nGESHVE" || le(&trailer[96..104]) as usize != object.len() {
            return Err("no end".into());
        }
        if table_at + le(&trailer[8..12]) as usize != body.len() {
            return Err("the table is elsewhere".into());
        }
        let head = header(&self.id, name);
        let mut whole = blake3::Hasher::new_keyed(&purpose(&self.key, "everhold vault 1: whole parts"));
        if object[..96] != head || object[96..128] != *whole.update(&head).finalize().as_bytes() {
            return Err("the header".into());
        }
        whole.reset();
        if trailer[64..96] != *whole.update(&object[..object.len() - 48]).finalize().as_bytes() {
            return Err("the hash of the whole".into());
        }
        let aad = [&head[..], &trailer[..64]].concat();
        let tables = purpose(&self.key, "everhold vault 1: tables");
        let text = open(&tables, &trailer[40..56], 0, &aad, &body[table_at..]).ok_or("the table's seal")?;
        let rows = zstd::decode_all(&text[..]).map_err(|e| e.to_string())?;
        if rows.len() as u64 != 48 * le(&trailer[12..16]) {
            return Err("the number of entries".into());
        }
        Ok((&body[128..table_at], rows, le(&trailer[32..40])))
    }

    fn apply(&self, name: &Name, object: &[u8], volume: &mut Vec<u8>) -> Result<usize> {
        let (mut data, rows, size) = self.table(name, object)?;
        let blocks = purpose(&self.key, "everhold vault 1: blocks");
        let hashes = purpose(&self.key, "everhold vault 1: block hashes");
        for row in rows.chunks(48) {
            let (block, kind, len) = (le(&row[0..7]), row[7], le(&row[8..12]) as usize);
            let at = block as usize * 4096;
            let count = if kind == 0 { len } else { 1 };
            volume.resize(volume.len().max(at + count * 4096), 0);
            let into = &mut volume[at..at + count * 4096];
            if kind == 0 {
                into.fill(0);
                continue;
            }
            let (sealed, rest) = data.split_at(len);
            data = rest;
            let aad = block_aad(&name.stream, block, kind == 2);
            let text =
                open(&blocks, &row[16..32], le(&row[12..16]) as u32, &aad, sealed).ok_or("a block's seal")?;
            let text = if kind == 2 { zstd::decode_all(&text[..]).map_err(|e| e.to_string())? } else { text };
            if blake3::keyed_hash(&hashes, &text).as_bytes()[..16] != row[32..48] {
                return Err(format!("block {block}: its hash"));
            }
            into.copy_from_slice(&text);
        }
        if data.is_empty() { Ok(size as usize) } else { Err("bytes that no entry speaks of".into()) }
    }
}

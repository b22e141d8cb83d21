//! What stands before the data of an entry.

use super::header::{Header, NAME_MAX, OCTAL_8, OCTAL_12};
use super::{BLOCK, Kind, Meta, Time, acl, padding, pax, sparse};

/// The header of an entry, with an extended one before it where needed, and the map of a sparse file after it. The data follows: what
/// [`stored`] says, and zeros up to the next block.
pub(crate) fn head(meta: &Meta) -> Vec<u8> {
    let mut records = Vec::new();
    let mut header = Header { mode: meta.mode & 0o7777, ..Header::default() };
    let mut path = meta.path.clone();
    if meta.kind == Kind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let map = meta.sparse.as_ref().map(|extents| sparse::render(extents));
    if map.is_some() {
        pax::push(&mut records, b"GNU.sparse.major", b"1");
        pax::push(&mut records, b"GNU.sparse.minor", b"0");
        pax::push(&mut records, b"GNU.sparse.name", &path);
        pax::push(&mut records, b"GNU.sparse.realsize", meta.size.to_string().as_bytes());
        // What a program that knows no sparse files would call it.
        path = [b"GNUSparseFile.0/", path.rsplit(|byte| *byte == b'/').next().unwrap_or(&path)].concat();
    }
    header.name = name(&mut records, b"path", &path);
    (header.kind, header.size) = match &meta.kind {
        Kind::File => (b'0', stored(meta) + map.as_ref().map_or(0, |map| map.len() as u64)),
        Kind::Link(target) => {
            header.link = name(&mut records, b"linkpath", target);
            (b'1', 0)
        }
        Kind::Symlink(target) => {
            header.link = name(&mut records, b"linkpath", target);
            (b'2', 0)
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            (header.major, header.minor) = (u64::from(*major), u64::from(*minor));
            (if matches!(meta.kind, Kind::CharDevice { .. }) { b'3' } else { b'4' }, 0)
        }
        Kind::Directory => (b'5', 0),
        Kind::Fifo => (b'6', 0),
    };
    if header.size > OCTAL_12 {
        pax::push(&mut records, b"size", header.size.to_string().as_bytes());
        header.size = 0;
    }
    header.uid = owner(&mut records, b"uid", meta.uid);
    header.gid = owner(&mut records, b"gid", meta.gid);
    let fits = u64::try_from(meta.mtime.secs).is_ok_and(|secs| secs <= OCTAL_12);
    header.mtime = if fits { meta.mtime.secs } else { 0 };
    // Always with nine digits: a header must not change its size when the time in it is set anew later.
    if !fits || meta.mtime != Time::default() {
        pax::push(&mut records, b"mtime", pax::time_text(meta.mtime).as_bytes());
    }
    for (key, value) in &meta.xattrs {
        if let Some((key, text)) = acl::record(key, value) {
            pax::push(&mut records, key, text.as_bytes());
        }
        pax::push(&mut records, &[pax::XATTR, &pax::encode_name(key)].concat(), value);
    }
    if meta.whiteout {
        pax::push(&mut records, pax::WHITEOUT, b"1");
    }
    let mut bytes = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        extended(&mut bytes, &path, &records);
    }
    bytes.extend_from_slice(&header.render());
    bytes.extend_from_slice(&map.unwrap_or_default());
    bytes
}

/// How many bytes of data follow the head, without what fills the last block.
pub(crate) fn stored(meta: &Meta) -> u64 {
    match (&meta.kind, &meta.sparse) {
        (Kind::File, Some(extents)) => extents.iter().map(|extent| extent.len).sum(),
        (Kind::File, None) => meta.size,
        _ => 0,
    }
}

fn extended(bytes: &mut Vec<u8>, path: &[u8], records: &[u8]) {
    let base = path.split(|byte| *byte == b'/').rfind(|part| !part.is_empty()).unwrap_or(b".");
    let mut name = b"PaxHeaders.0/".to_vec();
    name.extend(base.iter().filter(|byte| byte.is_ascii()).take(NAME_MAX - name.len()));
    let header = Header { name, mode: 0o644, size: records.len() as u64, kind: b'x', ..Header::default() };
    bytes.extend_from_slice(&header.render());
    bytes.extend_from_slice(records);
    bytes.resize(bytes.len() + padding(records.len() as u64) as usize, 0);
}

/// What the header has of a path; all of it is in a record where that is not all.
fn name(records: &mut Vec<u8>, key: &[u8], path: &[u8]) -> Vec<u8> {
    if path.len() <= NAME_MAX && path.is_ascii() {
        return path.to_vec();
    }
    pax::push(records, key, path);
    path.iter().map(|byte| if byte.is_ascii() { *byte } else { b'_' }).take(NAME_MAX).collect()
}

fn owner(records: &mut Vec<u8>, key: &[u8], id: u32) -> u64 {
    let id = u64::from(id);
    if id <= OCTAL_8 {
        return id;
    }
    pax::push(records, key, id.to_string().as_bytes());
    0
}

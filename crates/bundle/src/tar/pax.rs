//! Extended headers: records of `length key=value`, for what a header has no field for.

/// The record that makes an entry named `.wh.NAME` say that NAME is gone. Without it such an entry is a file of that name, which a
/// volume may well have. Only in volumes: in layers of images the name alone decides.
pub(crate) const WHITEOUT: &[u8] = b"EVERHOLD.whiteout";
/// What the keys of extended attributes begin with.
pub(crate) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Appends one record.
pub(crate) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts itself.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + digits(length) != length {
        length = rest + digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Takes records apart. `None`: they are not well-formed.
pub(crate) fn parse(mut records: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut parsed = Vec::new();
    while !records.is_empty() {
        let blank = records.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = decimal(&records[..blank])?.try_into().ok()?;
        let record = records.get(blank + 1..length)?;
        let (last, record) = record.split_last()?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        if *last != b'\n' || equals == 0 {
            return None;
        }
        parsed.push((&record[..equals], &record[equals + 1..]));
        records = &records[length..];
    }
    Some(parsed)
}

/// A number without sign; nothing else around it.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time as records have it: `-1.25`, `1700000000.123456789`.
pub(crate) fn time(text: &[u8]) -> Option<super::Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanos = 0;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for at in 0..9 {
            nanos = nanos * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'));
        }
    }
    Some(match (negative, nanos) {
        (false, _) => super::Time { secs: whole, nanos },
        (true, 0) => super::Time { secs: -whole, nanos },
        (true, _) => super::Time { secs: -whole - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// The text for a time, always with nine digits after the point.
pub(crate) fn time_text(time: super::Time) -> String {
    match (time.secs < 0, time.nanos) {
        (true, 0) => format!("{}.000000000", time.secs),
        (false, nanos) => format!("{}.{nanos:09}", time.secs),
        // In one wider: the lowest number has no positive counterpart.
        (true, nanos) => format!("-{}.{:09}", -(i128::from(time.secs) + 1), 1_000_000_000 - nanos),
    }
}

/// An attribute's name as the end of a key. Like GNU tar, since a key can't have an equals sign.
pub(crate) fn encode_name(name: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' => encoded.extend_from_slice(b"%25"),
            b'=' => encoded.extend_from_slice(b"%3D"),
            other => encoded.push(*other),
        }
    }
    encoded
}

/// The other way.
pub(crate) fn decode_name(mut text: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        if let Some(rest) = text.strip_prefix(b"25").filter(|_| *first == b'%') {
            name.push(b'%');
            text = rest;
        } else if let Some(rest) = text.strip_prefix(b"3D").filter(|_| *first == b'%') {
            name.push(b'=');
            text = rest;
        } else {
            name.push(*first);
        }
    }
    name
}

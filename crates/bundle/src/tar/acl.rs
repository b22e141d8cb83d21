//! Lists of rights (POSIX ACLs) as text, which is the only form that GNU tar's `--acls` takes; ours are the kernel's own form, as
//! extended attributes.

/// The record for an attribute that is a list of rights: key and text. `None` for other attributes, and for what is no list.
pub(crate) fn record(name: &[u8], value: &[u8]) -> Option<(&'static [u8], String)> {
    let key: &[u8] = match name {
        b"system.posix_acl_access" => b"SCHILY.acl.access",
        b"system.posix_acl_default" => b"SCHILY.acl.default",
        _ => return None,
    };
    text(value).map(|text| (key, text))
}

/// `linux/posix_acl_xattr.h`: a version, and entries of a tag, rights and who is meant, all little-endian.
fn text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    let (entries, []) = entries.as_chunks::<8>() else { return None };
    let mut parts = Vec::new();
    for [tag0, tag1, rights, _, id @ ..] in entries.iter().copied() {
        let id = u32::from_le_bytes(id);
        let who = match u16::from_le_bytes([tag0, tag1]) {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let right = |bit: u8, letter: char| if rights & bit == 0 { '-' } else { letter };
        parts.push(format!("{who}:{}{}{}", right(4, 'r'), right(2, 'w'), right(1, 'x')));
    }
    Some(parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_as_getfacl_does() {
        let mut value = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in [
            (1_u16, 7_u16, u32::MAX),
            (2, 5, 1000),
            (4, 4, u32::MAX),
            (8, 2, 7),
            (16, 7, u32::MAX),
            (32, 0, u32::MAX),
        ] {
            value.extend(tag.to_le_bytes());
            value.extend(rights.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let text = "user::rwx,user:1000:r-x,group::r--,group:7:-w-,mask::rwx,other::---";
        let record = record(b"system.posix_acl_default", &value).unwrap();
        assert_eq!(record, (&b"SCHILY.acl.default"[..], text.to_owned()));
        value.pop();
        assert_eq!(super::record(b"system.posix_acl_default", &value), None);
        assert_eq!(super::record(b"user.acl", &value), None);
    }
}

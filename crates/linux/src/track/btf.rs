//! The kernel's description of its own types (Documentation/bpf/btf.rst): where the members are that the tracker reads.

/// Where the kernel's requests have what the tracker wants to know, in bytes from the beginning of each structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// The type of the function of `block_rq_issue`: a request goes to its device.
    pub issue: u32,
    /// The type of the function of `block_rq_complete`.
    pub complete: u32,
    /// `request.cmd_flags`
    pub cmd_flags: i16,
    /// `request.__sector`
    pub sector: i16,
    /// `request.__data_len`
    pub bytes: i16,
    /// The pointers from the request to its `gendisk`.
    pub to_disk: Vec<i16>,
    /// `gendisk.major`
    pub major: i16,
    /// `gendisk.first_minor`
    pub first_minor: i16,
}

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;
/// Kinds after this one have a size that we don't know.
const LAST_KIND: u32 = ENUM64;

/// The bytes of a file with BTF, and where each of its types begins. Numbers are in the order of this machine.
struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    starts: Vec<usize>,
}

/// The layout of the kernel with this BTF (`/sys/kernel/btf/vmlinux`), or what is not in it.
pub(super) fn layout(file: &[u8]) -> Result<Layout, &'static str> {
    let btf = Btf::parse(file).ok_or("its description of its types is not understood")?;
    // typedef void (*btf_trace_…)(void *, struct request *)
    let issue = btf.typedef("btf_trace_block_rq_issue").ok_or("it has no block_rq_issue")?;
    btf.function(issue, 2)?.ok_or("its block_rq_issue has other parameters")?;
    // typedef void (*btf_trace_…)(void *, struct request *, blk_status_t, unsigned int)
    let complete = btf.typedef("btf_trace_block_rq_complete").ok_or("it has no block_rq_complete")?;
    let proto = btf.function(complete, 4)?.ok_or("its block_rq_complete has other parameters")?;
    let request = btf.pointed(btf.word(proto, 3 + 2 + 1).ok_or("its block_rq_complete has no request")?)?;
    let (disk, to_disk) = match btf.member(request, "rq_disk") {
        // Until Linux 5.16.
        Some((offset, member)) => (btf.pointed(member)?, vec![offset]),
        None => {
            let (q, queue) = btf.member(request, "q").ok_or("its requests have no queue")?;
            let (disk, member) = btf.member(btf.pointed(queue)?, "disk").ok_or("its queues have no disk")?;
            (btf.pointed(member)?, vec![q, disk])
        }
    };
    let offset = |of, name| btf.member(of, name).map(|(offset, _)| offset);
    Ok(Layout {
        issue,
        complete,
        cmd_flags: offset(request, "cmd_flags").ok_or("its requests have no cmd_flags")?,
        sector: offset(request, "__sector").ok_or("its requests have no __sector")?,
        bytes: offset(request, "__data_len").ok_or("its requests have no __data_len")?,
        to_disk,
        major: offset(disk, "major").ok_or("its disks have no major")?,
        first_minor: offset(disk, "first_minor").ok_or("its disks have no first_minor")?,
    })
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

impl<'a> Btf<'a> {
    fn parse(file: &'a [u8]) -> Option<Self> {
        // struct btf_header: magic, version, flags, length, then offset and length of both sections.
        if word_at(file, 0)? & 0xff_ffff != 0x01_eb9f {
            return None;
        }
        let header = word_at(file, 4)? as usize;
        let section = |at| {
            let start = header.checked_add(word_at(file, at)? as usize)?;
            file.get(start..start.checked_add(word_at(file, at + 4)? as usize)?)
        };
        let (types, strings) = (section(8)?, section(16)?);
        // Type 0 is void and not in the file.
        let mut starts = vec![usize::MAX];
        let mut at = 0;
        while at < types.len() {
            starts.push(at);
            let info = word_at(types, at + 4)?;
            let count = info as usize & 0xffff;
            at += 12
                + match info >> 24 & 0x1f {
                    INT | VAR | DECL_TAG => 4,
                    ARRAY => 12,
                    STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
                    ENUM | FUNC_PROTO => 8 * count,
                    kind if kind > LAST_KIND => return None,
                    _ => 0,
                };
        }
        Some(Self { types, strings, starts })
    }

    /// The `n`th word of a type: name, info, size or type, then what belongs to the kind.
    fn word(&self, id: u32, n: usize) -> Option<u32> {
        let start = *self.starts.get(id as usize).filter(|_| id != 0)?;
        word_at(self.types, start + 4 * n)
    }

    fn kind(&self, id: u32) -> Option<u32> {
        self.word(id, 1).map(|info| info >> 24 & 0x1f)
    }

    fn count(&self, id: u32) -> usize {
        self.word(id, 1).map_or(0, |info| info as usize & 0xffff)
    }

    fn other(&self, id: u32) -> Result<u32, &'static str> {
        self.word(id, 2).ok_or("its description of its types has a hole")
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let rest = self.strings.get(offset as usize..).and_then(|text| text.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    fn typedef(&self, name: &str) -> Option<u32> {
        let mut ids = 1..self.starts.len() as u32;
        ids.find(|id| {
            self.kind(*id) == Some(TYPEDEF) && self.word(*id, 0).is_some_and(|at| self.is_named(at, name))
        })
    }

    /// The function that a tracepoint's type points to, where it has this many parameters.
    fn function(&self, tracepoint: u32, parameters: usize) -> Result<Option<u32>, &'static str> {
        let proto = self.pointed(self.other(tracepoint)?)?;
        Ok((self.kind(proto) == Some(FUNC_PROTO) && self.count(proto) == parameters).then_some(proto))
    }

    /// What a pointer points to.
    fn pointed(&self, id: u32) -> Result<u32, &'static str> {
        match self.kind(id) {
            Some(PTR) => self.other(id),
            _ => Err("its description of its types has something else where a pointer was"),
        }
    }

    /// Offset in bytes and type of a member, also of one in a structure or union without a name.
    fn member(&self, id: u32, name: &str) -> Option<(i16, u32)> {
        let (bits, member) = self.member_bits(id, name)?;
        // A member that is not at a byte can't be read as one.
        (bits % 8 == 0).then_some((i16::try_from(bits / 8).ok()?, member))
    }

    fn member_bits(&self, id: u32, name: &str) -> Option<(u32, u32)> {
        if !matches!(self.kind(id), Some(STRUCT | UNION)) {
            return None;
        }
        let has_bit_fields = self.word(id, 1)? >> 31 == 1;
        (0..self.count(id)).find_map(|n| {
            let [at, member, offset] = [0, 1, 2].map(|word| self.word(id, 3 + 3 * n + word));
            let (at, member, offset) = (at?, member?, offset?);
            let offset = if has_bit_fields { offset & 0xff_ffff } else { offset };
            if self.is_named(at, name) {
                return Some((offset, member));
            }
            let (inside, member) = self.is_named(at, "").then(|| self.member_bits(member, name)).flatten()?;
            Some((offset + inside, member))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_is_understood() {
        let file = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let layout = layout(&file).unwrap();
        assert!(layout.issue > 0 && layout.complete > 0 && layout.issue != layout.complete, "{layout:?}");
        assert!(layout.sector > 0 && layout.bytes > 0 && layout.first_minor > layout.major, "{layout:?}");
        assert!(matches!(layout.to_disk.len(), 1 | 2));
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_refused() {
        let file = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        for end in [0, 3, 4, 20, 24, 1000, file.len() / 2, file.len() - 1] {
            assert!(layout(&file[..end]).is_err(), "{end}");
        }
        assert!(layout(b"\x7fELF, and nothing that we know of").is_err());
    }
}

//! `bpf(2)`, one function for each command, and the memory of a map. It decides nothing.
//!
//! The structures are the members of `union bpf_attr` (linux/bpf.h); the kernel takes what is not given as zeros.

#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString};
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const RAW_TRACEPOINT_OPEN: u32 = 17;

const TYPE_ARRAY: u32 = 2;
const TYPE_HASH_OF_MAPS: u32 = 13;
const F_MMAPABLE: u32 = 1 << 10;
/// An array may be looked at by a program that was checked with an array of another size (Linux 5.10).
const F_INNER_MAP: u32 = 1 << 12;
const PROG_TYPE_TRACING: u32 = 26;
const TRACE_RAW_TP: u32 = 23;

/// For `MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: RawFd,
    numa_node: u32,
    map_name: [u8; 16],
}

/// For the commands on one element.
#[repr(C)]
struct MapElem {
    map_fd: RawFd,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// For `PROG_LOAD`.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// For `OBJ_PIN` and `OBJ_GET`.
#[repr(C)]
struct Obj {
    pathname: u64,
    bpf_fd: RawFd,
    file_flags: u32,
}

/// For `OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct ObjInfo {
    bpf_fd: RawFd,
    info_len: u32,
    info: u64,
}

/// For `RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: RawFd,
    pad: u32,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct MapInfo {
    pub map_type: u32,
    pub id: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
}

const _: () = assert!(size_of::<MapCreate>() == 44);
const _: () = assert!(size_of::<MapElem>() == 32);
const _: () = assert!(size_of::<ProgLoad>() == 112);
const _: () = assert!(std::mem::offset_of!(ProgLoad, attach_btf_id) == 108);
const _: () = assert!(size_of::<Obj>() == 16);
const _: () = assert!(size_of::<RawTracepointOpen>() == 16);

/// The system call.
///
/// # Safety
/// `Attr` must be the member of `union bpf_attr` that belongs to the command, and the addresses in it those of memory as large
/// as the kernel takes it for.
unsafe fn bpf<Attr>(command: u32, attr: &mut Attr) -> Result<RawFd> {
    // SAFETY: the structure is as large as we say; for the rest the caller answers.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<Attr>()) };
    // A descriptor or 0.
    RawFd::try_from(answer).ok().filter(|answer| *answer >= 0).ok_or_else(crate::sys::last_error)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just given this descriptor to us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().take(15).zip(text.bytes()) {
        *to = from;
    }
    name
}

/// An array of u64 that can be mapped, and be in a map of maps with others of other sizes.
pub(super) fn create_words(label: &str, words: u32) -> Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: words,
        map_flags: F_MMAPABLE | F_INNER_MAP,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: name(label),
    };
    // SAFETY: MAP_CREATE reads this structure, which has no addresses.
    unsafe { bpf(MAP_CREATE, &mut attr) }.map(owned)
}

/// A hash of u32 to maps like `template`.
pub(super) fn create_hash_of_maps(
    label: &str,
    template: BorrowedFd<'_>,
    max_entries: u32,
) -> Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: TYPE_HASH_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries,
        map_flags: 0,
        inner_map_fd: template.as_raw_fd(),
        numa_node: 0,
        map_name: name(label),
    };
    // SAFETY: MAP_CREATE reads this structure, which has no addresses.
    unsafe { bpf(MAP_CREATE, &mut attr) }.map(owned)
}

fn element(map: BorrowedFd<'_>, key: &u32, value: Option<&mut u32>) -> MapElem {
    let value = value.map_or(0, |value| (&raw mut *value) as u64);
    MapElem { map_fd: map.as_raw_fd(), pad: 0, key: (&raw const *key) as u64, value, flags: 0 }
}

/// Whether a map has these sizes of key and value, which the functions below count on.
fn is_u32_to_u32(map: BorrowedFd<'_>) -> Result<()> {
    let info = map_info(map)?;
    match (info.key_size, info.value_size) {
        (4, 4) => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

/// The ID of the map that a map of maps has under a key.
pub(super) fn inner_map(map: BorrowedFd<'_>, key: u32) -> Result<Option<u32>> {
    is_u32_to_u32(map)?;
    let mut id = 0;
    let mut attr = element(map, &key, Some(&mut id));
    // SAFETY: the map has keys and values of 4 bytes, and both addresses are those of a u32 that lives until the end.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(Some(id)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Puts a map under a key, in the place of another. When this returns, no program uses the other any more.
pub(super) fn set_inner_map(map: BorrowedFd<'_>, key: u32, inner: BorrowedFd<'_>) -> Result<()> {
    is_u32_to_u32(map)?;
    let mut value = inner.as_raw_fd().unsigned_abs();
    let mut attr = element(map, &key, Some(&mut value));
    // SAFETY: as in `inner_map`.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Takes a map out. When this returns, no program uses it by this key any more.
pub(super) fn delete_inner_map(map: BorrowedFd<'_>, key: u32) -> Result<bool> {
    is_u32_to_u32(map)?;
    let mut attr = element(map, &key, None);
    // SAFETY: as in `inner_map`; the command has no value.
    match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// What the kernel knows about a map. `EINVAL` where the descriptor is not one of BPF.
pub(super) fn map_info(map: BorrowedFd<'_>) -> Result<MapInfo> {
    let mut info = MapInfo::default();
    let mut attr = ObjInfo {
        bpf_fd: map.as_raw_fd(),
        info_len: size_of::<MapInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes of plain numbers to `info`.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// Loads a program for a tracepoint with the kernel's own types. The text is what the kernel's check has to say, where it says no.
pub(super) fn load_tracing(
    label: &str,
    instructions: &[u64],
    attach_btf_id: u32,
) -> std::result::Result<OwnedFd, (Errno, String)> {
    let mut log = vec![0_u8; 1 << 16];
    let load = |log_level: u32, log: &mut [u8]| {
        let (log_size, log_buf) =
            if log_level == 0 { (0, 0) } else { (log.len() as u32, log.as_mut_ptr() as u64) };
        let license: &CStr = c"Dual MIT/GPL";
        let mut attr = ProgLoad {
            prog_type: PROG_TYPE_TRACING,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level,
            log_size,
            log_buf,
            kern_version: 0,
            prog_flags: 0,
            prog_name: name(label),
            prog_ifindex: 0,
            expected_attach_type: TRACE_RAW_TP,
            prog_btf_fd: 0,
            func_info_rec_size: 0,
            func_info: 0,
            func_info_cnt: 0,
            line_info_rec_size: 0,
            line_info: 0,
            line_info_cnt: 0,
            attach_btf_id,
        };
        loop {
            // SAFETY: the addresses are those of as many instructions of 8 bytes as we say, of a string that ends with a zero,
            // and of a log as long as we say; all live until the end.
            match unsafe { bpf(PROG_LOAD, &mut attr) } {
                // The check was interrupted by a signal.
                Err(Errno::AGAIN) => {}
                other => return other.map(owned),
            }
        }
    };
    load(0, &mut log).or_else(|_| {
        // Once more, for the reason.
        load(1, &mut log).map_err(|errno| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            (errno, String::from_utf8_lossy(&log[..end]).into_owned())
        })
    })
}

/// Attaches a program of [`load_tracing`] (`BPF_RAW_TRACEPOINT_OPEN`); the descriptor is that of the link.
pub(super) fn attach_tracing(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attr = RawTracepointOpen { name: 0, prog_fd: program.as_raw_fd(), pad: 0 };
    // SAFETY: RAW_TRACEPOINT_OPEN reads this structure; no name is given.
    unsafe { bpf(RAW_TRACEPOINT_OPEN, &mut attr) }.map(owned)
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)
}

/// Gives a map, a program or a link a name in a bpffs.
pub(super) fn pin(path: &Path, fd: BorrowedFd<'_>) -> Result<()> {
    let path = c_path(path)?;
    let mut attr = Obj { pathname: path.as_ptr() as u64, bpf_fd: fd.as_raw_fd(), file_flags: 0 };
    // SAFETY: the address is that of a string that ends with a zero and lives until the end.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens what is pinned there; `None` where nothing is.
pub(super) fn open_pinned(path: &Path) -> Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    let mut attr = Obj { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: as in `pin`.
    match unsafe { bpf(OBJ_GET, &mut attr) } {
        Ok(fd) => Ok(Some(owned(fd))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The memory of a map that [`create_words`] made, shared with the kernel's programs.
pub(super) struct Words {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the memory is shared with the whole system and is only looked at through atomics.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    pub fn map(map: BorrowedFd<'_>) -> Result<Self> {
        let info = map_info(map)?;
        if (info.map_type, info.value_size) != (TYPE_ARRAY, 8) || info.max_entries == 0 {
            return Err(Errno::INVAL);
        }
        let count = info.max_entries as usize;
        // SAFETY: a new mapping at an address of the kernel's choice. It keeps the map alive, whose size never changes.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(crate::sys::last_error());
        }
        NonNull::new(start.cast()).map(|start| Self { start, count }).ok_or(Errno::NOMEM)
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: as many words are mapped from there until `self` goes; everybody else uses atomic operations on them too.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, of which no reference is left. It can only fail for an address that was never mapped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * 8) };
    }
}

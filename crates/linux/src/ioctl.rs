//! The system calls that no library wraps. Everything here takes and returns plain values.
#![allow(unsafe_code, reason = "the one place for it")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An ioctl whose argument is a plain number, or is ignored.
pub(crate) fn number(fd: BorrowedFd<'_>, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: the callers pass only requests whose argument the kernel takes by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) })
}

/// An ioctl that reads or fills `value`.
///
/// `T` must be the `repr(C)` structure that the kernel defines for `request`.
pub(crate) fn structure<T>(fd: BorrowedFd<'_>, request: libc::c_ulong, value: &mut T) -> io::Result<i32> {
    // SAFETY: `value` is valid for reads and writes of the structure that goes with `request`; the modules that define the
    // structures keep them to the kernel's layout, with a test of their sizes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(value)) })
}

/// `quotactl_fd(2)`.
pub(crate) fn quotactl<T>(fd: BorrowedFd<'_>, command: u32, id: u32, value: &mut T) -> io::Result<()> {
    // SAFETY: as for `structure`.
    let result = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, fd.as_raw_fd(), command, id, std::ptr::from_mut(value))
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the kernel kill the child `command` starts when the thread that started it ends.
pub(crate) fn die_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)).map(drop));
    }
}

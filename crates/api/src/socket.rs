//! The Unix socket: made with its permissions, and only taken from a dead daemon.

use rustix::fs::{Gid, Mode, chmod, chown};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_to, listen, socket_with,
};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

const BACKLOG: i32 = 256;

/// Listens on `path` for root and, if given, the members of the group `gid`.
///
/// The socket is put in its place ready-made: nobody can connect before its permissions hold. One that is there
/// already is replaced if nobody answers on it.
///
/// # Errors
/// In words, with the path: someone answers there, something else than a socket is there, or the host refuses.
pub fn bind(path: &Path, gid: Option<u32>) -> io::Result<UnixListener> {
    let say = |error: io::Error| io::Error::new(error.kind(), format!("socket {}: {error}", path.display()));
    refuse_taken(path).map_err(say)?;
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(say)?;
    }
    place(path, gid).map_err(say)
}

fn place(path: &Path, gid: Option<u32>) -> io::Result<UnixListener> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind_to(&socket, &SocketAddrUnix::new(&new)?)?;
    // Nobody can connect yet: it does not listen.
    chown(&new, None, gid.map(Gid::from_raw))?;
    chmod(&new, Mode::from_raw_mode(0o660))?;
    listen(&socket, BACKLOG)?;
    fs::rename(&new, path)?;
    Ok(UnixListener::from(socket))
}

fn refuse_taken(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "something else than a socket is there"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another process answers there")),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn permissions_hold_and_only_the_dead_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/everhold.sock");
        let first = bind(&path, Some(0)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        let error = bind(&path, None).unwrap_err();
        assert!(error.to_string().contains("another process answers"), "{error}");
        drop(first);
        let _second = bind(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();

        let file = dir.path().join("file");
        fs::write(&file, "data").unwrap();
        assert!(bind(&file, None).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"data", "what is no socket is left alone");
    }
}

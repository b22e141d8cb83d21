//! The socket where Docker looks for a plugin.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Why the plugin's socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else serves it.
    #[error(
        "another process{} already serves the plugin socket {}; nothing was changed. Next: stop it, or give this \
         daemon another plugin socket",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), path.display()
    )]
    Taken {
        /// The socket.
        path: PathBuf,
        /// Who serves it, where the kernel says so.
        pid: Option<i32>,
    },
    /// Something that is no socket is in its place.
    #[error("{} is not a socket, and was left alone. Next: move it away, or give another plugin socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("the plugin socket {}: {step}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The socket of a plugin. Its file is removed when this is dropped, unless another one has taken its place.
#[derive(Debug)]
pub struct PluginSocket {
    listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl PluginSocket {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for PluginSocket {
    fn drop(&mut self) {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if identity(&metadata) == self.file => {
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::warn!(path = %self.path.display(), %error, "could not remove the plugin socket");
                }
            }
            _ => {}
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Listens on `path`, for root alone (mode 0600). Makes its directory; takes the place of a socket that nobody
/// serves any more. At each moment there is the old socket or the new one, ready.
///
/// # Errors
/// [`BindError::Taken`] when somebody answers there.
pub async fn bind(path: &Path) -> Result<PluginSocket, BindError> {
    let failed = |step| move |source| BindError::Io { path: path.to_owned(), step, source };
    let (Some(parent), Some(stem)) = (path.parent(), path.file_stem()) else {
        return Err(failed("find its directory")(io::ErrorKind::InvalidInput.into()));
    };
    fs::create_dir_all(parent).map_err(failed("make its directory"))?;
    refuse_if_served(path).await?;

    // Not beside the final name: Docker takes every socket there for a plugin. In a directory it looks for
    // DIRECTORY.sock only, and nobody else gets in before the mode is set.
    let nursery = parent.join(format!(".{}.{}", stem.to_string_lossy(), std::process::id()));
    let fresh = nursery.join("s");
    let cleared = fs::remove_file(&fresh).or_else(ignore_absent).and_then(|()| {
        fs::remove_dir(&nursery).or_else(ignore_absent)?;
        fs::DirBuilder::new().mode(0o700).create(&nursery)
    });
    cleared.map_err(failed("make a directory beside it"))?;
    let bound = place(&fresh, path).map_err(failed("bind"));
    if bound.is_err() {
        // The reason is in `bound`; what is left here goes with the next start.
        fs::remove_file(&fresh).or_else(ignore_absent).unwrap_or_default();
    }
    fs::remove_dir(&nursery).unwrap_or_else(|error| {
        tracing::warn!(path = %nursery.display(), %error, "could not be removed");
    });
    bound
}

fn ignore_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn place(fresh: &Path, path: &Path) -> io::Result<PluginSocket> {
    let listener = UnixListener::bind(fresh)?;
    fs::set_permissions(fresh, Permissions::from_mode(0o600))?;
    let file = identity(&fs::symlink_metadata(fresh)?);
    fs::rename(fresh, path)?;
    Ok(PluginSocket { listener, path: path.to_owned(), file })
}

async fn refuse_if_served(path: &Path) -> Result<(), BindError> {
    let failed = |step, source| BindError::Io { path: path.to_owned(), step, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at it", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(stream) => {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
            Err(BindError::Taken { path: path.to_owned(), pid })
        }
        // Its process is gone, or it goes this moment.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        // Its queue is full: somebody is there, and slow.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(BindError::Taken { path: path.to_owned(), pid: None })
        }
        Err(error) => Err(failed("ask who serves it", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn makes_its_directory_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugins/everhold.sock");
        let socket = bind(&path).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("plugins")).unwrap().count(), 1, "nothing but the socket");
        UnixStream::connect(&path).await.unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn takes_a_stale_socket_and_refuses_a_served_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("everhold.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed process leaves its socket");
        let socket = bind(&path).await.unwrap();

        let error = bind(&path).await.unwrap_err();
        assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
        UnixStream::connect(&path).await.unwrap();

        // Someone replaces it: not ours to remove any more.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x").unwrap();
        drop(socket);
        assert!(path.exists());
        assert!(matches!(bind(&path).await, Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d".repeat(100)).join("everhold.sock");
        let error = bind(&path).await.unwrap_err();
        assert!(matches!(error, BindError::Io { step: "bind", .. }), "{error}");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}

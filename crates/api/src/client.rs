//! The client: one typed method for each route, over the Unix socket.

use crate::v1::{
    Attach, Attached, Bundle, BundleRemoved, BundleStored, Bundles, CloneVolume, Create, Destroyed, Detached,
    FetchBundle, Grow, History, Holders, Labels, PoolReleased, Pools, Problem, Progress, Protect, Protected,
    Protections, Rename, Restore, RestoreCut, RestoreStored, RestoredCut, Snapshot, SnapshotCreate,
    Snapshots, Status, StoreBundle, StoredHistories, Trash, Usage, Usages, VaultAdd, VaultAdded,
    VaultChecked, VaultForgotten, VaultKit, Vaults, Verified, Verify, VolumeChanged, VolumeDetail,
    VolumeRemoved, Volumes,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use model::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Longer than the daemon's own deadline, which it answers with words.
const PATIENCE: Duration = Duration::from_secs(90);

/// A client of the daemon that listens on one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

type Result<T> = std::result::Result<T, Problem>;

/// A text as one segment of a path.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        // A segment of dots alone would mean another path.
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || (byte == b'.' && !text.trim_matches('.').is_empty())
        {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _written = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn volume(name: &str, rest: &str) -> String {
    format!("/v1/volumes/{}{rest}", segment(name))
}

fn bundles(vault: &str, rest: &str) -> String {
    format!("/v1/vaults/{}/bundles{rest}", segment(vault))
}

fn dry(path: String, dry_run: bool) -> String {
    if dry_run { path + "?dry_run=true" } else { path }
}

impl Client {
    /// A client for the daemon at `socket`; it connects for each request.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), patience: PATIENCE }
    }

    /// The same with another limit of time for each request.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn unreachable(&self, error: &io::Error) -> Problem {
        let at = self.socket.display();
        match error.kind() {
            io::ErrorKind::PermissionDenied => Problem::new(
                ErrorKind::Forbidden,
                format!("{at} may not be used by this user"),
                "run it as root, or join the group that `[api] group` names in the daemon's configuration",
            ),
            _ => Problem::new(
                ErrorKind::Unavailable,
                format!("the daemon is not reachable at {at} ({error})"),
                "is it running? `systemctl status everhold`; another socket is given with --socket or EVERHOLD_SOCKET",
            ),
        }
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Problem {
        Problem::new(
            ErrorKind::Unavailable,
            format!("the daemon at {} did not answer to the end: {error}", self.socket.display()),
            "see whether it is still running (`systemctl status everhold`), then look again",
        )
        .with_data_state("not known; what was begun is finished or undone when the daemon starts again")
    }

    /// One request; the status and body of the answer.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes)> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "everhold");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::<Bytes>::from(body.unwrap_or_default())).map_err(|error| {
            Problem::new(ErrorKind::InvalidInput, error.to_string(), "correct the request")
        })?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|error| self.broken(&error))?.to_bytes();
        connection.abort();
        Ok((status, bytes))
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<T> {
        let (status, bytes) =
            match tokio::time::timeout(self.patience, self.exchange(method, path, body)).await {
                Ok(answer) => answer?,
                Err(_) => {
                    let detail = format!("the daemon did not answer within {} s", self.patience.as_secs());
                    return Err(Problem::new(
                        ErrorKind::TimedOut,
                        detail,
                        "see the daemon's log, then look again",
                    )
                    .with_data_state("not known; it may go on in the background"));
                }
            };
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| self.broken(&format_args!("its answer is not understood: {error}")));
        }
        Err(serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| self.broken(&format_args!("it answered {status} without saying why"))))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, None).await
    }

    async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::DELETE, path, None).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Problem::new(ErrorKind::Internal, error.to_string(), "report it"))?;
        self.ask(method, path, Some(body)).await
    }

    /// `GET /v1/volumes`
    pub async fn volumes(&self) -> Result<Volumes> {
        self.get("/v1/volumes").await
    }

    /// `POST /v1/volumes`
    pub async fn create(&self, request: &Create) -> Result<VolumeChanged> {
        self.send(Method::POST, "/v1/volumes", request).await
    }

    /// `GET /v1/volumes/{name}`
    pub async fn inspect(&self, name: &str) -> Result<VolumeDetail> {
        self.get(&volume(name, "")).await
    }

    /// `DELETE /v1/volumes/{name}`: to the trash.
    pub async fn remove(&self, name: &str, dry_run: bool) -> Result<VolumeRemoved> {
        self.delete(&dry(volume(name, ""), dry_run)).await
    }

    /// `POST /v1/volumes/{name}/rename`
    pub async fn rename(&self, name: &str, to: &str) -> Result<VolumeChanged> {
        self.send(Method::POST, &volume(name, "/rename"), &Rename { to: to.to_owned() }).await
    }

    /// `POST /v1/volumes/{name}/grow`
    pub async fn grow(&self, name: &str, request: &Grow) -> Result<VolumeChanged> {
        self.send(Method::POST, &volume(name, "/grow"), request).await
    }

    /// `PATCH /v1/volumes/{name}/labels`
    pub async fn label(&self, name: &str, request: &Labels) -> Result<VolumeChanged> {
        self.send(Method::PATCH, &volume(name, "/labels"), request).await
    }

    /// `POST /v1/volumes/{name}/attachments`
    pub async fn attach(&self, name: &str, request: &Attach) -> Result<Attached> {
        self.send(Method::POST, &volume(name, "/attachments"), request).await
    }

    /// `DELETE /v1/volumes/{name}/attachments/{id}`
    pub async fn detach(&self, name: &str, id: &str) -> Result<Detached> {
        self.delete(&volume(name, &format!("/attachments/{}", segment(id)))).await
    }

    /// `GET /v1/volumes/{name}/holders`
    pub async fn holders(&self, name: &str) -> Result<Holders> {
        self.get(&volume(name, "/holders")).await
    }

    /// `GET /v1/volumes/{name}/usage`
    pub async fn usage(&self, name: &str) -> Result<Usage> {
        self.get(&volume(name, "/usage")).await
    }

    /// `GET /v1/usage`
    pub async fn usages(&self) -> Result<Usages> {
        self.get("/v1/usage").await
    }

    /// `GET /v1/trash`
    pub async fn trash(&self) -> Result<Trash> {
        self.get("/v1/trash").await
    }

    /// `POST /v1/trash/{which}/restore`
    pub async fn restore(&self, which: &str, request: &Restore) -> Result<VolumeChanged> {
        self.send(Method::POST, &format!("/v1/trash/{}/restore", segment(which)), request).await
    }

    /// `DELETE /v1/trash/{which}`: for good.
    pub async fn destroy(&self, which: &str, dry_run: bool) -> Result<Destroyed> {
        self.delete(&dry(format!("/v1/trash/{}", segment(which)), dry_run)).await
    }

    /// `DELETE /v1/trash`: everything in it, for good.
    pub async fn empty_trash(&self, dry_run: bool) -> Result<Destroyed> {
        self.delete(&dry("/v1/trash".to_owned(), dry_run)).await
    }

    /// `GET /v1/pools`
    pub async fn pools(&self) -> Result<Pools> {
        self.get("/v1/pools").await
    }

    /// `POST /v1/pools/{name}/release`
    pub async fn release_pool(&self, name: &str) -> Result<PoolReleased> {
        self.ask(Method::POST, &format!("/v1/pools/{}/release", segment(name)), None).await
    }

    /// `GET /v1/protection`
    pub async fn protection(&self) -> Result<Protections> {
        self.get("/v1/protection").await
    }

    /// `PUT /v1/volumes/{name}/protection`
    pub async fn protect(&self, name: &str, request: &Protect) -> Result<Protected> {
        self.send(Method::PUT, &volume(name, "/protection"), request).await
    }

    /// `DELETE /v1/volumes/{name}/protection`
    pub async fn unprotect(&self, name: &str) -> Result<Protected> {
        self.delete(&volume(name, "/protection")).await
    }

    /// `GET /v1/volumes/{name}/history`
    pub async fn history(&self, name: &str) -> Result<History> {
        self.get(&volume(name, "/history")).await
    }

    /// `GET /v1/volumes/{name}/snapshots`
    pub async fn snapshots(&self, name: &str) -> Result<Snapshots> {
        self.get(&volume(name, "/snapshots")).await
    }

    /// `POST /v1/volumes/{name}/snapshots`
    pub async fn snapshot(&self, name: &str, request: &SnapshotCreate) -> Result<Snapshot> {
        self.send(Method::POST, &volume(name, "/snapshots"), request).await
    }

    /// `DELETE /v1/volumes/{name}/snapshots/{snapshot}`
    pub async fn remove_snapshot(&self, name: &str, snapshot: &str) -> Result<Snapshot> {
        self.delete(&volume(name, &format!("/snapshots/{}", segment(snapshot)))).await
    }

    /// `POST /v1/volumes/{name}/restore`
    pub async fn restore_cut(&self, name: &str, request: &RestoreCut) -> Result<RestoredCut> {
        self.send(Method::POST, &volume(name, "/restore"), request).await
    }

    /// `POST /v1/volumes/{name}/clone`
    pub async fn clone_volume(&self, name: &str, request: &CloneVolume) -> Result<RestoredCut> {
        self.send(Method::POST, &volume(name, "/clone"), request).await
    }

    /// `POST /v1/volumes/{name}/verify`
    pub async fn verify(&self, name: &str, request: &Verify) -> Result<Verified> {
        self.send(Method::POST, &volume(name, "/verify"), request).await
    }

    /// `GET /v1/progress`
    pub async fn progress(&self) -> Result<Progress> {
        self.get("/v1/progress").await
    }

    /// `GET /v1/vaults`
    pub async fn vaults(&self) -> Result<Vaults> {
        self.get("/v1/vaults").await
    }

    /// `POST /v1/vaults`
    pub async fn add_vault(&self, request: &VaultAdd) -> Result<VaultAdded> {
        self.send(Method::POST, "/v1/vaults", request).await
    }

    /// `POST /v1/vaults/{name}/check`
    pub async fn check_vault(&self, name: &str, deep: bool) -> Result<VaultChecked> {
        let query = if deep { "?deep=true" } else { "" };
        self.ask(Method::POST, &format!("/v1/vaults/{}/check{query}", segment(name)), None).await
    }

    /// `POST /v1/vaults/{name}/kit`
    pub async fn vault_kit(&self, name: &str) -> Result<VaultKit> {
        self.ask(Method::POST, &format!("/v1/vaults/{}/kit", segment(name)), None).await
    }

    /// `DELETE /v1/vaults/{name}`: it is forgotten, and what is in it stays.
    pub async fn forget_vault(&self, name: &str) -> Result<VaultForgotten> {
        self.delete(&format!("/v1/vaults/{}", segment(name))).await
    }

    /// `GET /v1/vaults/{name}/histories`
    pub async fn stored_histories(&self, vault: &str) -> Result<StoredHistories> {
        self.get(&format!("/v1/vaults/{}/histories", segment(vault))).await
    }

    /// `GET /v1/vaults/{name}/histories/{id}`
    pub async fn stored_history(&self, vault: &str, id: &str) -> Result<History> {
        self.get(&format!("/v1/vaults/{}/histories/{}", segment(vault), segment(id))).await
    }

    /// `POST /v1/vaults/{name}/histories/{id}/restore`
    pub async fn restore_stored(
        &self,
        vault: &str,
        id: &str,
        request: &RestoreStored,
    ) -> Result<RestoredCut> {
        let path = format!("/v1/vaults/{}/histories/{}/restore", segment(vault), segment(id));
        self.send(Method::POST, &path, request).await
    }

    /// `GET /v1/vaults/{name}/bundles`
    pub async fn bundles(&self, vault: &str) -> Result<Bundles> {
        self.get(&bundles(vault, "")).await
    }

    /// `POST /v1/vaults/{name}/bundles`
    pub async fn store_bundle(&self, vault: &str, request: &StoreBundle) -> Result<BundleStored> {
        self.send(Method::POST, &bundles(vault, ""), request).await
    }

    /// `POST /v1/vaults/{name}/bundles/{bundle}/fetch`
    pub async fn fetch_bundle(&self, vault: &str, bundle: &str, request: &FetchBundle) -> Result<Bundle> {
        self.send(Method::POST, &bundles(vault, &format!("/{}/fetch", segment(bundle))), request).await
    }

    /// `DELETE /v1/vaults/{name}/bundles/{bundle}`: for good.
    pub async fn remove_bundle(&self, vault: &str, bundle: &str) -> Result<BundleRemoved> {
        self.delete(&bundles(vault, &format!("/{}", segment(bundle)))).await
    }

    /// `GET /v1/status`
    pub async fn status(&self) -> Result<Status> {
        self.get("/v1/status").await
    }

    /// `GET /v1/openapi.json`, as it is.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        self.get("/v1/openapi.json").await
    }

    /// `GET /metrics`, as it is.
    pub async fn metrics(&self) -> Result<String> {
        let (status, bytes) = self.exchange(Method::GET, "/metrics", None).await?;
        if status.is_success() {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        Err(serde_json::from_slice(&bytes).unwrap_or_else(|error| self.broken(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn any_text_is_one_segment() {
        assert_eq!(segment("pg.data-1"), "pg.data-1");
        assert_eq!(segment("../x?y#z"), "..%2Fx%3Fy%23z");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("ü"), "%C3%BC");
    }
}

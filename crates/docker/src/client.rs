//! HTTP to a Docker Engine over its Unix socket: one connection for each question, a bounded time for each answer.
//!
//! Not a client library: those decode answers into closed types (every state of a container an enum, a volume's
//! `Status` a list of strings, which it is not), and one word of a newer engine, or of our own plugin, makes
//! the whole answer unreadable. Here every question reads only the fields that it needs, and none of them is mandatory.

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long one question may take.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// The newest version of the API whose answers were read while this was written. An older engine is asked in its own.
const NEWEST: Version = Version(1, 51);
/// More than 10,000 containers say in `/containers/json`.
const LONGEST_ANSWER: usize = 64 << 20;

/// Why a Docker Engine did not answer a question.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody listens on the socket.
    #[error("no Docker Engine answers on {}: {source}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Somebody listens, and says nothing.
    #[error("the Docker Engine on {} did not answer within {} s", socket.display(), after.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// The engine refused.
    #[error("the Docker Engine answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The answer is not what the API says.
    #[error("the answer of the Docker Engine to {path} is not understood: {why}")]
    Strange {
        /// What was asked.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl ApiError {
    /// The engine answered that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VersionAnswer {
    api_version: String,
}

/// What is sent with a question.
pub(crate) type Sent = BoxBody<Bytes, std::io::Error>;

/// Nothing.
pub(crate) fn nothing() -> Sent {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A JSON document.
pub(crate) fn document(body: &serde_json::Value) -> Sent {
    Full::from(body.to_string()).map_err(|never| match never {}).boxed()
}

/// The way to one Docker Engine. Connects when asked, so an engine that comes and goes needs no care.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: PathBuf,
    /// What was agreed with the engine that answered last.
    version: Mutex<Option<Version>>,
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, version: Mutex::default() }
    }

    /// The answer to `GET path`, in full.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let answer = self.in_time(async {
            let version = self.version().await?;
            let response = self.send(&versioned(version, path), path).await?;
            read(response, path).await
        });
        let answer = answer.await;
        self.forget_version_after(&answer);
        answer
    }

    /// `POST path` with this body; the answer is not read.
    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> Result<(), ApiError> {
        let answer = self.in_time(async {
            self.call(Method::POST, path, Some("application/json"), document(body)).await.map(drop)
        });
        let answer = answer.await;
        self.forget_version_after(&answer);
        answer
    }

    /// The beginning of the answer to any question, however long the engine takes.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Sent,
    ) -> Result<Response<Incoming>, ApiError> {
        let target = versioned(self.version().await?, path);
        let mut request = Request::builder().method(method).uri(target).header(hyper::header::HOST, "docker");
        if let Some(kind) = content_type {
            request = request.header(hyper::header::CONTENT_TYPE, kind);
        }
        self.request(request.body(body), path).await
    }

    /// Has a container stopped or started: that takes as long as the container takes. That it is so already is fine.
    pub(crate) async fn act(&self, path: &str, deadline: Duration) -> Result<(), ApiError> {
        let work = async {
            match self.call(Method::POST, path, None, nothing()).await {
                Err(ApiError::Refused { status: 304, .. }) => Ok(()),
                other => other.map(drop),
            }
        };
        match tokio::time::timeout(deadline, work).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::Silent { socket: self.socket.clone(), after: deadline }),
        }
    }

    /// The answer to `GET path`, whose body goes on for as long as the engine lives.
    pub(crate) async fn stream(&self, path: &str) -> Result<Lines, ApiError> {
        let answer = self.in_time(async {
            let version = self.version().await?;
            self.send(&versioned(version, path), path).await
        });
        let answer = answer.await;
        self.forget_version_after(&answer);
        Ok(Lines { body: answer?.into_body(), rest: Vec::new() })
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        match tokio::time::timeout(CALL_DEADLINE, work).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::Silent { socket: self.socket.clone(), after: CALL_DEADLINE }),
        }
    }

    /// Agrees on a version with the engine: the older one of the two's newest.
    async fn version(&self) -> Result<Version, ApiError> {
        let known = *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = known {
            return Ok(version);
        }
        let path = "/version";
        let answer: VersionAnswer = read(self.send(path, path).await?, path).await?;
        let version = Version::parse(&answer.api_version).ok_or_else(|| ApiError::Strange {
            path: path.to_owned(),
            why: format!("ApiVersion is {:?}", answer.api_version),
        })?;
        let version = version.min(NEWEST);
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
        Ok(version)
    }

    /// The next engine on this socket may be another one.
    fn forget_version_after<T>(&self, answer: &Result<T, ApiError>) {
        if answer.as_ref().is_err_and(|error| !error.is_not_found()) {
            *self.version.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    async fn send(&self, target: &str, path: &str) -> Result<Response<Incoming>, ApiError> {
        let request = Request::get(target).header(hyper::header::HOST, "docker").body(nothing());
        self.request(request, path).await
    }

    async fn request(
        &self,
        request: Result<Request<Sent>, hyper::http::Error>,
        path: &str,
    ) -> Result<Response<Incoming>, ApiError> {
        let unreachable = |source| ApiError::Unreachable { socket: self.socket.clone(), source };
        let broken = |error: hyper::Error| unreachable(std::io::Error::other(error));
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the Docker Engine broke");
            }
        });
        let request =
            request.map_err(|error| ApiError::Strange { path: path.to_owned(), why: error.to_string() })?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        #[derive(Deserialize)]
        struct Message {
            message: String,
        }
        let status = response.status().as_u16();
        let message = match read::<Message>(response, path).await {
            Ok(Message { message }) => message,
            Err(_) => "without a reason".to_owned(),
        };
        Err(ApiError::Refused { status, message })
    }
}

fn versioned(Version(major, minor): Version, path: &str) -> String {
    format!("/v{major}.{minor}{path}")
}

pub(crate) async fn read<T: DeserializeOwned>(
    response: Response<Incoming>,
    path: &str,
) -> Result<T, ApiError> {
    let strange = |why: String| ApiError::Strange { path: path.to_owned(), why };
    let body = Limited::new(response.into_body(), LONGEST_ANSWER);
    let bytes = body.collect().await.map_err(|error| strange(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| strange(error.to_string()))
}

/// A body that is one JSON document after another, a line each.
pub(crate) struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line; `None` when the engine hangs up. May be dropped at any time: nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let after = self.rest.split_off(end + 1);
                return Some(std::mem::replace(&mut self.rest, after));
            }
            if self.rest.len() > LONGEST_ANSWER {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.rest.extend_from_slice(data);
            }
        }
    }
}

/// Percent-encodes everything that is not plain in a path segment or a query (RFC 3986, unreserved).
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A `filters=` query: each key with the values of which one must hold.
pub fn filters(pairs: &[(&str, &str)]) -> String {
    let map: serde_json::Map<_, _> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), serde_json::json!([value]))).collect();
    format!("filters={}", encode(&serde_json::Value::Object(map).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_json_in_a_query() {
        assert_eq!(filters(&[("volume", "pg data")]), "filters=%7B%22volume%22%3A%5B%22pg%20data%22%5D%7D");
    }

    #[test]
    fn the_older_version_wins() {
        assert_eq!(Version::parse("1.41"), Some(Version(1, 41)));
        assert_eq!(Version::parse("1.9").unwrap().min(NEWEST), Version(1, 9), "numbers, not text");
        assert_eq!(Version::parse("2.0").unwrap().min(NEWEST), NEWEST);
        assert_eq!(Version::parse("latest"), None);
    }

    #[tokio::test]
    async fn no_engine_is_an_error_in_words() {
        let client = Client::new("/nowhere/docker.sock".into());
        let error = client.get::<serde_json::Value>("/info").await.unwrap_err();
        assert!(error.to_string().contains("no Docker Engine answers on /nowhere/docker.sock"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_engine_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let error = Client::new(socket).get::<serde_json::Value>("/info").await.unwrap_err();
        assert!(matches!(error, ApiError::Silent { .. }), "{error}");
    }
}

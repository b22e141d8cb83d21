//! What goes back to Docker.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::collections::BTreeMap;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.docker.plugins.v1.1+json");

/// What Docker gets instead of what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    pub(super) fn bad_request(text: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text.to_string())
    }

    /// A verb failed.
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

impl From<engine::Error> for Refusal {
    fn from(error: engine::Error) -> Self {
        Self::failed(error.advice())
    }
}

/// One volume in the answers to `Get` and `List`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Volume {
    pub(super) name: String,
    /// Empty while it is not attached.
    pub(super) mountpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) status: BTreeMap<&'static str, String>,
}

/// Every answer that is no refusal; fields that a call does not have are left out.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    /// Always empty here, and always there: old clients look for it.
    err: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    implements: Option<[&'static str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mountpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<Volume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<Vec<Volume>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Capabilities {
    scope: &'static str,
}

impl Answer {
    pub(super) fn done() -> Self {
        Self::default()
    }

    pub(super) fn activated() -> Self {
        Self { implements: Some(["VolumeDriver"]), ..Self::default() }
    }

    pub(super) fn capabilities() -> Self {
        // Each host has its own volumes: "global" would make Swarm create a volume once for all hosts.
        Self { capabilities: Some(Capabilities { scope: "local" }), ..Self::default() }
    }

    pub(super) fn mountpoint(path: String) -> Self {
        Self { mountpoint: Some(path), ..Self::default() }
    }

    pub(super) fn volume(volume: Volume) -> Self {
        Self { volume: Some(volume), ..Self::default() }
    }

    pub(super) fn volumes(volumes: Vec<Volume>) -> Self {
        Self { volumes: Some(volumes), ..Self::default() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failure<'a> {
    err: &'a str,
}

fn encode(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let (status, bytes) = match serde_json::to_vec(body) {
        Ok(bytes) => (status, bytes),
        // Maps with text keys and nothing that can fail; but no answer would be the worst one.
        Err(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, br#"{"Err":"the answer could not be written"}"#.to_vec())
        }
    };
    let mut response = Response::new(Full::new(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
    response
}

pub(super) fn response(answer: Result<Answer, Refusal>) -> Response<Full<Bytes>> {
    match answer {
        Ok(answer) => encode(StatusCode::OK, &answer),
        Err(refusal) => encode(refusal.status, &Failure { err: &refusal.text }),
    }
}

//! Request bodies: JSON, at most 1 MiB, within a bounded time, with errors in the one shape.

use crate::problem::invalid;
use crate::v1::Problem;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::ErrorKind;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The largest body. The largest sensible request, a few hundred labels, is a tenth of it.
const LARGEST: usize = 1 << 20;

/// How long a client may take to send the body of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyDeadline(pub Duration);

const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The body as JSON. An empty body is an empty object.
pub(crate) struct Body<T>(pub T);

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    // Without a content type it is taken for JSON: there is nothing else that it could be.
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = given.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(invalid(format!("the content type {text:?} is not understood: send application/json"))
        .with_status(415))
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        is_json(request.headers())?;
        let deadline = request.extensions().get().map_or(BODY_DEADLINE, |BodyDeadline(deadline)| *deadline);
        let collected =
            tokio::time::timeout(deadline, Limited::new(request.into_body(), LARGEST).collect()).await;
        let bytes = match collected {
            Err(_) => {
                let detail = format!("the body did not arrive within {} s", deadline.as_secs_f64());
                return Err(Problem::new(ErrorKind::TimedOut, detail, "send it faster").with_status(408));
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(
                    invalid(format!("the body is larger than {} KiB", LARGEST >> 10)).with_status(413)
                );
            }
            Ok(Err(error)) => return Err(invalid(format!("the body could not be read: {error}"))),
            Ok(Ok(collected)) => collected.to_bytes(),
        };
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        match serde_json::from_slice(text) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(invalid(format!("the body is not the JSON that is wanted here: {error}"))),
        }
    }
}

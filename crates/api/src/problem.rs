//! Problems as HTTP answers.

use crate::v1::Problem;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::ErrorKind;

/// The media type of RFC 9457.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

/// The request itself is wrong.
pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(
        ErrorKind::InvalidInput,
        detail,
        "correct the request and try again; GET /v1/openapi.json describes it",
    )
}

/// No such route.
pub(crate) async fn no_route(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let detail = format!("there is no {method} {}", uri.path());
    Problem::new(ErrorKind::NotFound, detail, "GET /v1/openapi.json lists what there is")
}

/// The route is there, the method is not.
pub(crate) async fn no_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    invalid(format!("{} does not take {method}", uri.path())).with_status(405)
}

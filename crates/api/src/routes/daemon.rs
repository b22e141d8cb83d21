//! The daemon itself: how it is, what it counts, what it can be asked.

use crate::metrics::OPENMETRICS;
use crate::state::AppState;
use crate::v1::{Problem, Status};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use model::ErrorKind;
use std::sync::Arc;

/// The daemon at a glance.
#[utoipa::path(get, path = "/v1/status", tag = "daemon", operation_id = "status",
    responses((status = 200, body = Status), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn status(State(state): State<AppState>) -> Json<Status> {
    Json(Status::of(state.engine.status(), state.version, state.started))
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "daemon", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
pub(crate) async fn document() -> Result<impl IntoResponse, Problem> {
    let text = crate::openapi().to_json().map_err(|error| {
        Problem::new(ErrorKind::Internal, format!("the document can't be written: {error}"), "report it")
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text))
}

/// What the daemon counts and sees, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "daemon", operation_id = "metrics",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<impl IntoResponse, Problem> {
    let counted = Arc::clone(&state.metrics);
    let text = state.call("metrics", move |engine| Ok(counted.encode(engine))).await?;
    let text = text.map_err(|error| Problem::new(ErrorKind::Internal, error.to_string(), "report it"))?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text))
}

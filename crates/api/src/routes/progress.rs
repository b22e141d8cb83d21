//! Work that takes as long as the data is large.

use crate::state::AppState;
use crate::v1::{Problem, Progress};
use axum::Json;
use axum::extract::State;

/// How far restores, clones and verifications are. Answers at once.
#[utoipa::path(get, path = "/v1/progress", tag = "histories", operation_id = "progress",
    responses((status = 200, body = Progress), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(state): State<AppState>) -> Json<Progress> {
    Json(Progress { work: state.engine.progress().into_iter().map(Into::into).collect() })
}

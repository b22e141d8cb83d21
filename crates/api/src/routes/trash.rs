//! The trash: what was removed and can be restored.

use super::volumes::show;
use crate::body::Body;
use crate::params::{Params, Segments, volume_name};
use crate::state::AppState;
use crate::v1::{Destroyed, DryRun, Outcome, Problem, Restore, Trash, VolumeChanged};
use axum::Json;
use axum::extract::State;

/// What can be restored, newest first.
#[utoipa::path(get, path = "/v1/trash", tag = "trash", operation_id = "list_trash",
    responses((status = 200, body = Trash), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(state): State<AppState>) -> Json<Trash> {
    let volumes = state.engine.trash();
    Json(Trash { volumes: volumes.iter().map(|volume| show(&state.engine, volume)).collect() })
}

/// Bring a volume back, under its own name or another one.
#[utoipa::path(post, path = "/v1/trash/{which}/restore", tag = "trash", operation_id = "restore_volume", request_body = Restore,
    params(("which" = String, Path, description = "The volume's name or ID")),
    responses((status = 200, body = VolumeChanged), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn restore(
    State(state): State<AppState>,
    Segments(which): Segments<String>,
    Body(request): Body<Restore>,
) -> Result<Json<VolumeChanged>, Problem> {
    let name = request.r#as.as_deref().map(volume_name).transpose()?;
    let restored = state.verb("restore", move |engine| {
        let volume = engine.restore(&which, name.as_ref())?;
        Ok(VolumeChanged { result: Outcome::Restored, volume: show(engine, &volume) })
    });
    restored.await.map(Json)
}

async fn destroy(state: AppState, which: Option<String>, dry_run: bool) -> Result<Json<Destroyed>, Problem> {
    let work = move |engine: &engine::Engine| {
        let volumes = engine.empty_trash(which.as_deref(), dry_run)?;
        let result = match volumes.is_empty() {
            true => Outcome::AlreadyThere,
            false if dry_run => Outcome::WouldDestroy,
            false => Outcome::Destroyed,
        };
        Ok(Destroyed { result, volumes: volumes.iter().map(|volume| show(engine, volume)).collect() })
    };
    let destroyed =
        if dry_run { state.call("destroy", work).await } else { state.verb("destroy", work).await };
    destroyed.map(Json)
}

/// Destroy everything in the trash for good.
#[utoipa::path(delete, path = "/v1/trash", tag = "trash", operation_id = "empty_trash", params(DryRun),
    responses((status = 200, body = Destroyed), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn empty(
    State(state): State<AppState>,
    Params(params): Params<DryRun>,
) -> Result<Json<Destroyed>, Problem> {
    destroy(state, None, params.dry_run).await
}

/// Destroy one volume in the trash for good.
#[utoipa::path(delete, path = "/v1/trash/{which}", tag = "trash", operation_id = "destroy_volume",
    params(("which" = String, Path, description = "The volume's name or ID"), DryRun),
    responses((status = 200, body = Destroyed), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn destroy_one(
    State(state): State<AppState>,
    Segments(which): Segments<String>,
    Params(params): Params<DryRun>,
) -> Result<Json<Destroyed>, Problem> {
    destroy(state, Some(which), params.dry_run).await
}

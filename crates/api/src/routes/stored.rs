//! Histories as they are in a vault, whatever became of their volumes.

use super::histories::{moment, parse};
use crate::body::Body;
use crate::params::Segments;
use crate::state::AppState;
use crate::v1::{History, Problem, RestoreStored, RestoredCut, StoredHistories};
use axum::Json;
use axum::extract::State;
use model::{PoolName, VaultName, VolumeName};

/// The histories in a vault, also those of volumes that were destroyed or are another host's. Nothing is written to it.
#[utoipa::path(get, path = "/v1/vaults/{name}/histories", tag = "histories", operation_id = "list_stored_histories",
    params(("name" = String, Path, description = "The vault's name")),
    responses((status = 200, body = StoredHistories), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
) -> Result<Json<StoredHistories>, Problem> {
    let vault: VaultName = parse(&name)?;
    let said = vault.to_string();
    let histories = state.long_call("histories", move |engine| engine.stored_histories(&vault)).await?;
    Ok(Json(StoredHistories { vault: said, histories: histories.into_iter().map(Into::into).collect() }))
}

/// The cuts of one history in a vault.
#[utoipa::path(get, path = "/v1/vaults/{name}/histories/{id}", tag = "histories", operation_id = "stored_history",
    params(("name" = String, Path, description = "The vault's name"),
        ("id" = String, Path, description = "The ID of the volume, or `stream`; or the volume's name, if no other had it")),
    responses((status = 200, body = History), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn history(
    State(state): State<AppState>,
    Segments((name, id)): Segments<(String, String)>,
) -> Result<Json<History>, Problem> {
    let vault: VaultName = parse(&name)?;
    let history = state.long_call("history", move |engine| engine.stored_history(&vault, &id));
    history.await.map(|history| Json(history.into()))
}

/// Make a new volume of a cut of a history in a vault. Nothing is written to the vault.
#[utoipa::path(post, path = "/v1/vaults/{name}/histories/{id}/restore", tag = "histories", operation_id = "restore_stored_history",
    params(("name" = String, Path, description = "The vault's name"),
        ("id" = String, Path, description = "The ID of the volume, or `stream`; or the volume's name, if no other had it")),
    request_body = RestoreStored,
    responses((status = 200, body = RestoredCut), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn restore(
    State(state): State<AppState>,
    Segments((name, id)): Segments<(String, String)>,
    Body(request): Body<RestoreStored>,
) -> Result<Json<RestoredCut>, Problem> {
    let vault: VaultName = parse(&name)?;
    let at = moment(&request.at, &state)?;
    let new: VolumeName = parse(&request.as_name)?;
    let pool: Option<PoolName> = request.pool.as_deref().map(parse).transpose()?;
    let restored = state.long_verb("restore-stored", move |engine| {
        engine.restore_stored(&vault, &id, &at, &new, pool.as_ref())
    });
    restored.await.map(|restored| Json(restored.into()))
}

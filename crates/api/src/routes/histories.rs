//! Histories.

use crate::body::Body;
use crate::params::Segments;
use crate::problem::invalid;
use crate::state::AppState;
use crate::v1::{
    CloneVolume, History, Problem, Protect, Protected, ProtectionStatus, Protections, RestoreCut,
    RestoredCut, Snapshot, SnapshotCreate, Snapshots, Verified, Verify,
};
use axum::Json;
use axum::extract::State;
use engine::Change;
use jiff::tz::TimeZone;
use model::{At, DriverKind, Protection, SnapshotName, VolumeName};

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| invalid(error.to_string()))
}

/// A moment as a client sends it: absolute.
pub(super) fn moment(text: &str, state: &AppState) -> Result<At, Problem> {
    let now = state.engine.now().to_zoned(TimeZone::UTC);
    At::parse(text, &now).map_err(|error| invalid(error.to_string()))
}

/// How protection is doing.
#[utoipa::path(get, path = "/v1/protection", tag = "histories", operation_id = "list_protection",
    responses((status = 200, body = Protections), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(state): State<AppState>) -> Json<Protections> {
    let engine = &state.engine;
    let mut protections = Protections { volumes: Vec::new(), unprotected: Vec::new() };
    for volume in engine.volumes() {
        match engine.protection_status(&volume.name) {
            Some(status) => protections.volumes.push(ProtectionStatus::of(&volume.name, status)),
            None if volume.spec.kind() == DriverKind::Image => {
                protections.unprotected.push(volume.name.to_string());
            }
            None => {}
        }
    }
    Json(protections)
}

/// Protect a volume from now on, or change how.
#[utoipa::path(put, path = "/v1/volumes/{name}/protection", tag = "histories", operation_id = "protect_volume",
    params(("name" = String, Path, description = "The volume's name")), request_body = Protect,
    responses((status = 200, body = Protected), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn protect(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
    Body(request): Body<Protect>,
) -> Result<Json<Protected>, Problem> {
    let name: VolumeName = parse(&name)?;
    let volume = state.engine.volume(&name).map_err(Problem::from)?;
    let default = state.engine.settings().defaults.protection.clone();
    let mut protection: Protection = volume.spec.protection.clone().unwrap_or(default);
    if let Some(interval) = &request.interval {
        protection.interval = parse(interval)?;
    }
    if let Some(vault) = &request.vault {
        protection.vault = parse(vault)?;
    }
    if let Some(keep) = &request.keep {
        protection.keep = parse(keep)?;
    }
    if let Some(group) = &request.group {
        protection.group = if group.is_empty() { None } else { Some(parse(group)?) };
    }
    let done = Protect::from(&protection);
    let said = name.to_string();
    let change = state.verb("protect", move |engine| engine.protect(&name, Some(protection))).await?;
    Ok(Json(Protected { name: said, changed: change == Change::Done, protection: Some(done) }))
}

/// End the protection of a volume. What is in the vault stays there.
#[utoipa::path(delete, path = "/v1/volumes/{name}/protection", tag = "histories", operation_id = "unprotect_volume",
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = Protected), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn unprotect(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
) -> Result<Json<Protected>, Problem> {
    let name: VolumeName = parse(&name)?;
    let said = name.to_string();
    let change = state.verb("protect", move |engine| engine.protect(&name, None)).await?;
    Ok(Json(Protected { name: said, changed: change == Change::Done, protection: None }))
}

/// The cuts that a volume can be brought back to.
#[utoipa::path(get, path = "/v1/volumes/{name}/history", tag = "histories", operation_id = "volume_history",
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = History), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn history(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
) -> Result<Json<History>, Problem> {
    let name: VolumeName = parse(&name)?;
    state.call("history", move |engine| engine.history(&name)).await.map(|history| Json(history.into()))
}

/// The named cuts of a volume, oldest first.
#[utoipa::path(get, path = "/v1/volumes/{name}/snapshots", tag = "histories", operation_id = "list_snapshots",
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = Snapshots), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn snapshots(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
) -> Result<Json<Snapshots>, Problem> {
    let name: VolumeName = parse(&name)?;
    state.call("snapshots", move |engine| engine.history(&name)).await.map(|history| Json(history.into()))
}

/// Cut now, and name the cut.
#[utoipa::path(post, path = "/v1/volumes/{name}/snapshots", tag = "histories", operation_id = "create_snapshot",
    params(("name" = String, Path, description = "The volume's name")), request_body = SnapshotCreate,
    responses((status = 200, body = Snapshot), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create_snapshot(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
    Body(request): Body<SnapshotCreate>,
) -> Result<Json<Snapshot>, Problem> {
    let name: VolumeName = parse(&name)?;
    let snapshot: SnapshotName = parse(&request.name)?;
    let said = snapshot.to_string();
    let (change, cut) = state.long_verb("snapshot", move |engine| engine.snapshot(&name, &snapshot)).await?;
    Ok(Json(Snapshot { name: said, changed: change == Change::Done, cut: Some(cut.into()) }))
}

/// Take the name of a cut away; retention decides about the cut then.
#[utoipa::path(delete, path = "/v1/volumes/{name}/snapshots/{snapshot}", tag = "histories", operation_id = "remove_snapshot",
    params(("name" = String, Path, description = "The volume's name"), ("snapshot" = String, Path, description = "The snapshot's name")),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove_snapshot(
    State(state): State<AppState>,
    Segments((name, snapshot)): Segments<(String, String)>,
) -> Result<Json<Snapshot>, Problem> {
    let name: VolumeName = parse(&name)?;
    let snapshot: SnapshotName = parse(&snapshot)?;
    let said = snapshot.to_string();
    let change = state.verb("snapshot-rm", move |engine| engine.remove_snapshot(&name, &snapshot)).await?;
    Ok(Json(Snapshot { name: said, changed: change == Change::Done, cut: None }))
}

/// Bring a volume back to a cut, in place or as a new volume.
#[utoipa::path(post, path = "/v1/volumes/{name}/restore", tag = "histories", operation_id = "restore_volume_cut",
    params(("name" = String, Path, description = "The volume's name")), request_body = RestoreCut,
    responses((status = 200, body = RestoredCut), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn restore(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
    Body(request): Body<RestoreCut>,
) -> Result<Json<RestoredCut>, Problem> {
    let name: VolumeName = parse(&name)?;
    let at = moment(&request.at, &state)?;
    let new: Option<VolumeName> = request.as_name.as_deref().map(parse).transpose()?;
    let restored = state.long_verb("restore-cut", move |engine| match new {
        Some(new) => engine.restore_as(&name, &at, &new),
        None => engine.restore_in_place(&name, &at, request.stop_containers),
    });
    restored.await.map(|restored| Json(restored.into()))
}

/// Make a new volume with the content of this one.
#[utoipa::path(post, path = "/v1/volumes/{name}/clone", tag = "histories", operation_id = "clone_volume",
    params(("name" = String, Path, description = "The volume's name")), request_body = CloneVolume,
    responses((status = 200, body = RestoredCut), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn clone(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
    Body(request): Body<CloneVolume>,
) -> Result<Json<RestoredCut>, Problem> {
    let name: VolumeName = parse(&name)?;
    let new: VolumeName = parse(&request.to)?;
    let at = request.at.as_deref().map(|at| moment(at, &state)).transpose()?;
    let cloned = state.long_verb("clone", move |engine| engine.clone_volume(&name, at.as_ref(), &new));
    cloned.await.map(|cloned| Json(cloned.into()))
}

/// Restore a cut to scratch, and check every block and the file system.
#[utoipa::path(post, path = "/v1/volumes/{name}/verify", tag = "histories", operation_id = "verify_volume",
    params(("name" = String, Path, description = "The volume's name")), request_body = Verify,
    responses((status = 200, body = Verified), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn verify(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
    Body(request): Body<Verify>,
) -> Result<Json<Verified>, Problem> {
    let name: VolumeName = parse(&name)?;
    let at = request.at.as_deref().map(|at| moment(at, &state)).transpose()?;
    let verified = state.long_verb("verify", move |engine| engine.verify(&name, at.as_ref()));
    verified.await.map(|verified| Json(verified.into()))
}

//! Volumes.

use crate::body::Body;
use crate::params::{Name, Params, volume_name};
use crate::problem::invalid;
use crate::state::AppState;
use crate::v1::{
    Create, DryRun, Grow, Inodes, Labels, Outcome, Problem, Rename, Usage, Usages, Volume, VolumeChanged,
    VolumeDetail, VolumeRemoved, VolumeState, Volumes,
};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use engine::Engine;
use model::Options;

pub(crate) fn show(engine: &Engine, volume: &model::Volume) -> Volume {
    Volume::of(volume, engine.path_of(volume.id).as_deref())
}

fn changed(engine: &Engine, change: engine::Change, done: Outcome, volume: &model::Volume) -> VolumeChanged {
    VolumeChanged { result: Outcome::of(change, done), volume: show(engine, volume) }
}

/// The live volumes, by name.
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", operation_id = "list_volumes",
    responses((status = 200, body = Volumes), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(state): State<AppState>) -> Json<Volumes> {
    let volumes = state.engine.volumes();
    let shown = volumes.iter().map(|volume| show(&state.engine, volume));
    // What is just being made is nobody's yet.
    Json(Volumes { volumes: shown.filter(|volume| volume.state != VolumeState::Creating).collect() })
}

/// Create a volume, or find that it is there as asked.
#[utoipa::path(post, path = "/v1/volumes", tag = "volumes", operation_id = "create_volume", request_body = Create,
    responses((status = 201, description = "Created", body = VolumeChanged), (status = 200, description = "Already there", body = VolumeChanged),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create(
    State(state): State<AppState>,
    Body(request): Body<Create>,
) -> Result<(StatusCode, Json<VolumeChanged>), Problem> {
    let name = volume_name(&request.name)?;
    let mut options = Options::parse(request.options.0).map_err(|error| invalid(error.to_string()))?;
    for (key, value) in &request.labels.0 {
        options.label(key, value).map_err(|error| invalid(error.to_string()))?;
    }
    let answer = state.verb("create", move |engine| {
        let (change, volume) = engine.create(&name, &options)?;
        Ok(changed(engine, change, Outcome::Created, &volume))
    });
    let answer = answer.await?;
    let status = if answer.result == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(answer)))
}

/// All about one volume.
#[utoipa::path(get, path = "/v1/volumes/{name}", tag = "volumes", operation_id = "inspect_volume",
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = VolumeDetail), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn inspect(
    State(state): State<AppState>,
    Name(name): Name,
) -> Result<Json<VolumeDetail>, Problem> {
    let detail = state.call("inspect", move |engine| {
        let inspection = engine.inspect(&name)?;
        Ok(VolumeDetail::of(inspection, engine.protection_status(&name)))
    });
    detail.await.map(Json)
}

/// Move a volume to the trash, from where it can be restored until it expires.
#[utoipa::path(delete, path = "/v1/volumes/{name}", tag = "volumes", operation_id = "remove_volume",
    params(("name" = String, Path, description = "The volume's name"), DryRun),
    responses((status = 200, body = VolumeRemoved), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(
    State(state): State<AppState>,
    Name(name): Name,
    Params(params): Params<DryRun>,
) -> Result<Json<VolumeRemoved>, Problem> {
    if params.dry_run {
        let checked = state.call("remove", move |engine| {
            Ok(VolumeRemoved {
                result: Outcome::WouldRemove,
                volume: Some(show(engine, &*engine.check_remove(&name)?)),
            })
        });
        return checked.await.map(Json);
    }
    let removed = state.verb("remove", move |engine| {
        let (change, volume) = engine.remove(&name)?;
        let volume = volume.map(|volume| show(engine, &volume));
        Ok(VolumeRemoved { result: Outcome::of(change, Outcome::Removed), volume })
    });
    removed.await.map(Json)
}

/// Give a volume that nobody holds another name.
#[utoipa::path(post, path = "/v1/volumes/{name}/rename", tag = "volumes", operation_id = "rename_volume", request_body = Rename,
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = VolumeChanged), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn rename(
    State(state): State<AppState>,
    Name(name): Name,
    Body(request): Body<Rename>,
) -> Result<Json<VolumeChanged>, Problem> {
    let to = volume_name(&request.to)?;
    let renamed = state.verb("rename", move |engine| {
        let (change, volume) = engine.rename(&name, &to)?;
        Ok(changed(engine, change, Outcome::Renamed, &volume))
    });
    renamed.await.map(Json)
}

/// Grow a volume while its holders go on. It is never made smaller.
#[utoipa::path(post, path = "/v1/volumes/{name}/grow", tag = "volumes", operation_id = "grow_volume", request_body = Grow,
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = VolumeChanged), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn grow(
    State(state): State<AppState>,
    Name(name): Name,
    Body(request): Body<Grow>,
) -> Result<Json<VolumeChanged>, Problem> {
    let to = request.size.size().map_err(|error| invalid(error.to_string()))?;
    let grown = state.verb("grow", move |engine| {
        let (change, volume) = engine.grow(&name, to)?;
        Ok(changed(engine, change, Outcome::Grown, &volume))
    });
    grown.await.map(Json)
}

/// Set and remove labels.
#[utoipa::path(patch, path = "/v1/volumes/{name}/labels", tag = "volumes", operation_id = "label_volume", request_body = Labels,
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = VolumeChanged), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn label(
    State(state): State<AppState>,
    Name(name): Name,
    Body(request): Body<Labels>,
) -> Result<Json<VolumeChanged>, Problem> {
    if let Some(both) = request.unset.iter().find(|key| request.set.contains_key(*key)) {
        return Err(invalid(format!("the label {both:?} is to be set and removed: one of the two is meant")));
    }
    let labelled = state.verb("label", move |engine| {
        let (change, volume) = engine.label(&name, &request.set, &request.unset)?;
        Ok(changed(engine, change, Outcome::Labelled, &volume))
    });
    labelled.await.map(Json)
}

fn usage_of(engine: &Engine, volume: &model::Volume) -> engine::Result<Usage> {
    let usage = engine.usage_of(volume)?;
    Ok(Usage {
        name: volume.name.to_string(),
        size: usage.size,
        used: usage.used,
        allocated: usage.allocated,
        inodes: usage.inodes.map(|(total, used)| Inodes { total, used }),
    })
}

/// How full a volume is. Cheap: counters that are there anyway, no walk of the tree.
#[utoipa::path(get, path = "/v1/volumes/{name}/usage", tag = "volumes", operation_id = "volume_usage",
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = Usage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn usage(State(state): State<AppState>, Name(name): Name) -> Result<Json<Usage>, Problem> {
    let usage = state.call("usage", move |engine| usage_of(engine, &*engine.volume(&name)?));
    usage.await.map(Json)
}

/// How full every volume is; those that can't be looked at are left out.
#[utoipa::path(get, path = "/v1/usage", tag = "volumes", operation_id = "usage",
    responses((status = 200, body = Usages), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn usages(State(state): State<AppState>) -> Result<Json<Usages>, Problem> {
    let usages = state.call("usage", move |engine| {
        let volumes = engine.volumes();
        Ok(Usages { usages: volumes.iter().filter_map(|volume| usage_of(engine, volume).ok()).collect() })
    });
    usages.await.map(Json)
}

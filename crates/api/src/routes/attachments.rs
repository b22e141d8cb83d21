//! Attachments of the command line, and everyone who uses a volume.

use crate::body::Body;
use crate::params::{Name, Segments, volume_name};
use crate::state::AppState;
use crate::v1::{Attach, Attached, Container, Detached, Holders, Outcome, Problem, Process};
use axum::Json;
use axum::extract::State;
use model::HolderKind;

/// Make a volume usable on this host, and say where. The same identifier twice is one attachment.
#[utoipa::path(post, path = "/v1/volumes/{name}/attachments", tag = "attachments", operation_id = "attach_volume", request_body = Attach,
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = Attached), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn attach(
    State(state): State<AppState>,
    Name(name): Name,
    Body(request): Body<Attach>,
) -> Result<Json<Attached>, Problem> {
    let id = request.id.unwrap_or_else(|| format!("cli-{}", uuid::Uuid::new_v4().simple()));
    let attached = state.verb("attach", move |engine| {
        let (change, path) = engine.attach(&name, &id, HolderKind::Cli, request.access.into())?;
        Ok(Attached { result: Outcome::of(change, Outcome::Attached), id, path: path.display().to_string() })
    });
    attached.await.map(Json)
}

/// End an attachment; the last one's end unmounts the volume.
#[utoipa::path(delete, path = "/v1/volumes/{name}/attachments/{id}", tag = "attachments", operation_id = "detach_volume",
    params(("name" = String, Path, description = "The volume's name"), ("id" = String, Path, description = "The attachment's identifier")),
    responses((status = 200, body = Detached), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn detach(
    State(state): State<AppState>,
    Segments((name, id)): Segments<(String, String)>,
) -> Result<Json<Detached>, Problem> {
    let name = volume_name(&name)?;
    let detached = state.verb("detach", move |engine| {
        Ok(Detached { result: Outcome::of(engine.detach(&name, &id)?, Outcome::Detached) })
    });
    detached.await.map(Json)
}

/// Who uses a volume: attachments, containers, and processes with open files.
#[utoipa::path(get, path = "/v1/volumes/{name}/holders", tag = "attachments", operation_id = "volume_holders",
    params(("name" = String, Path, description = "The volume's name")),
    responses((status = 200, body = Holders), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn holders(
    State(state): State<AppState>,
    Name(name): Name,
) -> Result<Json<Holders>, Problem> {
    let holders = state.call("holders", move |engine| engine.holders(&name)).await?;
    let (containers, containers_unknown) = match holders.containers {
        Ok(containers) => (containers.into_iter().map(Container::from).collect(), None),
        Err(why) => (Vec::new(), Some(why)),
    };
    Ok(Json(Holders {
        volume: holders.volume.name.to_string(),
        attachments: holders.volume.attachments.iter().map(Into::into).collect(),
        containers,
        containers_unknown,
        processes: holders.processes.into_iter().map(Process::from).collect(),
    }))
}

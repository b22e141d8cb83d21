//! Pools.

use crate::params::Segments;
use crate::problem::invalid;
use crate::state::AppState;
use crate::v1::{Outcome, Pool, PoolReleased, Pools, Problem};
use axum::Json;
use axum::extract::State;
use model::{NameError, PoolName};

/// How each pool stands.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", operation_id = "list_pools",
    responses((status = 200, body = Pools), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(state): State<AppState>) -> Result<Json<Pools>, Problem> {
    let seen = state.call("pools", |engine| Ok(engine.pools())).await?;
    let mut answer = Pools { pools: Vec::new(), problems: Vec::new() };
    for pool in seen {
        match pool {
            Ok(pool) => answer.pools.push(Pool::from(pool)),
            Err(error) => answer.problems.push(Problem::from(error)),
        }
    }
    Ok(Json(answer))
}

/// Let the held writers of a full pool go on. They get I/O errors when the last block is gone.
#[utoipa::path(post, path = "/v1/pools/{name}/release", tag = "pools", operation_id = "release_pool",
    params(("name" = String, Path, description = "The pool's name")),
    responses((status = 200, body = PoolReleased), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn release(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
) -> Result<Json<PoolReleased>, Problem> {
    let name: PoolName = name.parse().map_err(|error: NameError| invalid(error.to_string()))?;
    let released = state.verb("release", move |engine| {
        let result = Outcome::of(engine.release_pool(&name)?, Outcome::Released);
        Ok(PoolReleased { result, pool: name.to_string() })
    });
    released.await.map(Json)
}

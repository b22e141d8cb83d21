//! Backups of containers in vaults.

use super::histories::parse;
use crate::body::Body;
use crate::params::Segments;
use crate::state::AppState;
use crate::v1::{Bundle, BundleRemoved, BundleStored, Bundles, FetchBundle, Outcome, Problem, StoreBundle};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{BundleName, VaultName};

/// The bundles in a vault. Nothing is written to it.
#[utoipa::path(get, path = "/v1/vaults/{name}/bundles", tag = "bundles", operation_id = "list_bundles",
    params(("name" = String, Path, description = "The vault's name")),
    responses((status = 200, body = Bundles), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
) -> Result<Json<Bundles>, Problem> {
    let vault: VaultName = parse(&name)?;
    let said = vault.to_string();
    let found = state.long_call("bundles", move |engine| engine.bundles(&vault)).await?;
    let bundles = found.bundles.into_iter().map(Into::into).collect();
    Ok(Json(Bundles { vault: said, bundles, problems: found.damaged }))
}

/// Store a file as a bundle. Answers when it is durable. What an interrupted one has left is cleared away.
#[utoipa::path(post, path = "/v1/vaults/{name}/bundles", tag = "bundles", operation_id = "store_bundle",
    params(("name" = String, Path, description = "The vault's name")), request_body = StoreBundle,
    responses((status = 201, description = "Stored", body = BundleStored),
        (status = 200, description = "The very same was there already", body = BundleStored),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn store(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
    Body(request): Body<StoreBundle>,
) -> Result<(StatusCode, Json<BundleStored>), Problem> {
    let vault: VaultName = parse(&name)?;
    let asked = engine::BundleToStore {
        name: parse(&request.name)?,
        path: request.path.into(),
        instant: request.instant,
        containers: request.containers,
    };
    let stored = state.long_verb("bundle-store", move |engine| engine.store_bundle(&vault, &asked));
    let (bundle, is_new) = stored.await?;
    let (status, result) = match is_new {
        true => (StatusCode::CREATED, Outcome::Created),
        false => (StatusCode::OK, Outcome::AlreadyThere),
    };
    Ok((status, Json(BundleStored { result, bundle: bundle.into() })))
}

/// Write a bundle to a new file. Answers when all of it was read, checked and written.
#[utoipa::path(post, path = "/v1/vaults/{name}/bundles/{bundle}/fetch", tag = "bundles", operation_id = "fetch_bundle",
    params(("name" = String, Path, description = "The vault's name"), ("bundle" = String, Path, description = "The bundle's name")),
    request_body = FetchBundle,
    responses((status = 200, body = Bundle), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn fetch(
    State(state): State<AppState>,
    Segments((name, bundle)): Segments<(String, String)>,
    Body(request): Body<FetchBundle>,
) -> Result<Json<Bundle>, Problem> {
    let (vault, bundle): (VaultName, BundleName) = (parse(&name)?, parse(&bundle)?);
    let fetched = state
        .long_verb("bundle-fetch", move |engine| engine.fetch_bundle(&vault, &bundle, request.path.as_ref()));
    fetched.await.map(|bundle| Json(bundle.into()))
}

/// Remove a bundle for good.
#[utoipa::path(delete, path = "/v1/vaults/{name}/bundles/{bundle}", tag = "bundles", operation_id = "remove_bundle",
    params(("name" = String, Path, description = "The vault's name"), ("bundle" = String, Path, description = "The bundle's name")),
    responses((status = 200, body = BundleRemoved), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(
    State(state): State<AppState>,
    Segments((name, bundle)): Segments<(String, String)>,
) -> Result<Json<BundleRemoved>, Problem> {
    let (vault, bundle): (VaultName, BundleName) = (parse(&name)?, parse(&bundle)?);
    let removed = state.long_verb("bundle-rm", move |engine| engine.remove_bundle(&vault, &bundle)).await?;
    let result = if removed.is_some() { Outcome::Destroyed } else { Outcome::AlreadyThere };
    Ok(Json(BundleRemoved { result, bundle: removed.map(Into::into) }))
}

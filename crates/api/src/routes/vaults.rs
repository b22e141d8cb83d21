//! Vaults.

use crate::body::Body;
use crate::params::{Params, Segments};
use crate::problem::invalid;
use crate::state::AppState;
use crate::v1::{
    CheckVault, Outcome, Problem, Secret, VaultAdd, VaultAdded, VaultChecked, VaultForgotten, VaultKit,
    Vaults,
};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{NameError, VaultName};
use vault::keys::SecretString;

fn vault_name(text: &str) -> Result<VaultName, Problem> {
    text.parse().map_err(|error: NameError| invalid(error.to_string()))
}

fn secret(text: Option<Secret>) -> Option<SecretString> {
    text.map(|Secret(text)| SecretString::from(text))
}

/// The vaults, as last seen.
#[utoipa::path(get, path = "/v1/vaults", tag = "vaults", operation_id = "list_vaults",
    responses((status = 200, body = Vaults), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(state): State<AppState>) -> Json<Vaults> {
    Json(Vaults { vaults: state.engine.vaults().list().into_iter().map(Into::into).collect() })
}

/// Make a vault in an empty place, or open the one that is there.
#[utoipa::path(post, path = "/v1/vaults", tag = "vaults", operation_id = "add_vault", request_body = VaultAdd,
    responses((status = 201, description = "Created; with the recovery kit", body = VaultAdded),
        (status = 200, description = "Opened, changed, taken over or already there", body = VaultAdded),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn add(
    State(state): State<AppState>,
    Body(request): Body<VaultAdd>,
) -> Result<(StatusCode, Json<VaultAdded>), Problem> {
    let add = engine::VaultAdd {
        name: vault_name(&request.name)?,
        url: request.url.parse().map_err(|error: vault::url::LocationError| invalid(error.to_string()))?,
        access: engine::VaultAccess {
            credentials_file: request.credentials_file.map(Into::into),
            profile: request.profile,
            ca_file: request.ca_file.map(Into::into),
            allow_http: request.allow_http,
        },
        recipients: request.recipients,
        passphrase: secret(request.passphrase),
        kit: secret(request.kit),
        take_over: request.take_over,
        read_only: request.read_only,
    };
    let added = state.verb("vault-add", move |engine| engine.vaults().add(add)).await?;
    let added = VaultAdded::from(added);
    let status = if added.result == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(added)))
}

/// Try what a vault's store can do, look at its claim, its keys and its size, and find what is missing in it or, if all is
/// to be read, damaged. A refused claim is asked for again.
#[utoipa::path(post, path = "/v1/vaults/{name}/check", tag = "vaults", operation_id = "check_vault",
    params(("name" = String, Path, description = "The vault's name"), CheckVault),
    responses((status = 200, body = VaultChecked), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn check(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
    Params(params): Params<CheckVault>,
) -> Result<Json<VaultChecked>, Problem> {
    let name = vault_name(&name)?;
    let checked = state.verb("vault-check", move |engine| engine.check_vault(&name, params.deep));
    checked.await.map(|checked| Json(checked.into()))
}

/// Make one more recovery kit of a vault.
#[utoipa::path(post, path = "/v1/vaults/{name}/kit", tag = "vaults", operation_id = "make_vault_kit",
    params(("name" = String, Path, description = "The vault's name")),
    responses((status = 200, body = VaultKit), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn kit(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
) -> Result<Json<VaultKit>, Problem> {
    let name = vault_name(&name)?;
    let kit = state.verb("vault-kit", move |engine| {
        let kit = engine.vaults().kit(&name)?;
        Ok(VaultKit { vault: name.to_string(), kit: Secret(kit.to_string()) })
    });
    kit.await.map(Json)
}

/// Forget a vault that no volume's history is in. What is in it stays where it is.
#[utoipa::path(delete, path = "/v1/vaults/{name}", tag = "vaults", operation_id = "forget_vault",
    params(("name" = String, Path, description = "The vault's name")),
    responses((status = 200, body = VaultForgotten), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn forget(
    State(state): State<AppState>,
    Segments(name): Segments<String>,
) -> Result<Json<VaultForgotten>, Problem> {
    let name = vault_name(&name)?;
    let forgotten = state.verb("vault-rm", move |engine| {
        let vault = engine.forget_vault(&name)?;
        let result = if vault.is_some() { Outcome::Forgotten } else { Outcome::AlreadyThere };
        let again = vault.as_ref().map(|vault| {
            let record = &vault.record;
            format!("everhold vault add {} '{}' --kit-file FILE", record.name, record.url)
        });
        Ok(VaultForgotten { result, vault: vault.map(Into::into), again })
    });
    forgotten.await.map(Json)
}

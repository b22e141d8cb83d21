//! The OpenAPI document, generated from the handlers, and the routes that come with it.

use crate::routes::{
    attachments, bundles, daemon, histories, pools, progress, stored, trash, vaults, volumes,
};
use crate::state::AppState;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Everhold",
        description = "Volumes that outlive their containers. Served on a Unix socket. Sizes are bytes, times are RFC 3339. \
            Every error is a problem (RFC 9457) with a stable `code`. Every verb can be asked for again; `result` says \
            whether anything was done.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "volumes", description = "Volumes and their lifecycle"),
        (name = "attachments", description = "Who uses a volume"),
        (name = "trash", description = "What was removed and can be restored"),
        (name = "pools", description = "Where volumes are put"),
        (name = "vaults", description = "Where histories are kept"),
        (name = "histories", description = "Cuts, and what is brought back from them"),
        (name = "bundles", description = "Backups of containers in vaults"),
        (name = "daemon", description = "The daemon itself")
    )
)]
struct Document;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(volumes::list, volumes::create))
        .routes(routes!(volumes::inspect, volumes::remove))
        .routes(routes!(volumes::rename))
        .routes(routes!(volumes::grow))
        .routes(routes!(volumes::label))
        .routes(routes!(volumes::usage))
        .routes(routes!(volumes::usages))
        .routes(routes!(attachments::attach))
        .routes(routes!(attachments::detach))
        .routes(routes!(attachments::holders))
        .routes(routes!(trash::list, trash::empty))
        .routes(routes!(trash::destroy_one))
        .routes(routes!(trash::restore))
        .routes(routes!(pools::list))
        .routes(routes!(pools::release))
        .routes(routes!(histories::list))
        .routes(routes!(histories::protect, histories::unprotect))
        .routes(routes!(histories::history))
        .routes(routes!(histories::snapshots, histories::create_snapshot))
        .routes(routes!(histories::remove_snapshot))
        .routes(routes!(histories::restore))
        .routes(routes!(histories::clone))
        .routes(routes!(histories::verify))
        .routes(routes!(progress::list))
        .routes(routes!(vaults::list, vaults::add))
        .routes(routes!(vaults::check))
        .routes(routes!(vaults::kit))
        .routes(routes!(vaults::forget))
        .routes(routes!(stored::list))
        .routes(routes!(stored::history))
        .routes(routes!(stored::restore))
        .routes(routes!(bundles::list, bundles::store))
        .routes(routes!(bundles::fetch))
        .routes(routes!(bundles::remove))
        .routes(routes!(daemon::status))
        .routes(routes!(daemon::document))
        .routes(routes!(daemon::metrics))
}

/// The OpenAPI document of this API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_committed_document_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let now = format!("{}\n", openapi().to_pretty_json().unwrap());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == now,
            "{} is not what the code says. If the change is wanted: UPDATE=1 cargo test -p everhold-api openapi",
            path.display()
        );
    }

    #[test]
    fn everything_is_described() {
        let document = serde_json::to_value(openapi()).unwrap();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                let described = property.get("description").is_some() || property.get("oneOf").is_some();
                assert!(described, "{name}.{field} has no description: {property}");
            }
        }
    }
}

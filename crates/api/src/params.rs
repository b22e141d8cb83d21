//! What a request says in its path and query, with errors in the one shape.

use crate::problem::invalid;
use crate::v1::Problem;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use model::VolumeName;
use serde::de::DeserializeOwned;

/// The name in the path.
pub(crate) struct Name(pub VolumeName);

/// One or more texts in the path.
pub(crate) struct Segments<T>(pub T);

/// The query.
pub(crate) struct Params<T>(pub T);

/// Reads a volume's name.
pub(crate) fn volume_name(text: &str) -> Result<VolumeName, Problem> {
    text.parse().map_err(|error: model::NameError| invalid(error.to_string()))
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Segments(text) = Segments::<String>::from_request_parts(parts, state).await?;
        volume_name(&text).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value)).map_err(|rejection| invalid(rejection.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|rejection| invalid(rejection.body_text()))
    }
}

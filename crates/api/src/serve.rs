//! The server: connections over a Unix socket, with bounds for everything a client can do to it.

use crate::body::BodyDeadline;
use crate::openapi::routes;
use crate::problem::{no_method, no_route};
use crate::stall::Stalling;
use crate::state::AppState;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// What clients may do at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; further ones wait in the socket's queue.
    pub connections: usize,
    /// How long the head of a request may take to arrive, and how long a connection may be idle.
    pub head: Duration,
    /// How long the body of a request may take to arrive.
    pub body: Duration,
    /// How long an answer may wait for a client that does not read.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            answer: Duration::from_secs(10),
        }
    }
}

/// The routes as a service.
pub fn router(state: AppState) -> Router {
    let (router, _) = routes().split_for_parts();
    router.fallback(no_route).method_not_allowed_fallback(no_method).with_state(state)
}

/// Serves until `shutdown` is done, then finishes the requests at work. Drop it to end at once.
///
/// # Errors
/// When the listener can't be used.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    state: AppState,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_with(listener, state, Limits::default(), shutdown).await
}

/// As [`serve`], with other limits.
///
/// # Errors
/// When the listener can't be used.
pub async fn serve_with(
    listener: std::os::unix::net::UnixListener,
    state: AppState,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let router = router(state).layer(Extension(BodyDeadline(limits.body)));
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
                let service = TowerToHyperService::new(router.clone());
                let connection = graceful.watch(
                    builder.serve_connection(TokioIo::new(Stalling::new(stream, limits.answer)), service),
                );
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a client's connection ended early");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: some will be free in a moment.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

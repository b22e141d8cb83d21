//! HTTP on the plugin's socket: one call on each connection, and nobody waits for a slow client.

use super::answer::{Refusal, response};
use super::{Plugin, PluginSocket};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How much of a body that is too long is read and thrown away, so that the client gets to read the answer.
const THROWN_AWAY: usize = 16 << 20;
/// What a connection may take beyond its deadlines, for a client that is slow to read.
const READ_ANSWER: Duration = Duration::from_secs(5);

/// Serves the plugin until `shutdown`; then takes no more calls, removes the socket, and waits for the calls under
/// way, for [`super::Settings::grace`] at most.
pub async fn serve(socket: PluginSocket, plugin: Plugin, shutdown: impl Future<Output = ()>) {
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = socket.accept() => match accepted {
                Ok(stream) => {
                    connections.spawn(connection(stream, plugin.clone(), stopped.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: it gets better when other calls end.
                    tracing::warn!(%error, "could not take a call on the plugin socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = connections.join_next() => note_panic(ended),
        }
    }
    drop(socket);
    drop(stop);
    let rest = async {
        while let Some(ended) = connections.join_next().await {
            note_panic(ended);
        }
    };
    if timeout(plugin.settings.grace, rest).await.is_err() {
        tracing::warn!("some of Docker's calls were still under way at shutdown; Docker tries them again");
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a call on the plugin socket broke off");
    }
}

async fn connection(stream: UnixStream, plugin: Plugin, mut stopped: watch::Receiver<()>) {
    let settings = plugin.settings;
    let whole = settings.header_deadline + settings.body_deadline + settings.call_deadline + READ_ANSWER;
    let service = service_fn(move |request| {
        let plugin = plugin.clone();
        async move { Ok::<_, Infallible>(call(&plugin, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_deadline)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = timeout(whole, async {
        tokio::select! {
            served = &mut connection => return served,
            // The sender was dropped: the shutdown has begun.
            _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    });
    match served.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the plugin socket broke"),
        Err(_) => tracing::debug!("a client on the plugin socket did not read its answer"),
    }
}

async fn call(plugin: &Plugin, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        let text = format!("{} is not how plugins are called: use POST", request.method());
        return response(Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text)));
    }
    let path = request.uri().path().to_owned();
    let limit = plugin.settings.body_limit;
    let body = match timeout(plugin.settings.body_deadline, read(request.into_body(), limit)).await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return response(Err(refusal)),
        Err(_) => {
            let text = format!(
                "the request did not arrive within {} s; nothing was done",
                plugin.settings.body_deadline.as_secs()
            );
            return response(Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, text)));
        }
    };
    // What the content type says does not matter: Docker sends one or none, depending on its version.
    response(plugin.answer(&path, &body).await)
}

async fn read(mut body: Incoming, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::bad_request(format!("the request broke off: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length <= limit {
            bytes.extend_from_slice(data);
        } else if length > THROWN_AWAY || body.size_hint().lower() > THROWN_AWAY as u64 {
            break;
        }
    }
    if length > limit {
        let text = format!("the request is longer than {limit} bytes; nothing was done");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(bytes)
}

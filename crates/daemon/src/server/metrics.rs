//! `--metrics-addr`: a socket for Prometheus, which gets nothing but the metrics.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use crate::http::{ApiError, Response};
use crate::routes;
use crate::state::State;

/// Clients served at a time; more have to wait. A scraper opens one or two.
const CLIENTS: usize = 32;

/// How long a client may take for the head of its request.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let fail = |reason| ServeError::Listen { host: format!("{address} (--metrics-addr)"), reason };
    let listener = std::net::TcpListener::bind(address).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    TcpListener::from_std(listener).map_err(fail)
}

/// Serves until the daemon ends.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((stream, _)) => {
                    let state = state.clone();
                    clients.spawn(async move {
                        let service = service_fn(move |request| answer(state.clone(), request));
                        let result = hyper::server::conn::http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(PATIENCE)
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                        if let Err(error) = result {
                            tracing::debug!("a reader of the metrics left: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!("cannot accept a reader of the metrics: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn answer(state: Arc<State>, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => routes::portolan::metrics(&state),
        (_, "/metrics") => ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read").into(),
        _ => ApiError::page_not_found().into(),
    })
}

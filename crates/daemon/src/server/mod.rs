//! Sockets, connections, and the daemon's life: listen, serve, end.

mod connection;
mod listen;
mod metrics;
mod sniff;
mod stream;
mod takeover;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portolan_engine::Engine;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use sniff::Sniffer;
pub(crate) use stream::Stream;
pub(crate) use takeover::{Takeover, What, frame};

use crate::config::{Config, Host};
use crate::logging::LogControl;
use crate::state::State;
use listen::Listener;

/// How long requests under way are waited for when the daemon ends.
const GRACE: Duration = Duration::from_secs(3);

/// The daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket cannot be made.
    #[error("cannot listen on {host}: {reason}")]
    Listen {
        /// As `--host` has it.
        host: String,
        /// Why.
        reason: io::Error,
    },
    /// Another daemon answers on the socket.
    #[error("cannot listen on {0}: another daemon is serving there")]
    Taken(String),
    /// The file with the process id cannot be written, or names a running daemon.
    #[error("pidfile {path}: {reason}")]
    Pidfile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(io::Error),
}

/// Serves the engine on all hosts of the configuration until `shutdown`; then lets requests under way end, shuts
/// the engine down and removes sockets and pidfile. SIGHUP makes it read the configuration file again.
///
/// # Errors
/// A socket or the pidfile cannot be made.
pub async fn serve(
    config: Config,
    engine: Engine,
    log: LogControl,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let _pidfile = listen::Pidfile::write(&config.pidfile)?;
    let mut listeners = Vec::new();
    for host in &config.hosts {
        listeners.extend(listen::listen(host, config.group.as_deref())?);
        if matches!(host, Host::Tcp(_)) {
            tracing::warn!(
                "the API is on {} without encryption and without authentication: whoever reaches it is root on \
                 this host. Prefer a unix socket, over SSH if need be",
                host_text(host)
            );
        }
    }
    let metrics = config.metrics.map(metrics::listen).transpose()?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut hangup = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
    // dockerd writes its stacks down at this one; by itself it would end the daemon.
    let mut look = signal(SignalKind::user_defined1()).map_err(ServeError::Signals)?;
    let state = Arc::new(State::new(config, engine));
    let stop = CancellationToken::new();
    let mut accepting = JoinSet::new();
    for listener in listeners {
        tracing::info!("API listen on {}", listener.name());
        accepting.spawn(accept(listener, state.clone(), stop.clone()));
    }
    if let Some(listener) = metrics {
        accepting.spawn(metrics::serve(listener, state.clone(), stop.clone()));
    }
    listen::notify_systemd("READY=1");
    tracing::info!("daemon has completed initialization");
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(()) = hangup.recv() => reload(&state, &log),
            Some(()) = look.recv() => tell(&state).await,
        }
    }
    tracing::info!("shutting down");
    listen::notify_systemd("STOPPING=1");
    stop.cancel();
    let _ = tokio::time::timeout(GRACE, async { while accepting.join_next().await.is_some() {} }).await;
    accepting.shutdown().await;
    state.engine.shutdown().await;
    Ok(())
}

/// Ends at SIGTERM or SIGINT.
///
/// # Errors
/// The handlers cannot be installed.
pub fn stop_signal() -> Result<impl Future<Output = ()>, ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn reload(state: &State, log: &LogControl) {
    match state.config.reload() {
        Ok(config) => {
            log.set_level(config.log_level);
            state.reload(&config);
            let kept = state.config.kept_until_restart(&config);
            if !kept.is_empty() {
                tracing::warn!(
                    keys = kept.join(", "),
                    "these have changed, and take effect at the next start"
                );
            }
            let attributes = config.reload_attributes();
            state.engine.reload(&config.engine, attributes);
            tracing::info!("reloaded the configuration");
        }
        Err(error) => tracing::error!("the configuration stays as it is: {error}"),
    }
}

/// Writes down how things stand.
async fn tell(state: &State) {
    match state.engine.info().await {
        Ok(info) => tracing::info!(
            containers = info.containers,
            running = info.running,
            paused = info.paused,
            event_listeners = info.event_listeners,
            "asked by SIGUSR1 how things stand"
        ),
        Err(error) => tracing::error!("cannot tell how things stand: {error}"),
    }
}

/// Takes in clients until the daemon ends, then waits for their requests.
async fn accept(listener: Listener, state: Arc<State>, stop: CancellationToken) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    clients.spawn(connection::serve(state.clone(), stream, stop.clone()));
                }
                // Such as too many open files: another client's end makes room.
                Err(error) => {
                    tracing::error!("cannot accept a client on {}: {error}", listener.name());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    while clients.join_next().await.is_some() {}
}

/// A host as `--host` has it.
fn host_text(host: &Host) -> String {
    match host {
        Host::Unix(path) => format!("unix://{}", path.display()),
        Host::Tcp(address) => format!("tcp://{address}"),
        Host::Systemd => "fd://".to_owned(),
    }
}

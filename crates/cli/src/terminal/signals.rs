//! Signals that we get while we are attached: forwarded to the container, or followed by a resize.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::{Client, target};
use crate::terminal;

/// Signals of ours that the container should get, by the name that the API takes.
const FORWARDED: &[(i32, &str)] = &[
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGALRM, "ALRM"),
    (libc::SIGCONT, "CONT"),
    (libc::SIGTSTP, "TSTP"),
];

/// Signals that end us: the terminal is restored first.
const DEADLY: &[(i32, &str)] =
    &[(libc::SIGHUP, "HUP"), (libc::SIGINT, "INT"), (libc::SIGQUIT, "QUIT"), (libc::SIGTERM, "TERM")];

/// As many requests to end as a container may ignore before we leave it.
const PATIENCE: u32 = 3;

/// What arrived.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrival {
    /// A signal for the container.
    Forward(&'static str),
    /// A signal that ends us.
    End(i32),
    /// The user asked for the end so many times that the container's answer is not awaited any more.
    GiveUp,
    /// The terminal has another size.
    Resize,
}

/// The signals that are watched.
#[derive(Debug)]
pub(crate) struct Signals {
    watched: Vec<(Signal, i32, &'static str)>,
    forward: bool,
    /// How many times SIGINT or SIGTERM arrived.
    asked: u32,
}

impl Signals {
    /// Watches signals: those for the container if `forward`, those that end us otherwise, and the
    /// terminal's size if `sizes`.
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub(crate) fn watch(forward: bool, sizes: bool) -> io::Result<Signals> {
        let list = if forward { FORWARDED } else { DEADLY };
        let size: &[(i32, &str)] = &[(libc::SIGWINCH, "WINCH")];
        let watched = list
            .iter()
            .chain(size.iter().filter(|_| sizes))
            .map(|&(number, name)| Ok((signal(SignalKind::from_raw(number))?, number, name)))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Signals { watched, forward, asked: 0 })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Arrival {
        let forward = self.forward;
        let watched = &mut self.watched;
        let (number, name) = std::future::poll_fn(|context| {
            for (signal, number, name) in watched.iter_mut() {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready((*number, *name));
                }
            }
            std::task::Poll::Pending
        })
        .await;
        if matches!(number, libc::SIGINT | libc::SIGTERM) {
            self.asked += 1;
        }
        match number {
            libc::SIGINT | libc::SIGTERM if self.asked >= PATIENCE => Arrival::GiveUp,
            libc::SIGWINCH => Arrival::Resize,
            _ if forward => Arrival::Forward(name),
            number => Arrival::End(number),
        }
    }
}

/// Tells the daemon the size of our terminal; `what` is `/containers/ID` or `/exec/ID`. A process
/// that is not there yet or any more is no failure: the next resize or the end comes by itself.
pub(crate) async fn resize_to_terminal(client: &Client, what: &str) {
    resize_by(client, what, 0).await;
}

/// As [`resize_to_terminal`], with so many lines and columns more.
pub(crate) async fn resize_by(client: &Client, what: &str, more: u16) {
    if let Some((height, width)) = terminal::size() {
        let larger = |size: u16| size.saturating_add(more).to_string();
        let (height, width) = (larger(height), larger(width));
        let path = target(&format!("{what}/resize"), &[("h", height.as_str()), ("w", width.as_str())]);
        let _ = client.post(&path, serde_json::Value::Null).await;
    }
}

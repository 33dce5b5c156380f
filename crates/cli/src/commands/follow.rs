//! Being attached to a container or an exec until it is over: output, input, signals and sizes.

use std::future::Future;

use http::Method;
use serde_json::Value;

use crate::client::{Client, ClientError, empty, target};
use crate::failure::Failure;
use crate::json::Json;
use crate::session::line_err;
use crate::terminal::{Arrival, Attached, Ended, Signals, resize_to_terminal, restore_on_exit};

/// How it was over.
#[derive(Debug, PartialEq)]
pub(super) enum Finish {
    /// The process ended with this status.
    Exited(u8),
    /// The user typed the detach keys.
    Detached,
}

/// An attached process and what belongs to it.
pub(super) struct Follow<'f> {
    /// The daemon.
    pub(super) client: &'f Client,
    /// Where resizes and signals go: `/containers/ID` or `/exec/ID`.
    pub(super) what: String,
    /// The joined streams.
    pub(super) attached: Attached,
    /// The signals that are watched.
    pub(super) signals: Signals,
    /// Whether output is shown: then its end is awaited even after the process ended.
    pub(super) shows_output: bool,
}

impl Follow<'_> {
    /// Follows until the process is over, which `status` tells.
    pub(super) async fn until(
        mut self,
        status: impl Future<Output = Result<i64, ClientError>>,
    ) -> Result<Finish, Failure> {
        let mut status = std::pin::pin!(status);
        let mut exited = None;
        let mut output_over = false;
        loop {
            if let (Some(code), true) = (exited, output_over) {
                return Ok(Finish::Exited(exit_status(code)));
            }
            tokio::select! {
                ended = self.attached.run(), if !output_over => match ended? {
                    Ended::Output => output_over = true,
                    Ended::Detached => return Ok(Finish::Detached),
                },
                code = &mut status, if exited.is_none() => {
                    exited = Some(code?);
                    output_over |= !self.shows_output;
                }
                arrival = self.signals.next() => self.arrived(arrival).await,
            }
        }
    }

    async fn arrived(&self, arrival: Arrival) {
        match arrival {
            Arrival::Resize => resize_to_terminal(self.client, &self.what).await,
            Arrival::Forward(name) => {
                let path = target(&format!("{}/kill", self.what), &[("signal", name)]);
                // The container may just have ended; its end is told by itself.
                let _ = self.client.post(&path, Value::Null).await;
            }
            Arrival::GiveUp => {
                restore_on_exit();
                line_err("\ngot 3 SIGTERM/SIGINTs, forcefully exiting");
                std::process::exit(1);
            }
            Arrival::End(number) => {
                restore_on_exit();
                std::process::exit(128 + number);
            }
        }
    }
}

/// An exit code as a process can have it.
pub(super) fn exit_status(code: i64) -> u8 {
    (code & 0xff) as u8
}

/// Asks for a container's end; returns when the daemon has begun to wait, so that a container that
/// is started afterwards cannot end unseen. The result is its exit code.
pub(super) async fn wait(
    client: &Client,
    id: &str,
    condition: &str,
) -> Result<impl Future<Output = Result<i64, ClientError>> + use<>, ClientError> {
    let path = target(&format!("/containers/{id}/wait"), &[("condition", condition)]);
    let (_, body) = client.stream(Method::POST, &path, empty()).await?;
    Ok(async move {
        let answer = body.json_lines().next().await?.unwrap_or(Value::Null);
        match answer.at(&["Error", "Message"]).as_str() {
            Some(message) if !message.is_empty() => Err(ClientError::Broken(message.to_owned())),
            _ => Ok(answer.int("StatusCode")),
        }
    })
}

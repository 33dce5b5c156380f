//! `GET /containers/{id}/logs`

use jiff::Timestamp;
use portolan_api::media_type;
use portolan_engine::model::LogOptions;

use super::attach::MULTIPLEXED;
use crate::convert::parse_time;
use crate::http::{Answer, ApiError, Request, stream};
use crate::server::frame;
use crate::state::State;

pub(super) async fn logs(state: &State, request: &Request, name: &str) -> Answer {
    let options = options(request)?;
    let logs = state.engine.container_logs(name, options).await?;
    let tty = logs.tty;
    let content_type = match !tty && request.version >= MULTIPLEXED {
        true => media_type::MULTIPLEXED_STREAM,
        false => media_type::RAW_STREAM,
    };
    // The engine stops reading the log when this is dropped, which hyper does when the client is gone.
    let pieces = futures_util::stream::unfold(logs.output, move |mut output| async move {
        let chunk = output.next().await?;
        Some((Ok(frame(tty, chunk)), output))
    });
    Ok(stream(content_type, pieces))
}

fn options(request: &Request) -> Result<LogOptions, ApiError> {
    let query = &request.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let now = Timestamp::now();
    // Docker's clients send 0 for "not given".
    let time =
        |key: &str| query.get(key).filter(|text| *text != "0").map(|text| parse_time(text, now)).transpose();
    Ok(LogOptions {
        stdout,
        stderr,
        follow: query.flag("follow"),
        since: time("since")?,
        until: time("until")?,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        // As in Docker, everything that is no number means all.
        tail: query.get("tail").and_then(|text| text.parse().ok()),
    })
}

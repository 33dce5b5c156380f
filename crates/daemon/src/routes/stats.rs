//! `GET /containers/{id}/stats`

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use portolan_api::ApiVersion;
use portolan_engine::model::StatsSample;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::convert;
use crate::http::{Answer, Request, json, ndjson, stream};
use crate::state::State;

/// Time between two samples: Docker's.
const PERIOD: Duration = Duration::from_secs(1);

pub(super) async fn stats(state: &Arc<State>, request: &Request, name: &str) -> Answer {
    let container = state.engine.container_inspect(name, false).await?;
    let (id, name) = (container.id.to_string(), container.name);
    let streaming = request.query.flag_or("stream", true);
    let one_shot = request.version >= ApiVersion::new(1, 41) && request.query.flag("one-shot");
    let first = state.engine.container_stats(&id).await?;
    if !streaming {
        let (sample, before) = match one_shot || first.read.is_none() {
            true => (first, None),
            // The client wants rates, and has nothing to compute them from.
            false => {
                tokio::time::sleep(PERIOD).await;
                (state.engine.container_stats(&id).await?, Some(first))
            }
        };
        return json(StatusCode::OK, &convert::stats(&id, &name, &sample, before.as_ref()));
    }
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let sampler = Sampler { state: state.clone(), id, name, before: None, next: Some(first), ticks };
    Ok(stream("application/json", futures_util::stream::unfold(sampler, Sampler::step)))
}

/// A client that watches a container.
struct Sampler {
    state: Arc<State>,
    id: String,
    name: String,
    before: Option<StatsSample>,
    next: Option<StatsSample>,
    ticks: Interval,
}

impl Sampler {
    /// One line; the end when the container is gone.
    async fn step(mut self) -> Option<(std::io::Result<bytes::Bytes>, Self)> {
        let sample = match self.next.take() {
            Some(sample) => sample,
            None => {
                self.ticks.tick().await;
                self.state.engine.container_stats(&self.id).await.ok()?
            }
        };
        let line = ndjson(&convert::stats(&self.id, &self.name, &sample, self.before.as_ref()), "\n");
        self.before = Some(sample);
        Some((line, self))
    }
}

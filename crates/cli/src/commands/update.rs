//! `update`.

use portolan_api::UpdateConfig;
use serde_json::{Map, Value};

use super::create::container_path;
use super::exec::to_json;
use crate::command::{Arity, Command};
use crate::create::{LIMITS, resources, restart_policy};
use crate::failure::{Failure, Outcome};
use crate::flags::Matches;
use crate::json::Json;
use crate::session::{Session, line_err, line_out};

/// The fields of the request that `update` may send; the others keep what they are.
const FIELDS: &[&str] = &[
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpuShares",
    "NanoCpus",
    "CpusetCpus",
    "CpusetMems",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "PidsLimit",
    "RestartPolicy",
];

/// `update`.
pub(super) const UPDATE: Command = Command {
    flags: &[LIMITS],
    also: &["container update", "update"],
    examples: &[("", "update --memory 512m --memory-swap 1g web")],
    ..Command::new(
        "update",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Update configuration of one or more containers",
        Arity::AtLeast(1),
        |session, matches| Box::pin(update(session, matches)),
    )
};

async fn update(session: Session, matches: Matches) -> Outcome {
    if !LIMITS.iter().any(|flag| matches.has(flag.long)) {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    let mut config = UpdateConfig::default();
    resources::set_limits(&mut config, &matches);
    if let Some(policy) = matches.text("restart") {
        config.restart_policy = restart_policy(policy)?;
    }
    let mut body = to_json(&config)?;
    if let Some(body) = body.as_object_mut() {
        let kept: Map<String, Value> =
            std::mem::take(body).into_iter().filter(|(key, _)| FIELDS.contains(&key.as_str())).collect();
        *body = kept;
    }
    let mut failures = Vec::new();
    let mut warnings = Vec::new();
    for name in &matches.args {
        let path = container_path(name, "/update");
        match session.client.post(&path, body.clone()).await {
            Ok(answer) => {
                line_out(name)?;
                warnings.extend(answer.texts("Warnings").into_iter().map(str::to_owned));
            }
            Err(why) => failures.push(why.to_string()),
        }
    }
    if !warnings.is_empty() {
        line_err(&warnings.join("\n"));
    }
    Failure::all(failures)
}

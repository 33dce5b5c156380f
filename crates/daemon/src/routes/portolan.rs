//! `/portolan/...` and `/metrics`: what Docker's API has no word for.

use std::fmt::Write as _;
use std::sync::Arc;

use ::http::StatusCode;
use portolan_api as api;
use portolan_engine::{PortMove, PortSelector, PortUpdate};
use serde::{Deserialize, Serialize};

use crate::convert;
use crate::http::{self, Answer, ApiError, Request, Response, json};
use crate::state::{State, complete};

pub(crate) async fn route(state: &Arc<State>, request: &mut Request, segments: &[&str]) -> Answer {
    match (request.method.as_str(), segments) {
        ("POST", ["containers", name, "ports"]) => ports(state, request, name).await,
        ("GET", ["exposure"]) => exposure(state).await,
        ("GET", ["doctor"]) => doctor(state).await,
        _ => Err(ApiError::page_not_found()),
    }
}

/// Body of `POST /portolan/containers/{id}/ports`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct PortsBody {
    /// As `HostConfig.PortBindings`, with `From` in each binding: networks that may use it.
    add: api::PortMap,
    /// Host ports: `8080`, `8080-8089/udp`, `127.0.0.1:8080`, `[::1]:8080/tcp`.
    remove: Vec<String>,
    /// Published ports that are to be elsewhere on the host.
    #[serde(rename = "Move")]
    moves: Vec<MoveBody>,
    /// `keep` (default): TCP connections go on to their end; `cut`: they end now.
    connections: String,
}

/// One of `Move`, both as in `Remove`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct MoveBody {
    from: String,
    /// Without an address it stays on its own.
    to: String,
}

/// Answer to `POST /portolan/containers/{id}/ports`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PortsAnswer {
    /// What keeps the new ports from being reached, a line for each.
    warnings: Vec<String>,
}

async fn ports(state: &Arc<State>, request: &mut Request, name: &str) -> Answer {
    let body: PortsBody = request.json().await?;
    let cut = match body.connections.as_str() {
        "" | "keep" => false,
        "cut" => true,
        other => {
            return Err(ApiError::invalid(format!("invalid Connections {other:?}: must be keep or cut")));
        }
    };
    let remove = body.remove.iter().map(|text| selector(text)).collect::<Result<_, _>>()?;
    let relocate = |one: &MoveBody| Ok(PortMove { from: selector(&one.from)?, to: selector(&one.to)? });
    let moves = body.moves.iter().map(relocate).collect::<Result<_, ApiError>>()?;
    let update = PortUpdate { add: convert::port_bindings(body.add)?, remove, moves, cut };
    let (engine, name) = (state.engine.clone(), name.to_owned());
    let warnings = complete(async move { engine.container_ports(&name, update).await }).await?;
    json(StatusCode::OK, &PortsAnswer { warnings })
}

fn selector(text: &str) -> Result<PortSelector, ApiError> {
    let invalid =
        || ApiError::invalid(format!("invalid host port {text:?}: [address:]port[-port][/protocol]"));
    let (place, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let (ip, ports) = match place.rsplit_once(':') {
        Some((ip, ports)) => (convert::host_address(ip).map_err(|_| invalid())?, ports),
        None => (None, place),
    };
    let ports = convert::host_ports(ports).ok().flatten().ok_or_else(invalid)?;
    Ok(PortSelector { ip, ports, proto: proto.to_lowercase().parse().map_err(|_| invalid())? })
}

/// One row of `GET /portolan/exposure`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ExposureRow {
    container: String,
    name: String,
    network: String,
    host_ip: String,
    host_port: u16,
    protocol: String,
    target: Option<String>,
    container_port: u16,
    reach: String,
    from: Vec<String>,
    reason: String,
}

async fn exposure(state: &State) -> Answer {
    use portolan_net::Reach;
    let rows: Vec<ExposureRow> = state
        .engine
        .exposure()
        .await?
        .into_iter()
        .map(|one| ExposureRow {
            container: one.container.to_string(),
            name: one.container_name,
            network: one.network,
            host_ip: one.binding.host_ip.to_string(),
            host_port: one.binding.host_port,
            protocol: one.binding.proto.to_string(),
            target: one.target.map(|address| address.to_string()),
            container_port: one.binding.container_port,
            reach: match one.reach {
                Reach::Loopback => "loopback".to_owned(),
                Reach::Address(address) => format!("address {address}"),
                Reach::Everywhere => "every interface".to_owned(),
                Reach::Host => "this host".to_owned(),
                Reach::Routed => "routed to the container".to_owned(),
                Reach::Nobody => "nobody".to_owned(),
            },
            from: one.from.iter().map(ToString::to_string).collect(),
            reason: one.reason,
        })
        .collect();
    json(StatusCode::OK, &rows)
}

/// One row of `GET /portolan/doctor`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DoctorRow {
    check: &'static str,
    /// `ok`, `note` or `problem`.
    status: &'static str,
    what: String,
    why: String,
    fix: Vec<String>,
}

async fn doctor(state: &State) -> Answer {
    let rows: Vec<DoctorRow> = state
        .engine
        .network_examination()
        .await?
        .into_iter()
        .map(|one| DoctorRow {
            check: one.check,
            status: one.verdict.as_str(),
            what: one.what,
            why: one.why,
            fix: one.fix,
        })
        .collect();
    json(StatusCode::OK, &rows)
}

/// `GET /metrics`: Prometheus' text format (version 0.0.4).
pub(crate) fn metrics(state: &State) -> Response {
    let healing = state.engine.network_healing();
    let mut text = String::new();
    let mut counter = |name: &str, help: &str, values: &[(&str, u64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    counter(
        "portolan_heal_looks_total",
        "Times that something of ours may have been touched and was looked at.",
        &[("", healing.looks)],
    );
    counter(
        "portolan_heal_repairs_total",
        "What was put right after others touched it.",
        &[
            ("{what=\"firewall\"}", healing.firewall),
            ("{what=\"link\"}", healing.links),
            ("{what=\"address\"}", healing.addresses),
            ("{what=\"setting\"}", healing.settings),
        ],
    );
    counter(
        "portolan_heal_failures_total",
        "Repairs that failed and were tried again.",
        &[("", healing.failures)],
    );
    for (name, help, micros) in [
        ("portolan_heal_last_seconds", "Duration of the latest repair.", healing.last_us),
        ("portolan_heal_max_seconds", "Duration of the longest repair.", healing.max_us),
    ] {
        let seconds = std::time::Duration::from_micros(micros).as_secs_f64();
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {seconds}");
    }
    http::metrics(text)
}

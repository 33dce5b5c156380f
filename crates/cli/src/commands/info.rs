//! `info`.

use serde_json::Value;

use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, line_err, write_out};
use crate::table::render_typed;
use crate::template::docker;
use crate::units;

/// `info`.
pub(super) const INFO: Command = Command {
    flags: &[&[Flag::text("format", "json or a Go template").short('f')]],
    also: &["system info", "info"],
    ..Command::new(
        "info",
        "[OPTIONS]",
        "Display system-wide information",
        Arity::Exactly(0),
        |session, matches| Box::pin(info(session, matches)),
    )
};

/// The value of a line that is only a title.
const BARE: &str = "\0";

async fn info(session: Session, matches: Matches) -> Outcome {
    let info = session.client.get("/info").await;
    if let Some(format) = matches.text("format") {
        let mut all = info?;
        all["ClientInfo"] = super::version::client_info(&session.context);
        write_out(&render_typed(format, &all, &docker::CLIENT_AND_SERVER)?)?;
        return Ok(0);
    }
    write_out(&format!(
        "Client:\n Version:    {}\n Context:    {}\n Debug Mode: false\n\nServer:\n",
        env!("CARGO_PKG_VERSION"),
        session.context
    ))?;
    let info = info?;
    let errors = info.texts("ServerErrors");
    if !errors.is_empty() {
        return Err(Failure::new(errors.join("\n")));
    }
    write_out(&server(&info))?;
    for warning in info.texts("Warnings") {
        line_err(warning);
    }
    Ok(0)
}

fn server(info: &Value) -> String {
    let mut out = String::new();
    let mut line = |depth: usize, title: &str, value: String| {
        let indent = " ".repeat(depth);
        out.push_str(&match value.as_str() {
            BARE => format!("{indent}{title}\n"),
            list if list.starts_with('\n') => format!("{indent}{title}:{list}\n"),
            value => format!("{indent}{title}: {value}\n"),
        });
    };
    let text = |key: &str| info.text(key).to_owned();
    line(1, "Containers", info.int("Containers").to_string());
    for (title, key) in
        [("Running", "ContainersRunning"), ("Paused", "ContainersPaused"), ("Stopped", "ContainersStopped")]
    {
        line(2, title, info.int(key).to_string());
    }
    line(1, "Images", info.int("Images").to_string());
    line(1, "Server Version", text("ServerVersion"));
    line(1, "Storage Driver", text("Driver"));
    for pair in info.items("DriverStatus") {
        if let (Some(key), Some(value)) = (pair[0].as_str(), pair[1].as_str()) {
            line(2, key, value.to_owned());
        }
    }
    line(1, "Logging Driver", text("LoggingDriver"));
    line(1, "Cgroup Driver", text("CgroupDriver"));
    line(1, "Cgroup Version", text("CgroupVersion"));
    line(1, "Plugins", String::new());
    let plugins = info.get_or_null("Plugins");
    for kind in ["Volume", "Network", "Log"] {
        line(2, kind, plugins.texts(kind).join(" "));
    }
    line(1, "Swarm", info.at(&["Swarm"]).text("LocalNodeState").to_owned());
    let runtimes: Vec<_> = info.entries("Runtimes").iter().map(|(name, _)| *name).collect();
    line(1, "Runtimes", runtimes.join(" "));
    line(1, "Default Runtime", text("DefaultRuntime"));
    line(1, "Init Binary", text("InitBinary"));
    for (title, key) in [
        ("containerd version", "ContainerdCommit"),
        ("runc version", "RuncCommit"),
        ("init version", "InitCommit"),
    ] {
        line(1, title, info.at(&[key]).text("ID").to_owned());
    }
    if let Some(firewall) = info.get("FirewallBackend").filter(|value| !value.is_null()) {
        line(1, "Firewall Backend", firewall.text("Driver").to_owned());
        for pair in firewall.items("Info") {
            if let (Some(key), Some(value)) = (pair[0].as_str(), pair[1].as_str()) {
                line(2, key, value.to_owned());
            }
        }
    }
    security(info, &mut line);
    system(info, &mut line);
    out.push('\n');
    // A heading of further lines has no space behind its colon.
    ["Plugins", "Security Options", "Default Address Pools"]
        .iter()
        .fold(out, |out, title| out.replace(&format!(" {title}: \n"), &format!(" {title}:\n")))
}

fn security(info: &Value, line: &mut impl FnMut(usize, &str, String)) {
    let options = info.texts("SecurityOptions");
    if options.is_empty() {
        return;
    }
    line(1, "Security Options", String::new());
    for option in options {
        for field in option.split(',') {
            match field.split_once('=') {
                Some(("name", name)) => line(2, name, BARE.to_owned()),
                Some(("profile", profile)) => line(3, "Profile", profile.to_owned()),
                _ => {}
            }
        }
    }
}

fn system(info: &Value, line: &mut impl FnMut(usize, &str, String)) {
    let text = |key: &str| info.text(key).to_owned();
    for (title, key) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    ] {
        line(1, title, text(key));
    }
    line(1, "CPUs", info.int("NCPU").to_string());
    line(1, "Total Memory", units::binary_size(info.number("MemTotal")));
    line(1, "Name", text("Name"));
    line(1, "ID", text("ID"));
    line(1, "Docker Root Dir", text("DockerRootDir"));
    line(1, "Debug Mode", info.on("Debug").to_string());
    for (title, key) in [("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")]
    {
        if !info.text(key).is_empty() {
            line(1, title, text(key));
        }
    }
    let labels = info.texts("Labels");
    if !labels.is_empty() {
        line(1, "Labels", format!("\n  {}", labels.join("\n  ")));
    }
    line(1, "Experimental", info.on("ExperimentalBuild").to_string());
    let registries = info.at(&["RegistryConfig"]).texts("InsecureRegistryCIDRs");
    if !registries.is_empty() {
        let list = format!("\n  {}", registries.join("\n  "));
        line(1, "Insecure Registries", list);
    }
    line(1, "Live Restore Enabled", info.on("LiveRestoreEnabled").to_string());
    let pools = info.items("DefaultAddressPools");
    if !pools.is_empty() {
        line(1, "Default Address Pools", String::new());
        for pool in pools {
            line(2, "Base", format!("{}, Size: {}", pool.text("Base"), pool.int("Size")));
        }
    }
}

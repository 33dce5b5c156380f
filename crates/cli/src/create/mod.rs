//! The flags of `run` and `create`, turned into the API's request.

pub(crate) mod env;
pub(crate) mod flags;
mod mounts;
pub(crate) mod network;
pub(crate) mod ports;
pub(crate) mod resources;

use std::collections::BTreeMap;

use portolan_api::{
    ContainerConfig, CreateRequest, HealthConfig, HostConfig, LogConfig, NetworkingConfig, RestartPolicy,
    StrSlice,
};

pub(crate) use flags::{CREATE, LIMITS};

use crate::flags::Matches;

/// Turns the flags and words of `run` or `create` into the body of `POST /containers/create`.
///
/// # Errors
/// Docker's text for what is wrong or contradictory.
pub(crate) fn request(matches: &Matches) -> Result<CreateRequest, String> {
    let (network_mode, endpoints) = network::endpoints(matches)?;
    let mut config = config(matches)?;
    let mut host = host_config(matches)?;
    host.network_mode = network_mode;

    let mut binds = Vec::new();
    let mut volumes = BTreeMap::new();
    for volume in matches.list("volume") {
        mounts::volume(volume, &mut binds, &mut volumes)?;
    }
    host.binds = (!binds.is_empty()).then_some(binds);
    config.volumes = (!volumes.is_empty()).then_some(volumes);

    let mut bindings = ports::Bindings::new();
    for publish in matches.list("publish") {
        ports::publish(publish, &mut bindings)?;
    }
    let mut exposed: BTreeMap<_, _> =
        bindings.keys().map(|port| (port.clone(), portolan_api::Empty)).collect();
    for expose in matches.list("expose") {
        ports::expose(expose, &mut exposed)?;
    }
    config.exposed_ports = (!exposed.is_empty()).then_some(exposed);
    host.port_bindings = Some(bindings);

    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    Ok(CreateRequest {
        config,
        host_config: Some(host),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(endpoints) }),
    })
}

fn some_list(matches: &Matches, flag: &str) -> Option<Vec<String>> {
    let list = owned(matches, flag);
    (!list.is_empty()).then_some(list)
}

fn owned(matches: &Matches, flag: &str) -> Vec<String> {
    matches.list(flag).into_iter().map(str::to_owned).collect()
}

fn config(matches: &Matches) -> Result<ContainerConfig, String> {
    let text = |flag: &str| matches.text_or_empty(flag).to_owned();
    let attached: Vec<_> = matches.list("attach").into_iter().map(str::to_lowercase).collect();
    let attach = |stream: &str| attached.iter().any(|name| name == stream);
    let open_stdin = matches.on("interactive");
    let attach_stdin = attach("stdin") || open_stdin;
    let command = matches.args.get(1..).unwrap_or_default();
    let entrypoint = matches.text("entrypoint").map(|program| {
        // An empty program takes the image's entrypoint away.
        StrSlice(vec![program.to_owned()])
    });
    Ok(ContainerConfig {
        hostname: text("hostname"),
        domainname: text("domainname"),
        user: text("user"),
        attach_stdin,
        attach_stdout: attach("stdout") || attached.is_empty(),
        attach_stderr: attach("stderr") || attached.is_empty(),
        tty: matches.on("tty"),
        open_stdin,
        stdin_once: open_stdin && attach_stdin,
        env: Some(env::variables(&matches.list("env-file"), &matches.list("env"))?),
        cmd: (!command.is_empty()).then(|| StrSlice(command.to_vec())),
        healthcheck: health(matches)?,
        image: matches.args.first().cloned().unwrap_or_default(),
        working_dir: text("workdir"),
        entrypoint,
        labels: Some(env::labels(&matches.list("label-file"), &matches.list("label"))?),
        stop_signal: text("stop-signal"),
        stop_timeout: matches.int("stop-timeout"),
        ..ContainerConfig::default()
    })
}

fn host_config(matches: &Matches) -> Result<HostConfig, String> {
    let text = |flag: &str| matches.text_or_empty(flag).to_owned();
    let (security_opt, masked_paths, readonly_paths) = security(&matches.list("security-opt"))?;
    let mounts: Result<Vec<_>, _> = matches.list("mount").into_iter().map(mounts::mount).collect();
    let extra_hosts: Result<Vec<_>, _> =
        matches.list("add-host").into_iter().map(network::extra_host).collect();
    let mut host = HostConfig {
        container_id_file: text("cidfile"),
        log_config: log_config(matches)?,
        restart_policy: restart_policy(matches.text("restart").unwrap_or("no"))?,
        auto_remove: matches.on("rm"),
        volume_driver: text("volume-driver"),
        volumes_from: some_list(matches, "volumes-from"),
        annotations: env::pairs(matches.list("annotation")),
        cap_add: some_list(matches, "cap-add").map(StrSlice),
        cap_drop: some_list(matches, "cap-drop").map(StrSlice),
        cgroupns_mode: mode(matches, "cgroupns", "CGROUP", &["host", "private"])?,
        dns: Some(owned(matches, "dns")),
        dns_options: Some(owned(matches, "dns-option")),
        dns_search: Some(owned(matches, "dns-search")),
        extra_hosts: Some(extra_hosts?).filter(|list| !list.is_empty()),
        group_add: some_list(matches, "group-add"),
        ipc_mode: text("ipc"),
        links: some_list(matches, "link"),
        pid_mode: mode(matches, "pid", "PID", &["host"])?,
        privileged: matches.on("privileged"),
        publish_all_ports: matches.on("publish-all"),
        readonly_rootfs: matches.on("read-only"),
        security_opt,
        masked_paths,
        readonly_paths,
        storage_opt: storage_opts(&matches.list("storage-opt"))?,
        tmpfs: matches
            .list("tmpfs")
            .into_iter()
            .map(|text| text.split_once(':').unwrap_or((text, "")))
            .map(|(path, options)| (path.to_owned(), options.to_owned()))
            .collect(),
        uts_mode: mode(matches, "uts", "UTS", &["host"])?,
        userns_mode: mode(matches, "userns", "USER", &["host"])?,
        sysctls: env::pairs(matches.list("sysctl")),
        runtime: text("runtime"),
        cgroup_parent: text("cgroup-parent"),
        device_cgroup_rules: some_list(matches, "device-cgroup-rule"),
        mounts: Some(mounts?).filter(|list| !list.is_empty()),
        init: matches.has("init").then(|| matches.on("init")),
        ..HostConfig::default()
    };
    resources::set_create_limits(&mut host, matches)?;
    Ok(host)
}

/// A namespace mode: one of `known`, or `container:...` for the PID namespace.
fn mode(matches: &Matches, flag: &str, title: &str, known: &[&str]) -> Result<String, String> {
    let value = matches.text_or_empty(flag);
    let joins = flag == "pid" && value.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    if value.is_empty() || known.contains(&value) || joins {
        Ok(value.to_owned())
    } else {
        Err(format!("--{flag}: invalid {title} mode"))
    }
}

/// Reads `--restart`.
///
/// # Errors
/// Docker's text.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    if name.is_empty() && count.is_some() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    let maximum_retry_count = match count {
        None => 0,
        Some(count) => count.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

fn log_config(matches: &Matches) -> Result<LogConfig, String> {
    let driver = matches.text_or_empty("log-driver");
    let options = matches.list("log-opt");
    if driver == "none" && !options.is_empty() {
        return Err(format!("invalid logging opts for driver {driver}"));
    }
    Ok(LogConfig { kind: driver.to_owned(), config: Some(env::pairs(options)) })
}

/// Security options; a seccomp profile that is a file is read here, since the daemon may be
/// elsewhere. `systempaths=unconfined` unmasks every path.
#[allow(clippy::type_complexity)]
fn security(
    options: &[&str],
) -> Result<(Option<Vec<String>>, Option<Vec<String>>, Option<Vec<String>>), String> {
    let mut out = Vec::new();
    let (mut masked, mut readonly) = (None, None);
    for option in options {
        if *option == "systempaths=unconfined" {
            masked = Some(Vec::new());
            readonly = Some(Vec::new());
            continue;
        }
        let pair = option.split_once('=').or_else(|| option.split_once(':'));
        match pair {
            None if *option != "no-new-privileges" => {
                return Err(format!("Invalid --security-opt: {option:?}"));
            }
            Some(("seccomp", profile)) if profile != "unconfined" && profile != "builtin" => {
                let text = std::fs::read_to_string(profile)
                    .map_err(|why| format!("opening seccomp profile ({profile}) failed: {why}"))?;
                let json: serde_json::Value = serde_json::from_str(&text).map_err(|why| {
                    format!("compacting json for seccomp profile ({profile}) failed: {why}")
                })?;
                out.push(format!("seccomp={json}"));
            }
            _ => out.push((*option).to_owned()),
        }
    }
    Ok(((!out.is_empty()).then_some(out), masked, readonly))
}

fn storage_opts(options: &[&str]) -> Result<BTreeMap<String, String>, String> {
    match options.iter().find(|option| !option.contains('=')) {
        Some(_) => Err("invalid storage option".to_owned()),
        None => Ok(env::pairs(options.iter().copied())),
    }
}

fn health(matches: &Matches) -> Result<Option<HealthConfig>, String> {
    const SETTINGS: [&str; 6] = [
        "health-cmd",
        "health-interval",
        "health-timeout",
        "health-start-period",
        "health-start-interval",
        "health-retries",
    ];
    let given = SETTINGS.iter().any(|flag| matches.has(flag));
    if matches.on("no-healthcheck") {
        if given {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() }));
    }
    if !given {
        return Ok(None);
    }
    let time = |flag: &str| match matches.nanoseconds(flag).unwrap_or_default() {
        negative if negative < 0 => Err(format!("--{flag} cannot be negative")),
        time => Ok(time),
    };
    let retries = matches.int("health-retries").unwrap_or_default();
    if retries < 0 {
        return Err("--health-retries cannot be negative".to_owned());
    }
    let command = matches.text_or_empty("health-cmd");
    Ok(Some(HealthConfig {
        test: match command {
            "" => Vec::new(),
            command => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        interval: time("health-interval")?,
        timeout: time("health-timeout")?,
        start_period: time("health-start-period")?,
        start_interval: time("health-start-interval")?,
        retries,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<CreateRequest, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        request(&Matches::parse(&[CREATE, LIMITS], &words, true)?)
    }

    #[test]
    fn a_usual_line() {
        let read = read("-it --name web -e A=1 -p 8080:80 --rm -v /a:/b --cpus 1.5 -m 64m --init nginx -g x")
            .unwrap();
        assert_eq!(read.config.image, "nginx");
        assert_eq!(read.config.cmd, Some(StrSlice(vec!["-g".into(), "x".into()])));
        assert!(read.config.tty && read.config.attach_stdin && read.config.stdin_once);
        let host = read.host_config.unwrap();
        assert_eq!(host.memory, 64 << 20);
        assert_eq!(host.nano_cpus, 1_500_000_000);
        assert_eq!(host.init, Some(true));
        assert_eq!(host.network_mode, "default");
        assert!(read.config.exposed_ports.unwrap().contains_key("80/tcp"));
    }

    #[test]
    fn contradictions() {
        for (line, wanted) in [
            ("--rm --restart always x", "conflicting options: cannot specify both --restart and --rm"),
            ("--pid=foo x", "--pid: invalid PID mode"),
            (
                "--restart on-failure:x x",
                "invalid restart policy format: maximum retry count must be an integer",
            ),
            ("--no-healthcheck --health-cmd a x", "--no-healthcheck conflicts with --health-* options"),
            ("--security-opt foo x", "Invalid --security-opt: \"foo\""),
        ] {
            assert_eq!(read(line).unwrap_err(), wanted);
        }
    }
}

//! Every command, one file each, and the tree that they hang in.

mod attach;
mod commit;
mod cp;
mod create;
mod diff;
mod doctor;
mod each;
mod events;
mod exec;
mod exposure;
mod follow;
mod image;
mod info;
mod inspect;
mod lifecycle;
mod login;
mod logs;
mod network;
mod port;
mod prune;
mod ps;
mod pull;
mod rm;
mod run;
mod start;
mod stats;
mod system;
mod top;
mod transfer;
mod update;
mod version;
mod volume;

use crate::command::{Arity, Command};
use crate::completion::COMPLETION;
use crate::failure::Failure;
use crate::flags::Flag;

const GLOBAL: &[Flag] = &[
    Flag::text("config", "Directory of the client's configuration (default ~/.docker)"),
    Flag::text("context", "Context of Docker's CLI that names the daemon").short('c'),
    Flag::switch("debug", "Enable debug mode").short('D'),
    Flag::list("host", "The daemon's address (unix:///path or tcp://host:port)").short('H'),
    Flag::text("log-level", "How much to log (debug, info, warn, error, fatal)").short('l'),
    Flag::switch("tls", "").refused("reach a remote daemon through an SSH tunnel to its socket"),
    Flag::text("tlscacert", "").refused("there is no TLS"),
    Flag::text("tlscert", "").refused("there is no TLS"),
    Flag::text("tlskey", "").refused("there is no TLS"),
    Flag::switch("tlsverify", "").refused("reach a remote daemon through an SSH tunnel to its socket"),
    Flag::switch("version", "Print the version and quit").short('v'),
];

const NO_BUILD: &str = "there is no image builder; build elsewhere and use 'load' or 'import'";
const NO_PUSH: &str = "images are not pushed; move them with 'save' and 'load'";
const NO_MANIFEST: &str = "manifests of registries are not made or changed";
const NO_SEARCH: &str = "registries are not searched";
const NO_SWARM: &str = "there is no swarm mode";
const NO_CONTEXT: &str = "contexts are made and chosen with Docker's CLI; they are followed, as is --context";
const NO_PLUGINS: &str = "there are no plugins";

/// The whole command line.
pub(crate) static ROOT: Command = Command {
    flags: &[GLOBAL],
    usage: "[OPTIONS] COMMAND",
    arity: Arity::AtLeast(0),
    examples: &[("Start the daemon (as root), then a container", "daemon"), ("", "run --rm -it busybox sh")],
    ..Command::group(
        "portolan",
        "A container engine whose networking can be seen and trusted",
        &[
            &run::RUN,
            &exec::EXEC,
            &ps::PS,
            &pull::PULL,
            &image::IMAGES,
            &version::VERSION,
            &info::INFO,
            &CONTAINER,
            &IMAGE,
            &network::NETWORK,
            &system::SYSTEM,
            &volume::VOLUME,
            &attach::ATTACH,
            &commit::COMMIT,
            &cp::CP,
            &create::CREATE_COMMAND,
            &diff::DIFF,
            &doctor::DOCTOR,
            &events::EVENTS,
            &transfer::EXPORT,
            &exposure::EXPOSURE,
            &image::HISTORY,
            &transfer::IMPORT,
            &inspect::INSPECT,
            &lifecycle::KILL,
            &transfer::LOAD,
            &login::LOGIN,
            &login::LOGOUT,
            &logs::LOGS,
            &lifecycle::PAUSE,
            &port::PORT,
            &lifecycle::RENAME,
            &lifecycle::RESTART,
            &rm::RM,
            &image::RMI,
            &transfer::SAVE,
            &start::START,
            &stats::STATS,
            &lifecycle::STOP,
            &image::TAG,
            &top::TOP,
            &lifecycle::UNPAUSE,
            &update::UPDATE,
            &lifecycle::WAIT,
            &DAEMON,
            &COMPLETION,
            &Command::unsupported("build", NO_BUILD),
            &Command::unsupported("builder", NO_BUILD),
            &Command::unsupported("buildx", NO_BUILD),
            &Command::unsupported("checkpoint", "there are no checkpoints"),
            &Command::unsupported(
                "compose",
                "install Docker Compose and set DOCKER_HOST to the daemon's socket",
            ),
            &Command::unsupported("config", NO_SWARM),
            &Command::unsupported("context", NO_CONTEXT),
            &Command::unsupported("manifest", NO_MANIFEST),
            &Command::unsupported("node", NO_SWARM),
            &Command::unsupported("plugin", NO_PLUGINS),
            &Command::unsupported("push", NO_PUSH),
            &Command::unsupported("search", NO_SEARCH),
            &Command::unsupported("secret", NO_SWARM),
            &Command::unsupported("service", NO_SWARM),
            &Command::unsupported("stack", NO_SWARM),
            &Command::unsupported("swarm", NO_SWARM),
            &Command::unsupported("trust", "there is no content trust"),
        ],
    )
};

/// Shown in `--help`; the program itself starts the daemon, before it gets here.
const DAEMON: Command = Command {
    stop_at_word: true,
    examples: &[("As root, in the background", "daemon &")],
    ..Command::new(
        "daemon",
        "[OPTIONS]",
        "Run the daemon (see 'portolan daemon --help')",
        Arity::AtLeast(0),
        |session, _| {
            let text = format!("'daemon' must be the first word: {} daemon ...", session.program);
            Box::pin(async { Err(Failure::new(text)) })
        },
    )
};

const CONTAINER: Command = Command::group(
    "container",
    "Manage containers",
    &[
        &attach::ATTACH,
        &commit::COMMIT,
        &cp::CP,
        &create::CREATE_COMMAND,
        &diff::DIFF,
        &exec::EXEC,
        &transfer::EXPORT,
        &inspect::CONTAINER_INSPECT,
        &lifecycle::KILL,
        &logs::LOGS,
        &ps::LS,
        &lifecycle::PAUSE,
        &port::PORT,
        &prune::CONTAINER_PRUNE,
        &lifecycle::RENAME,
        &lifecycle::RESTART,
        &rm::RM,
        &run::RUN,
        &start::START,
        &stats::STATS,
        &lifecycle::STOP,
        &top::TOP,
        &lifecycle::UNPAUSE,
        &update::UPDATE,
        &lifecycle::WAIT,
    ],
);

const IMAGE: Command = Command::group(
    "image",
    "Manage images",
    &[
        &image::HISTORY,
        &transfer::IMPORT,
        &inspect::IMAGE_INSPECT,
        &transfer::LOAD,
        &image::LS,
        &image::PRUNE,
        &pull::PULL,
        &image::RM,
        &transfer::SAVE,
        &image::TAG,
        &Command::unsupported("build", NO_BUILD),
        &Command::unsupported("push", NO_PUSH),
    ],
);

/// The line of `--version`.
pub(crate) fn version_line(program: &str) -> String {
    let name = if program == "docker" { "Docker version" } else { "Portolan version" };
    format!("{name} {}", env!("CARGO_PKG_VERSION"))
}

//! The daemon: adapters, engine, API.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use portolan_daemon::{
    Command, Config, FirewallBackend, LogControl, init_logging, parse_args, serve, stop_signal,
};
use portolan_engine::{Engine, Parts};
use portolan_image::ImageStore;
use portolan_netlinux::{LinuxHost, LinuxHostConfig};
use portolan_runtime::{Launcher, LauncherConfig};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::lender::Lender;
use crate::resolver::Resolver;

/// `portolan daemon`, with the program's name first.
pub(crate) fn main(argv: Vec<OsString>) -> anyhow::Result<()> {
    let config = match parse_args(argv)? {
        Command::Print(text) => {
            print(&text);
            return Ok(());
        }
        Command::Run(config) if config.validate => {
            print("configuration OK\n");
            return Ok(());
        }
        Command::Run(config) => *config,
    };
    if !rustix::process::geteuid().is_root() {
        bail!("needs root for namespaces, mounts and nftables (try: sudo portolan daemon)");
    }
    let log = init_logging(config.log_level);
    // Two daemons on one data root would each undo what the other does.
    let _lock = lock(&config.engine.data_root)?;
    // Before any thread exists: the launcher is a fork of a small process with one thread.
    let launcher = Launcher::start(LauncherConfig::new(&config.engine.exec_root))?;
    // After that: containers have the limit that the daemon was given.
    raise_open_files();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    runtime.block_on(run(config, launcher, log))
}

/// The soft limit on open files is for programs that use select(2); a published port takes a file.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What there is does, too.
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

async fn run(config: Config, launcher: Launcher, log: LogControl) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let firewall = match (config.engine.net.firewall, config.firewall_backend) {
        (false, _) => portolan_netlinux::FirewallBackend::Off,
        (true, FirewallBackend::Nftables) => portolan_netlinux::FirewallBackend::Nftables,
        (true, FirewallBackend::Iptables) => portolan_netlinux::FirewallBackend::Iptables,
    };
    let exec_root = config.engine.exec_root.clone();
    let data_root = config.engine.data_root.clone();
    let resolver = Resolver::new(&exec_root, &config.engine.host_resolv_conf, config.host_names);
    // First what an earlier daemon left with it: it is lost with a resolver of another release.
    let (left, keeper) = (resolver.kept(), Arc::new(resolver.clone()));
    let host = LinuxHost::open_again(&LinuxHostConfig { exec_root, firewall }, Some(keeper), left)
        .context("the host's network")?;
    let host = Arc::new(host);
    resolver.start_keeping(&host);
    resolver.open().context("--host-names")?;
    let images = ImageStore::open(&data_root).context("the image store")?;
    let leases = Arc::new(Lender::new(tokio::runtime::Handle::current()));
    let parts = Parts { host, names: Arc::new(resolver.clone()), leases, images, launcher };
    let engine = Engine::open(config.engine.clone(), parts).await?;
    let served = serve(config, engine, log, stop).await;
    resolver.close();
    Ok(served?)
}

fn lock(data_root: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(data_root).with_context(|| format!("making {}", data_root.display()))?;
    let path = data_root.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).with_context(|| {
        format!("another daemon uses {} (stop it, or name another --data-root)", data_root.display())
    })?;
    Ok(file)
}

#[expect(clippy::print_stdout, reason = "what --help and --version are for")]
fn print(text: &str) {
    print!("{text}");
}

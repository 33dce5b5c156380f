//! An engine in a host of its own.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::Host;
use crate::output::{Output, run};
use crate::paths::{image_tar, portolan_binary, repository};

/// How long an engine may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose engine is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Ours.
    Portolan,
    /// Debian's dockerd, to prove the tests: 20.10, or with `PORTOLAN_E2E_DOCKER=newer` that of sid.
    Docker,
}

/// Whose client drives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The unmodified docker CLI.
    Docker,
    /// Ours.
    Portolan,
}

/// Which backend it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    /// nftables.
    Nftables,
    /// iptables.
    Iptables,
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

impl EngineKind {
    /// From `PORTOLAN_E2E_ENGINE`.
    pub fn from_env() -> Self {
        if variable("PORTOLAN_E2E_ENGINE") == "docker" { Self::Docker } else { Self::Portolan }
    }

    /// Whether it is Docker 20.10, which takes fewer flags.
    pub fn is_old() -> bool {
        Self::from_env() == Self::Docker && variable("PORTOLAN_E2E_DOCKER") != "newer"
    }
}

impl Client {
    /// From `PORTOLAN_E2E_CLIENT`.
    pub fn from_env() -> Self {
        if variable("PORTOLAN_E2E_CLIENT") == "portolan" { Self::Portolan } else { Self::Docker }
    }

    /// The program. The tests' docker client is the one on the PATH, or Debian's, unpacked.
    pub fn program(self) -> PathBuf {
        match self {
            Self::Portolan => portolan_binary(),
            Self::Docker => {
                let script = repository().join("scripts/docker.sh");
                PathBuf::from(run(&[script.as_os_str(), OsStr::new("client")], None).ok())
            }
        }
    }
}

impl Firewall {
    /// From `PORTOLAN_E2E_FIREWALL`; Debian's dockerd has iptables only.
    pub fn from_env() -> Self {
        let iptables = variable("PORTOLAN_E2E_FIREWALL") == "iptables";
        if iptables || EngineKind::from_env() == EngineKind::Docker { Self::Iptables } else { Self::Nftables }
    }
}

/// How an engine is to be started.
#[derive(Debug)]
pub struct EngineBuilder {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    images: Vec<&'static str>,
}

impl EngineBuilder {
    /// A flag for the daemon.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A variable of the daemon's environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Imports an image of `scripts/images.sh`: `busybox` (CMD sh) or `nginx` (CMD nginx, EXPOSE 80).
    pub fn image(mut self, name: &'static str) -> Self {
        self.images.push(name);
        self
    }

    /// Starts it and waits until it answers.
    pub fn start(self) -> Engine {
        let kind = EngineKind::from_env();
        let home = tempfile::Builder::new().prefix("pt-").tempdir_in("/tmp").expect("a directory under /tmp");
        let mut engine = Engine {
            kind,
            client: Client::from_env().program(),
            host: Host::new("engine"),
            home,
            arguments: self.arguments,
            environment: self.environment,
            daemon: None,
        };
        engine.start_daemon();
        for image in self.images {
            engine.import(image);
        }
        engine
    }
}

/// A running engine, its host and its files. When dropped, its containers and it itself are removed.
#[derive(Debug)]
pub struct Engine {
    kind: EngineKind,
    client: PathBuf,
    host: Host,
    home: tempfile::TempDir,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    daemon: Option<Child>,
}

impl Engine {
    /// An engine with the busybox image and no flags beyond where it lives.
    pub fn start() -> Self {
        Self::builder().image("busybox").start()
    }

    /// An engine with flags.
    pub fn builder() -> EngineBuilder {
        EngineBuilder { arguments: Vec::new(), environment: Vec::new(), images: Vec::new() }
    }

    /// Whose it is.
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// The first number of its version.
    pub fn major(&self) -> u32 {
        let version = self.docker(&["version", "--format", "{{.Server.Version}}"]);
        version.ok().split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// The host it runs in.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its directory: `data`, `exec`, `log` and the socket are inside.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.home().join("engine.sock")
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().map_or(0, Child::id)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home().join("log")).unwrap_or_default()
    }

    /// The words that run the client against this engine.
    pub fn client(&self) -> Vec<OsString> {
        vec![
            self.client.clone().into(),
            "--host".into(),
            format!("unix://{}", self.socket().display()).into(),
        ]
    }

    /// Runs the client.
    pub fn docker<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        self.docker_with(words, None)
    }

    /// Runs the client with something on its standard input.
    pub fn docker_with<S: AsRef<OsStr>>(&self, words: &[S], input: Option<&[u8]>) -> Output {
        let mut all = self.client();
        all.extend(words.iter().map(|word| word.as_ref().to_owned()));
        run(&all, input)
    }

    /// Runs the client on a terminal; both streams arrive as one, with plain newlines.
    pub fn docker_tty(&self, line: &str) -> Output {
        let client: Vec<_> = self.client().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let mut output = run(&["script", "-qec", &format!("{} {line}", client.join(" ")), "/dev/null"], None);
        // script(1) types the end of its own input, which is echoed as ^D and two backspaces; if the client makes the
        // terminal raw meanwhile, it reads a NUL for it, and the container's terminal echoes that.
        output.stdout = output.stdout.replace('\r', "").replace("^D\u{8}\u{8}", "").replace("^@", "");
        output
    }

    /// Imports an image of `scripts/images.sh`.
    pub fn import(&self, image: &str) {
        let changes: &[&str] = match image {
            "busybox" => &["-c", "CMD [\"sh\"]"],
            _ => &["-c", "CMD [\"nginx\", \"-g\", \"daemon off;\"]", "-c", "EXPOSE 80"],
        };
        let tar = image_tar(image);
        let mut words: Vec<OsString> = vec!["import".into()];
        words.extend(changes.iter().map(OsString::from));
        words.extend([tar.into(), format!("{image}:latest").into()]);
        self.docker(&words).ok();
    }

    /// Removes all containers, and with them what they hold.
    pub fn wipe(&self) {
        let ids = self.docker(&["ps", "-aq"]);
        let ids: Vec<&str> = ids.stdout.split_whitespace().collect();
        if !ids.is_empty() {
            self.docker(&[&["rm", "-f", "-v"], ids.as_slice()].concat());
        }
    }

    /// Stops the daemon as its supervisor would, SIGTERM, and waits for its end.
    pub fn stop_daemon(&mut self) {
        self.end_daemon(Signal::TERM);
    }

    /// Stops the daemon as a terminal would, SIGINT, and waits for its end.
    pub fn interrupt_daemon(&mut self) {
        self.end_daemon(Signal::INT);
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill_daemon(&mut self) {
        self.end_daemon(Signal::KILL);
    }

    fn end_daemon(&mut self, signal: Signal) {
        let Some(mut daemon) = self.daemon.take() else { return };
        if let Some(pid) = Pid::from_raw(i32::try_from(daemon.id()).unwrap_or(0)) {
            let _ = kill_process(pid, signal);
        }
        let deadline = Instant::now() + PATIENCE;
        while daemon.try_wait().expect("the daemon is our child").is_none() {
            assert!(Instant::now() < deadline, "the daemon does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the daemon (again) and waits until it answers.
    pub fn start_daemon(&mut self) {
        let home = self.home.path().to_owned();
        let log =
            std::fs::File::options().create(true).append(true).open(home.join("log")).expect("a log file");
        let mut words = self.host.prefix();
        let path = |name: &str| OsString::from(home.join(name));
        match self.kind {
            EngineKind::Portolan => {
                words.extend([portolan_binary().into(), "daemon".into()]);
                if Firewall::from_env() == Firewall::Iptables {
                    words.extend(["--firewall-backend".into(), "iptables".into()]);
                }
            }
            EngineKind::Docker => words.push(docker_tools().join("sbin/dockerd").into()),
        }
        let mut socket = OsString::from("unix://");
        socket.push(self.socket());
        for (flag, value) in [
            ("--host", socket),
            ("--data-root", path("data")),
            ("--exec-root", path("exec")),
            ("--pidfile", path("pid")),
        ] {
            words.extend([flag.into(), value]);
        }
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.envs(self.environment.iter().cloned());
        command.stdout(log.try_clone().expect("a log file")).stderr(log);
        if self.kind == EngineKind::Docker {
            let tools = docker_tools();
            let ours = format!("{}:{}", tools.join("bin").display(), tools.join("sbin").display());
            command.env("PATH", format!("{ours}:{}", variable("PATH")));
        }
        self.daemon = Some(command.spawn().expect("the daemon starts"));
        self.await_answer();
    }

    fn await_answer(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !answers(&self.socket()) {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten());
            assert!(ended.is_none(), "the daemon ended\n{}", self.log());
            assert!(Instant::now() < deadline, "the daemon does not answer\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.daemon.is_none() && !std::thread::panicking() {
            self.start_daemon();
        }
        if self.daemon.is_some() {
            self.wipe();
            self.end_daemon(Signal::TERM);
        }
        unmount_below(self.home.path());
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "what a person needs to see why a test failed")]
            {
                eprintln!("--- the engine's log\n{}", self.log());
            }
        }
    }
}

/// Whether an engine answers a ping at this socket.
fn answers(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let mut answer = Vec::new();
    let asked = stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n");
    asked.is_ok()
        && stream.read_to_end(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.")
        && answer.ends_with(b"OK")
}

/// Takes away the mounts that an engine keeps while it lives, so that its directory can be removed.
fn unmount_below(home: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|t| Path::new(t).starts_with(home));
    for target in targets.collect::<Vec<_>>().into_iter().rev() {
        let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
    }
}

fn docker_tools() -> PathBuf {
    let mut words = vec![repository().join("scripts/docker.sh").into_os_string()];
    if variable("PORTOLAN_E2E_DOCKER") == "newer" {
        words.push("newer".into());
    }
    PathBuf::from(run(&words, None).ok().lines().last().unwrap_or_default())
}

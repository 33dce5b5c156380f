//! Containers made by another OCI runtime (`--runtime`), by the command line that runc, crun and runsc
//! share: create, start, exec, delete.

use std::fs;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;

use crate::cgroup::Cgroup;
use crate::error::Attempt;
use crate::oci;
use crate::setup::{self, Failure, PATIENCE, Process, Streams, mount_overlay};
use crate::spec::{ContainerSpec, ExecSpec};
use crate::wire::Handed;
use crate::{Error, Result, identity, sys};

const PREFIX: &str = "failed to create shim task: OCI runtime create failed";

/// Mounts the root in the shim's own mount namespace and has the runtime set the container up.
pub(crate) fn create(
    runtime: &Path,
    spec: &ContainerSpec,
    netns: Option<&OwnedFd>,
    cgroup: &Cgroup,
    directory: &Path,
) -> Result<Process> {
    sys::unshare(libc::CLONE_NEWNS).attempt(|| "make a mount namespace".into())?;
    sys::mount("", "/", "", libc::MS_REC | libc::MS_SLAVE, "")
        .attempt(|| "detach from the host's mounts".into())?;
    mount_overlay(&spec.rootfs)?;
    let bundle = directory.join("bundle");
    fs::create_dir(&bundle).attempt(|| format!("make {}", bundle.display()))?;
    // By descriptors of this process: what they refer to does not change under a name.
    let others = [("pid", &spec.others.pid), ("ipc", &spec.others.ipc), ("uts", &spec.others.uts)];
    let opened = others.map(|(name, other)| other.as_deref().map(|other| open_namespace(other, name)));
    let [pid, ipc, uts] = opened.map(Option::transpose);
    let (pid, ipc, uts) = (pid?, ipc?, uts?);
    let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let joined = Handed {
        netns: netns.map(path),
        pid: pid.as_ref().map(path),
        ipc: ipc.as_ref().map(path),
        uts: uts.as_ref().map(path),
    };
    let config = oci::spec(spec, &joined, cgroup.path())?;
    config
        .save(bundle.join("config.json"))
        .map_err(|error| Error::Invalid(format!("cannot write the bundle: {error}")))?;
    let call = Call { runtime, directory, id: &spec.id };
    let arguments = ["create".to_owned(), "--bundle".into(), bundle.to_string_lossy().into_owned()];
    let streams = (spec.stdio.open_stdin, true, true);
    call.spawn(&arguments, spec.stdio.tty, streams, None).map_err(|error| as_start(spec, error))
}

/// A namespace of a process that is known by its pidfd.
fn open_namespace(process: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let what = || format!("open the {name} namespace of a process");
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).attempt(what)?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap_or("-1").trim();
    let namespace = fs::File::open(format!("/proc/{pid}/ns/{name}")).attempt(what)?;
    // The pid was that process's if it still is.
    if identity::has_ended(process) {
        return Err(rustix::io::Errno::SRCH).attempt(what);
    }
    Ok(namespace.into())
}

/// Executes the container's program.
pub(crate) fn start(spec: &ContainerSpec, directory: &Path) -> Result<()> {
    let Some(runtime) = &spec.runtime else { return Ok(()) };
    let call = Call { runtime, directory, id: &spec.id };
    call.run(&["start"]).map_err(|error| as_start(spec, error))
}

/// Executes a process in the container.
pub(crate) fn execute(
    runtime: &Path,
    container: &ContainerSpec,
    spec: &ExecSpec,
    directory: &Path,
) -> Result<Process> {
    let file = directory.join(format!("exec-{}.json", spec.id));
    let process = oci::exec_process(container, spec)?;
    let bytes = serde_json::to_vec(&process).attempt(|| "write the exec's process".into())?;
    fs::write(&file, bytes).attempt(|| format!("write {}", file.display()))?;
    let call = Call { runtime, directory, id: &container.id };
    let arguments =
        ["exec".to_owned(), "--detach".into(), "--process".into(), file.to_string_lossy().into_owned()];
    let streams = (spec.attach_stdin, spec.attach_stdout, spec.attach_stderr);
    let spawned = call.spawn(&arguments, spec.tty, streams, Some(&spec.id));
    fs::remove_file(&file).attempt(|| format!("remove {}", file.display()))?;
    spawned.map_err(|error| Failure::from_text(error.to_string()).into_exec("exec failed"))
}

/// Has the runtime forget the container; it may have done so itself.
pub(crate) fn delete(spec: &ContainerSpec, directory: &Path) {
    if let Some(runtime) = &spec.runtime {
        let _ = Call { runtime, directory, id: &spec.id }.run(&["delete", "--force"]);
    }
}

fn as_start(spec: &ContainerSpec, error: Error) -> Error {
    if matches!(error, Error::Refused(_)) {
        return error;
    }
    let failure = Failure::from_text(error.to_string());
    let runtime = spec.runtime.as_deref().unwrap_or(Path::new("runc"));
    let name = runtime.file_name().unwrap_or_default().to_string_lossy();
    failure.into_start(&format!("{PREFIX}: {name} failed"))
}

/// A runtime, its state and a container.
struct Call<'a> {
    runtime: &'a Path,
    directory: &'a Path,
    id: &'a str,
}

#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    msg: String,
}

impl Call<'_> {
    fn log(&self) -> PathBuf {
        self.directory.join("runtime.log")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.runtime);
        command.arg("--root").arg(self.directory.join("runtime"));
        command.arg("--log").arg(self.log()).args(["--log-format", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.command();
        command.args(arguments).arg(self.id);
        self.finish(&mut command)
    }

    fn finish(&self, command: &mut Command) -> Result<()> {
        let mut child = command.spawn().attempt(|| format!("run {}", self.runtime.display()))?;
        let Some(status) = wait_at_most(&mut child, PATIENCE)? else {
            return Err(Error::Invalid(format!(
                "{} did not answer within {} seconds",
                self.runtime.display(),
                PATIENCE.as_secs()
            )));
        };
        if status.success() {
            return Ok(());
        }
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<LogLine>(line).ok());
        let message = lines.rev().find(|line| line.level == "error").map(|line| line.msg);
        Err(Error::Invalid(
            message.unwrap_or_else(|| format!("{} ended with {status}", self.runtime.display())),
        ))
    }

    /// Runs a command that leaves a process behind, with streams of its own.
    fn spawn(
        &self,
        arguments: &[String],
        tty: bool,
        (stdin, stdout, stderr): (bool, bool, bool),
        exec: Option<&str>,
    ) -> Result<Process> {
        let pid_file = self.directory.join(exec.unwrap_or("pid"));
        let mut command = self.command();
        command.args(arguments).arg("--pid-file").arg(&pid_file);
        let mut streams = Streams::default();
        let mut console = None;
        if tty {
            console = Some(Console::listen(self.directory)?);
            command.arg("--console-socket").arg(self.directory.join(CONSOLE));
        } else {
            let pipe = || std::io::pipe().attempt(|| "make a pipe".into());
            if stdin {
                let (read, write): (PipeReader, PipeWriter) = pipe()?;
                command.stdin(read);
                streams.stdin = Some(write.into());
            }
            if stdout {
                let (read, write) = pipe()?;
                command.stdout(write);
                streams.stdout = Some(read.into());
            }
            if stderr {
                let (read, write) = pipe()?;
                command.stderr(write);
                streams.stderr = Some(read.into());
            }
        }
        command.arg(self.id);
        self.finish(&mut command)?;
        drop(command);
        if let Some(console) = console {
            streams.terminal = Some(console.receive()?);
        }
        let text = fs::read_to_string(&pid_file).attempt(|| format!("read {}", pid_file.display()))?;
        let pid = text.trim().parse().map_err(|_| Error::Invalid(format!("{text:?} is no pid")))?;
        fs::remove_file(&pid_file).attempt(|| format!("remove {}", pid_file.display()))?;
        Ok(Process { pid, streams })
    }
}

/// The runtime's end; killed, and nothing, if it takes too long.
fn wait_at_most(child: &mut Child, patience: Duration) -> Result<Option<ExitStatus>> {
    let what = || "wait for the runtime".to_owned();
    let process = setup::process(child.id() as i32)?;
    let mut fds = [PollFd::new(&process, PollFlags::IN)];
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => break,
            Ok(_) => return child.wait().attempt(what).map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).attempt(what),
        }
    }
    child.kill().attempt(what)?;
    child.wait().attempt(what)?;
    Ok(None)
}

const CONSOLE: &str = "c";

/// Where a runtime sends the master of the terminal that it made.
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    fn listen(directory: &Path) -> Result<Self> {
        let handle = fs::File::open(directory).attempt(|| format!("open {}", directory.display()))?;
        let path = directory.join(CONSOLE);
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{CONSOLE}", handle.as_raw_fd()))
            .attempt(|| format!("listen on {}", path.display()))?;
        Ok(Self { listener, path })
    }

    fn receive(self) -> Result<OwnedFd> {
        let what = || "receive the terminal from the runtime".to_owned();
        self.listener.set_nonblocking(true).attempt(what)?;
        let (stream, _) = self.listener.accept().attempt(what)?;
        let mut name = [0; 256];
        let (_, mut fds) = sys::receive_fds(stream.as_fd(), &mut name).attempt(what)?;
        fds.pop().ok_or_else(|| Error::Invalid("the runtime sent no terminal".into()))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Its directory goes with the container anyway.
        let _ = fs::remove_file(&self.path);
    }
}

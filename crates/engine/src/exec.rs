//! Processes executed in running containers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_netcore::model::ContainerId;
use portolan_runtime::{AttachStream, ExecSpec};
use tokio::sync::{mpsc, oneshot, watch};

use crate::container::record::{Container, Definition, not_running};
use crate::container::{
    DetachKeys, PumpEnd, environment, parse_detach_keys, pump, replace_or_append, security_options,
};
use crate::engine::{Engine, random_hex, to_the_end};
use crate::error::{EngineError, Result};
use crate::model::{ExecConfig, ExecSnapshot, ExecStartOptions, Status};
use crate::streams::{Attachment, Input, Output};

/// What an exec keeps that could not be started and did not say why (EACCES, as in Docker).
pub(crate) const EXIT_NOT_STARTED: i32 = 126;
/// How many execs that have ended are remembered for `inspect`.
const ENDED_KEPT: usize = 1024;
/// What a container's file system gets to show its users.
const USER_LOOK: Duration = Duration::from_secs(10);
const OUTPUT_QUEUE: usize = 16;
const INPUT_QUEUE: usize = 4;

/// Every exec of every container, those that ended not too long ago included.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<String, Entry>,
    /// Ids of those that have ended, oldest first.
    ended: std::collections::VecDeque<String>,
}

#[derive(Debug)]
struct Entry {
    snapshot: ExecSnapshot,
    started: bool,
    handle: Option<Arc<portolan_runtime::Exec>>,
}

impl Execs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Result<ExecSnapshot> {
        self.with(id, |entry| entry.snapshot.clone())
    }

    fn with<T>(&self, id: &str, look: impl FnOnce(&mut Entry) -> T) -> Result<T> {
        self.state().by_id.get_mut(id).map(look).ok_or_else(|| no_such_exec(id))
    }

    fn note_end(&self, id: &str, exit_code: i32) {
        let mut state = self.state();
        let Some(entry) = state.by_id.get_mut(id) else { return };
        entry.snapshot.running = false;
        entry.snapshot.can_remove = true;
        entry.snapshot.exit_code.get_or_insert(exit_code);
        entry.handle = None;
        state.ended.push_back(id.to_owned());
        if state.ended.len() > ENDED_KEPT
            && let Some(oldest) = state.ended.pop_front()
        {
            state.by_id.remove(&oldest);
        }
    }

    /// The container has ended, and its processes with it.
    pub(crate) fn container_ended(&self, id: &ContainerId) {
        // Those that ran are told by their own watchers; those never started can never be.
        self.state().by_id.retain(|_, entry| entry.snapshot.container_id != *id || entry.started);
    }

    /// The container is gone.
    pub(crate) fn forget_container(&self, id: &ContainerId) {
        self.state().by_id.retain(|_, entry| entry.snapshot.container_id != *id);
    }
}

fn no_such_exec(id: &str) -> EngineError {
    EngineError::not_found(format!("No such exec instance: {id}"))
}

fn check_active(container: &Container) -> Result<()> {
    match container.status() {
        Status::Running => Ok(()),
        Status::Paused => Err(EngineError::conflict(format!(
            "Container {} is paused, unpause the container before exec",
            container.id
        ))),
        Status::Restarting => Err(EngineError::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(not_running(&container.id)),
    }
}

/// Looks a user up in the container's files. Those can be on a file system of the container's own, which answers when
/// it likes: a thread that waits for it is none of those that all work shares, and a container has few of them.
async fn check_user(container: &Arc<Container>, user: String) -> Result<()> {
    let root = container.running_shim()?.open_proc("root").await?;
    let looks = container.user_looks.clone();
    let look = async move {
        let place = looks.acquire_owned().await.map_err(|error| EngineError::internal(error.to_string()))?;
        let (answer, answered) = oneshot::channel();
        std::thread::Builder::new()
            .name("user".into())
            .spawn(move || {
                // Nobody listens who has given up.
                let _ = answer.send(portolan_runtime::check_user(&root, &user));
                drop(place);
            })
            .map_err(|error| EngineError::internal(format!("look up a user: {error}")))?;
        answered
            .await
            .map_err(|error| EngineError::internal(format!("look up a user: {error}")))?
            .map_err(Into::into)
    };
    tokio::time::timeout(USER_LOOK, look).await.unwrap_or_else(|_| {
        Err(EngineError::conflict(format!(
            "container {} does not let its users be read: its file system did not answer within {} seconds",
            container.id,
            USER_LOOK.as_secs()
        )))
    })
}

impl Engine {
    /// `POST /containers/{id}/exec`. The exec's id.
    ///
    /// # Errors
    /// `Conflict` if the container does not run; `Invalid` without a command, or for a user that is not in it.
    pub async fn exec_create(&self, container: &str, config: ExecConfig) -> Result<String> {
        let container = self.inner.containers.find(container)?;
        check_active(&container)?;
        if config.cmd.is_empty() {
            return Err(EngineError::invalid("No exec command specified"));
        }
        parse_detach_keys(config.detach_keys.as_deref())?;
        if !config.user.is_empty() {
            check_user(&container, config.user.clone()).await?;
        }
        let id = random_hex::<32>();
        let action = format!("exec_create: {}", config.cmd.join(" "));
        let snapshot = ExecSnapshot {
            id: id.clone(),
            container_id: container.id.clone(),
            config,
            running: false,
            exit_code: None,
            pid: 0,
            can_remove: false,
        };
        let entry = Entry { snapshot, started: false, handle: None };
        self.inner.execs.state().by_id.insert(id.clone(), entry);
        container.with(|record| record.execs.insert(id.clone()));
        self.exec_event(&container, &action, &id, None);
        Ok(id)
    }

    /// `POST /exec/{id}/start`. None if detached.
    ///
    /// # Errors
    /// `Conflict` if it was started before; `Invalid` with Docker's text if there is no such program.
    pub async fn exec_start(&self, id: &str, options: ExecStartOptions) -> Result<Option<Attachment>> {
        let exec = self.inner.execs.get(id)?;
        let container = self
            .inner
            .containers
            .get(&exec.container_id)
            .ok_or_else(|| EngineError::not_found(format!("No such container: {}", exec.container_id)))?;
        check_active(&container)?;
        let started = self.inner.execs.with(id, |entry| {
            if entry.snapshot.exit_code.is_some() {
                return Err(EngineError::conflict(format!("exec command {id} has already run")));
            }
            if std::mem::replace(&mut entry.started, true) {
                return Err(EngineError::conflict(format!("exec command {id} is already running")));
            }
            entry.snapshot.running = true;
            Ok(())
        });
        started??;
        let engine = self.clone();
        to_the_end(async move { engine.run_exec(&container, exec, options).await }).await
    }

    async fn run_exec(
        &self,
        container: &Arc<Container>,
        exec: ExecSnapshot,
        options: ExecStartOptions,
    ) -> Result<Option<Attachment>> {
        let id = exec.id.clone();
        self.exec_event(container, &format!("exec_start: {}", exec.config.cmd.join(" ")), &id, None);
        let definition = container.with(|record| record.definition.clone());
        let spec = self.exec_spec(&definition, &exec, &options);
        let host = &definition.host_config;
        let running = async {
            // It puts the container's profile on, too.
            self.apparmor(&security_options(&host.security_opt, false)?.apparmor, host.privileged).await?;
            Ok::<_, EngineError>(container.running_shim()?.exec(&spec).await)
        };
        let mut handle = match running.await {
            Ok(Ok(handle)) => handle,
            Ok(Err(error)) => {
                let code = error.exit_code().unwrap_or(EXIT_NOT_STARTED);
                self.exec_ended(container, &id, code);
                return Err(error.into());
            }
            Err(error) => {
                self.exec_ended(container, &id, EXIT_NOT_STARTED);
                return Err(error);
            }
        };
        let stream = handle.take_stream();
        let handle = Arc::new(handle);
        self.inner.execs.with(&id, |entry| {
            entry.snapshot.pid = handle.pid();
            entry.handle = Some(handle.clone());
        })?;
        let ended = self.watch_exec(container.clone(), id.clone(), handle);
        let Some(stream) = stream.filter(|_| !options.detach) else { return Ok(None) };
        self.attach_to_exec(container, exec, stream, ended).map(Some)
    }

    /// What it runs as: what it was created with, and the container's where that says nothing.
    fn exec_spec(&self, container: &Definition, exec: &ExecSnapshot, options: &ExecStartOptions) -> ExecSpec {
        let (config, wanted) = (&container.config, &exec.config);
        let mut env = environment(config, wanted.tty, self.link_variables(container));
        replace_or_append(&mut env, &wanted.env);
        let or = |own: &String, other: &String| if own.is_empty() { other.clone() } else { own.clone() };
        ExecSpec {
            id: exec.id.clone(),
            args: wanted.cmd.clone(),
            env,
            cwd: or(&wanted.working_dir, &config.working_dir),
            user: or(&wanted.user, &config.user),
            tty: wanted.tty,
            size: options.console_size.or(wanted.console_size).filter(|size| *size != (0, 0)),
            attach_stdin: wanted.attach_stdin && !options.detach,
            attach_stdout: wanted.attach_stdout && !options.detach,
            attach_stderr: wanted.attach_stderr && !options.detach,
            privileged: wanted.privileged || container.host_config.privileged,
        }
    }

    /// Carries its streams to and from a client until it ends or the client leaves.
    fn attach_to_exec(
        &self,
        container: &Arc<Container>,
        ExecSnapshot { id, config, .. }: ExecSnapshot,
        stream: AttachStream,
        mut ended: watch::Receiver<bool>,
    ) -> Result<Attachment> {
        let keys = parse_detach_keys(config.detach_keys.as_deref())?;
        let keys = config.tty.then(|| DetachKeys::new(keys));
        let (chunks, output) = mpsc::channel(OUTPUT_QUEUE);
        let (sender, pieces) = mpsc::channel(INPUT_QUEUE);
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            // Held until the exit code is known: clients ask for it when the stream ends.
            let hold = chunks.clone();
            match pump(stream, pieces, chunks, keys).await {
                PumpEnd::Over => {
                    let _ = ended.wait_for(|over| *over).await;
                }
                PumpEnd::Detached => {
                    engine.exec_event(&container, "exec_detach", &id, None);
                }
                PumpEnd::Left => {}
            }
            drop(hold);
        });
        let input = config.attach_stdin.then_some(Input { pieces: sender });
        Ok(Attachment { tty: config.tty, input, output: Output { chunks: output } })
    }

    /// Notes the end of an exec when it comes; true is sent once it is noted.
    fn watch_exec(
        &self,
        container: Arc<Container>,
        id: String,
        handle: Arc<portolan_runtime::Exec>,
    ) -> watch::Receiver<bool> {
        let (sender, receiver) = watch::channel(false);
        let engine = self.clone();
        tokio::spawn(async move {
            let code = handle.wait().await.unwrap_or_else(|error| {
                // The container's end takes the shim away.
                tracing::debug!(exec = %id, %error, "learn how an exec ended");
                137
            });
            engine.exec_ended(&container, &id, code);
            let _ = sender.send(true);
        });
        receiver
    }

    fn exec_ended(&self, container: &Container, id: &str, exit_code: i32) {
        self.inner.execs.note_end(id, exit_code);
        container.with(|record| record.execs.remove(id));
        self.exec_event(container, "exec_die", id, Some(exit_code));
    }

    pub(crate) fn exec_event(&self, container: &Container, action: &str, id: &str, exit_code: Option<i32>) {
        let mut attributes = BTreeMap::from([("execID".to_owned(), id.to_owned())]);
        if let Some(code) = exit_code {
            attributes.insert("exitCode".to_owned(), code.to_string());
        }
        self.container_event(container, action, attributes);
    }

    /// `GET /exec/{id}/json`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn exec_inspect(&self, id: &str) -> Result<ExecSnapshot> {
        self.inner.execs.get(id)
    }

    /// `POST /exec/{id}/resize`.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it does not run.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let handle = self.inner.execs.with(id, |entry| entry.handle.clone())?;
        let handle =
            handle.ok_or_else(|| EngineError::conflict(format!("exec command {id} is not running")))?;
        Ok(handle.resize(rows, columns).await?)
    }
}

//! Health checks: a process executed in the container now and then, whose exit code tells.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portolan_runtime::{ExecSpec, Shim};
use tokio_util::sync::CancellationToken;

use super::record::Container;
use super::state::EXIT_LOST;
use super::validate::LEAST_HEALTH_NS;
use crate::engine::{Engine, random_hex};
use crate::exec::EXIT_NOT_STARTED;
use crate::model::{ContainerConfig, Health, HealthConfig, HealthResult, HealthStatus, Status};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 3;
/// What of a check's output is kept, bytes.
const OUTPUT_KEPT: usize = 4096;
const RESULTS_KEPT: usize = 5;
const SIGKILL: i32 = 9;

/// The check of a container; none if it has none, or `NONE`.
pub(crate) fn wanted(config: &ContainerConfig) -> Option<&HealthConfig> {
    config.healthcheck.as_ref().filter(|check| command(config, check).is_some())
}

fn command(config: &ContainerConfig, check: &HealthConfig) -> Option<Vec<String>> {
    let (kind, rest) = check.test.split_first()?;
    match kind.as_str() {
        "CMD" if !rest.is_empty() => Some(rest.to_vec()),
        "CMD-SHELL" if !rest.is_empty() => {
            let shell = config.shell.clone().filter(|shell| !shell.is_empty());
            let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            command.extend_from_slice(rest);
            Some(command)
        }
        _ => None,
    }
}

/// Images are not asked what requests are: with an interval of a nanosecond there would be a check all the time.
fn or_default(nanoseconds: i64, default: Duration) -> Duration {
    let given = Some(nanoseconds).filter(|given| *given >= LEAST_HEALTH_NS);
    given.and_then(|given| u64::try_from(given).ok()).map_or(default, Duration::from_nanos)
}

/// What a result makes of the health; true if the status changed.
fn note(health: &mut Health, result: HealthResult, retries: u32, in_start_period: bool) -> bool {
    let before = health.status;
    if result.exit_code == 0 {
        health.failing_streak = 0;
        health.status = HealthStatus::Healthy;
    } else if !(in_start_period && health.status == HealthStatus::Starting) {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    if health.log.len() == RESULTS_KEPT {
        health.log.remove(0);
    }
    health.log.push(result);
    health.status != before
}

fn too_long(timeout: Duration, output: &str) -> String {
    format!("Health check exceeded timeout ({timeout:?}): {output}")
}

impl Engine {
    /// Starts the health checks of a container that has just been started (or found running).
    pub(crate) fn start_health_checks(&self, container: &Arc<Container>) {
        let config = container.with(|record| record.definition.config.clone());
        let Some(check) = wanted(&config).cloned() else { return };
        let Some(command) = command(&config, &check) else { return };
        let token = CancellationToken::new();
        container.with(|record| record.health = Some(token.clone()));
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            engine.tell_readiness(&container).await;
            let start_period = or_default(check.start_period_ns, Duration::ZERO);
            let began = tokio::time::Instant::now();
            loop {
                let starting = container.with(|record| {
                    record.state.shown.health.as_ref().is_some_and(|h| h.status == HealthStatus::Starting)
                });
                let interval = if starting && began.elapsed() < start_period {
                    or_default(check.start_interval_ns, DEFAULT_START_INTERVAL)
                } else {
                    or_default(check.interval_ns, DEFAULT_INTERVAL)
                };
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = token.cancelled() => return,
                }
                if container.status() != Status::Running {
                    continue;
                }
                let result = tokio::select! {
                    result = engine.check(&container, &config, &command, &check) => result,
                    () = token.cancelled() => return,
                };
                if engine.note_health(&container, result, &check, began.elapsed() < start_period) {
                    engine.tell_readiness(&container).await;
                }
            }
        });
    }

    async fn check(
        &self,
        container: &Arc<Container>,
        config: &ContainerConfig,
        command: &[String],
        check: &HealthConfig,
    ) -> HealthResult {
        let start = Timestamp::now();
        let timeout = or_default(check.timeout_ns, DEFAULT_TIMEOUT);
        let (exit_code, output) = self.run_check(container, config, command, timeout).await;
        HealthResult { start, end: Timestamp::now(), exit_code, output }
    }

    async fn run_check(
        &self,
        container: &Arc<Container>,
        config: &ContainerConfig,
        command: &[String],
        timeout: Duration,
    ) -> (i32, String) {
        let Ok(shim) = container.running_shim() else { return (-1, "container is not running".to_owned()) };
        let id = random_hex::<32>();
        let text = command.join(" ");
        // Seen like any other executed process, as with Docker.
        self.exec_event(container, &format!("exec_create: {text}"), &id, None);
        self.exec_event(container, &format!("exec_start: {text}"), &id, None);
        let (ended, code, output) = self.execute_check(&shim, &id, config, command, timeout).await;
        self.exec_event(container, "exec_die", &id, Some(ended));
        (code, output)
    }

    /// How the process ended, what that says about the health, and its output.
    async fn execute_check(
        &self,
        shim: &Shim,
        id: &str,
        config: &ContainerConfig,
        command: &[String],
        timeout: Duration,
    ) -> (i32, i32, String) {
        let spec = ExecSpec {
            id: id.to_owned(),
            args: command.to_vec(),
            env: super::environment(config, false, Vec::new()),
            cwd: config.working_dir.clone(),
            user: config.user.clone(),
            tty: false,
            size: None,
            attach_stdin: false,
            attach_stdout: true,
            attach_stderr: true,
            privileged: false,
        };
        // All of it has its time: the container is the one that keeps it from starting, too.
        let began = tokio::time::Instant::now();
        let mut exec = match tokio::time::timeout(timeout, shim.exec(&spec)).await {
            Ok(Ok(exec)) => exec,
            Ok(Err(error)) => {
                return (error.exit_code().unwrap_or(EXIT_NOT_STARTED), -1, error.to_string());
            }
            Err(_) => return (EXIT_NOT_STARTED, -1, too_long(timeout, "")),
        };
        let mut kept = Vec::new();
        let stream = exec.take_stream();
        let run = async {
            if let Some(mut stream) = stream {
                while let Ok(Some((_, bytes))) = stream.output.next().await {
                    let room = OUTPUT_KEPT.saturating_sub(kept.len());
                    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
            }
            exec.wait().await
        };
        let ended = tokio::time::timeout_at(began + timeout, run).await;
        match ended {
            Ok(Ok(code)) => (code, code, String::from_utf8_lossy(&kept).into_owned()),
            Ok(Err(error)) => (EXIT_LOST, -1, error.to_string()),
            Err(_) => {
                if let Err(error) = exec.kill(SIGKILL).await {
                    tracing::debug!(container = shim.id(), %error, "kill a health check");
                }
                (128 + SIGKILL, -1, too_long(timeout, &String::from_utf8_lossy(&kept)))
            }
        }
    }

    /// Keeps a result. True if the status changed.
    fn note_health(
        &self,
        container: &Arc<Container>,
        result: HealthResult,
        check: &HealthConfig,
        early: bool,
    ) -> bool {
        let retries = if check.retries == 0 { DEFAULT_RETRIES } else { check.retries };
        let changed = container.with(|record| {
            let health = record.state.shown.health.get_or_insert_default();
            note(health, result, retries, early).then_some(health.status)
        });
        container.save_state(&self.inner.database);
        if let Some(status) = changed {
            let action = format!("health_status: {}", status.as_str());
            self.container_event(container, &action, std::collections::BTreeMap::new());
        }
        changed.is_some()
    }

    /// A container that is not healthy leaves the answers to names that others have as well.
    async fn tell_readiness(&self, container: &Arc<Container>) {
        let known = container.with(|record| {
            let status = record.state.shown.health.as_ref().map(|health| health.status);
            Some((record.sandbox.as_ref()?.id.clone(), status == Some(HealthStatus::Healthy)))
        });
        let Some((sandbox, healthy)) = known else { return };
        if let Err(error) = self.inner.networks.set_ready(&sandbox, healthy).await {
            tracing::warn!(container = %container.id, %error, "tell the resolver about a container's health");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i32) -> HealthResult {
        let now = Timestamp::UNIX_EPOCH;
        HealthResult { start: now, end: now, exit_code, output: String::new() }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let mut health = Health::default();
        assert!(!note(&mut health, result(1), 2, true), "the start period forgives");
        assert_eq!(health.failing_streak, 0);
        assert!(!note(&mut health, result(1), 2, false));
        assert!(note(&mut health, result(1), 2, false));
        assert_eq!(health.status, HealthStatus::Unhealthy);
        assert!(note(&mut health, result(0), 2, false));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 0));
        for _ in 0..9 {
            note(&mut health, result(0), 2, false);
        }
        assert_eq!(health.log.len(), RESULTS_KEPT);
    }

    #[test]
    fn durations_that_no_request_could_ask_for_are_the_default() {
        let second = Duration::from_secs(1);
        for given in [-1, 0, 1, 999_999] {
            assert_eq!(or_default(given, second), second, "{given}");
        }
        assert_eq!(or_default(1_000_000, second), Duration::from_millis(1));
    }

    #[test]
    fn commands() {
        let config = |test: &[&str]| ContainerConfig {
            healthcheck: Some(HealthConfig {
                test: test.iter().map(|t| (*t).to_owned()).collect(),
                ..HealthConfig::default()
            }),
            ..ContainerConfig::default()
        };
        let of = |config: &ContainerConfig| command(config, config.healthcheck.as_ref().unwrap());
        assert_eq!(of(&config(&["CMD", "a", "b"])).unwrap(), ["a", "b"]);
        assert_eq!(of(&config(&["CMD-SHELL", "a b"])).unwrap(), ["/bin/sh", "-c", "a b"]);
        assert!(wanted(&config(&["NONE"])).is_none());
        assert!(wanted(&config(&[])).is_none());
    }
}

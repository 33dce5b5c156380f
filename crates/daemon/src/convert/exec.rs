//! Execs.

use portolan_api::{self as api, ApiVersion, StrSlice};
use portolan_engine::model::{ExecConfig, ExecSnapshot, ExecStartOptions};

use crate::http::ApiError;

/// The body of `POST /containers/{id}/exec`.
pub(crate) fn exec_config(body: api::ExecConfig, version: ApiVersion) -> Result<ExecConfig, ApiError> {
    let StrSlice(cmd) = body.cmd.unwrap_or_default();
    if cmd.is_empty() {
        return Err(ApiError::invalid("No exec command specified"));
    }
    Ok(ExecConfig {
        cmd,
        env: body.env.unwrap_or_default(),
        user: body.user,
        working_dir: body.working_dir,
        tty: body.tty,
        privileged: body.privileged,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        detach_keys: Some(body.detach_keys).filter(|keys| !keys.is_empty()),
        console_size: size(body.console_size, version),
    })
}

/// The body of `POST /exec/{id}/start`.
pub(crate) fn exec_start(body: &api::ExecStart, version: ApiVersion) -> ExecStartOptions {
    ExecStartOptions {
        detach: body.detach,
        tty: body.tty,
        console_size: size(body.console_size, version).filter(|_| body.tty),
    }
}

/// (rows, columns), from v1.42.
fn size(size: Option<[u16; 2]>, version: ApiVersion) -> Option<(u16, u16)> {
    size.filter(|size| version >= ApiVersion::new(1, 42) && *size != [0, 0])
        .map(|[rows, columns]| (rows, columns))
}

/// `GET /exec/{id}/json`.
pub(crate) fn exec_inspect(exec: ExecSnapshot) -> api::ExecInspect {
    let mut words = exec.config.cmd.into_iter();
    api::ExecInspect {
        id: exec.id,
        running: exec.running,
        exit_code: exec.exit_code.map(i64::from),
        process_config: api::ExecProcessConfig {
            tty: exec.config.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: Some(exec.config.privileged),
            user: exec.config.user,
        },
        open_stdin: exec.config.attach_stdin,
        open_stderr: exec.config.attach_stderr,
        open_stdout: exec.config.attach_stdout,
        can_remove: exec.can_remove,
        container_id: exec.container_id.to_string(),
        detach_keys: exec.config.detach_keys.map(|_| String::new()),
        pid: i64::from(exec.pid),
    }
}

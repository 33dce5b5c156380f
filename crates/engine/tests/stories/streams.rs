//! attach, exec and logs.

use std::time::Duration;

use bytes::Bytes;
use portolan_engine::model::{AttachOptions, ExecConfig, ExecStartOptions, LogOptions, Status};
use portolan_engine::{Attachment, ErrorKind, OutputStream};

use crate::fixture::{Fixture, collect, within};

fn everything() -> AttachOptions {
    AttachOptions { stream: true, stdin: true, stdout: true, stderr: true, ..AttachOptions::default() }
}

async fn attach(fixture: &Fixture, id: &str) -> Attachment {
    fixture.engine().container_attach(id, everything()).await.unwrap()
}

pub(crate) async fn output_from_before_the_first_byte(fixture: &Fixture) {
    let id = fixture.create(fixture.request("echo out; echo err >&2")).await;
    let attached = attach(fixture, &id).await;
    assert!(!attached.tty && attached.input.is_none(), "the container takes no input");
    fixture.run(&id).await;
    assert_eq!(collect(attached.output).await, ("out\n".to_owned(), "err\n".to_owned()));
    // Attached to a stopped one that never starts again: the stream ends with the container.
    let attached = attach(fixture, &id).await;
    fixture.remove(&id).await;
    assert_eq!(collect(attached.output).await, (String::new(), String::new()));
}

pub(crate) async fn input_and_its_end(fixture: &Fixture) {
    let mut request = fixture.request("cat; echo over");
    request.config.open_stdin = true;
    request.config.stdin_once = true;
    let id = fixture.create(request).await;
    let mut attached = attach(fixture, &id).await;
    fixture.engine().container_start(&id).await.unwrap();
    let mut input = attached.input.take().unwrap();
    input.write(Bytes::from_static(b"one\n")).await.unwrap();
    assert_eq!(within(attached.output.next()).await.unwrap().bytes, "one\n");
    input.write(Bytes::from_static(b"two\n")).await.unwrap();
    input.close().await;
    assert_eq!(collect(attached.output).await.0, "two\nover\n");
    fixture.remove(&id).await;
}

pub(crate) async fn exec_codes_are_known_when_the_stream_ends(fixture: &Fixture) {
    let engine = fixture.engine();
    let id = fixture.started(fixture.request("sleep 100")).await;
    for code in [0, 5, 77] {
        let (got, output) = fixture.exec(&id, &format!("echo $A; exit {code}")).await;
        assert_eq!((got, output.as_str()), (code, "\n"));
    }
    let config = |cmd: &[&str]| ExecConfig {
        cmd: cmd.iter().map(|word| (*word).to_owned()).collect(),
        env: vec!["A=b".to_owned()],
        working_dir: "/tmp".to_owned(),
        attach_stdin: true,
        attach_stdout: true,
        attach_stderr: true,
        ..ExecConfig::default()
    };
    let exec = engine.exec_create(&id, config(&["sh", "-c", "cat; echo $A $PWD"])).await.unwrap();
    let mut attached = engine.exec_start(&exec, ExecStartOptions::default()).await.unwrap().unwrap();
    assert_eq!(
        engine.exec_start(&exec, ExecStartOptions::default()).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
    let mut input = attached.input.take().unwrap();
    input.write(Bytes::from_static(b"in\n")).await.unwrap();
    input.close().await;
    assert_eq!(collect(attached.output).await.0, "in\nb /tmp\n");

    let exec = engine.exec_create(&id, config(&["nosuch"])).await.unwrap();
    let error = engine.exec_start(&exec, ExecStartOptions::default()).await.unwrap_err();
    assert!(error.message().contains("executable file not found"), "{error}");
    assert_eq!(engine.exec_inspect(&exec).await.unwrap().exit_code, Some(127));
    let snapshot = engine.container_inspect(&id, false).await.unwrap();
    assert!(snapshot.exec_ids.is_empty(), "{:?}", snapshot.exec_ids);
    engine.container_pause(&id).await.unwrap();
    let error = engine.exec_create(&id, config(&["true"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    fixture.remove(&id).await;
    assert!(engine.exec_inspect(&exec).await.is_err());
}

pub(crate) async fn detach_keys_leave_it_running(fixture: &Fixture) {
    let mut request = fixture.request("stty raw -echo; echo ready; cat");
    request.config.open_stdin = true;
    request.config.tty = true;
    let id = fixture.create(request).await;
    let mut options = everything();
    options.detach_keys = Some("ctrl-a,d".to_owned());
    let mut attached = fixture.engine().container_attach(&id, options).await.unwrap();
    fixture.engine().container_start(&id).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"ready\n") && !seen.ends_with(b"ready\r\n") {
        seen.extend_from_slice(&within(attached.output.next()).await.unwrap().bytes);
    }
    let mut input = attached.input.take().unwrap();
    input.write(Bytes::from_static(b"x\x01y")).await.unwrap();
    let mut echoed = Vec::new();
    while echoed.len() < 3 {
        let chunk = within(attached.output.next()).await.unwrap();
        assert_eq!(chunk.stream, OutputStream::Stdout);
        echoed.extend_from_slice(&chunk.bytes);
    }
    assert_eq!(echoed, b"x\x01y", "an incomplete sequence goes through");
    input.write(Bytes::from_static(b"\x01d")).await.unwrap();
    assert!(within(attached.output.next()).await.is_none());
    let state = fixture.engine().container_inspect(&id, false).await.unwrap().state;
    assert_eq!(state.status, Status::Running);
    let mut bad = everything();
    bad.detach_keys = Some("nonsense".to_owned());
    assert_eq!(fixture.engine().container_attach(&id, bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    fixture.remove(&id).await;
    assert!(fixture.actions(&id).await.contains(&"detach".to_owned()));
}

pub(crate) async fn logs_by_tail_and_time(fixture: &Fixture) {
    let engine = fixture.engine();
    let script = "for i in 1 2 3; do echo line $i; sleep 0.05; done; echo oops >&2";
    let id = fixture.started(fixture.request(script)).await;
    let both = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
    let follow = engine.container_logs(&id, LogOptions { follow: true, ..both.clone() }).await.unwrap();
    let (stdout, stderr) = collect(follow.output).await;
    assert_eq!((stdout.as_str(), stderr.as_str()), ("line 1\nline 2\nline 3\n", "oops\n"));
    let tail = engine.container_logs(&id, LogOptions { tail: Some(2), ..both.clone() }).await.unwrap();
    assert_eq!(collect(tail.output).await, ("line 3\n".to_owned(), "oops\n".to_owned()));
    let options = LogOptions { stdout: true, tail: Some(1), timestamps: true, ..LogOptions::default() };
    let (line, _) = collect(engine.container_logs(&id, options).await.unwrap().output).await;
    let (time, text) = line.split_once(' ').unwrap();
    assert_eq!(text, "line 3\n");
    let time: jiff::Timestamp = time.parse().unwrap();
    let since = engine.container_logs(&id, LogOptions { since: Some(time), ..both.clone() }).await.unwrap();
    assert_eq!(collect(since.output).await.0, "line 3\n");
    assert_eq!(
        engine.container_logs(&id, LogOptions::default()).await.unwrap_err().kind(),
        ErrorKind::Invalid,
        "one stream must be chosen"
    );
    fixture.remove(&id).await;

    // Whoever follows is told when nothing more can come, and may leave before.
    let id = fixture.started(fixture.request("sleep 100")).await;
    let follow = LogOptions { follow: true, ..both };
    let mut left = engine.container_logs(&id, follow.clone()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(30), left.output.next()).await.is_err());
    drop(left);
    let mut stays = engine.container_logs(&id, follow).await.unwrap();
    fixture.remove(&id).await;
    assert!(within(stays.output.next()).await.is_none());
}

//! From create to removal, with what can go wrong between.

use portolan_engine::ErrorKind;
use portolan_engine::model::{
    NetworkMode, RemoveOptions, RestartPolicy, RestartPolicyName, Status, StopOptions, WaitCondition,
};
use portolan_netsim::Faults;

use crate::fixture::{Fixture, eventually, within};

pub(crate) async fn a_run_from_create_to_removal(fixture: &Fixture) {
    let engine = fixture.engine();
    let id = fixture.create(fixture.request("exit 7")).await;
    let before = engine.container_inspect(&id, false).await.unwrap();
    assert_eq!(before.state.status, Status::Created);
    assert_eq!(before.config.image, "busybox");
    assert_eq!(fixture.run(&id).await, 7);
    let after = engine.container_inspect(&id, true).await.unwrap();
    assert_eq!((after.state.status, after.state.exit_code, after.state.pid), (Status::Exited, 7, 0));
    assert!(after.state.started_at < after.state.finished_at);
    assert!(after.hosts_path.unwrap().exists() && after.log_path.unwrap().exists());
    // Again: a container can run many times.
    assert_eq!(fixture.run(&id).await, 7);
    let waiter = engine.container_wait(&id, WaitCondition::NotRunning).await.unwrap();
    assert_eq!(within(waiter.outcome()).await.unwrap().exit_code, 7);
    engine.container_remove(&id, RemoveOptions::default()).await.unwrap();
    let error = engine.container_inspect(&id, false).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::NotFound, format!("No such container: {id}").as_str())
    );
    assert_eq!(fixture.actions(&id).await, ["create", "start", "die", "start", "die", "destroy"]);
}

pub(crate) async fn auto_remove_answers_when_nothing_can_be_seen(fixture: &Fixture) {
    let engine = fixture.engine();
    let mut request = fixture.request("exit 3");
    request.name = Some("once".to_owned());
    request.host_config.auto_remove = true;
    let id = fixture.create(request.clone()).await;
    let removed = engine.container_wait(&id, WaitCondition::Removed).await.unwrap();
    engine.container_start(&id).await.unwrap();
    assert_eq!(within(removed.outcome()).await.unwrap().exit_code, 3);
    assert!(engine.container_inspect(&id, false).await.is_err());
    // Its name is free at once.
    let again = fixture.create(request).await;
    fixture.remove(&again).await;
}

pub(crate) async fn a_program_that_does_not_exist(fixture: &Fixture) {
    let engine = fixture.engine();
    for (cmd, code, text) in [
        ("nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("/etc/passwd", 126, "permission denied"),
    ] {
        let mut request = fixture.request("");
        request.config.cmd = Some(vec![cmd.to_owned()]);
        let id = fixture.create(request).await;
        let waiter = engine.container_wait(&id, WaitCondition::NextExit).await.unwrap();
        let error = engine.container_start(&id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.message().contains(text), "{error}");
        assert_eq!(within(waiter.outcome()).await.unwrap().exit_code, code);
        let state = engine.container_inspect(&id, false).await.unwrap().state;
        assert_eq!((state.status, state.exit_code), (Status::Created, code));
        assert!(state.error.contains(text));
        fixture.remove(&id).await;
    }
}

pub(crate) async fn a_network_that_cannot_be_made_leaves_nothing(fixture: &Fixture) {
    let engine = fixture.engine();
    let mut request = fixture.request("true");
    request.host_config.network_mode = NetworkMode::Bridge;
    let id = fixture.create(request.clone()).await;
    let bridge = || async { engine.network_inspect("bridge").await.unwrap().endpoints.len() };
    // The network fails, at its second step.
    fixture.host.set_faults(Faults { refuse: vec![("add veth".to_owned(), 5)], ..Faults::default() });
    let failed = engine.container_start(&id).await;
    fixture.host.set_faults(Faults::default());
    // Or it is made, but its (simulated) namespace cannot be entered.
    let error = match failed {
        Err(error) => error,
        Ok(()) => panic!("a container ran without a network"),
    };
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    let error = engine.container_start(&id).await.unwrap_err();
    assert!(error.message().contains("namespace"), "{error}");
    assert_eq!(bridge().await, 0);
    let state = engine.container_inspect(&id, false).await.unwrap().state;
    assert_eq!((state.status, state.exit_code), (Status::Created, 128));
    fixture.remove(&id).await;
    // The same with --rm: the container goes, too.
    request.host_config.auto_remove = true;
    let id = fixture.create(request.clone()).await;
    assert!(engine.container_start(&id).await.is_err());
    assert!(engine.container_inspect(&id, false).await.is_err());
    request.host_config.auto_remove = false;
    request.host_config.network_mode = NetworkMode::Network("nowhere".to_owned());
    let id = fixture.create(request).await;
    let error = engine.container_start(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.message().contains("network nowhere not found"), "{error}");
    fixture.remove(&id).await;
}

pub(crate) async fn names_and_conflicts(fixture: &Fixture) {
    let engine = fixture.engine();
    let mut request = fixture.request("true");
    request.name = Some("/web".to_owned());
    let id = fixture.create(request.clone()).await;
    let error = engine.container_create(request.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.message(),
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove \
             (or rename) that container to be able to reuse that name."
        )
    );
    engine.container_rename("web", "www").await.unwrap();
    assert_eq!(engine.container_inspect("/www", false).await.unwrap().id.to_string(), id);
    assert_eq!(engine.container_inspect(&id[..10], false).await.unwrap().name, "www");
    let other = fixture.create(request.clone()).await;
    let error = engine.container_rename("www", "web").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    request.config.image = "nosuch".to_owned();
    let error = engine.container_create(request).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "No such image: nosuch:latest"));
    for id in [id, other] {
        fixture.remove(&id).await;
    }
}

pub(crate) async fn stop_kill_and_restart_policies(fixture: &Fixture) {
    let engine = fixture.engine();
    let mut request = fixture.request("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    request.host_config.restart_policy =
        RestartPolicy { name: RestartPolicyName::Always, maximum_retry_count: 0 };
    let id = fixture.started(request).await;
    fixture.ready(&id).await;
    let error = engine.container_start(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotModified);
    within(engine.container_stop(&id, StopOptions::default())).await.unwrap();
    let state = engine.container_inspect(&id, false).await.unwrap().state;
    assert_eq!((state.status, state.exit_code), (Status::Exited, 5), "a stopped one is not restarted");
    assert_eq!(
        engine.container_stop(&id, StopOptions::default()).await.unwrap_err().kind(),
        ErrorKind::NotModified
    );
    assert_eq!(engine.container_kill(&id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
    fixture.remove(&id).await;

    let mut request = fixture.request("exit 1");
    request.host_config.restart_policy =
        RestartPolicy { name: RestartPolicyName::OnFailure, maximum_retry_count: 2 };
    let id = fixture.started(request).await;
    for _ in 0..200 {
        let now = engine.container_inspect(&id, false).await.unwrap();
        if now.state.status == Status::Exited {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(engine.container_inspect(&id, false).await.unwrap().restart_count, 2);
    fixture.remove(&id).await;

    // One that ignores its stop signal is killed when its time is over; a paused one can be stopped.
    let id = fixture.started(fixture.request("trap '' TERM; while :; do sleep 0.01; done")).await;
    engine.container_pause(&id).await.unwrap();
    assert_eq!(engine.container_inspect(&id, false).await.unwrap().state.status, Status::Paused);
    let options = StopOptions { timeout_s: Some(0), ..StopOptions::default() };
    within(engine.container_stop(&id, options)).await.unwrap();
    assert_eq!(engine.container_inspect(&id, false).await.unwrap().state.exit_code, 137);
    within(engine.container_restart(&id, StopOptions { timeout_s: Some(0), ..StopOptions::default() }))
        .await
        .unwrap();
    assert_eq!(engine.container_inspect(&id, false).await.unwrap().state.status, Status::Running);
    within(engine.container_kill(&id, Some("KILL"))).await.unwrap();
    fixture.remove(&id).await;
}

pub(crate) async fn removal_by_force(fixture: &Fixture) {
    let engine = fixture.engine();
    let id = fixture.started(fixture.request("sleep 100")).await;
    let error = engine.container_remove(&id, RemoveOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("stop the container before removing or force remove"), "{error}");
    let removed = engine.container_wait(&id, WaitCondition::Removed).await.unwrap();
    fixture.remove(&id).await;
    assert_eq!(within(removed.outcome()).await.unwrap().exit_code, 137);
    // Even while somebody waits for it to stop.
    let id = fixture.started(fixture.request("trap '' TERM; while :; do sleep 0.01; done")).await;
    let (stopping, name) = (engine.clone(), id.clone());
    let stop = tokio::spawn(async move { stopping.container_stop(&name, StopOptions::default()).await });
    eventually("the stop has begun", || !stop.is_finished()).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    fixture.remove(&id).await;
    assert!(within(stop).await.unwrap().is_ok());
}

pub(crate) async fn containers_outlive_the_daemon(fixture: &Fixture) {
    let runs = fixture.started(fixture.request("while :; do echo tick; sleep 0.02; done")).await;
    let ends = fixture.started(fixture.request("sleep 0.2; exit 9")).await;
    let never = fixture.create(fixture.request("true")).await;
    let mut always = fixture.request("sleep 0.2");
    always.host_config.restart_policy =
        RestartPolicy { name: RestartPolicyName::Always, maximum_retry_count: 0 };
    let always = fixture.started(always).await;
    let mut once = fixture.request("sleep 0.2");
    once.host_config.auto_remove = true;
    let once = fixture.started(once).await;
    let pid = fixture.engine().container_inspect(&runs, false).await.unwrap().state.pid;
    fixture.engine().shutdown().await;
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let engine = fixture.next_daemon().await;
    let state = |id: String| {
        let engine = engine.clone();
        async move { engine.container_inspect(&id, false).await.map(|c| c.state) }
    };
    let running = state(runs.clone()).await.unwrap();
    assert_eq!((running.status, running.pid), (Status::Running, pid));
    let ended = state(ends.clone()).await.unwrap();
    assert_eq!((ended.status, ended.exit_code), (Status::Exited, 9));
    assert_eq!(state(never.clone()).await.unwrap().status, Status::Created);
    assert!(state(once).await.is_err(), "--rm is honoured later");
    assert_eq!(fixture.exec(&runs, "echo still here").await, (0, "still here\n".to_owned()));
    let waiter = engine.container_wait(&runs, WaitCondition::NextExit).await.unwrap();
    engine.container_kill(&runs, None).await.unwrap();
    assert_eq!(within(waiter.outcome()).await.unwrap().exit_code, 137);
    for _ in 0..100 {
        if state(always.clone()).await.unwrap().status == Status::Running {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_ne!(state(always.clone()).await.unwrap().started_at, None);
    for id in [runs, ends, never, always] {
        fixture.remove(&id).await;
    }
}

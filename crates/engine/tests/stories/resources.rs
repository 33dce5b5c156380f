//! Volumes, files, limits, health.

use std::time::Duration;

use portolan_engine::ErrorKind;
use portolan_engine::model::{
    ChangeKind, Filters, HealthConfig, HealthStatus, RemoveOptions, ResourceLimits, UpdateRequest, VolumeSpec,
};

use crate::fixture::{Fixture, within};

pub(crate) async fn volumes_are_filled_and_go_with_the_container(fixture: &Fixture) {
    let engine = fixture.engine();
    let mut request = fixture.request("cat /data/sub/from-image; echo own > /data/own");
    request.config.volumes.insert("/data".to_owned());
    let id = fixture.create(request.clone()).await;
    assert_eq!(fixture.run(&id).await, 0);
    let mount = engine.container_inspect(&id, false).await.unwrap().mounts[0].clone();
    assert!(mount.anonymous);
    assert_eq!(std::fs::read_to_string(mount.source.join("own")).unwrap(), "own\n");
    let name = mount.name.unwrap();
    assert_eq!(engine.volume_remove(&name, false).await.unwrap_err().kind(), ErrorKind::Conflict);
    // Without `-v` it stays.
    engine.container_remove(&id, RemoveOptions::default()).await.unwrap();
    engine.volume_inspect(&name).await.unwrap();
    engine.volume_remove(&name, false).await.unwrap();
    assert_eq!(
        engine.volume_inspect(&name).await.unwrap_err().message(),
        format!("get {name}: no such volume")
    );

    // A named one is filled once, and never removed with a container.
    engine.volume_create(VolumeSpec { name: "named".to_owned(), ..VolumeSpec::default() }).await.unwrap();
    request.config.volumes.clear();
    request.host_config.binds = vec!["named:/data".to_owned()];
    for _ in 0..2 {
        let id = fixture.create(request.clone()).await;
        assert_eq!(fixture.run(&id).await, 0);
        fixture.remove(&id).await;
    }
    let mut all = Filters::default();
    all.add("all", "true");
    assert_eq!(engine.volume_prune(all).await.unwrap().deleted, ["named"]);
}

pub(crate) async fn files_in_and_out(fixture: &Fixture) {
    let engine = fixture.engine();
    let id = fixture.create(fixture.request("cat /tmp/in; echo changed > /etc/passwd; sleep 100")).await;
    let mut tar = Vec::new();
    let stat = engine.container_stat_path(&id, "/data/sub/from-image").await.unwrap();
    assert_eq!((stat.name.as_str(), stat.size), ("from-image", 6));
    let (_, mut output) = engine.container_get_archive(&id, "/data/sub/from-image").await.unwrap();
    while let Some(chunk) = within(output.next()).await {
        tar.extend_from_slice(&chunk.unwrap());
    }
    // Into one that does not run, then out of the same one that does.
    engine.container_put_archive(&id, "/tmp", false, Box::new(std::io::Cursor::new(tar))).await.unwrap();
    engine.container_start(&id).await.unwrap();
    assert_eq!(fixture.exec(&id, "cat /tmp/from-image").await, (0, "image\n".to_owned()));
    assert_eq!(engine.container_stat_path(&id, "/tmp/from-image").await.unwrap().size, 6);
    let error = engine.container_stat_path(&id, "/nosuch").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(fixture.exec(&id, "echo more > /etc/passwd").await.0, 0);
    let changes = engine.container_changes(&id).await.unwrap();
    let kind = |path: &str| changes.iter().find(|change| change.path == path).map(|change| change.kind);
    assert_eq!(kind("/tmp/from-image"), Some(ChangeKind::Added));
    assert_eq!(kind("/etc/passwd"), Some(ChangeKind::Modified));
    fixture.remove(&id).await;
}

pub(crate) async fn limits_and_statistics(fixture: &Fixture) {
    let engine = fixture.engine();
    let mut request = fixture.request("sleep 100");
    request.host_config.resources = ResourceLimits { memory: 64 << 20, ..ResourceLimits::default() };
    let id = fixture.started(request).await;
    let sample = engine.container_stats(&id).await.unwrap();
    assert!(sample.read.is_some() && sample.pids_current >= 1, "{sample:?}");
    assert_eq!(sample.memory_limit, 64 << 20);
    let resources = ResourceLimits { memory: 32 << 20, memory_swap: 64 << 20, ..ResourceLimits::default() };
    engine.container_update(&id, UpdateRequest { resources, ..UpdateRequest::default() }).await.unwrap();
    assert_eq!(engine.container_stats(&id).await.unwrap().memory_limit, 32 << 20);
    let resources = ResourceLimits { memory: 1, ..ResourceLimits::default() };
    let error = engine
        .container_update(&id, UpdateRequest { resources, ..UpdateRequest::default() })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    if std::process::Command::new("ps").arg("--version").output().is_ok_and(|out| out.status.success()) {
        let table = engine.container_top(&id, "").await.unwrap();
        assert_eq!(table.processes.len(), 1, "{table:?}");
        assert!(table.processes[0].last().unwrap().contains("sleep 100"), "{table:?}");
    }
    fixture.remove(&id).await;
    assert!(engine.container_stats(&id).await.is_err());
}

pub(crate) async fn health_is_watched(fixture: &Fixture) {
    let engine = fixture.engine();
    let mut request = fixture.request("touch /tmp/well; sleep 100");
    request.config.healthcheck = Some(HealthConfig {
        test: ["CMD-SHELL", "cat /tmp/well"].map(str::to_owned).to_vec(),
        interval_ns: 20_000_000,
        retries: 2,
        ..HealthConfig::default()
    });
    let id = fixture.started(request).await;
    let becomes = |wanted: HealthStatus| {
        let (engine, id) = (engine.clone(), id.clone());
        async move {
            for _ in 0..300 {
                let health = engine.container_inspect(&id, false).await.unwrap().state.health.unwrap();
                if health.status == wanted {
                    return health;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("never {wanted:?}");
        }
    };
    becomes(HealthStatus::Healthy).await;
    assert_eq!(fixture.exec(&id, "busybox rm /tmp/well").await.0, 0);
    let health = becomes(HealthStatus::Unhealthy).await;
    assert!(health.failing_streak >= 2);
    assert!(health.log.last().unwrap().output.contains("No such file"), "{health:?}");
    fixture.remove(&id).await;
    let actions = fixture.actions(&id).await;
    assert!(actions.iter().any(|action| action == "health_status: healthy"));
    let at = actions.iter().position(|action| action.starts_with("exec_create: ")).unwrap();
    let kinds: Vec<_> = actions[at..at + 3].iter().map(|action| action.split(':').next().unwrap()).collect();
    assert_eq!(kinds, ["exec_create", "exec_start", "exec_die"]);
}

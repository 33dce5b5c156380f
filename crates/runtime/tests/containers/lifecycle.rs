use std::os::fd::AsRawFd;
use std::time::Duration;

use portolan_runtime::{Error, Launcher, LauncherConfig, ShimState};

use crate::fixture::{OUTPUT, collect, exec, fixture, start_launcher};

#[tokio::test]
async fn runs_a_program_and_keeps_its_exit_code() {
    let Some(fixture) = fixture() else { return };
    let outcome = fixture.run(&fixture.spec("echo out; echo err >&2; exit 7")).await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(outcome.status.code, 7);
    assert!(!outcome.status.oom_killed);
    assert_eq!(fixture.launcher.ids().unwrap(), Vec::<String>::new(), "no shim's directory is left");
}

#[tokio::test]
async fn missing_and_unusable_programs_say_so_in_dockers_words() {
    let Some(fixture) = fixture() else { return };
    let cases = [
        ("foo", 127, "exec: \"foo\": executable file not found in $PATH"),
        ("/bin/foo", 127, "exec: \"/bin/foo\": stat /bin/foo: no such file or directory"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
    ];
    for (program, code, text) in cases {
        let mut spec = fixture.spec("");
        spec.args = vec![program.into()];
        let error = fixture.launcher.create(&spec).await.unwrap_err();
        assert_eq!(error.exit_code(), Some(code), "{error}");
        let message = error.to_string();
        assert!(
            message.starts_with("failed to create task for container: ")
                && message.ends_with(&format!("{text}: unknown")),
            "{message}"
        );
        assert_eq!(fixture.launcher.ids().unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn signals_end_it_and_deleting_kills() {
    let Some(fixture) = fixture() else { return };
    let shim =
        fixture.started(&fixture.spec("trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done")).await;
    shim.kill(15).await.unwrap();
    // pid 1 ignores what it has not set a handler for: it may take two.
    let status = loop {
        match tokio::time::timeout(Duration::from_millis(100), shim.wait()).await {
            Ok(status) => break status.unwrap(),
            Err(_) => drop(shim.kill(15).await),
        }
    };
    assert_eq!(status.code, 3);
    assert!(matches!(shim.kill(15).await, Err(Error::NotRunning { .. })));
    shim.delete().await.unwrap();

    let shim = fixture.started(&fixture.spec("sleep 1000")).await;
    let waiting = tokio::spawn({
        let shim = shim.clone();
        async move { shim.wait().await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    shim.delete().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().code, 137);
    assert!(!std::path::Path::new(&format!("/proc/{}/ns", shim.pid())).exists());
}

#[tokio::test]
async fn survives_the_death_of_daemon_and_launcher() {
    let Some(mut fixture) = fixture() else { return };
    let mut spec = fixture.spec("read line; echo got $line; exit 5");
    spec.stdio.open_stdin = true;
    spec.stdio.stdin_once = true;
    let shim = fixture.started(&spec).await;
    // The launcher ends with its socket.
    let directory = fixture.directory.path().to_owned();
    drop(shim);
    fixture.launcher = start_launcher(&directory);
    let shim = fixture.launcher.reconnect(&spec.id).await.unwrap().expect("the shim lives");
    assert!(matches!(shim.state().await.unwrap(), ShimState::Running(Some(_))));
    let all = portolan_runtime::AttachOptions { stdin: true, stdout: true, stderr: true };
    let (output, mut input) = shim.attach(all).await.unwrap().split();
    tokio::io::AsyncWriteExt::write_all(&mut input, b"hello\n").await.unwrap();
    assert_eq!(collect(output).await.0, "got hello\n");
    assert_eq!(shim.wait().await.unwrap().code, 5);
    shim.delete().await.unwrap();
    assert!(fixture.launcher.reconnect(&spec.id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_along() {
    let Some(fixture) = fixture() else { return };
    let spec = fixture.spec("sleep 1000 & sleep 1000");
    let shim = fixture.started(&spec).await;
    let parent = parent(shim.pid());
    let waiting = tokio::spawn({
        let shim = shim.clone();
        async move { shim.wait().await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    kill(parent);
    assert_eq!(waiting.await.unwrap().unwrap().code, 137);
    let again = fixture.launcher.reconnect(&spec.id).await.unwrap().expect("its files remain");
    assert!(matches!(again.state().await.unwrap(), ShimState::Exited(status) if status.code == 137));
    again.delete().await.unwrap();
    assert_eq!(fixture.launcher.ids().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_shim_that_cannot_be_reached_is_not_dead() {
    let Some(fixture) = fixture() else { return };
    let spec = fixture.spec("sleep 1000");
    let shim = fixture.started(&spec).await;
    let socket = fixture.launcher.exec_root().join("shims").join(&spec.id).join("s");
    let aside = socket.with_extension("aside");
    std::fs::rename(&socket, &aside).unwrap();
    let again = fixture.launcher.reconnect(&spec.id).await.unwrap().expect("it lives");
    let state = tokio::spawn({
        let again = again.clone();
        async move { again.state().await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    std::fs::rename(&aside, &socket).unwrap();
    assert!(matches!(state.await.unwrap().unwrap(), ShimState::Running(_)), "asked until it could be asked");
    again.process().await.unwrap();
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn a_shim_that_does_not_answer_dies_with_its_container() {
    let Some(fixture) = fixture() else { return };
    let shim = fixture.started(&fixture.spec("sleep 1000")).await;
    let process = shim.process().await.unwrap();
    let pid = rustix::process::Pid::from_raw(parent(shim.pid())).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let waiting = tokio::spawn({
        let shim = shim.clone();
        async move { shim.wait().await }
    });
    assert!(matches!(shim.kill(15).await, Err(Error::Silent { .. })));
    shim.kill(9).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().code, 137);
    assert!(matches!(shim.process().await, Err(Error::NotRunning { .. })));
    drop(process);
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn a_shim_whose_directory_is_removed_ends_with_its_container() {
    let Some(fixture) = fixture() else { return };
    let spec = fixture.spec("sleep 1000");
    let shim = fixture.started(&spec).await;
    let (pid, keeper) = (shim.pid(), parent(shim.pid()));
    std::fs::remove_dir_all(fixture.launcher.exec_root().join("shims").join(&spec.id)).unwrap();
    // The last connection.
    drop(shim);
    let lives = || processes().any(|(one, command)| one == keeper && command.starts_with("portolan-shim"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(lives(), "the container goes on, and so does what it writes to");
    kill(pid);
    for _ in 0..100 {
        if !lives() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the shim {keeper} is still there");
}

#[tokio::test]
async fn an_exit_code_outlives_a_full_disk() {
    let Some(fixture) = fixture() else { return };
    let spec = fixture.spec("exit 3");
    let shim = fixture.started_with(&spec, |directory| {
        // Where the status is drafted nothing can be written.
        std::fs::create_dir(directory.join(".exit.json")).unwrap();
    });
    let shim = shim.await;
    assert_eq!(shim.wait().await.unwrap().code, 3);
    let again = fixture.launcher.reconnect(&spec.id).await.unwrap().expect("the shim keeps it");
    assert!(matches!(again.state().await.unwrap(), ShimState::Exited(status) if status.code == 3));
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn executes_processes_in_it() {
    let Some(fixture) = fixture() else { return };
    let shim = fixture.started(&fixture.spec("sleep 1000")).await;
    let mut ran = shim.exec(&exec("echo $$ $(id -u) $PWD; hostname; exit 4")).await.unwrap();
    let (stdout, _) = collect(ran.take_stream().unwrap().output).await;
    let hostname = &shim.id()[..12];
    assert!(stdout.ends_with(&format!(" 0 /\n{hostname}\n")), "{stdout}");
    assert_eq!(ran.wait().await.unwrap(), 4);

    let mut spec = exec("id; pwd; echo $HOME; cat");
    (spec.user, spec.cwd, spec.attach_stdin) = ("web".into(), "/tmp".into(), true);
    let mut ran = shim.exec(&spec).await.unwrap();
    let (output, mut input) = ran.take_stream().unwrap().split();
    tokio::io::AsyncWriteExt::write_all(&mut input, b"through").await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut input).await.unwrap();
    let expected = "uid=33(web) gid=34(web) groups=29(audio),34(web)\n/tmp\n/tmp\nthrough";
    assert_eq!(collect(output).await.0, expected);
    assert_eq!(ran.wait().await.unwrap(), 0);

    let mut spec = exec("");
    spec.args = vec!["nothing".into()];
    let error = shim.exec(&spec).await.unwrap_err();
    assert_eq!(error.exit_code(), Some(127));
    assert!(error.to_string().starts_with("OCI runtime exec failed: exec failed: "), "{error}");
    shim.delete().await.unwrap();
    assert!(matches!(shim.exec(&exec("true")).await, Err(Error::ShimGone { .. })));
}

#[tokio::test]
async fn goes_with_what_is_executed_in_it() {
    let Some(fixture) = fixture() else { return };
    // A pid namespace's first process waits for those that others have put there, and that the shim has to reap.
    let shim = fixture.started(&fixture.spec("sleep 1000")).await;
    let running = shim.exec(&exec("sleep 1000")).await.unwrap();
    shim.delete().await.unwrap();
    drop(running);
}

#[tokio::test]
async fn executes_again_and_again() {
    let Some(fixture) = fixture() else { return };
    let shim = fixture.started(&fixture.spec("sleep 1000")).await;
    for round in 0..100 {
        let mut ran =
            shim.exec(&exec("echo $$")).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(ran.pid() > 0);
        let (stdout, _) = collect(ran.take_stream().unwrap().output).await;
        assert_ne!(stdout, "", "round {round}");
        assert_eq!(ran.wait().await.unwrap(), 0);
    }
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn exec_returns_although_its_children_keep_the_streams() {
    let Some(fixture) = fixture() else { return };
    let shim = fixture.started(&fixture.spec("sleep 1000")).await;
    let began = std::time::Instant::now();
    let mut ran = shim.exec(&exec("sleep 1000 & echo started")).await.unwrap();
    assert_eq!(collect(ran.take_stream().unwrap().output).await.0, "started\n");
    assert_eq!(ran.wait().await.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn pauses_counts_and_limits() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("while :; do :; done");
    spec.resources.pids_limit = Some(20);
    spec.resources.memory_bytes = Some(64 << 20);
    let shim = fixture.started(&spec).await;
    shim.pause().await.unwrap();
    let before = shim.stats().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let after = shim.stats().await.unwrap();
    assert_eq!(before.cpu_total_ns, after.cpu_total_ns, "paused");
    assert!(shim.exec(&exec("true")).await.is_err(), "exec is refused while it is paused");
    assert_eq!((after.pids, after.pids_limit), (1, 20));
    assert_eq!(after.memory_limit, 64 << 20);
    assert_eq!(shim.pids().await.unwrap(), [shim.pid()]);
    shim.resume().await.unwrap();
    let resources = portolan_runtime::Resources { memory_bytes: Some(32 << 20), ..Default::default() };
    shim.update(&resources).await.unwrap();
    assert_eq!(shim.stats().await.unwrap().memory_limit, 32 << 20);
    shim.pause().await.unwrap();
    shim.kill(9).await.unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 137, "a paused container can be killed");
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn tells_that_memory_ran_out() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("tail /dev/zero");
    spec.resources.memory_bytes = Some(8 << 20);
    let outcome = fixture.run(&spec).await;
    assert_eq!(outcome.status.code, 137);
    assert!(outcome.status.oom_killed);
}

#[tokio::test]
async fn init_reaps_and_forwards() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("echo $$; trap 'exit 9' TERM; (sleep 0.01 &); while :; do sleep 0.02; done");
    spec.init = true;
    let shim = fixture.started(&spec).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut ran = shim
        .exec(&exec("cat /proc/*/stat | grep -c ' Z '; cat /proc/1/comm; ls -l /proc/1/exe 2>&1"))
        .await
        .unwrap();
    let (stdout, _) = collect(ran.take_stream().unwrap().output).await;
    assert!(stdout.starts_with("0\ndocker-init\n"), "no zombies, and Docker's name: {stdout}");
    assert!(stdout.contains("Permission denied") || stdout.contains("cannot read link"), "{stdout}");
    shim.kill(15).await.unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 9);
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn a_killed_launcher_is_replaced() {
    let Some(fixture) = fixture() else { return };
    let first = fixture.started(&fixture.spec("sleep 600")).await;
    let launcher = parent(parent(first.pid()));
    // What somebody has given the daemon for when memory runs out is not its containers'.
    std::fs::write(format!("/proc/{launcher}/oom_score_adj"), "300").unwrap();
    let mut spec = fixture.spec("cat /proc/self/oom_score_adj");
    spec.oom_score_adj = Some(0);
    assert_eq!(fixture.output(&spec).await, "0\n");
    kill(launcher);
    let second = fixture.started(&fixture.spec("sleep 600")).await;
    assert_ne!(parent(parent(second.pid())), launcher);
    assert!(matches!(first.state().await.unwrap(), ShimState::Running(_)), "the old one's containers go on");
    first.delete().await.unwrap();
    second.delete().await.unwrap();
}

#[tokio::test]
async fn a_launcher_starts_or_says_why_not() {
    let Some(fixture) = fixture() else { return };
    let mut config = LauncherConfig::new(fixture.directory.path().join("other"));
    config.executable = Some("/bin/true".into());
    let error = Launcher::start(config.clone()).unwrap_err().to_string();
    assert!(error.contains("the launcher does not start: it ended without a word"), "{error}");
    // A program whose mount is in no namespace: nothing of it can be mounted read-only.
    let program = env!("CARGO_BIN_EXE_portolan-runtime-helper");
    let memory = rustix::fs::memfd_create(c"program", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut memory = std::fs::File::from(memory);
    std::io::copy(&mut std::fs::File::open(program).unwrap(), &mut memory).unwrap();
    config.executable = Some(format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd()).into());
    let launcher = Launcher::start(config).unwrap();
    let mut spec = fixture.spec("echo > /proc/1/exe");
    (spec.init, spec.privileged) = (true, true);
    let shim = launcher.create(&spec).await.unwrap();
    let stream = shim.attach(OUTPUT).await.unwrap();
    shim.start().await.unwrap();
    let (_, stderr) = collect(stream.split().0).await;
    assert!(stderr.contains("can't create /proc/1/exe"), "{stderr}");
    assert_ne!(shim.wait().await.unwrap().code, 0);
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn a_shim_killed_at_any_moment_of_a_creation_leaves_nothing() {
    let Some(fixture) = fixture() else { return };
    let mut died = 0;
    for round in 0..30_u64 {
        let spec = fixture.spec("sleep 600");
        let id = spec.id.clone();
        let name = format!("portolan-shim {id}");
        let killer = tokio::task::spawn_blocking(move || {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
            loop {
                let found = processes().find(|(_, command)| *command == name);
                if let Some((pid, _)) = found {
                    std::thread::sleep(std::time::Duration::from_micros(round * 150));
                    return kill(pid);
                }
                if std::time::Instant::now() > deadline {
                    return;
                }
            }
        });
        let created = fixture.launcher.create(&spec).await;
        killer.await.unwrap();
        match created {
            Ok(shim) => shim.delete().await.unwrap(),
            Err(error) => {
                assert!(error.to_string().contains("died while it set the container up"), "{error}");
                died += 1;
            }
        }
        assert!(!fixture.directory.path().join("exec/shims").join(&id).exists());
        for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let cgroup = controller.path().join(format!("{}/{id}", &spec.cgroup_parent[1..]));
            assert!(!cgroup.exists(), "{}", cgroup.display());
        }
    }
    assert!(died > 0, "no kill came in time");
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // One that is gone is what was wanted.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// Pids and command lines.
fn processes() -> impl Iterator<Item = (i32, String)> {
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        Some((pid, command.trim_end_matches('\0').to_owned()))
    })
}

//! What a daemon's flags ask for.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use portolan_e2e::{eventually, fetch, is_portolan, skip_on_docker};
use portolan_testkit::{Engine, portolan_binary};

#[test]
fn the_default_cgroup_namespace_is_the_one_asked_for() {
    for (mode, is_host) in [("host", true), ("private", false)] {
        let engine = Engine::builder().arg("--default-cgroupns-mode").arg(mode).image("busybox").start();
        let host = std::fs::read_link("/proc/self/ns/cgroup").unwrap().display().to_string();
        let own = |flags: &[&str]| {
            let words = [&["run", "--rm"], flags, &["busybox", "readlink", "/proc/self/ns/cgroup"]].concat();
            engine.docker(&words).ok() == host
        };
        assert_eq!(own(&[]), is_host, "{mode}");
        assert!(!own(&["--cgroupns", "private"]) && own(&["--cgroupns", "host"]), "a container's own word");
    }
}

#[test]
fn prometheus_reads_the_metrics_and_nothing_else() {
    let address = "127.0.0.1:9323";
    let engine = Engine::builder().arg("--metrics-addr").arg(address).start();
    let get = |path: &str| fetch(engine.host(), &format!("http://{address}{path}"));
    let metrics = get("/metrics");
    assert!(metrics.ok().contains("# TYPE "), "{metrics:?}");
    assert!(get("/containers/json").ok().contains("page not found"));
}

/// SIGHUP reads the file again, and SIGUSR1 ends nothing: dockerd writes its stacks down at it.
#[test]
fn signals_are_heard() {
    let file = tempfile_in_tmp("daemon.json");
    std::fs::write(&file, r#"{"live-restore": true, "bip": "", "labels": []}"#).unwrap();
    let engine = Engine::builder().arg("--config-file").arg(&file).start();
    let live_restore = || engine.docker(&["info", "--format", "{{.LiveRestoreEnabled}}"]).ok().to_owned();
    assert_eq!(live_restore(), "true");
    let since = engine.host().run(&["date", "+%s.%N"]).ok().to_owned();
    let words = r#"{"live-restore": false, "labels": ["a=b"], "registry-mirrors": ["http://127.0.0.1:1/"], "mtu": 1400}"#;
    std::fs::write(&file, words).unwrap();
    let send = |signal| {
        let pid = rustix::process::Pid::from_raw(engine.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    send(rustix::process::Signal::HUP);
    eventually("the file is read again", 5, || (live_restore() == "false").then_some(()));
    let shown = "{{.Labels}} {{.RegistryConfig.Mirrors}} {{.Plugins.Network}}";
    let info = engine.docker(&["info", "--format", shown]);
    let drivers = "[a=b] [http://127.0.0.1:1/] [bridge host ipvlan macvlan null";
    assert!(info.ok().starts_with(drivers), "{info:?}");
    let until = engine.host().run(&["date", "+%s.%N"]).ok().to_owned();
    let filter = ["--filter", "event=reload", "--since", &since, "--until", &until];
    let event =
        engine.docker(&[&["events", "--format", "{{json .Actor.Attributes}}"], filter.as_slice()].concat());
    for attribute in [r#""labels":"[\"a=b\"]""#, r#""live-restore":"false""#, r#""shutdown-timeout":"15""#] {
        assert!(event.ok().contains(attribute), "{event:?}");
    }
    if is_portolan(&engine) {
        assert!(engine.log().contains("keys=\"mtu\""), "{}", engine.log());
    }
    send(rustix::process::Signal::USR1);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(live_restore(), "false");
    std::fs::remove_file(&file).unwrap();
}

fn tempfile_in_tmp(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("portolan-{}-{name}", std::process::id()))
}

/// systemd hands over the socket, and hears when the daemon is ready.
#[test]
fn a_socket_of_systemd_s_is_served() {
    // It lends its host and its directory to a daemon of our own.
    let mut engine = Engine::builder().start();
    if skip_on_docker(&engine, "a daemon that the test starts itself") {
        return;
    }
    engine.stop_daemon();
    let at = |name: &str| engine.home().join(name);
    let listener = UnixListener::bind(at("activated.sock")).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let word = UnixDatagram::bind(at("notify")).unwrap();
    word.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Only the process itself knows its number.
    let line = r#"exec 3<&"$2"; export LISTEN_PID=$$ LISTEN_FDS=1
        exec "$0" daemon --host fd:// --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid""#;
    let mut words = engine.host().prefix();
    words.extend(["bash", "-c", line].map(OsString::from));
    words.extend([portolan_binary().into(), engine.home().into()]);
    words.push(listener.as_raw_fd().to_string().into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("NOTIFY_SOCKET", at("notify")).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(at("activated.log")).unwrap());
    let mut daemon = command.spawn().unwrap();
    let mut text = [0; 64];
    let len = word.recv(&mut text).expect("the daemon says when it is ready");
    assert_eq!(&text[..len], b"READY=1");
    let mut client = vec![engine.client()[0].clone(), "--host".into()];
    client.push(format!("unix://{}", at("activated.sock").display()).into());
    client.extend(["network", "ls", "--format", "{{.Name}}"].map(OsString::from));
    let names = engine.host().run(&client).ok().to_owned();
    assert_eq!(names.lines().collect::<Vec<_>>(), ["bridge", "host", "none"]);
    engine.host().run(&["kill", &daemon.id().to_string()]).ok();
    assert!(daemon.wait().unwrap().success());
    assert!(at("activated.sock").exists(), "the socket stays systemd's");
}

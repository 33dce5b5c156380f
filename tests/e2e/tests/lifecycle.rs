//! Containers from create to rm.

use std::time::{Duration, Instant};

use portolan_e2e::{eventually, has_line, inspect, is_portolan};
use portolan_testkit::{Engine, skip};

#[test]
fn a_container_goes_through_its_states() {
    let engine = Engine::start();
    let id = engine.docker(&["create", "--name", "box", "-i", "busybox", "cat"]).ok().to_owned();
    assert_eq!(
        inspect(&engine, "box", "{{.State.Status}} {{.State.Running}} {{.State.Pid}}"),
        "created false 0"
    );
    assert_eq!(engine.docker(&["start", "box"]).ok(), "box");
    assert_eq!(inspect(&engine, "box", "{{.State.Status}}"), "running");
    assert_eq!(engine.docker(&["ps", "-q", "--no-trunc"]).ok(), id);
    assert_eq!(engine.docker(&["kill", "box"]).ok(), "box");
    assert_eq!(engine.docker(&["wait", "box"]).ok(), "137");
    assert_eq!(inspect(&engine, "box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let again = engine.docker(&["kill", "box"]);
    assert_eq!(again.fails().to_lowercase().matches("cannot kill container").count(), 1, "{}", again.fails());
    assert_eq!(
        inspect(&engine, "box", "{{.HostConfig.RestartPolicy}} {{.HostConfig.Tmpfs}}"),
        "{no 0} map[]"
    );
    assert_eq!(engine.docker(&["ps", "-q"]).ok(), "");
    engine.docker(&["restart", "box"]).ok();
    assert_eq!(inspect(&engine, "box", "{{.State.Status}}"), "running");
    assert_eq!(engine.docker(&["rename", "box", "lid"]).ok(), "");
    has_line(engine.docker(&["rm", "lid"]).fails(), &["remove", "running"]);
    assert_eq!(engine.docker(&["rm", "-f", "lid"]).ok(), "lid");
    has_line(engine.docker(&["inspect", "lid"]).fails(), &["o such object: lid"]);
}

#[test]
fn run_passes_the_exit_code_and_output_on() {
    let engine = Engine::start();
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "sh", "-c", "exit 42"]).code, 42);
    let both = engine.docker(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    let missing = engine.docker(&["run", "--rm", "busybox", "nosuchprogram"]);
    assert_eq!(missing.code, 127);
    has_line(&missing.stderr, &["\"nosuchprogram\": executable file not found in $PATH"]);
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "/etc/passwd"]).code, 126);
    let directory = engine.docker(&["run", "--rm", "busybox", "/etc"]);
    // Clients before 25 know only files that are not executable.
    assert!([125, 126].contains(&directory.code), "{directory:?}");
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "", "a start that fails leaves nothing with --rm");
    eventually("its link is gone", 2, || {
        (engine.host().sh("ip -o link | grep -c veth").stdout.trim() == "0").then_some(())
    });
}

#[test]
fn stop_asks_first_and_kills_later() {
    let engine = Engine::start();
    let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    engine.docker(&["run", "-d", "--name", "polite", "busybox", "sh", "-c", script]).ok();
    eventually("the trap is set", 5, || {
        engine.docker(&["logs", "polite"]).stdout.contains("ready").then_some(())
    });
    engine.docker(&["stop", "polite"]).ok();
    assert_eq!(inspect(&engine, "polite", "{{.State.ExitCode}}"), "7");
    assert_eq!(engine.docker(&["logs", "polite"]).ok(), "ready\nbye");
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "deaf",
            "busybox",
            "sh",
            "-c",
            "trap '' TERM; sleep 600 & wait; sleep 600",
        ])
        .ok();
    let since = Instant::now();
    engine.docker(&["stop", "-t", "1", "deaf"]).ok();
    assert!(since.elapsed() >= Duration::from_secs(1) && since.elapsed() < Duration::from_secs(8));
    assert_eq!(inspect(&engine, "deaf", "{{.State.ExitCode}}"), "137");
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "own",
            "--stop-signal",
            "USR1",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 3' USR1; echo ready; while :; do sleep 0.1; done",
        ])
        .ok();
    eventually("the trap is set", 5, || {
        engine.docker(&["logs", "own"]).stdout.contains("ready").then_some(())
    });
    engine.docker(&["stop", "own"]).ok();
    assert_eq!(inspect(&engine, "own", "{{.State.ExitCode}}"), "3");
}

#[test]
fn names_are_unique_and_ids_may_be_cut_short() {
    let engine = Engine::start();
    let id = engine.docker(&["create", "--name", "one", "busybox"]).ok().to_owned();
    let conflict = engine.docker(&["create", "--name", "one", "busybox"]);
    has_line(
        conflict.fails(),
        &["Conflict. The container name \"/one\" is already in use by container", &id],
    );
    assert_eq!(inspect(&engine, &id[..6], "{{.Name}}"), "/one");
    has_line(
        engine.docker(&["create", "--name", "b@d", "busybox"]).fails(),
        &["Invalid container name (b@d)"],
    );
    has_line(engine.docker(&["start", "nothere"]).fails(), &["No such container: nothere"]);
    engine.docker(&["create", "busybox"]).ok();
    let names = engine.docker(&["ps", "-a", "--format", "{{.Names}}"]);
    assert!(names.ok().lines().any(|name| name != "one" && name.contains('_')), "{}", names.stdout);
}

#[test]
fn ps_filters_and_formats() {
    let engine = Engine::start();
    engine.docker(&["run", "-d", "--name", "up", "-l", "tier=front", "busybox", "sleep", "600"]).ok();
    engine.docker(&["run", "--name", "down", "-l", "tier=back", "busybox", "sh", "-c", "exit 3"]);
    let names = |filters: &[&str]| {
        let words = [&["ps", "-a", "--format", "{{.Names}}"], filters].concat();
        let mut names: Vec<_> = engine.docker(&words).ok().lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]), ["down", "up"]);
    assert_eq!(names(&["-f", "status=running"]), ["up"]);
    assert_eq!(names(&["-f", "status=exited"]), ["down"]);
    assert_eq!(names(&["-f", "exited=3"]), ["down"]);
    assert_eq!(names(&["-f", "label=tier"]), ["down", "up"]);
    assert_eq!(names(&["-f", "label=tier=back"]), ["down"]);
    for (expression, found) in [
        ("^up$", &["up"] as &[&str]),
        ("^/?(up|down)$", &["down", "up"]),
        ("/up", &["up"]),
        ("^u[a-p]", &["up"]),
        ("^p", &[]),
        ("(", &[]),
    ] {
        assert_eq!(names(&["-f", &format!("name={expression}")]), found, "{expression}");
    }
    engine.docker(&["volume", "create", "store-1"]).ok();
    let volumes = |name: &str| engine.docker(&["volume", "ls", "-q", "-f", &format!("name={name}")]);
    assert_eq!(volumes("^store-[1-3]$").ok(), "store-1");
    assert_eq!(volumes("^tore").ok(), "");
    assert_eq!(names(&["-f", "ancestor=busybox"]), ["down", "up"]);
    assert_eq!(names(&["-f", "network=bridge"]).len(), 2);
    assert_eq!(names(&["-n", "1"]), ["down"]);
    has_line(engine.docker(&["ps", "-f", "nosuch=1"]).fails(), &["nvalid filter", "nosuch"]);
    has_line(
        engine.docker(&["ps", "-a"]).ok(),
        &["busybox", "\"sh -c 'exit 3'\"", "Exited (3)", "ago", "down"],
    );
    has_line(engine.docker(&["container", "prune", "-f"]).ok(), &["Deleted Containers:"]);
    assert_eq!(names(&[]), ["up"]);
}

#[test]
fn the_environment_user_and_directory_are_as_asked() {
    let engine = Engine::start();
    let run = |words: &[&str]| engine.docker(&[&["run", "--rm"], words].concat()).ok().to_owned();
    assert_eq!(run(&["-e", "A=1", "-e", "B=two words", "busybox", "sh", "-c", "echo $A-$B"]), "1-two words");
    assert_eq!(run(&["-w", "/new/dir", "busybox", "pwd"]), "/new/dir");
    assert_eq!(run(&["-u", "nobody", "busybox", "id", "-u"]), "65534");
    assert_eq!(run(&["-u", "12:34", "busybox", "sh", "-c", "echo $(id -u) $(id -g)"]), "12 34");
    assert_eq!(run(&["--entrypoint", "echo", "busybox", "hello"]), "hello");
    assert_eq!(run(&["-h", "box", "busybox", "hostname"]), "box");
    assert_eq!(
        run(&["busybox", "sh", "-c", "echo $HOME:$PATH"]),
        "/root:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
    has_line(
        engine.docker(&["run", "--rm", "-u", "ghost", "busybox"]).fails(),
        &["unable to find user ghost"],
    );
}

#[test]
fn mounts_and_limits_hold() {
    let engine = Engine::start();
    let run = |words: &[&str]| engine.docker(&[&["run", "--rm"], words].concat());
    let shared = engine.home().join("shared");
    std::fs::create_dir(&shared).expect("a directory");
    std::fs::write(shared.join("in"), "from the host\n").expect("a file");
    let bind = format!("{}:/mnt", shared.display());
    assert_eq!(
        run(&["-v", &bind, "busybox", "sh", "-c", "cat /mnt/in; echo back >/mnt/out"]).ok(),
        "from the host"
    );
    assert_eq!(std::fs::read_to_string(shared.join("out")).expect("a file"), "back\n");
    let readonly = run(&["-v", &format!("{bind}:ro"), "busybox", "touch", "/mnt/x"]);
    has_line(readonly.fails(), &["Read-only file system"]);
    has_line(run(&["--read-only", "busybox", "touch", "/x"]).fails(), &["Read-only file system"]);
    has_line(
        run(&["--tmpfs", "/t:size=64k", "busybox", "mount"]).ok(),
        &["tmpfs on /t type tmpfs", "size=64k"],
    );
    assert_eq!(
        run(&["--ulimit", "nofile=64:128", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"]).ok(),
        "64\n128"
    );
    // Above what the kernel gives to anybody.
    let more = run(&["--ulimit", "nofile=2147483584", "busybox", "true"]);
    has_line(more.fails(), &["error setting rlimit type 7"]);
    assert_eq!(more.code, 125);
    let memory =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(run(&["-m", "64m", "busybox", "sh", "-c", memory]).ok(), "67108864");
    let forks = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done; wait";
    assert!(
        run(&["--pids-limit", "10", "busybox", "sh", "-c", forks]).all().contains("fork"),
        "pids are limited"
    );
    let init = run(&["--init", "busybox", "cat", "/proc/1/comm"]);
    assert!(init.ok().contains("init"), "pid 1 is an init: {}", init.stdout);
    engine.docker(&["volume", "create", "data"]).ok();
    run(&["-v", "data:/d", "busybox", "sh", "-c", "echo kept >/d/f"]).ok();
    assert_eq!(run(&["-v", "data:/d", "busybox", "cat", "/d/f"]).ok(), "kept");
    engine.docker(&["volume", "rm", "data"]).ok();
}

#[test]
fn a_container_is_confined() {
    let engine = Engine::start();
    let run = |words: &[&str]| engine.docker(&[&["run", "--rm"], words].concat());
    let caps = |flags: &[&str]| {
        let out = run(&[flags, &["busybox", "grep", "CapEff", "/proc/self/status"]].concat());
        out.ok().split_whitespace().last().unwrap_or_default().to_owned()
    };
    assert_eq!(caps(&[]), "00000000a80425fb", "Docker's default capabilities");
    assert_eq!(caps(&["--cap-drop", "ALL"]), "0000000000000000");
    assert_eq!(caps(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]), "0000000000001000");
    if is_portolan(&engine) {
        // runc refuses where the engine itself lacks a capability; ours takes all there are.
        assert_ne!(caps(&["--privileged"]), caps(&[]));
    }
    has_line(&run(&["busybox", "mount", "-t", "tmpfs", "none", "/tmp"]).all(), &["denied"]);
    has_line(&run(&["busybox", "unshare", "-r", "true"]).all(), &["not permitted"]);
    run(&[
        "--security-opt",
        "seccomp=unconfined",
        "--cap-add",
        "SYS_ADMIN",
        "busybox",
        "unshare",
        "-m",
        "true",
    ])
    .ok();
    let masked = run(&[
        "busybox",
        "sh",
        "-c",
        "wc -c </proc/kcore; ls /proc/acpi /sys/firmware 2>/dev/null | grep -c '^[a-z]'",
    ]);
    assert_eq!(masked.stdout.lines().next(), Some("0"), "/proc/kcore is masked");
    has_line(&run(&["busybox", "sh", "-c", "echo 1 >/proc/sys/kernel/panic"]).all(), &["Read-only"]);
    // A node of the host's disk can be made (MKNOD is a default capability) but not opened.
    let disk = "mknod /tmp/disk b $(tr : ' ' </sys/dev/block/$(ls /sys/dev/block | head -n1)/dev); dd if=/tmp/disk of=/dev/null count=1";
    let device = run(&["busybox", "sh", "-c", disk]).all();
    assert!(device.contains("not permitted") && !device.contains("512 bytes"), "{device}");
    assert_eq!(
        run(&["busybox", "grep", "Seccomp:", "/proc/self/status"]).ok().split_whitespace().last(),
        Some("2")
    );
    assert_eq!(
        run(&["--security-opt", "no-new-privileges", "busybox", "grep", "NoNewPrivs", "/proc/self/status"])
            .ok()
            .split_whitespace()
            .last(),
        Some("1")
    );
    let devices = run(&["busybox", "ls", "/dev"]);
    for device in
        ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "stdin"]
    {
        assert!(devices.ok().split_whitespace().any(|d| d == device), "/dev/{device}");
    }
}

#[test]
fn what_does_not_fit_a_container_is_refused_in_dockers_words() {
    let engine = Engine::start();
    let run = |words: &[&str]| engine.docker(&[&["run", "--rm"], words].concat());
    engine.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    let nowhere = engine.docker(&["exec", "-w", "/nope", "box", "pwd"]);
    let text = "chdir to cwd (\"/nope\") set in config.json failed: no such file or directory";
    has_line(&nowhere.all(), &[text]);
    let nobody = engine.docker(&["exec", "-u", "nosuch", "box", "id"]);
    // Docker 20 tells nobody why.
    nobody.fails();
    let device = run(&["--device", "/nope", "busybox", "id"]);
    assert_eq!(device.code, 127, "{}", device.all());
    let text =
        "error gathering device information while adding custom device \"/nope\": no such file or directory";
    has_line(&device.all(), &[text]);
    for mount in ["/proc", "/proc/sys"] {
        let bind = format!("{}:{mount}", engine.home().display());
        has_line(run(&["-v", &bind, "busybox", "id"]).fails(), &["cannot be mounted because it"]);
        run(&["--tmpfs", mount, "busybox", "id"]).fails();
    }
    assert_eq!(run(&["-v", "/proc:/proc", "busybox", "echo", "fine"]).ok(), "fine");
    if is_portolan(&engine) {
        // As with Docker 28.
        has_line(&nobody.stderr, &["unable to find user nosuch: no matching entries in passwd file"]);
        assert_eq!((nowhere.code, nobody.code), (127, 1));
        assert!(!run(&["-u", "nosuch", "busybox", "id"]).all().contains("OCI runtime"));
    }
}

#[test]
fn a_hostile_container_gets_nowhere_by_its_engine() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("the runc that comes with Docker 20 follows such links");
    }
    engine.docker(&["run", "-d", "--name", "box", "--pid", "host", "busybox", "sleep", "600"]).ok();
    let exec = |words: &[&str]| engine.docker(&[&["exec"], words].concat());
    // What is executed next gets the null device, whatever /dev/null is now.
    exec(&["box", "sh", "-c", "echo secret >/secret; ln -sf /secret /dev/null"]).ok();
    assert_eq!(exec(&["box", "sh", "-c", "cat <&0; stat -Lc %t:%T /proc/self/fd/0"]).ok(), "1:3");
    // The links of /proc lead to no working directory.
    let outside = engine.home().join("outside");
    std::fs::create_dir(&outside).expect("a directory");
    let link = format!("/proc/{}/root{}", std::process::id(), outside.display());
    exec(&["-w", &link, "box", "touch", "escaped"]).fails();
    let below = format!("{link}/below");
    engine.docker(&["run", "--rm", "--pid", "host", "-w", &below, "busybox", "touch", "escaped"]).fails();
    assert_eq!(std::fs::read_dir(&outside).expect("a directory").count(), 0, "nothing was written outside");
    // A file that never ends, and one that never begins, are nobody's users.
    exec(&["box", "sh", "-c", "rm /etc/passwd /etc/group; mkfifo /etc/passwd; ln -s /dev/zero /etc/group"])
        .ok();
    assert_eq!(exec(&["-u", "7:8", "box", "echo", "goes on"]).ok(), "goes on");
    has_line(exec(&["-u", "web", "box", "id"]).fails(), &["unable to find user web"]);
    // A part of a volume that the container has turned into a link.
    engine.docker(&["run", "--rm", "-v", "data:/d", "busybox", "ln", "-s", "/etc", "/d/part"]).ok();
    let mount = "type=volume,source=data,target=/m,volume-subpath=part";
    let outcome = engine.docker(&["run", "--rm", "--mount", mount, "busybox", "ls", "/m/hostname"]);
    assert_ne!(outcome.code, 0, "{}", outcome.all());
}

#[test]
fn events_tell_what_happened() {
    let engine = Engine::start();
    engine.docker(&["run", "--rm", "--name", "told", "busybox", "true"]).ok();
    let until = engine.host().sh("date +%s").ok().parse::<u64>().expect("seconds") + 1;
    let words = [
        "events",
        "--since",
        "10m",
        "--until",
        &until.to_string(),
        "--filter",
        "container=told",
        "--format",
        "{{.Type}} {{.Action}}",
    ];
    let events = engine.docker(&words);
    let actions: Vec<_> = events.ok().lines().collect();
    for wanted in ["container create", "container start", "container die", "container destroy"] {
        assert!(actions.contains(&wanted), "{wanted} is missing in {actions:?}");
    }
}

#[test]
fn a_restart_policy_brings_a_container_back() {
    let mut engine = Engine::start();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "again",
            "--restart",
            "on-failure:2",
            "busybox",
            "sh",
            "-c",
            "exit 1",
        ])
        .ok();
    eventually("two restarts", 20, || {
        (inspect(&engine, "again", "{{.RestartCount}} {{.State.Status}}") == "2 exited").then_some(())
    });
    engine.docker(&["run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "600"]).ok();
    let pid = inspect(&engine, "always", "{{.State.Pid}}");
    engine.host().run(&["kill", "-9", &pid]).ok();
    eventually("a new process", 20, || {
        let now = inspect(&engine, "always", "{{.State.Running}} {{.State.Pid}}");
        (now.starts_with("true") && !now.ends_with(&format!(" {pid}"))).then_some(())
    });
    engine.docker(&["stop", "-t", "0", "always"]).ok();
    assert_eq!(inspect(&engine, "always", "{{.State.Running}}"), "false", "stopped by hand stays stopped");
    let unless = ["run", "-d", "--name", "unless", "--restart", "unless-stopped", "busybox", "sleep", "600"];
    engine.docker(&unless).ok();
    engine.docker(&["stop", "-t", "0", "unless"]).ok();
    engine.stop_daemon();
    engine.start_daemon();
    let pid = eventually("a new daemon starts it", 20, || {
        let now = inspect(&engine, "always", "{{.State.Running}} {{.State.Pid}}");
        now.strip_prefix("true ").map(str::to_owned)
    });
    assert_eq!(inspect(&engine, "unless", "{{.State.Running}}"), "false", "but not that one");
    engine.host().run(&["kill", "-9", &pid]).ok();
    eventually("its policy holds again", 20, || {
        let now = inspect(&engine, "always", "{{.State.Running}} {{.State.Pid}}");
        (now.starts_with("true") && !now.ends_with(&format!(" {pid}"))).then_some(())
    });
}

/// `cp` and `commit` without a running process, and what `inspect` makes of what was left open.
#[test]
fn a_container_that_does_not_run_is_whole() {
    let engine = Engine::start();
    let (shared, planted) = (engine.home().join("shared"), engine.home().join("planted"));
    std::fs::create_dir(&shared).expect("a directory");
    std::fs::write(shared.join("theirs"), "on the host\n").expect("a file");
    std::fs::write(&planted, "planted\n").expect("a file");
    let bind = format!("{}:/b:ro", shared.display());
    let words = [
        "create",
        "--name",
        "still",
        "-v",
        "vol:/vol",
        "-v",
        bind.as_str(),
        "busybox",
        "cat",
        "/vol/planted",
    ];
    engine.docker(&words).ok();
    engine.docker(&["cp", planted.to_str().expect("UTF-8"), "still:/vol/planted"]).ok();
    let theirs = engine.home().join("theirs");
    engine.docker(&["cp", "still:/b/theirs", theirs.to_str().expect("UTF-8")]).ok();
    assert_eq!(std::fs::read_to_string(&theirs).expect("it was copied"), "on the host\n");
    engine.docker(&["cp", planted.to_str().expect("UTF-8"), "still:/b/planted"]).fails();
    assert_eq!(engine.docker(&["start", "-a", "still"]).ok(), "planted");
    assert!(engine.docker(&["volume", "rm", "vol"]).fails().contains("in use"));

    let shown = |field: &str| inspect(&engine, "still", &format!("{{{{json .HostConfig.{field}}}}}"));
    assert_eq!(shown("Runtime"), "\"runc\"");
    assert_eq!((shown("ShmSize").as_str(), shown("IpcMode").as_str()), ("67108864", "\"private\""));
    assert!(shown("MaskedPaths").contains("/proc/kcore") && shown("ReadonlyPaths").contains("/proc/sys"));
    engine.docker(&["create", "--name", "small", "-m", "64m", "busybox"]).ok();
    assert_eq!(inspect(&engine, "small", "{{.HostConfig.MemorySwap}}"), "134217728");
}

#[test]
fn a_read_only_root_has_read_only_files_of_the_engine_s() {
    let engine = Engine::start();
    let script = "for f in hosts hostname resolv.conf; do echo x >>/etc/$f; done; true";
    let output = engine.docker(&["run", "--rm", "--read-only", "busybox", "sh", "-c", script]);
    assert_eq!(output.stderr.matches("Read-only file system").count(), 3, "{}", output.stderr);
    // The machine's own mounts are not shared with anybody here.
    let source = engine.home().join("alone");
    std::fs::create_dir(&source).expect("a directory");
    engine.host().sh(&format!("mount --make-private --bind {0} {0}", source.display()));
    let bind = format!("{}:/d:rshared", source.display());
    let output = engine.docker(&["run", "--rm", "-v", &bind, "busybox", "true"]);
    engine.host().sh(&format!("umount {}", source.display()));
    has_line(output.fails(), &["is mounted on", "but it is not a shared mount"]);
}

/// Volumes that are mounted for the first container that uses them, and unmounted after the last.
#[test]
fn volumes_with_options_are_mounted_while_they_are_used() {
    let mut engine = Engine::start();
    let create = |options: &[&str]| {
        let mut words = vec!["volume", "create"];
        options.iter().for_each(|option| words.extend(["-o", option]));
        engine.docker(&[words, vec!["ram"]].concat())
    };
    has_line(create(&["colour=red"]).fails(), &["invalid option: \"colour\""]);
    has_line(create(&["type=tmpfs"]).fails(), &["missing required option: \"device\""]);
    create(&["type=tmpfs", "device=tmpfs", "o=size=1m,mode=750"]).ok();
    let options = inspect(&engine, "ram", "{{json .Options}}");
    assert_eq!(options, r#"{"device":"tmpfs","o":"size=1m,mode=750","type":"tmpfs"}"#);
    let data = engine.home().join("data/volumes/ram/_data").display().to_string();
    let mounted = |engine: &Engine| engine.host().run(&["grep", "-c", &data, "/proc/mounts"]).stdout;
    let script = "echo x >/r/f; sleep 600";
    engine.docker(&["run", "-d", "--name", "one", "-v", "ram:/r", "busybox", "sh", "-c", script]).ok();
    let look = "cat /r/f; stat -c %a /r; df -k /r | grep -o ' 1024 '";
    let second = |engine: &Engine| {
        engine.docker(&["run", "--rm", "-v", "ram:/r", "busybox", "sh", "-c", look]).ok().to_owned()
    };
    assert_eq!(second(&engine), "x\n750\n 1024");
    if is_portolan(&engine) {
        engine.kill_daemon();
        engine.start_daemon();
        assert_eq!(second(&engine), "x\n750\n 1024", "it is still the first one's");
    }
    assert_eq!(mounted(&engine), "1\n");
    engine.docker(&["rm", "-f", "one"]).ok();
    eventually("it is unmounted after the last", 5, || (mounted(&engine) == "0\n").then_some(()));
    has_line(
        &engine.docker(&["run", "--rm", "-v", "ram:/r", "busybox", "ls", "/r/f"]).all(),
        &["No such file"],
    );

    let shared = engine.home().join("shared");
    std::fs::create_dir(&shared).expect("a directory");
    std::fs::write(shared.join("f"), "host's").expect("a file");
    let bind = |name: &str, device: &std::path::Path| {
        let device = device.display();
        format!(
            "type=volume,src={name},dst=/b,volume-driver=local,volume-opt=type=none,volume-opt=device={device},\
             volume-opt=o=bind"
        )
    };
    let run = |mount: &str| engine.docker(&["run", "--rm", "--mount", mount, "busybox", "cat", "/b/f"]);
    assert_eq!(run(&bind("data", &shared)).ok(), "host's");
    engine.docker(&["volume", "rm", "data", "ram"]).ok();
    assert_eq!(std::fs::read_to_string(shared.join("f")).expect("the host's file"), "host's");
    let missing = run(&bind("missing", &engine.home().join("none")));
    has_line(
        missing.fails(),
        &["failed to mount local volume: mount ", "/none:", "no such file or directory"],
    );
}

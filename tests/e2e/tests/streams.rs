//! Standard streams: attach, exec, logs.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use portolan_e2e::{eventually, has_line, inspect, is_portolan};
use portolan_testkit::Engine;

#[test]
fn standard_input_reaches_the_container_and_its_end_too() {
    let engine = Engine::start();
    let run = |words: &[&str], input: &[u8]| engine.docker_with(words, Some(input));
    assert_eq!(run(&["run", "--rm", "-i", "busybox", "cat"], b"one\ntwo\n").ok(), "one\ntwo");
    // Output goes on after the client has closed its input.
    let late =
        run(&["run", "--rm", "-i", "busybox", "sh", "-c", "cat >/dev/null; sleep 0.3; echo end"], b"x");
    assert_eq!(late.ok(), "end");
    let megabytes = vec![b'x'; 3 << 20];
    assert_eq!(run(&["run", "--rm", "-i", "busybox", "wc", "-c"], &megabytes).ok(), "3145728");
    let back = engine.docker_with(&["run", "--rm", "-i", "busybox", "cat"], Some(&megabytes));
    assert_eq!(back.stdout.len(), megabytes.len());
}

#[test]
fn no_output_is_lost_between_attach_and_exit() {
    let engine = Engine::start();
    for _ in 0..5 {
        let many = engine.docker(&["run", "--rm", "busybox", "seq", "1", "20000"]);
        assert_eq!(many.ok().lines().count(), 20000);
        assert_eq!(many.ok().lines().last(), Some("20000"));
    }
}

#[test]
fn exec_runs_beside_the_first_process() {
    let engine = Engine::start();
    engine
        .docker(&["run", "-d", "--name", "box", "-e", "A=first", "-w", "/tmp", "busybox", "sleep", "600"])
        .ok();
    let exec = |words: &[&str]| engine.docker(&[&["exec"], words].concat());
    let both = exec(&["box", "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str(), both.code), ("out\n", "err\n", 9));
    assert_eq!(exec(&["-e", "B=second", "box", "sh", "-c", "echo $A $B $PWD"]).ok(), "first second /tmp");
    assert_eq!(exec(&["-u", "nobody", "-w", "/", "box", "sh", "-c", "echo $(id -u) $PWD"]).ok(), "65534 /");
    assert_eq!(engine.docker_with(&["exec", "-i", "box", "cat"], Some(b"through")).ok(), "through");
    let missing = exec(&["box", "nosuchprogram"]);
    assert!(missing.code == 127 || missing.code == 126, "code {}", missing.code);
    has_line(&missing.all(), &["executable file not found in $PATH"]);
    exec(&["-d", "box", "touch", "/tmp/detached"]).ok();
    eventually("the detached exec ran", 5, || {
        (exec(&["box", "ls", "/tmp/detached"]).code == 0).then_some(())
    });
    has_line(&engine.docker_tty("exec -t box tty").stdout, &["/dev/pts/"]);
    engine.docker(&["kill", "box"]).ok();
    has_line(exec(&["box", "true"]).fails(), &["is not running"]);
}

#[test]
fn a_terminal_has_a_size_and_one_stream() {
    let engine = Engine::start();
    let out = engine.docker_tty("run --rm -t busybox sh -c 'tty; echo err >&2; test -t 1 && echo terminal'");
    for word in ["/dev/pts/0", "err", "terminal"] {
        has_line(&out.stdout, &[word]);
    }
    let sized = engine.host().sh(&format!(
        "script -qec 'stty rows 33 cols 77; {} run --rm -t busybox sh -c \"sleep 0.3; stty size\"' /dev/null",
        engine.client().iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    ));
    has_line(&sized.stdout, &["33 77"]);
}

#[test]
fn logs_keep_both_streams_in_order() {
    let engine = Engine::start();
    let script = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done";
    engine.docker(&["run", "--name", "told", "busybox", "sh", "-c", script]).ok();
    let logs = |flags: &[&str]| engine.docker(&[&["logs"], flags, &["told"]].concat());
    let all = logs(&[]);
    assert_eq!(all.stdout, "out1\nout2\nout3\nout4\nout5\n");
    assert_eq!(all.stderr, "err1\nerr2\nerr3\nerr4\nerr5\n");
    assert_eq!(logs(&["--tail", "2"]).all().lines().count(), 2);
    assert_eq!(logs(&["--tail", "0"]).all(), "");
    let stamped = logs(&["-t", "--tail", "1"]).all();
    assert!(stamped.starts_with("20") && stamped.contains("Z "), "{stamped}");
    assert_eq!(logs(&["--since", "1h"]).all().lines().count(), 10);
    assert_eq!(logs(&["--until", "1h"]).all(), "");
    let path = inspect(&engine, "told", "{{.LogPath}}");
    let file = std::fs::read_to_string(&path).expect("json-file on disk");
    has_line(&file, &["{\"log\":\"out1\\n\",\"stream\":\"stdout\",\"time\":\"20"]);
}

#[test]
fn logs_follow_until_the_end() {
    let engine = Engine::start();
    let script = "echo before; sleep 0.5; echo after";
    engine.docker(&["run", "-d", "--name", "live", "busybox", "sh", "-c", script]).ok();
    assert_eq!(engine.docker(&["logs", "-f", "live"]).ok(), "before\nafter");
    engine
        .docker(&[
            "run",
            "--name",
            "small",
            "--log-opt",
            "max-size=1k",
            "--log-opt",
            "max-file=2",
            "busybox",
            "seq",
            "1",
            "500",
        ])
        .ok();
    let kept = engine.docker(&["logs", "small"]);
    assert!(kept.ok().lines().count() < 500 && kept.ok().ends_with("500"), "old lines are rotated away");

    // The option with every line; rotated files are compressed, and read back.
    let mut words =
        vec!["run", "-d", "--name", "zipped", "--label", "color=red", "--label", "other=1", "-e", "A B=c d"];
    for option in
        ["max-size=1k", "max-file=90", "compress=true", "tag={{.Name}}!", "labels=color", "env-regex=^A"]
    {
        words.extend(["--log-opt", option]);
    }
    let script = "i=0; while [ $i -lt 120 ]; do echo line $i; i=$((i+1)); sleep 0.005; done";
    words.extend(["busybox", "sh", "-c", script]);
    let id = engine.docker(&words).ok().to_owned();
    let wanted: Vec<String> = (0..120).map(|number| format!("line {number}")).collect();
    if is_portolan(&engine) {
        // Docker 20.10 loses its place when files come and go this fast.
        assert_eq!(engine.docker(&["logs", "-f", "zipped"]).ok(), wanted.join("\n"), "each line once");
    }
    engine.docker(&["wait", "zipped"]).ok();
    let directory = engine.home().join("data/containers").join(&id);
    eventually("rotated files are compressed", 5, || {
        let names: Vec<_> =
            std::fs::read_dir(&directory).ok()?.map(|entry| entry.unwrap().file_name()).collect();
        let ends = |end| names.iter().filter(|name| name.to_string_lossy().ends_with(end)).count();
        (ends(".gz") > 2 && ends(".2") == 0).then_some(())
    });
    assert_eq!(engine.docker(&["logs", "zipped"]).ok(), wanted.join("\n"));
    let details = engine.docker(&["logs", "--details", "--tail", "1", "zipped"]);
    assert_eq!(details.ok(), "A+B=c+d,color=red,tag=zipped%21 line 119");

    // A log of one file is emptied when it is full: whoever follows it hears what comes then.
    let script = "i=0; while [ $i -lt 120 ]; do echo line $i; i=$((i+1)); sleep 0.005; done";
    let words = ["run", "-d", "--name", "one", "--log-opt", "max-size=1k", "busybox", "sh", "-c", script];
    engine.docker(&words).ok();
    let followed = engine.docker(&["logs", "-f", "one"]);
    assert!(followed.ok().ends_with("line 119"), "{}", followed.all());
}

#[test]
fn a_client_attaches_and_detaches() {
    let engine = Engine::start();
    let id = engine.docker(&["run", "-dit", "--name", "shell", "busybox"]).ok().to_owned();
    let mut words = engine.client();
    words.extend(["attach", "--detach-keys", "ctrl-x,x", "shell"].map(Into::into));
    let line = words.iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script starts");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = output.read_to_string(&mut text);
        text
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    input.write_all(b"echo $((6*7))\n").expect("a shell listens");
    std::thread::sleep(std::time::Duration::from_millis(500));
    input.write_all(b"\x18x").expect("the keys are sent");
    child.wait().expect("the client ends");
    drop(input);
    has_line(&reader.join().expect("text"), &["42"]);
    assert_eq!(inspect(&engine, &id, "{{.State.Running}}"), "true", "detaching leaves it running");
    has_line(&engine.docker(&["logs", "shell"]).stdout, &["42"]);
}

#[test]
fn top_shows_the_processes() {
    let engine = Engine::start();
    engine.docker(&["run", "-d", "--name", "busy", "busybox", "sleep", "612"]).ok();
    has_line(engine.docker(&["top", "busy"]).ok(), &["PID", "CMD"]);
    has_line(engine.docker(&["top", "busy"]).ok(), &["sleep 612"]);
    has_line(engine.docker(&["top", "busy", "-o", "pid,comm"]).ok(), &["sleep"]);
}

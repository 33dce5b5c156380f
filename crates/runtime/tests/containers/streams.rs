use std::time::Duration;

use portolan_runtime::{AttachOptions, LogOptions, LogReader, LogSpec};
use tokio::io::AsyncWriteExt;

use crate::fixture::{OUTPUT, collect, exec, fixture};

const ALL: AttachOptions = AttachOptions { stdin: true, stdout: true, stderr: true };

#[tokio::test]
async fn loses_no_byte_to_any_client() {
    let Some(fixture) = fixture() else { return };
    let spec = fixture.spec("seq 1 200000");
    let shim = fixture.launcher.create(&spec).await.unwrap();
    let first = tokio::spawn(collect(shim.attach(OUTPUT).await.unwrap().output));
    let second = shim.attach(OUTPUT).await.unwrap().output;
    shim.start().await.unwrap();
    // The second client is slow: it begins only now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = collect(second).await.0;
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(second.len(), expected.len());
    assert!(second == expected && first.await.unwrap().0 == expected);
    shim.wait().await.unwrap();
    let mut reader = LogReader::open(fixture.log_path(&spec), options()).unwrap();
    let mut logged = String::new();
    while let Some(entry) = reader.next().await.unwrap() {
        logged.push_str(std::str::from_utf8(&entry.line).unwrap());
    }
    assert!(logged == expected, "the log has it too");
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn standard_input_ends_with_the_first_client() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("cat; echo end");
    (spec.stdio.open_stdin, spec.stdio.stdin_once) = (true, true);
    let shim = fixture.launcher.create(&spec).await.unwrap();
    let (output, mut input) = shim.attach(ALL).await.unwrap().split();
    shim.start().await.unwrap();
    let text = "x".repeat(300_000);
    let writing = tokio::spawn({
        let text = text.clone();
        async move {
            input.write_all(text.as_bytes()).await.unwrap();
            input.shutdown().await.unwrap();
            input
        }
    });
    assert_eq!(collect(output).await.0, text + "end\n");
    writing.await.unwrap();
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn terminals_have_sizes_and_names() {
    let Some(fixture) = fixture() else { return };
    let mut spec =
        fixture.spec("tty; stty size; ls -l /dev/console | cut -c1; read line; stty size; echo got $line");
    (spec.stdio.tty, spec.stdio.open_stdin, spec.stdio.size) = (true, true, Some((30, 100)));
    let shim = fixture.launcher.create(&spec).await.unwrap();
    let (mut output, mut input) = shim.attach(ALL).await.unwrap().split();
    shim.start().await.unwrap();
    let mut seen = String::new();
    while !seen.ends_with("c\r\n") {
        let (_, bytes) = output.next().await.unwrap().expect("more output");
        seen.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    assert_eq!(seen, "/dev/console\r\n30 100\r\nc\r\n".replace("/dev/console", seen.lines().next().unwrap()));
    shim.resize(40, 120).await.unwrap();

    let mut ran = exec("tty; stty size");
    (ran.tty, ran.size) = (true, Some((10, 20)));
    let mut ran = shim.exec(&ran).await.unwrap();
    assert_eq!(collect(ran.take_stream().unwrap().output).await.0, "/dev/pts/1\r\n10 20\r\n");
    assert_eq!(ran.wait().await.unwrap(), 0);

    input.write_all(b"hi\n").await.unwrap();
    assert_eq!(collect(output).await.0, "hi\r\n40 120\r\ngot hi\r\n");
    assert_eq!(shim.wait().await.unwrap().code, 0);
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn logs_follow_across_rotations() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); [ $((i % 50)) = 0 ] && sleep 0.02; done; true");
    let path = fixture.log_path(&spec);
    let (max_size_bytes, attributes) = (Some(4000), std::collections::BTreeMap::new());
    spec.log =
        LogSpec::JsonFile { path: path.clone(), max_size_bytes, max_files: 20, compress: false, attributes };
    let shim = fixture.launcher.create(&spec).await.unwrap();
    let end = {
        let shim = shim.clone();
        Box::pin(async move { drop(shim.wait().await) })
    };
    let mut reader = LogReader::open(&path, LogOptions { follow: Some(end), ..options() }).unwrap();
    shim.start().await.unwrap();
    let mut lines = Vec::new();
    while let Some(entry) = reader.next().await.unwrap() {
        lines.push(String::from_utf8(entry.line.to_vec()).unwrap());
    }
    let expected: Vec<String> = (0..300).map(|number| format!("line {number}\n")).collect();
    assert_eq!(lines, expected);
    assert!(path.with_extension("log.1").exists(), "it was rotated");

    let mut reader = LogReader::open(&path, LogOptions { tail: Some(60), ..options() }).unwrap();
    let mut tail = Vec::new();
    while let Some(entry) = reader.next().await.unwrap() {
        tail.push(String::from_utf8(entry.line.to_vec()).unwrap());
    }
    assert_eq!(tail, expected[240..]);
    shim.delete().await.unwrap();
}

fn options() -> LogOptions {
    LogOptions { stdout: true, stderr: true, ..LogOptions::default() }
}

//! The same stories with runc, where it is installed.

use std::path::Path;

use portolan_runtime::{AttachOptions, ContainerSpec};
use tokio::io::AsyncWriteExt;

use crate::fixture::{Fixture, collect, exec, fixture};

fn with_runc(fixture: &Fixture, script: &str) -> Option<ContainerSpec> {
    let runtime = ["/usr/sbin/runc", "/usr/bin/runc"].map(Path::new).into_iter().find(|path| path.exists());
    let Some(runtime) = runtime else {
        eprintln!("skipped: runc is not installed");
        return None;
    };
    Some(ContainerSpec { runtime: Some(runtime.into()), ..fixture.spec(script) })
}

#[tokio::test]
async fn runs_executes_and_deletes() {
    let Some(fixture) = fixture() else { return };
    let Some(spec) = with_runc(&fixture, "echo out; echo err >&2; grep Seccomp: /proc/self/status; exit 7")
    else {
        return;
    };
    let outcome = fixture.run(&spec).await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\nSeccomp:\t2\n", "err\n"));
    assert_eq!(outcome.status.code, 7);

    let Some(mut spec) = with_runc(&fixture, "sleep 1000") else { return };
    spec.user.user = "web".into();
    let shim = fixture.started(&spec).await;
    let mut ran = exec("id -u; hostname; cat; exit 4");
    ran.attach_stdin = true;
    let mut ran = shim.exec(&ran).await.unwrap();
    let (output, mut input) = ran.take_stream().unwrap().split();
    input.write_all(b"in\n").await.unwrap();
    input.shutdown().await.unwrap();
    assert_eq!(collect(output).await.0, format!("33\n{}\nin\n", &spec.id[..12]));
    assert_eq!(ran.wait().await.unwrap(), 4);
    shim.kill(9).await.unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 137);
    shim.delete().await.unwrap();
    assert_eq!(fixture.launcher.ids().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn terminals_and_failures() {
    let Some(fixture) = fixture() else { return };
    let Some(mut spec) = with_runc(&fixture, "tty && stty size") else { return };
    (spec.stdio.tty, spec.stdio.size) = (true, Some((30, 100)));
    let shim = fixture.launcher.create(&spec).await.unwrap();
    let options = AttachOptions { stdin: false, stdout: true, stderr: true };
    let output = shim.attach(options).await.unwrap().output;
    shim.start().await.unwrap();
    let (stdout, _) = collect(output).await;
    assert!(stdout.ends_with("30 100\r\n"), "{stdout}");
    shim.delete().await.unwrap();

    let Some(mut spec) = with_runc(&fixture, "") else { return };
    spec.args = vec!["foo".into()];
    let error = fixture.launcher.create(&spec).await.unwrap_err();
    assert_eq!(error.exit_code(), Some(127), "{error}");
    assert!(error.to_string().contains("executable file not found in $PATH"), "{error}");
}

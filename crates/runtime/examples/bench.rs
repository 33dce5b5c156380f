//! What a container costs: `cargo run -p portolan-runtime --release --example bench [rounds]`.
//!
//! Times create, start, exit and delete of `busybox true` with the default seccomp profile, and an exec.
//! Needs root and busybox. The network namespace is made beforehand, as the engine makes it meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_runtime::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "launcher") {
        return Ok(launcher_main()?);
    }
    let rounds = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(100);
    let directory = tempfile::Builder::new().prefix("runtime-bench-").tempdir_in("/tmp")?;
    let launcher = Launcher::start(LauncherConfig::new(directory.path().join("exec")))?;
    let image = directory.path().join("image");
    for name in ["bin", "etc", "proc", "sys", "dev"] {
        fs::create_dir_all(image.join(name))?;
    }
    fs::copy("/bin/busybox", image.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", image.join("bin/true"))?;
    std::os::unix::fs::symlink("busybox", image.join("bin/sleep"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench(&launcher, directory.path(), rounds))
}

async fn bench(
    launcher: &Launcher,
    directory: &Path,
    rounds: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let names = ["create", "start", "exit", "delete", "total"];
    let mut times: [Vec<Duration>; 5] = Default::default();
    for round in 0..rounds {
        let spec = spec(directory, round, &["true"])?;
        let mut marks = vec![Instant::now()];
        let shim = launcher.create(&spec).await?;
        marks.push(Instant::now());
        let wait = tokio::spawn({
            let shim = shim.clone();
            async move { shim.wait().await }
        });
        shim.start().await?;
        marks.push(Instant::now());
        wait.await??;
        marks.push(Instant::now());
        shim.delete().await?;
        marks.push(Instant::now());
        for (part, pair) in marks.windows(2).enumerate() {
            times[part].push(pair[1] - pair[0]);
        }
        times[4].push(marks[4] - marks[0]);
    }
    for (name, times) in names.iter().zip(&mut times) {
        report(name, times);
    }
    let shim = launcher.create(&spec(directory, rounds, &["sleep", "1000"])?).await?;
    shim.start().await?;
    let mut execs = Vec::new();
    for round in 0..rounds {
        let spec = ExecSpec {
            id: format!("{round:064x}"),
            args: vec!["true".into()],
            env: vec!["PATH=/bin".into()],
            cwd: String::new(),
            user: String::new(),
            tty: false,
            size: None,
            attach_stdin: false,
            attach_stdout: true,
            attach_stderr: true,
            privileged: false,
        };
        let began = Instant::now();
        let exec = match shim.exec(&spec).await {
            Ok(exec) => exec,
            Err(error) => {
                shim.delete().await?;
                return Err(error.into());
            }
        };
        exec.wait().await?;
        execs.push(began.elapsed());
    }
    report("exec", &mut execs);
    shim.delete().await?;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a benchmark reports on standard output")]
fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!("{name:8} median {:8.2?}  p90 {:8.2?}  min {:8.2?}", at(50), at(90), at(0));
}

fn spec(directory: &Path, round: usize, args: &[&str]) -> std::io::Result<ContainerSpec> {
    let own = directory.join(round.to_string());
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(own.join(name))?;
    }
    let netns = std::thread::spawn(|| {
        // SAFETY: only this thread, which ends here, leaves its namespace.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
        fs::File::open("/proc/thread-self/ns/net")
    });
    let netns: OwnedFd = netns.join().map_err(|_| std::io::Error::other("the thread panicked"))??.into();
    Ok(ContainerSpec {
        id: format!("{:032x}{round:032x}", std::process::id()),
        rootfs: RootfsSpec {
            lower: vec![directory.join("image")],
            upper: own.join("upper"),
            work: own.join("work"),
            target: own.join("merged"),
        },
        args: args.iter().map(|text| (*text).to_owned()).collect(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: UserSpec::default(),
        hostname: "bench".into(),
        domainname: String::new(),
        stdio: Stdio::default(),
        log: LogSpec::json_file(own.join("json.log")),
        netns: Some(Arc::new(netns)),
        others: Others::default(),
        pid: NamespaceMode::Private,
        ipc: NamespaceMode::Private,
        uts: NamespaceMode::Private,
        cgroupns: NamespaceMode::Private,
        mounts: Vec::new(),
        shm_size_bytes: 0,
        readonly_rootfs: false,
        privileged: false,
        capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
        seccomp: SeccompProfile::Default,
        apparmor: None,
        no_new_privileges: false,
        masked_paths: None,
        readonly_paths: None,
        devices: Vec::new(),
        device_cgroup_rules: Vec::new(),
        resources: Resources::default(),
        rlimits: Vec::new(),
        sysctls: BTreeMap::new(),
        oom_score_adj: None,
        init: false,
        cgroup_parent: "/runtime-bench".into(),
        runtime: None,
        annotations: BTreeMap::new(),
    })
}

//! Real containers from Debian's busybox, in directories of their own.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use portolan_runtime::{
    AttachOptions, AttachOutput, ContainerSpec, DEFAULT_CAPABILITIES, ExecSpec, ExitStatus, Launcher,
    LauncherConfig, LogSpec, NamespaceMode, Others, OutputStream, Resources, RootfsSpec, SeccompProfile,
    Shim, Stdio, UserSpec,
};

/// A launcher and a root file system; everything is removed when it goes.
pub(crate) struct Fixture {
    pub(crate) launcher: Launcher,
    pub(crate) directory: tempfile::TempDir,
}

/// `None`, with the reason printed, where containers cannot be made.
pub(crate) fn fixture() -> Option<Fixture> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: containers need root");
        return None;
    }
    if !Path::new("/bin/busybox").exists() {
        eprintln!("skipped: /bin/busybox (package busybox-static) is missing");
        return None;
    }
    let directory = tempfile::Builder::new().prefix("runtime-").tempdir_in("/tmp").unwrap();
    make_image(&directory.path().join("image"));
    let launcher = start_launcher(directory.path());
    Some(Fixture { launcher, directory })
}

pub(crate) fn start_launcher(directory: &Path) -> Launcher {
    let mut config = LauncherConfig::new(directory.join("exec"));
    config.executable = Some(env!("CARGO_BIN_EXE_portolan-runtime-helper").into());
    Launcher::start(config).unwrap()
}

fn make_image(image: &Path) {
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        std::fs::create_dir_all(image.join(name)).unwrap();
    }
    std::fs::set_permissions(image.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
    let applets = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    std::fs::write(image.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/tmp:/bin/sh\n")
        .unwrap();
    std::fs::write(image.join("etc/group"), "root:x:0:\nweb:x:34:\naudio:x:29:web\n").unwrap();
}

impl Fixture {
    /// A container like `docker run busybox sh -c SCRIPT`, with a network namespace of nobody's.
    pub(crate) fn spec(&self, script: &str) -> ContainerSpec {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:032x}{:032x}", std::process::id(), number);
        let own = self.directory.path().join(&id);
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir_all(own.join(name)).unwrap();
        }
        ContainerSpec {
            rootfs: RootfsSpec {
                lower: vec![self.directory.path().join("image")],
                upper: own.join("upper"),
                work: own.join("work"),
                target: own.join("merged"),
            },
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
            cwd: "/".into(),
            user: UserSpec::default(),
            hostname: id[..12].into(),
            domainname: String::new(),
            stdio: Stdio::default(),
            log: LogSpec::json_file(own.join("json.log")),
            netns: Some(fresh_netns()),
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
            cgroup_parent: format!("/runtime-test-{}", std::process::id()),
            runtime: None,
            annotations: BTreeMap::new(),
            id,
        }
    }

    pub(crate) fn log_path(&self, spec: &ContainerSpec) -> PathBuf {
        self.directory.path().join(&spec.id).join("json.log")
    }

    /// Creates, attaches, starts, waits and deletes.
    pub(crate) async fn run(&self, spec: &ContainerSpec) -> Outcome {
        let shim = self.launcher.create(spec).await.unwrap();
        let stream = shim.attach(OUTPUT).await.unwrap();
        shim.start().await.unwrap();
        let (output, _input) = stream.split();
        let (stdout, stderr) = collect(output).await;
        let status = shim.wait().await.unwrap();
        shim.delete().await.unwrap();
        Outcome { stdout, stderr, status }
    }

    /// What a script writes; it must succeed.
    pub(crate) async fn output(&self, spec: &ContainerSpec) -> String {
        let outcome = self.run(spec).await;
        assert_eq!(outcome.status.code, 0, "{}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    pub(crate) async fn started(&self, spec: &ContainerSpec) -> Shim {
        self.started_with(spec, |_| ()).await
    }

    /// With something done to the shim's directory before the start.
    pub(crate) async fn started_with(&self, spec: &ContainerSpec, before: impl FnOnce(&Path)) -> Shim {
        let shim = self.launcher.create(spec).await.unwrap();
        before(&self.launcher.exec_root().join("shims").join(&spec.id));
        shim.start().await.unwrap();
        shim
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // A container that is forgotten would outlive the test: that is what shims are for.
        let left = self.launcher.ids().unwrap();
        assert!(left.is_empty() || std::thread::panicking(), "the test leaves containers behind: {left:?}");
        let parent = format!("runtime-test-{}", std::process::id());
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // Other tests of this process may still have theirs in it.
            let _ = std::fs::remove_dir(hierarchy.path().join(&parent));
        }
    }
}

pub(crate) const OUTPUT: AttachOptions = AttachOptions { stdin: false, stdout: true, stderr: true };

pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

/// Both streams to their end.
pub(crate) async fn collect(mut output: AttachOutput) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some((stream, bytes)) = output.next().await.unwrap() {
        match stream {
            OutputStream::Stdout => stdout.extend_from_slice(&bytes),
            OutputStream::Stderr => stderr.extend_from_slice(&bytes),
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(stdout), text(stderr))
}

pub(crate) fn exec(script: &str) -> ExecSpec {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    ExecSpec {
        id: format!("{:064x}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".into()],
        cwd: String::new(),
        user: String::new(),
        tty: false,
        size: None,
        attach_stdin: false,
        attach_stdout: true,
        attach_stderr: true,
        privileged: false,
    }
}

/// What a process executed in a container writes, and its exit code.
pub(crate) async fn executed(shim: &Shim, spec: &ExecSpec) -> (String, i32) {
    let mut ran = shim.exec(spec).await.unwrap();
    let (stdout, _) = collect(ran.take_stream().unwrap().output).await;
    (stdout, ran.wait().await.unwrap())
}

fn fresh_netns() -> Arc<std::os::fd::OwnedFd> {
    std::thread::spawn(|| {
        // SAFETY: only this thread, which ends here, leaves its namespace.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        Arc::new(std::fs::File::open("/proc/thread-self/ns/net").unwrap().into())
    })
    .join()
    .unwrap()
}

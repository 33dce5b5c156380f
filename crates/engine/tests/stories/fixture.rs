//! An engine of its own, with one image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_engine::model::{
    ContainerConfig, CreateRequest, EventsOptions, ExecConfig, ExecStartOptions, HostConfig, ListOptions,
    LogConfig, LogOptions, NetworkMode, RemoveOptions, WaitCondition,
};
use portolan_engine::{Engine, EngineConfig, Output, OutputStream, Parts};
use portolan_image::{ImageStore, ImportOptions, Reference};
use portolan_net::{NetConfig, NoLeases, NoNames};
use portolan_netsim::SimHost;
use portolan_runtime::Launcher;

pub(crate) struct Fixture {
    engine: Mutex<Engine>,
    pub(crate) host: Arc<SimHost>,
    launcher: Launcher,
    pub(crate) directory: PathBuf,
}

impl Fixture {
    pub(crate) async fn new(directory: &Path, launcher: Launcher) -> Self {
        let host = Arc::new(SimHost::default());
        let engine = open(directory, &host, &launcher).await;
        let options = ImportOptions {
            reference: Some(Reference::parse("busybox:latest").unwrap()),
            changes: vec!["CMD [\"sh\"]".to_owned()],
            ..ImportOptions::default()
        };
        engine.image_import(Box::new(std::io::Cursor::new(image(directory))), options).await.unwrap();
        Self { engine: Mutex::new(engine), host, launcher, directory: directory.to_owned() }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine.lock().unwrap().clone()
    }

    /// The daemon ends and another one takes over.
    pub(crate) async fn next_daemon(&self) -> Engine {
        self.engine().shutdown().await;
        let next = open(&self.directory, &self.host, &self.launcher).await;
        *self.engine.lock().unwrap() = next.clone();
        next
    }

    /// A container like `docker create --network host busybox sh -c SCRIPT`.
    pub(crate) fn request(&self, script: &str) -> CreateRequest {
        CreateRequest {
            config: ContainerConfig {
                image: "busybox".to_owned(),
                cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
                ..ContainerConfig::default()
            },
            host_config: HostConfig { network_mode: NetworkMode::Host, ..HostConfig::default() },
            ..CreateRequest::default()
        }
    }

    pub(crate) async fn create(&self, request: CreateRequest) -> String {
        self.engine().container_create(request).await.unwrap().id
    }

    pub(crate) async fn started(&self, request: CreateRequest) -> String {
        let id = self.create(request).await;
        self.engine().container_start(&id).await.unwrap();
        id
    }

    /// Starts a created container and waits for its end: its exit code.
    pub(crate) async fn run(&self, id: &str) -> i32 {
        let engine = self.engine();
        let waiter = engine.container_wait(id, WaitCondition::NextExit).await.unwrap();
        engine.container_start(id).await.unwrap();
        within(waiter.outcome()).await.unwrap().exit_code
    }

    /// Waits for the first line that the container writes.
    pub(crate) async fn ready(&self, id: &str) {
        let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
        let mut logs = self.engine().container_logs(id, options).await.unwrap();
        within(logs.output.next()).await.unwrap();
    }

    /// Runs a script in a container: exit code and output.
    pub(crate) async fn exec(&self, id: &str, script: &str) -> (i32, String) {
        let engine = self.engine();
        let config = ExecConfig {
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecConfig::default()
        };
        let exec = engine.exec_create(id, config).await.unwrap();
        let attachment = engine.exec_start(&exec, ExecStartOptions::default()).await.unwrap().unwrap();
        let (stdout, stderr) = collect(attachment.output).await;
        (engine.exec_inspect(&exec).await.unwrap().exit_code.unwrap(), stdout + &stderr)
    }

    pub(crate) async fn remove(&self, id: &str) {
        let options = RemoveOptions { force: true, volumes: true, link: false };
        within(self.engine().container_remove(id, options)).await.unwrap();
    }

    /// What happened to a container so far.
    pub(crate) async fn actions(&self, id: &str) -> Vec<String> {
        let mut options = EventsOptions {
            since: Some(jiff::Timestamp::UNIX_EPOCH),
            until: Some(jiff::Timestamp::now()),
            ..EventsOptions::default()
        };
        options.filters.add("container", id);
        options.filters.add("type", "container");
        let mut events = self.engine().events(options).await.unwrap();
        let mut actions = Vec::new();
        while let Some(event) = events.next().await {
            actions.push(event.action);
        }
        actions
    }

    /// Containers, volumes, shims, sandboxes and files are all gone, some of them a little later.
    pub(crate) async fn assert_nothing_left(&self, story: &str) {
        let engine = self.engine();
        let all = ListOptions { all: true, ..ListOptions::default() };
        assert!(engine.container_list(all).await.unwrap().is_empty(), "{story}: containers are left");
        assert!(
            engine.volume_list(Default::default()).await.unwrap().is_empty(),
            "{story}: volumes are left"
        );
        let left = || {
            let mut left = self.launcher.ids().unwrap();
            for name in ["data/containers", "data/overlay/c", "data/volumes"] {
                let entries = std::fs::read_dir(self.directory.join(name)).unwrap().flatten();
                left.extend(entries.map(|entry| format!("{name}/{}", entry.file_name().to_string_lossy())));
            }
            left.extend(self.host.state().namespaces.iter().map(|namespace| format!("{namespace:?}")));
            left
        };
        eventually(&format!("{story}: something is left"), || left().is_empty()).await;
    }

    pub(crate) async fn close(&self) {
        self.engine().shutdown().await;
        // The parents of the containers' cgroups, in each hierarchy there is.
        let name = cgroup_parent();
        let mounted = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        for hierarchy in mounted.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let _ = std::fs::remove_dir(hierarchy.join(&name));
        }
    }
}

async fn open(directory: &Path, host: &Arc<SimHost>, launcher: &Launcher) -> Engine {
    let data_root = directory.join("data");
    let parts = Parts {
        host: host.clone(),
        names: Arc::new(NoNames),
        leases: Arc::new(NoLeases),
        images: ImageStore::open(&data_root).unwrap(),
        launcher: launcher.clone(),
    };
    Engine::open(config(directory, data_root), parts).await.unwrap()
}

fn config(directory: &Path, data_root: PathBuf) -> EngineConfig {
    let exec_root = directory.join("exec");
    let net = NetConfig {
        exec_root: exec_root.clone(),
        default_bridge: Some("docker0".parse().unwrap()),
        bip: None,
        bip6: None,
        fixed_cidr: None,
        fixed_cidr_v6: None,
        ipv6: false,
        default_gateway: None,
        default_gateway_v6: None,
        icc: true,
        masquerade: true,
        mtu: None,
        host_binding: None,
        loopback_binding: false,
        address_pools: Vec::new(),
        network_options: Default::default(),
        ip_forward: true,
        userland_proxy: false,
        direct_routing: false,
        firewall: true,
        dns: Vec::new(),
        default_bridge_names: false,
    };
    EngineConfig {
        data_root,
        exec_root,
        live_restore: true,
        shutdown_timeout: Duration::from_secs(5),
        default_log: LogConfig::default(),
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        init: false,
        default_ulimits: Vec::new(),
        default_shm_size_bytes: 0,
        default_cgroupns: None,
        cgroup_parent: format!("/{}", cgroup_parent()),
        seccomp_profile: None,
        no_new_privileges: false,
        host_gateway_ips: Vec::new(),
        runtimes: BTreeMap::new(),
        default_runtime: None,
        net,
        registry: portolan_image::registry::RegistryConfig::default(),
        host_resolv_conf: "/etc/resolv.conf".into(),
    }
}

fn cgroup_parent() -> String {
    format!("engine-test-{}", std::process::id())
}

/// A root file system of busybox, as a tar.
fn image(directory: &Path) -> Vec<u8> {
    let root = directory.join("image-source");
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "data/sub"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "sleep", "kill", "ls", "stty", "true", "touch", "trap", "wc", "head"]
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    std::fs::write(root.join("data/sub/from-image"), "image\n").unwrap();
    let mut tar = std::process::Command::new("/bin/busybox");
    let tar = tar.args(["tar", "-C"]).arg(&root).args(["-cf", "-", "."]).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

/// Everything that comes out, by stream.
pub(crate) async fn collect(mut output: Output) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(chunk) = within(output.next()).await {
        match chunk.stream {
            OutputStream::Stdout => stdout.extend_from_slice(&chunk.bytes),
            OutputStream::Stderr => stderr.extend_from_slice(&chunk.bytes),
        }
    }
    (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Nothing in these stories takes long: whatever does is stuck.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("came to an end in time")
}

pub(crate) async fn eventually(what: &str, mut true_at_last: impl FnMut() -> bool) {
    for _ in 0..400 {
        if true_at_last() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

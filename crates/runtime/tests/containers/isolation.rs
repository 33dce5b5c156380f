use std::os::unix::fs::symlink;

use portolan_runtime::{Mount, MountKind, Rlimit, SeccompProfile};

use crate::fixture::fixture;

#[tokio::test]
async fn has_namespaces_of_its_own() {
    let Some(fixture) = fixture() else { return };
    let script = "echo $$; hostname; for n in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done; \
                  cat /proc/self/cgroup | cut -d: -f3 | sort -u; ls / | xargs";
    let spec = fixture.spec(script);
    let output = fixture.output(&spec).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["1", &spec.id[..12]]);
    for (name, line) in ["mnt", "pid", "ipc", "uts", "net", "cgroup"].iter().zip(&lines[2..8]) {
        let own = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(own.to_str().unwrap(), *line);
    }
    assert!(lines[8..].contains(&"/"), "a cgroup namespace: {output}");
    assert_eq!(lines.last().unwrap(), &"bin dev etc proc root sys tmp");
}

#[tokio::test]
async fn is_denied_what_docker_denies() {
    let Some(fixture) = fixture() else { return };
    let refused = [
        "mount -t tmpfs x /tmp",
        "unshare -U true",
        "unshare -m true",
        "echo x > /proc/sysrq-trigger",
        "echo x > /proc/sys/kernel/hostname",
        "mkdir /sys/fs/cgroup/memory/x",
        "hostname other",
        "mknod /tmp/disk b 254 0 && head -c1 /tmp/disk",
    ];
    for script in refused {
        let outcome = fixture.run(&fixture.spec(script)).await;
        assert_ne!(outcome.status.code, 0, "{script}: {}", outcome.stdout);
    }
    let script = "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; grep CapEff /proc/self/status; \
                  grep Seccomp: /proc/self/status; grep NoNewPrivs /proc/self/status";
    let expected = "0\n0\nCapEff:\t00000000a80425fb\nSeccomp:\t2\nNoNewPrivs:\t0\n";
    assert_eq!(fixture.output(&fixture.spec(script)).await, expected);
}

#[tokio::test]
async fn capabilities_and_profiles_open_what_they_name() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("mount -t tmpfs x /tmp && hostname other && hostname");
    spec.capabilities.push("CAP_SYS_ADMIN".into());
    assert_eq!(fixture.output(&spec).await, "other\n");

    let mut spec = fixture.spec("mkdir /x 2>&1; grep Seccomp: /proc/self/status");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    spec.seccomp = SeccompProfile::Json(profile.into());
    spec.no_new_privileges = true;
    let expected = "mkdir: can't create directory '/x': No space left on device\nSeccomp:\t2\n";
    assert_eq!(fixture.output(&spec).await, expected);

    let mut spec = fixture.spec("mount -t tmpfs x /tmp && ls /dev/loop-control /dev/kmsg >/dev/null; echo > /proc/sys/net/ipv4/ip_forward; grep Seccomp: /proc/self/status");
    spec.privileged = true;
    assert_eq!(fixture.output(&spec).await, "Seccomp:\t0\n");
}

#[tokio::test]
async fn is_who_it_should_be() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("id; echo $HOME; pwd; echo x > /dev/stdout; grep Cap[EP] /proc/self/status");
    spec.user.user = "web".into();
    spec.user.additional_groups = vec!["7".into()];
    spec.cwd = "/made/for/me".into();
    let expected = "uid=33(web) gid=34(web) groups=7,29(audio),34(web)\n/tmp\n/made/for/me\nx\n\
                    CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n";
    assert_eq!(fixture.output(&spec).await, expected);
    let mut spec = fixture.spec("true");
    spec.user.user = "nobody-knows".into();
    let error = fixture.launcher.create(&spec).await.unwrap_err().to_string();
    assert!(
        error.contains("unable to find user nobody-knows: no matching entries in passwd file"),
        "{error}"
    );
}

#[tokio::test]
async fn mounts_what_it_is_given_and_never_outside() {
    let Some(fixture) = fixture() else { return };
    let host = fixture.directory.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "from the host\n").unwrap();
    let bind = |source: &std::path::Path, target: &str, readonly| Mount {
        target: target.into(),
        kind: MountKind::Bind { source: source.into(), propagation: "rprivate".into(), recursive: true },
        readonly,
    };
    let mut spec = fixture.spec(
        "cat /data/file /one; echo y > /data/new; echo z > /ro/x 2>/dev/null || echo refused; \
         echo > /root/x 2>/dev/null || echo refused; df -k /cache | tail -1 | awk '{print $2}'; df -k /dev/shm | tail -1 | awk '{print $2}'",
    );
    let tmpfs = MountKind::Tmpfs { options: vec!["size=1m".into(), "mode=1777".into()] };
    spec.mounts = vec![
        bind(&host, "/data", false),
        bind(&host, "/ro", true),
        bind(&host.join("file"), "/one", false),
        Mount { target: "/cache".into(), kind: tmpfs, readonly: false },
    ];
    spec.readonly_rootfs = true;
    spec.shm_size_bytes = 2 << 20;
    let expected = "from the host\nfrom the host\nrefused\nrefused\n1024\n2048\n";
    assert_eq!(fixture.output(&spec).await, expected);
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "y\n");

    // A link in the image that leads out of it: the target is made inside.
    let outside = fixture.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let mut spec = fixture.spec("cat /link/sub/file");
    symlink(&outside, spec.rootfs.upper.join("link")).unwrap();
    spec.mounts = vec![bind(&host, "/link/sub", false)];
    assert_eq!(fixture.output(&spec).await, "from the host\n");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);

    let mut spec = fixture.spec("true");
    spec.mounts = vec![bind(std::path::Path::new("/no/such/place"), "/x", false)];
    let error = fixture.launcher.create(&spec).await.unwrap_err().to_string();
    assert!(error.contains("error mounting \"/no/such/place\" to rootfs at \"/x\""), "{error}");
}

#[tokio::test]
async fn limits_as_far_as_they_go() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("ulimit -Sn; ulimit -Hn");
    spec.rlimits = vec![Rlimit { name: "nofile".into(), soft: 100, hard: 200 }];
    assert_eq!(fixture.output(&spec).await, "100\n200\n");
    // More than anyone may have: as much as we have ourselves.
    let mut spec = fixture.spec("ulimit -Hn");
    spec.rlimits = vec![Rlimit { name: "nofile".into(), soft: 1 << 40, hard: 1 << 40 }];
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap();
    assert_eq!(fixture.output(&spec).await, format!("{own}\n"));
}

#[tokio::test]
async fn shares_the_namespaces_of_another() {
    let Some(fixture) = fixture() else { return };
    let first = fixture.spec("echo shared > /dev/shm/x; echo up; sleep 1000");
    let shim = fixture.started(&first).await;
    let mut spec = fixture.spec(
        "while ! [ -e /dev/shm/x ]; do sleep 0.01; done; cat /dev/shm/x; ps | grep -c 'sleep 1000'; hostname",
    );
    let mode = portolan_runtime::NamespaceMode::Pid(shim.pid());
    (spec.pid, spec.ipc, spec.uts) = (mode.clone(), mode.clone(), mode);
    let output = fixture.output(&spec).await;
    assert!(output.starts_with("shared\n"), "{output}");
    assert!(output.ends_with(&format!("{}\n", &first.id[..12])), "{output}");
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn a_directory_is_not_mounted_on_a_file() {
    let Some(fixture) = fixture() else { return };
    for (source, target) in [("/tmp", "/etc/passwd"), ("/bin/busybox", "/etc")] {
        let mut spec = fixture.spec("true");
        let kind = MountKind::Bind { source: source.into(), propagation: "rprivate".into(), recursive: true };
        spec.mounts.push(Mount { target: target.into(), kind, readonly: false });
        let error = fixture.launcher.create(&spec).await.unwrap_err().to_string();
        assert!(
            error.contains("Are you trying to mount a directory onto a file (or vice-versa)?"),
            "{error}"
        );
    }
}

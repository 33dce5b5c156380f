use std::os::unix::fs::symlink;
use std::path::PathBuf;

use portolan_runtime::{Mount, MountKind, Rlimit, SeccompProfile};

use crate::fixture::{exec, executed, fixture};

fn bind_of(source: impl Into<PathBuf>) -> MountKind {
    let (subpath, propagation) = (PathBuf::new(), "rprivate".into());
    MountKind::Bind { source: source.into(), subpath, propagation, recursive: true }
}

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
    // Whether the privileged have a profile is not for the runtime to decide; nobody starts without one that is named.
    spec.apparmor = Some("no-such-profile".into());
    let error = fixture.launcher.create(&spec).await.unwrap_err().to_string();
    assert!(error.contains("apply the AppArmor profile no-such-profile"), "{error}");
}

#[tokio::test]
async fn a_profile_need_not_know_what_only_the_set_up_calls() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("sleep 1000");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["close_range", "openat2"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#;
    spec.seccomp = SeccompProfile::Json(profile.into());
    spec.cwd = "/tmp".into();
    let shim = fixture.started(&spec).await;
    let mut check = exec("pwd; grep Seccomp: /proc/self/status");
    check.user = "web".into();
    assert_eq!(executed(&shim, &check).await, ("/tmp\nSeccomp:\t2\n".into(), 0));
    shim.delete().await.unwrap();
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
        kind: bind_of(source),
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
async fn limits_are_what_was_asked_for_or_nothing_starts() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("ulimit -Sn; ulimit -Hn");
    spec.rlimits = vec![Rlimit { name: "nofile".into(), soft: 100, hard: 200 }];
    assert_eq!(fixture.output(&spec).await, "100\n200\n");
    // More than anyone may have.
    let mut spec = fixture.spec("ulimit -Hn");
    spec.rlimits = vec![Rlimit { name: "nofile".into(), soft: 1 << 40, hard: 1 << 40 }];
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap();
    let error = fixture.launcher.create(&spec).await.unwrap_err().to_string();
    let limits = format!("(nofile to {0}:{0})", 1u64 << 40);
    for part in ["error setting rlimit type 7", &limits, "operation not permitted", &format!("is {own})")] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn shares_the_namespaces_of_another() {
    let Some(fixture) = fixture() else { return };
    let first = fixture.spec("echo shared > /dev/shm/x; echo up; sleep 1000");
    let shim = fixture.started(&first).await;
    let mut spec = fixture.spec(
        "while ! [ -e /dev/shm/x ]; do sleep 0.01; done; cat /dev/shm/x; ps | grep -c 'sleep 1000'; hostname",
    );
    let mode = portolan_runtime::NamespaceMode::Other;
    (spec.pid, spec.ipc, spec.uts) = (mode.clone(), mode.clone(), mode);
    let other = Some(shim.process().await.unwrap());
    spec.others = portolan_runtime::Others { pid: other.clone(), ipc: other.clone(), uts: other };
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
        let kind = bind_of(source);
        spec.mounts.push(Mount { target: target.into(), kind, readonly: false });
        let error = fixture.launcher.create(&spec).await.unwrap_err().to_string();
        assert!(
            error.contains("Are you trying to mount a directory onto a file (or vice-versa)?"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn nothing_takes_the_place_of_dev_null() {
    let Some(fixture) = fixture() else { return };
    // A container that has put something else there: what is executed in it has the null device all the same.
    let spec = fixture.spec("echo secret > /tmp/x; ln -sf /tmp/x /dev/null; sleep 1000");
    let shim = fixture.started(&spec).await;
    let mut check =
        exec("until [ -L /dev/null ]; do sleep 0.01; done; cat <&0; stat -Lc %t:%T /proc/self/fd/0");
    check.attach_stdin = false;
    assert_eq!(executed(&shim, &check).await, ("1:3\n".into(), 0));
    shim.delete().await.unwrap();

    // A volume at /dev that has something else there: masked files are hidden all the same.
    let volume = fixture.directory.path().join("dev");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("secret"), "secret\n").unwrap();
    symlink("secret", volume.join("null")).unwrap();
    let mut spec =
        fixture.spec("cat /proc/kcore /proc/keys; cat <&0; stat -Lc %t:%T /proc/self/fd/0; ls /dev");
    spec.mounts = vec![Mount { target: "/dev".into(), kind: bind_of(&volume), readonly: false }];
    assert_eq!(fixture.output(&spec).await, "1:3\nnull\nsecret\n");
    // No node of the container's is made there: with `-v /dev:/dev` the host would keep it.
    spec = fixture_true(&spec);
    let device = |path: &str| portolan_runtime::Device {
        host_path: "/dev/full".into(),
        container_path: path.into(),
        permissions: String::new(),
    };
    (spec.privileged, spec.devices) = (true, vec![device("/dev/mine"), device("/mine")]);
    spec.args = ["stat", "-c", "%F", "/mine"].map(str::to_owned).to_vec();
    assert_eq!(fixture.output(&spec).await, "character special file\n");
    assert_eq!(std::fs::read_dir(&volume).unwrap().count(), 2);
}

#[tokio::test]
async fn works_nowhere_outside() {
    let Some(fixture) = fixture() else { return };
    let outside = fixture.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let lead = format!("/proc/{}/root{}", std::process::id(), outside.display());
    // Through the magic links of a process of the host, which root may follow.
    let mut spec = fixture.spec("echo hi > ./escaped; sleep 1000");
    spec.pid = portolan_runtime::NamespaceMode::Host;
    for cwd in [lead.clone(), format!("{lead}/made")] {
        spec.cwd = cwd;
        assert!(fixture.launcher.create(&spec).await.is_err());
    }
    spec.cwd = "/".into();
    let shim = fixture.started(&spec).await;
    let mut check = exec("echo hi > ./escaped");
    check.cwd = lead;
    assert!(shim.exec(&check).await.is_err());
    // Through what shim and daemon have open.
    for number in 3..24 {
        let mut check = exec("pwd");
        check.cwd = format!("/proc/self/fd/{number}");
        assert!(shim.exec(&check).await.is_err(), "{number}");
    }
    check.cwd = "/nope".into();
    let error = shim.exec(&check).await.unwrap_err();
    assert_eq!(error.exit_code(), Some(127));
    let text = "chdir to cwd (\"/nope\") set in config.json failed: no such file or directory";
    assert!(error.to_string().contains(text), "{error}");
    shim.delete().await.unwrap();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn mounts_nothing_outside() {
    let Some(fixture) = fixture() else { return };
    let outside = fixture.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    // Where the host's /sys is mounted later, the image's comes first.
    let mut spec = fixture.spec("true");
    std::fs::create_dir(spec.rootfs.upper.join("sys")).unwrap();
    let lead = format!("/proc/{}/root{}", std::process::id(), outside.display());
    symlink(lead, spec.rootfs.upper.join("sys/fs")).unwrap();
    spec.pid = portolan_runtime::NamespaceMode::Host;
    spec.mounts = vec![Mount { target: "/sys".into(), kind: bind_of("/sys"), readonly: false }];
    let error = fixture.launcher.create(&spec).await.unwrap_err().to_string();
    assert!(error.contains("make the directory /sys/fs/cgroup"), "{error}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn no_file_of_it_keeps_its_shim() {
    let Some(fixture) = fixture() else { return };
    let mut spec = fixture.spec("rm /etc/group; mkfifo /etc/group; mkfifo /ready; sleep 1000");
    std::fs::create_dir(spec.rootfs.upper.join("etc")).unwrap();
    let passwd = spec.rootfs.upper.join("etc/passwd");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &passwd,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    symlink("/dev/zero", spec.rootfs.upper.join("etc/group")).unwrap();
    spec.user.user = "33:34".into();
    spec.user.additional_groups = vec!["7".into()];
    fixture.run(&fixture_true(&spec)).await;
    spec.user = portolan_runtime::UserSpec::default();
    let shim = fixture.started(&spec).await;
    let mut check = exec("until [ -p /ready ]; do sleep 0.01; done");
    assert_eq!(executed(&shim, &check).await, (String::new(), 0));
    check = exec("awk '/^[UG]id/ {print $2}' /proc/self/status");
    check.user = "5:6".into();
    assert_eq!(executed(&shim, &check).await, ("5\n6\n".into(), 0));
    shim.delete().await.unwrap();
}

/// The same container with nothing to do, under another id.
fn fixture_true(spec: &portolan_runtime::ContainerSpec) -> portolan_runtime::ContainerSpec {
    let mut other = spec.clone();
    other.id.replace_range(..1, "f");
    other.args = vec!["true".into()];
    other
}

#[tokio::test]
async fn nothing_covers_proc() {
    let Some(fixture) = fixture() else { return };
    let host = fixture.directory.path().join("cover");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "mine\n").unwrap();
    let at = |target: &str, kind: MountKind| Mount { target: target.into(), kind, readonly: false };
    let tmpfs = || MountKind::Tmpfs { options: Vec::new() };
    for (mount, text) in [
        (at("/proc", bind_of(&host)), "cannot be mounted because it is not of type proc"),
        (at("/proc", tmpfs()), "cannot be mounted because it is not of type proc"),
        (
            at("/proc/sys/kernel", bind_of(&host)),
            "\"/proc/sys/kernel\" cannot be mounted because it is inside /proc",
        ),
        (at("/proc/self/attr", tmpfs()), "cannot be mounted because it is inside /proc"),
        (at("/proc/1/attr", bind_of(&host)), "cannot be mounted because it is inside /proc"),
        (at("/link/self", bind_of(&host)), "cannot be mounted because it is inside /proc"),
    ] {
        let mut spec = fixture.spec("true");
        symlink("/proc", spec.rootfs.upper.join("link")).unwrap();
        spec.mounts = vec![mount];
        let error = fixture.launcher.create(&spec).await.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let mut spec = fixture.spec("cat /proc/uptime; cat /proc/kcore; cat /proc/sys/kernel/msgmax");
    spec.mounts = vec![at("/proc/uptime", bind_of(host.join("file")))];
    spec.sysctls.insert("kernel.msgmax".into(), "4097".into());
    assert_eq!(fixture.output(&spec).await, "mine\n4097\n");
    // Another procfs than the container's own is nobody's protection.
    let mut spec = fixture.spec("cat /host/proc/file");
    spec.mounts = vec![at("/host", bind_of("/")), at("/host/proc", bind_of(&host))];
    assert_eq!(fixture.output(&spec).await, "mine\n");
    let mut spec = fixture.spec("cat /proc/uptime >/dev/null; cat /proc/keys 2>/dev/null || true");
    spec.mounts = vec![at("/proc", bind_of("/proc"))];
    assert_eq!(fixture.output(&spec).await, "");
}

#[tokio::test]
async fn a_part_of_a_volume_stays_in_it() {
    let Some(fixture) = fixture() else { return };
    let volume = fixture.directory.path().join("volume");
    std::fs::create_dir_all(volume.join("part")).unwrap();
    std::fs::create_dir(volume.join("etc")).unwrap();
    std::fs::write(volume.join("part/file"), "part\n").unwrap();
    symlink("part", volume.join("inside")).unwrap();
    symlink("/etc", volume.join("outside")).unwrap();
    for (subpath, expected) in
        [("part", "file\n"), ("inside", "file\n"), ("outside", ""), ("outside/../part", "file\n")]
    {
        let mut spec = fixture.spec("ls /data");
        let (source, subpath) = (volume.clone(), subpath.into());
        let kind = MountKind::Bind { source, subpath, propagation: "rprivate".into(), recursive: true };
        spec.mounts = vec![Mount { target: "/data".into(), kind, readonly: false }];
        assert_eq!(fixture.output(&spec).await, expected);
    }
}

#[tokio::test]
async fn our_own_program_cannot_be_written_from_inside() {
    let Some(fixture) = fixture() else { return };
    // What writing alone would tell from "busy" only where nobody runs it.
    let mut spec = fixture.spec("chmod 0755 /proc/1/exe");
    (spec.init, spec.privileged) = (true, true);
    let outcome = fixture.run(&spec).await;
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
}

//! No option of a container is dropped in silence: with a value that is not its default, each key of the Engine API
//! (v1.51) either comes back in inspect, and so is in the engine's hands, or is refused by a message that names it.

use std::collections::BTreeSet;

use portolan_api as api;
use portolan_engine::model::EndpointSnapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::container::{config_from_api, config_to_api};
use super::endpoint::{Shown, endpoint_from_api, endpoint_to_api};
use super::host_config::{host_config_from_api, host_config_to_api};
use crate::http::ApiError;
use crate::identity::NEWEST_API;
use crate::names::field_names;

/// Puts every option of `samples` through `there_and_back` on its own. `none` are the keys that ask for nothing.
fn hold<T>(samples: Value, none: &[&str], there_and_back: impl Fn(T) -> Result<T, ApiError>)
where
    T: DeserializeOwned + Serialize + Default + PartialEq,
{
    let Value::Object(samples) = samples else { panic!("samples are an object") };
    let named: BTreeSet<&str> = samples.keys().map(String::as_str).chain(none.iter().copied()).collect();
    assert_eq!(named, field_names::<T>(), "every key has a sample, or a reason to have none");
    for (key, sample) in samples {
        let asked: T =
            serde_json::from_value(Value::Object(Map::from_iter([(key.clone(), sample)]))).unwrap();
        assert!(asked != T::default(), "{key}: the sample is the default");
        let wanted = serde_json::to_value(&asked).unwrap()[&key].clone();
        match there_and_back(asked) {
            Ok(shown) => assert_eq!(serde_json::to_value(shown).unwrap()[&key], wanted, "{key}"),
            Err(error) => assert!(error.message.contains(&key), "{key}: {}", error.message),
        }
    }
}

#[test]
fn of_host_config_nothing_is_dropped() {
    // As text: it is longer than what the macro takes.
    let samples = r#"{
        "Annotations": {"a": "b"}, "AutoRemove": true, "Binds": ["/a:/b"], "BlkioDeviceReadBps": [{"Path": "/dev/a"}],
        "BlkioDeviceReadIOps": [{"Path": "/dev/a"}], "BlkioDeviceWriteBps": [{"Path": "/dev/a"}],
        "BlkioDeviceWriteIOps": [{"Path": "/dev/a"}], "BlkioWeight": 10, "BlkioWeightDevice": [{"Path": "/dev/a"}],
        "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"], "Cgroup": "container:a", "CgroupParent": "a",
        "CgroupnsMode": "host", "ConsoleSize": [24, 80], "ContainerIDFile": "/a", "CpuCount": 1, "CpuPercent": 1,
        "CpuPeriod": 1000, "CpuQuota": 1000, "CpuRealtimePeriod": 1, "CpuRealtimeRuntime": 1, "CpuShares": 2,
        "CpusetCpus": "0", "CpusetMems": "0", "DeviceCgroupRules": ["c 1:1 r"], "DeviceRequests": [{"Count": 1}],
        "Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "r"}],
        "Dns": ["10.0.0.1"], "DnsOptions": ["ndots:1"], "DnsSearch": ["a"], "ExtraHosts": ["a:10.0.0.1"],
        "GroupAdd": ["1"], "IOMaximumBandwidth": 1, "IOMaximumIOps": 1, "Init": true, "IpcMode": "shareable",
        "Isolation": "hyperv", "KernelMemory": 1, "KernelMemoryTCP": 1, "Links": ["a:b"],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}, "MaskedPaths": ["/a"], "Memory": 1,
        "MemoryReservation": 1, "MemorySwap": 1, "MemorySwappiness": 1,
        "Mounts": [{"Type": "volume", "Source": "a", "Target": "/b", "ReadOnly": true, "VolumeOptions":
            {"NoCopy": true, "Subpath": "c", "Labels": {"a": "b"}, "DriverConfig": {"Name": "local"}}}],
        "NanoCpus": 1, "NetworkMode": "host", "OomKillDisable": true, "OomScoreAdj": 1, "PidMode": "host",
        "PidsLimit": 1, "PortBindings": {"80/tcp": [{"HostIp": "10.0.0.1", "HostPort": "1"}]}, "Privileged": true,
        "PublishAllPorts": true, "ReadonlyPaths": ["/a"], "ReadonlyRootfs": true,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1}, "Runtime": "a", "SecurityOpt": ["a"],
        "ShmSize": 1, "StorageOpt": {"a": "b"}, "Sysctls": {"a": "b"}, "Tmpfs": {"/a": "ro"}, "UTSMode": "host",
        "Ulimits": [{"Name": "nofile", "Hard": 1, "Soft": 1}], "UsernsMode": "host", "VolumeDriver": "a",
        "VolumesFrom": ["a"]
    }"#;
    let samples = serde_json::from_str(samples).unwrap();
    hold(samples, &[], |asked: api::HostConfig| {
        Ok(host_config_to_api(host_config_from_api(asked, NEWEST_API)?, NEWEST_API))
    });
}

#[test]
fn of_mounts_nothing_is_dropped() {
    let there_and_back = |mount: Value| {
        let asked: api::HostConfig = serde_json::from_value(json!({"Mounts": [mount]})).unwrap();
        host_config_from_api(asked, NEWEST_API).map(|host| {
            let shown = host_config_to_api(host, NEWEST_API);
            serde_json::to_value(shown).unwrap()["Mounts"][0].clone()
        })
    };
    let mut seen = BTreeSet::new();
    for (kind, part, option, value) in [
        ("bind", "BindOptions", "Propagation", json!("rshared")),
        ("bind", "BindOptions", "NonRecursive", json!(true)),
        ("bind", "BindOptions", "CreateMountpoint", json!(true)),
        ("bind", "BindOptions", "ReadOnlyNonRecursive", json!(true)),
        ("bind", "BindOptions", "ReadOnlyForceRecursive", json!(true)),
        ("volume", "VolumeOptions", "NoCopy", json!(true)),
        ("volume", "VolumeOptions", "Labels", json!({"a": "b"})),
        ("volume", "VolumeOptions", "Subpath", json!("a")),
        ("volume", "VolumeOptions", "DriverConfig", json!({"Name": "a", "Options": {"b": "c"}})),
        ("tmpfs", "TmpfsOptions", "SizeBytes", json!(4096)),
        ("tmpfs", "TmpfsOptions", "Mode", json!(448)),
        ("tmpfs", "TmpfsOptions", "Options", json!([["noexec"]])),
    ] {
        seen.insert(option);
        let mount = json!({"Type": kind, "Source": "/a", "Target": "/b", part: {option: value.clone()}});
        match there_and_back(mount.clone()) {
            Ok(shown) => assert_eq!(shown, mount),
            Err(error) => assert!(error.message.contains(option), "{option}: {}", error.message),
        }
    }
    let known = [
        field_names::<api::BindOptions>(),
        field_names::<api::VolumeOptions>(),
        field_names::<api::TmpfsOptions>(),
    ];
    assert_eq!(seen, known.into_iter().flatten().collect());
    let kind = there_and_back(json!({"Type": "image", "Source": "a", "Target": "/b"})).unwrap_err().message;
    assert!(kind.contains("image"), "{kind}");
}

#[test]
fn of_config_nothing_is_dropped() {
    let samples = json!({
        "AttachStderr": true, "AttachStdin": true, "AttachStdout": true, "Cmd": ["a"], "Domainname": "a",
        "Entrypoint": ["a"], "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "a"], "Interval": 1, "Timeout": 1, "Retries": 1, "StartPeriod": 1,
            "StartInterval": 1},
        "Hostname": "a", "Image": "a", "Labels": {"a": "b"}, "MacAddress": "02:42:0a:00:00:01",
        "NetworkDisabled": true, "OnBuild": ["a"], "OpenStdin": true, "Shell": ["a"], "StdinOnce": true,
        "StopSignal": "a", "StopTimeout": 1, "Tty": true, "User": "a", "Volumes": {"/a": {}}, "WorkingDir": "/a",
    });
    // Windows only, and Docker does not look at it on Linux.
    hold(samples, &["ArgsEscaped"], |asked: api::ContainerConfig| {
        Ok(config_to_api(config_from_api(asked)?, NEWEST_API))
    });
}

#[test]
fn of_endpoints_nothing_is_dropped() {
    let samples = json!({
        "Aliases": ["a"], "DriverOpts": {"a": "b"}, "GwPriority": 1,
        "IPAMConfig": {"IPv4Address": "10.0.0.1", "IPv6Address": "fd00::1", "LinkLocalIPs": ["169.254.1.1"]},
        "Links": ["a:b"], "MacAddress": "02:42:0a:00:00:01",
    });
    // What the engine tells; clients send back what inspect gave them.
    let told = [
        "DNSNames",
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "NetworkID",
    ];
    hold(samples, &told, |asked: api::EndpointSettings| {
        let settings = endpoint_from_api(asked, NEWEST_API)?;
        let snapshot = EndpointSnapshot {
            network_name: String::new(),
            predefined: false,
            settings,
            network_id: None,
            endpoint: None,
            dns_names: Vec::new(),
        };
        Ok(endpoint_to_api(snapshot, &Shown { own_names: [""; 2], started: true, version: NEWEST_API }))
    });
}

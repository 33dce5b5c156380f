//! The structures that Docker's commands show through templates, as its API has them: the names that
//! templates use, how JSON spells them, and the order in which Go prints and encodes them.

use super::types::Kind::{Any, Bool, Duration, Int, List, Map, Pointer, Struct as Of, Text, Time};
use super::types::{Kind, Struct, field, part, spelt};

const TEXTS: Kind = List(&Text);
const TEXT_MAP: Kind = Map(&Text);
const SET: Kind = Map(&Of(&EMPTY));

static EMPTY: Struct = Struct { name: "struct {}", fields: &[] };

static HEALTHCHECK_RESULT: Struct = Struct { name: "container.HealthcheckResult", fields: &[
    field("Start", Time), field("End", Time), field("ExitCode", Int), field("Output", Text),
] };

static HEALTH: Struct = Struct { name: "container.Health", fields: &[
    field("Status", Text), field("FailingStreak", Int),
    field("Log", List(&Pointer(&Of(&HEALTHCHECK_RESULT)))),
] };

static CONTAINER_STATE: Struct = Struct { name: "container.State", fields: &[
    field("Status", Text), field("Running", Bool), field("Paused", Bool), field("Restarting", Bool),
    field("OOMKilled", Bool), field("Dead", Bool), field("Pid", Int), field("ExitCode", Int),
    field("Error", Text), field("StartedAt", Text), field("FinishedAt", Text),
    field("Health", Pointer(&Of(&HEALTH))).optional(),
] };

static LOG_CONFIG: Struct = Struct { name: "container.LogConfig", fields: &[
    field("Type", Text), field("Config", TEXT_MAP),
] };

static PORT_BINDING: Struct = Struct { name: "nat.PortBinding", fields: &[
    spelt("HostIP", "HostIp", Text), field("HostPort", Text),
] };

static RESTART_POLICY: Struct = Struct { name: "container.RestartPolicy", fields: &[
    field("Name", Text), field("MaximumRetryCount", Int),
] };

static WEIGHT_DEVICE: Struct = Struct { name: "blkiodev.WeightDevice", fields: &[
    field("Path", Text), field("Weight", Int),
] };

static THROTTLE_DEVICE: Struct = Struct { name: "blkiodev.ThrottleDevice", fields: &[
    field("Path", Text), field("Rate", Int),
] };

static DEVICE_MAPPING: Struct = Struct { name: "container.DeviceMapping", fields: &[
    field("PathOnHost", Text), field("PathInContainer", Text), field("CgroupPermissions", Text),
] };

static DEVICE_REQUEST: Struct = Struct { name: "container.DeviceRequest", fields: &[
    field("Driver", Text), field("Count", Int), field("DeviceIDs", TEXTS), field("Capabilities", List(&TEXTS)),
    field("Options", TEXT_MAP),
] };

static ULIMIT: Struct = Struct { name: "units.Ulimit", fields: &[
    field("Name", Text), field("Hard", Int), field("Soft", Int),
] };

static RESOURCES: Struct = Struct { name: "container.Resources", fields: &[
    spelt("CPUShares", "CpuShares", Int), field("Memory", Int), spelt("NanoCPUs", "NanoCpus", Int),
    field("CgroupParent", Text), field("BlkioWeight", Int),
    field("BlkioWeightDevice", List(&Pointer(&Of(&WEIGHT_DEVICE)))),
    field("BlkioDeviceReadBps", List(&Pointer(&Of(&THROTTLE_DEVICE)))),
    field("BlkioDeviceWriteBps", List(&Pointer(&Of(&THROTTLE_DEVICE)))),
    field("BlkioDeviceReadIOps", List(&Pointer(&Of(&THROTTLE_DEVICE)))),
    field("BlkioDeviceWriteIOps", List(&Pointer(&Of(&THROTTLE_DEVICE)))),
    spelt("CPUPeriod", "CpuPeriod", Int), spelt("CPUQuota", "CpuQuota", Int),
    spelt("CPURealtimePeriod", "CpuRealtimePeriod", Int), spelt("CPURealtimeRuntime", "CpuRealtimeRuntime", Int),
    field("CpusetCpus", Text), field("CpusetMems", Text), field("Devices", List(&Of(&DEVICE_MAPPING))),
    field("DeviceCgroupRules", TEXTS), field("DeviceRequests", List(&Of(&DEVICE_REQUEST))),
    field("KernelMemory", Int).optional(), field("KernelMemoryTCP", Int).optional(),
    field("MemoryReservation", Int), field("MemorySwap", Int), field("MemorySwappiness", Pointer(&Int)),
    field("OomKillDisable", Pointer(&Bool)), field("PidsLimit", Pointer(&Int)),
    field("Ulimits", List(&Pointer(&Of(&ULIMIT)))), spelt("CPUCount", "CpuCount", Int),
    spelt("CPUPercent", "CpuPercent", Int), field("IOMaximumIOps", Int), field("IOMaximumBandwidth", Int),
] };

static BIND_OPTIONS: Struct = Struct { name: "mount.BindOptions", fields: &[
    field("Propagation", Text).optional(), field("NonRecursive", Bool).optional(),
    field("CreateMountpoint", Bool).optional(), field("ReadOnlyNonRecursive", Bool).optional(),
    field("ReadOnlyForceRecursive", Bool).optional(),
] };

static MOUNT_DRIVER: Struct = Struct { name: "mount.Driver", fields: &[
    field("Name", Text).optional(), field("Options", TEXT_MAP).optional(),
] };

static VOLUME_OPTIONS: Struct = Struct { name: "mount.VolumeOptions", fields: &[
    field("NoCopy", Bool).optional(), field("Labels", TEXT_MAP).optional(), field("Subpath", Text).optional(),
    field("DriverConfig", Pointer(&Of(&MOUNT_DRIVER))).optional(),
] };

static IMAGE_OPTIONS: Struct = Struct { name: "mount.ImageOptions", fields: &[
    field("Subpath", Text).optional(),
] };

static TMPFS_OPTIONS: Struct = Struct { name: "mount.TmpfsOptions", fields: &[
    field("SizeBytes", Int).optional(), field("Mode", Int).optional(), field("Options", List(&TEXTS)).optional(),
] };

static CLUSTER_OPTIONS: Struct = Struct { name: "mount.ClusterOptions", fields: &[] };

static MOUNT: Struct = Struct { name: "mount.Mount", fields: &[
    field("Type", Text).optional(), field("Source", Text).optional(), field("Target", Text).optional(),
    field("ReadOnly", Bool).optional(), field("Consistency", Text).optional(),
    field("BindOptions", Pointer(&Of(&BIND_OPTIONS))).optional(),
    field("VolumeOptions", Pointer(&Of(&VOLUME_OPTIONS))).optional(),
    field("ImageOptions", Pointer(&Of(&IMAGE_OPTIONS))).optional(),
    field("TmpfsOptions", Pointer(&Of(&TMPFS_OPTIONS))).optional(),
    field("ClusterOptions", Pointer(&Of(&CLUSTER_OPTIONS))).optional(),
] };

static HOST_CONFIG: Struct = Struct { name: "container.HostConfig", fields: &[
    field("Binds", TEXTS), field("ContainerIDFile", Text), field("LogConfig", Of(&LOG_CONFIG)),
    field("NetworkMode", Text), field("PortBindings", Map(&List(&Of(&PORT_BINDING)))),
    field("RestartPolicy", Of(&RESTART_POLICY)), field("AutoRemove", Bool), field("VolumeDriver", Text),
    field("VolumesFrom", TEXTS), field("ConsoleSize", List(&Int)), field("Annotations", TEXT_MAP).optional(),
    field("CapAdd", TEXTS), field("CapDrop", TEXTS), field("CgroupnsMode", Text), spelt("DNS", "Dns", TEXTS),
    spelt("DNSOptions", "DnsOptions", TEXTS), spelt("DNSSearch", "DnsSearch", TEXTS), field("ExtraHosts", TEXTS),
    field("GroupAdd", TEXTS), field("IpcMode", Text), field("Cgroup", Text), field("Links", TEXTS),
    field("OomScoreAdj", Int), field("PidMode", Text), field("Privileged", Bool), field("PublishAllPorts", Bool),
    field("ReadonlyRootfs", Bool), field("SecurityOpt", TEXTS), field("StorageOpt", TEXT_MAP).optional(),
    field("Tmpfs", TEXT_MAP).optional(), field("UTSMode", Text), field("UsernsMode", Text), field("ShmSize", Int),
    field("Sysctls", TEXT_MAP).optional(), field("Runtime", Text).optional(), field("Isolation", Text),
    part(&RESOURCES), field("Mounts", List(&Of(&MOUNT))).optional(), field("MaskedPaths", TEXTS),
    field("ReadonlyPaths", TEXTS), field("Init", Pointer(&Bool)).optional(),
] };

static DRIVER_DATA: Struct = Struct { name: "storage.DriverData", fields: &[
    field("Data", TEXT_MAP), field("Name", Text),
] };

static CONTAINER_BASE: Struct = Struct { name: "container.ContainerJSONBase", fields: &[
    spelt("ID", "Id", Text), field("Created", Text), field("Path", Text), field("Args", TEXTS),
    field("State", Pointer(&Of(&CONTAINER_STATE))), field("Image", Text), field("ResolvConfPath", Text),
    field("HostnamePath", Text), field("HostsPath", Text), field("LogPath", Text), field("Name", Text),
    field("RestartCount", Int), field("Driver", Text), field("Platform", Text), field("MountLabel", Text),
    field("ProcessLabel", Text), field("AppArmorProfile", Text), field("ExecIDs", TEXTS),
    field("HostConfig", Pointer(&Of(&HOST_CONFIG))), field("GraphDriver", Of(&DRIVER_DATA)),
    field("SizeRw", Pointer(&Int)).optional(), field("SizeRootFs", Pointer(&Int)).optional(),
] };

static MOUNT_POINT: Struct = Struct { name: "container.MountPoint", fields: &[
    field("Type", Text).optional(), field("Name", Text).optional(), field("Source", Text),
    field("Destination", Text), field("Driver", Text).optional(), field("Mode", Text), field("RW", Bool),
    field("Propagation", Text),
] };

static HEALTHCHECK_CONFIG: Struct = Struct { name: "v1.HealthcheckConfig", fields: &[
    field("Test", TEXTS).optional(), field("Interval", Duration).optional(),
    field("Timeout", Duration).optional(), field("StartPeriod", Duration).optional(),
    field("StartInterval", Duration).optional(), field("Retries", Int).optional(),
] };

static CONTAINER_CONFIG: Struct = Struct { name: "container.Config", fields: &[
    field("Hostname", Text), field("Domainname", Text), field("User", Text), field("AttachStdin", Bool),
    field("AttachStdout", Bool), field("AttachStderr", Bool), field("ExposedPorts", SET).optional(),
    field("Tty", Bool), field("OpenStdin", Bool), field("StdinOnce", Bool), field("Env", TEXTS),
    field("Cmd", TEXTS), field("Healthcheck", Pointer(&Of(&HEALTHCHECK_CONFIG))).optional(),
    field("ArgsEscaped", Bool).optional(), field("Image", Text), field("Volumes", SET), field("WorkingDir", Text),
    field("Entrypoint", TEXTS), field("NetworkDisabled", Bool).optional(), field("MacAddress", Text).optional(),
    field("OnBuild", TEXTS), field("Labels", TEXT_MAP), field("StopSignal", Text).optional(),
    field("StopTimeout", Pointer(&Int)).optional(), field("Shell", TEXTS).optional(),
] };

static ADDRESS: Struct = Struct { name: "network.Address", fields: &[
    field("Addr", Text), field("PrefixLen", Int),
] };

static NETWORK_SETTINGS_BASE: Struct = Struct { name: "container.NetworkSettingsBase", fields: &[
    field("Bridge", Text), field("SandboxID", Text), field("SandboxKey", Text),
    field("Ports", Map(&List(&Of(&PORT_BINDING)))), field("HairpinMode", Bool),
    field("LinkLocalIPv6Address", Text), field("LinkLocalIPv6PrefixLen", Int),
    field("SecondaryIPAddresses", List(&Of(&ADDRESS))),
    field("SecondaryIPv6Addresses", List(&Of(&ADDRESS))),
] };

static DEFAULT_NETWORK_SETTINGS: Struct = Struct { name: "container.DefaultNetworkSettings", fields: &[
    field("EndpointID", Text), field("Gateway", Text), field("GlobalIPv6Address", Text),
    field("GlobalIPv6PrefixLen", Int), field("IPAddress", Text), field("IPPrefixLen", Int),
    field("IPv6Gateway", Text), field("MacAddress", Text),
] };

static ENDPOINT_IPAM_CONFIG: Struct = Struct { name: "network.EndpointIPAMConfig", fields: &[
    field("IPv4Address", Text).optional(), field("IPv6Address", Text).optional(),
    field("LinkLocalIPs", TEXTS).optional(),
] };

static ENDPOINT_SETTINGS: Struct = Struct { name: "network.EndpointSettings", fields: &[
    field("IPAMConfig", Pointer(&Of(&ENDPOINT_IPAM_CONFIG))), field("Links", TEXTS), field("Aliases", TEXTS),
    field("MacAddress", Text), field("DriverOpts", TEXT_MAP), field("GwPriority", Int), field("NetworkID", Text),
    field("EndpointID", Text), field("Gateway", Text), field("IPAddress", Text), field("IPPrefixLen", Int),
    field("IPv6Gateway", Text), field("GlobalIPv6Address", Text), field("GlobalIPv6PrefixLen", Int),
    field("DNSNames", TEXTS),
] };

static NETWORK_SETTINGS: Struct = Struct { name: "container.NetworkSettings", fields: &[
    part(&NETWORK_SETTINGS_BASE), part(&DEFAULT_NETWORK_SETTINGS),
    field("Networks", Map(&Pointer(&Of(&ENDPOINT_SETTINGS)))),
] };

static PLATFORM: Struct = Struct { name: "v1.Platform", fields: &[
    spelt("Architecture", "architecture", Text), spelt("OS", "os", Text),
    spelt("OSVersion", "os.version", Text).optional(), spelt("OSFeatures", "os.features", TEXTS).optional(),
    spelt("Variant", "variant", Text).optional(),
] };

static DESCRIPTOR: Struct = Struct { name: "v1.Descriptor", fields: &[
    spelt("MediaType", "mediaType", Text), spelt("Digest", "digest", Text), spelt("Size", "size", Int),
    spelt("URLs", "urls", TEXTS).optional(), spelt("Annotations", "annotations", TEXT_MAP).optional(),
    spelt("Data", "data", List(&Int)).optional(),
    spelt("Platform", "platform", Pointer(&Of(&PLATFORM))).optional(),
    spelt("ArtifactType", "artifactType", Text).optional(),
] };

/// `GET /containers/{name}/json`.
pub(crate) static CONTAINER: Struct = Struct { name: "container.InspectResponse", fields: &[
    part(&CONTAINER_BASE), field("Mounts", List(&Of(&MOUNT_POINT))),
    field("Config", Pointer(&Of(&CONTAINER_CONFIG))),
    field("NetworkSettings", Pointer(&Of(&NETWORK_SETTINGS))),
    field("ImageManifestDescriptor", Pointer(&Of(&DESCRIPTOR))).optional(),
] };

static IMAGE_CONFIG: Struct = Struct { name: "v1.ImageConfig", fields: &[
    field("User", Text).optional(), field("ExposedPorts", SET).optional(), field("Env", TEXTS).optional(),
    field("Entrypoint", TEXTS).optional(), field("Cmd", TEXTS).optional(), field("Volumes", SET).optional(),
    field("WorkingDir", Text).optional(), field("Labels", TEXT_MAP).optional(),
    field("StopSignal", Text).optional(), field("ArgsEscaped", Bool).optional(),
] };

static DOCKER_IMAGE_CONFIG_EXT: Struct = Struct { name: "v1.DockerOCIImageConfigExt", fields: &[
    field("Healthcheck", Pointer(&Of(&HEALTHCHECK_CONFIG))).optional(), field("OnBuild", TEXTS).optional(),
    field("Shell", TEXTS).optional(),
] };

static DOCKER_IMAGE_CONFIG: Struct = Struct { name: "v1.DockerOCIImageConfig", fields: &[
    part(&IMAGE_CONFIG), part(&DOCKER_IMAGE_CONFIG_EXT),
] };

static ROOT_FS: Struct = Struct { name: "image.RootFS", fields: &[
    field("Type", Text).optional(), field("Layers", TEXTS).optional(),
] };

static IMAGE_METADATA: Struct = Struct { name: "image.Metadata", fields: &[
    field("LastTagTime", Time).optional(),
] };

static IMAGE_PROPERTIES: Struct = Struct { name: "image.ImageProperties", fields: &[
    field("Platform", Of(&PLATFORM)), field("Size", Any), field("Containers", TEXTS),
] };

static ATTESTATION_PROPERTIES: Struct = Struct { name: "image.AttestationProperties", fields: &[
    field("For", Text),
] };

static MANIFEST_SUMMARY: Struct = Struct { name: "image.ManifestSummary", fields: &[
    field("ID", Text), field("Descriptor", Of(&DESCRIPTOR)), field("Available", Bool), field("Size", Any),
    field("Kind", Text), field("ImageData", Pointer(&Of(&IMAGE_PROPERTIES))).optional(),
    field("AttestationData", Pointer(&Of(&ATTESTATION_PROPERTIES))).optional(),
] };

/// `GET /images/{name}/json`.
pub(crate) static IMAGE: Struct = Struct { name: "image.InspectResponse", fields: &[
    spelt("ID", "Id", Text), field("RepoTags", TEXTS), field("RepoDigests", TEXTS), field("Parent", Text),
    field("Comment", Text), field("Created", Text).optional(), field("Container", Text).optional(),
    field("ContainerConfig", Pointer(&Of(&CONTAINER_CONFIG))).optional(), field("DockerVersion", Text),
    field("Author", Text), field("Config", Pointer(&Of(&DOCKER_IMAGE_CONFIG))), field("Architecture", Text),
    field("Variant", Text).optional(), field("Os", Text), field("OsVersion", Text).optional(), field("Size", Int),
    field("VirtualSize", Int).optional(), field("GraphDriver", Of(&DRIVER_DATA)),
    field("RootFS", Of(&ROOT_FS)), field("Metadata", Of(&IMAGE_METADATA)),
    field("Descriptor", Pointer(&Of(&DESCRIPTOR))).optional(),
    field("Manifests", List(&Of(&MANIFEST_SUMMARY))).optional(),
] };

static IPAM_CONFIG: Struct = Struct { name: "network.IPAMConfig", fields: &[
    field("Subnet", Text).optional(), field("IPRange", Text).optional(), field("Gateway", Text).optional(),
    spelt("AuxAddress", "AuxiliaryAddresses", TEXT_MAP).optional(),
] };

static IPAM: Struct = Struct { name: "network.IPAM", fields: &[
    field("Driver", Text), field("Options", TEXT_MAP), field("Config", List(&Of(&IPAM_CONFIG))),
] };

static CONFIG_REFERENCE: Struct = Struct { name: "network.ConfigReference", fields: &[
    field("Network", Text),
] };

static ENDPOINT_RESOURCE: Struct = Struct { name: "network.EndpointResource", fields: &[
    field("Name", Text), field("EndpointID", Text), field("MacAddress", Text), field("IPv4Address", Text),
    field("IPv6Address", Text),
] };

static PEER_INFO: Struct = Struct { name: "network.PeerInfo", fields: &[
    field("Name", Text), field("IP", Text),
] };

static TASK: Struct = Struct { name: "network.Task", fields: &[
    field("Name", Text), field("EndpointID", Text), field("EndpointIP", Text), field("Info", TEXT_MAP),
] };

static SERVICE_INFO: Struct = Struct { name: "network.ServiceInfo", fields: &[
    field("VIP", Text), field("Ports", TEXTS), field("LocalLBIndex", Int), field("Tasks", List(&Of(&TASK))),
] };

/// `GET /networks/{name}`.
pub(crate) static NETWORK: Struct = Struct { name: "network.Inspect", fields: &[
    field("Name", Text), spelt("ID", "Id", Text), field("Created", Time), field("Scope", Text),
    field("Driver", Text), field("EnableIPv4", Bool), field("EnableIPv6", Bool), field("IPAM", Of(&IPAM)),
    field("Internal", Bool), field("Attachable", Bool), field("Ingress", Bool),
    field("ConfigFrom", Of(&CONFIG_REFERENCE)), field("ConfigOnly", Bool),
    field("Containers", Map(&Of(&ENDPOINT_RESOURCE))), field("Options", TEXT_MAP), field("Labels", TEXT_MAP),
    field("Peers", List(&Of(&PEER_INFO))).optional(),
    field("Services", Map(&Of(&SERVICE_INFO))).optional(),
] };

static USAGE_DATA: Struct = Struct { name: "volume.UsageData", fields: &[
    field("RefCount", Int), field("Size", Int),
] };

/// `GET /volumes/{name}`.
pub(crate) static VOLUME: Struct = Struct { name: "volume.Volume", fields: &[
    field("ClusterVolume", Pointer(&Any)).optional(), field("CreatedAt", Text).optional(), field("Driver", Text),
    field("Labels", TEXT_MAP), field("Mountpoint", Text), field("Name", Text), field("Options", TEXT_MAP),
    field("Scope", Text), field("Status", Map(&Any)).optional(),
    field("UsageData", Pointer(&Of(&USAGE_DATA))).optional(),
] };

static ACTOR: Struct = Struct { name: "events.Actor", fields: &[
    field("ID", Text), field("Attributes", TEXT_MAP),
] };

/// An item of `GET /events`.
pub(crate) static EVENT: Struct = Struct { name: "events.Message", fields: &[
    spelt("Status", "status", Text).optional(), spelt("ID", "id", Text).optional(),
    spelt("From", "from", Text).optional(), field("Type", Text), field("Action", Text),
    field("Actor", Of(&ACTOR)), spelt("Scope", "scope", Text).optional(),
    spelt("Time", "time", Int).optional(), spelt("TimeNano", "timeNano", Int).optional(),
] };

static PLUGINS_INFO: Struct = Struct { name: "system.PluginsInfo", fields: &[
    field("Volume", TEXTS), field("Network", TEXTS), field("Authorization", TEXTS), field("Log", TEXTS),
] };

static INDEX_INFO: Struct = Struct { name: "registry.IndexInfo", fields: &[
    field("Name", Text), field("Mirrors", TEXTS), field("Secure", Bool), field("Official", Bool),
] };

static SERVICE_CONFIG: Struct = Struct { name: "registry.ServiceConfig", fields: &[
    field("AllowNondistributableArtifactsCIDRs", List(&Pointer(&Text))).optional(),
    field("AllowNondistributableArtifactsHostnames", TEXTS).optional(),
    field("InsecureRegistryCIDRs", List(&Pointer(&Text))),
    field("IndexConfigs", Map(&Pointer(&Of(&INDEX_INFO)))), field("Mirrors", TEXTS),
] };

static SYSTEM_RUNTIME: Struct = Struct { name: "system.Runtime", fields: &[
    spelt("Path", "path", Text).optional(), spelt("Args", "runtimeArgs", TEXTS).optional(),
    spelt("Type", "runtimeType", Text).optional(), spelt("Options", "options", Map(&Any)).optional(),
] };

static RUNTIME_WITH_STATUS: Struct = Struct { name: "system.RuntimeWithStatus", fields: &[
    part(&SYSTEM_RUNTIME), spelt("Status", "status", TEXT_MAP).optional(),
] };

static PEER: Struct = Struct { name: "swarm.Peer", fields: &[
    field("NodeID", Text), field("Addr", Text),
] };

static SWARM_INFO: Struct = Struct { name: "swarm.Info", fields: &[
    field("NodeID", Text), field("NodeAddr", Text), field("LocalNodeState", Text),
    field("ControlAvailable", Bool), field("Error", Text), field("RemoteManagers", List(&Of(&PEER))),
    field("Nodes", Int).optional(), field("Managers", Int).optional(), field("Cluster", Pointer(&Any)).optional(),
    field("Warnings", TEXTS).optional(),
] };

static COMMIT: Struct = Struct { name: "system.Commit", fields: &[
    field("ID", Text), field("Expected", Text).optional(),
] };

static NETWORK_ADDRESS_POOL: Struct = Struct { name: "system.NetworkAddressPool", fields: &[
    field("Base", Text), field("Size", Int),
] };

static FIREWALL_INFO: Struct = Struct { name: "system.FirewallInfo", fields: &[
    field("Driver", Text), field("Info", List(&TEXTS)).optional(),
] };

static DEVICE_INFO: Struct = Struct { name: "system.DeviceInfo", fields: &[
    field("Source", Text), field("ID", Text),
] };

static CONTAINERD_NAMESPACES: Struct = Struct { name: "system.ContainerdNamespaces", fields: &[
    field("Containers", Text), field("Plugins", Text),
] };

static CONTAINERD_INFO: Struct = Struct { name: "system.ContainerdInfo", fields: &[
    field("Address", Text).optional(), field("Namespaces", Of(&CONTAINERD_NAMESPACES)),
] };

static INFO: Struct = Struct { name: "system.Info", fields: &[
    field("ID", Text), field("Containers", Int), field("ContainersRunning", Int), field("ContainersPaused", Int),
    field("ContainersStopped", Int), field("Images", Int), field("Driver", Text),
    field("DriverStatus", List(&TEXTS)), field("SystemStatus", List(&TEXTS)).optional(),
    field("Plugins", Of(&PLUGINS_INFO)), field("MemoryLimit", Bool), field("SwapLimit", Bool),
    field("KernelMemory", Bool).optional(), field("KernelMemoryTCP", Bool).optional(),
    spelt("CPUCfsPeriod", "CpuCfsPeriod", Bool), spelt("CPUCfsQuota", "CpuCfsQuota", Bool),
    field("CPUShares", Bool), field("CPUSet", Bool), field("PidsLimit", Bool), field("IPv4Forwarding", Bool),
    field("Debug", Bool), field("NFd", Int), field("OomKillDisable", Bool), field("NGoroutines", Int),
    field("SystemTime", Text), field("LoggingDriver", Text), field("CgroupDriver", Text),
    field("CgroupVersion", Text).optional(), field("NEventsListener", Int), field("KernelVersion", Text),
    field("OperatingSystem", Text), field("OSVersion", Text), field("OSType", Text), field("Architecture", Text),
    field("IndexServerAddress", Text), field("RegistryConfig", Pointer(&Of(&SERVICE_CONFIG))),
    field("NCPU", Int), field("MemTotal", Int), field("GenericResources", TEXTS), field("DockerRootDir", Text),
    spelt("HTTPProxy", "HttpProxy", Text), spelt("HTTPSProxy", "HttpsProxy", Text), field("NoProxy", Text),
    field("Name", Text), field("Labels", TEXTS), field("ExperimentalBuild", Bool), field("ServerVersion", Text),
    field("Runtimes", Map(&Of(&RUNTIME_WITH_STATUS))), field("DefaultRuntime", Text),
    field("Swarm", Of(&SWARM_INFO)), field("LiveRestoreEnabled", Bool), field("Isolation", Text),
    field("InitBinary", Text), field("ContainerdCommit", Of(&COMMIT)), field("RuncCommit", Of(&COMMIT)),
    field("InitCommit", Of(&COMMIT)), field("SecurityOptions", TEXTS),
    field("ProductLicense", Text).optional(),
    field("DefaultAddressPools", List(&Of(&NETWORK_ADDRESS_POOL))).optional(),
    field("FirewallBackend", Pointer(&Of(&FIREWALL_INFO))).optional(), field("CDISpecDirs", TEXTS),
    field("DiscoveredDevices", List(&Of(&DEVICE_INFO))).optional(),
    field("Containerd", Pointer(&Of(&CONTAINERD_INFO))).optional(), field("Warnings", TEXTS),
] };

/// What `info` shows: `GET /info` and what the client knows of itself.
pub(crate) static CLIENT_AND_SERVER: Struct = Struct { name: "system.dockerInfo", fields: &[
    part(&INFO), field("ServerErrors", TEXTS).optional(), field("ClientInfo", Pointer(&Of(&CLIENT))).optional(),
    field("ClientErrors", TEXTS).optional(),
] };

static CLIENT: Struct = Struct { name: "system.clientInfo", fields: &[
    field("Debug", Bool), field("Platform", Pointer(&Any)).optional(), field("Version", Text),
    spelt("APIVersion", "ApiVersion", Text).optional(), field("DefaultAPIVersion", Text).optional(),
    field("GitCommit", Text), field("GoVersion", Text), field("Os", Text), field("Arch", Text),
    field("BuildTime", Text).optional(), field("Context", Text), field("Plugins", List(&Any)),
    field("Warnings", TEXTS),
] };

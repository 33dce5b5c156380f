//! What dockerd has and Portolan does not.

/// Why an option of dockerd's, by its name on the command line or in the file, is not supported; `None` if it is
/// no option of dockerd's.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    Some(match name {
        "tls" | "tlscacert" | "tlscert" | "tlskey" | "tlsverify" => {
            "there is no TLS; reach a remote daemon with DOCKER_HOST=ssh://, or put a TLS proxy in front of a unix socket"
        }
        "authorization-plugin" | "authorization-plugins" => "there are no plugins",
        "api-cors-header" => "Docker itself removed it",
        "userns-remap" => "user namespaces are not used yet",
        "rootless" => "the daemon needs root",
        "swarm-default-advertise-addr" | "node-generic-resource" | "node-generic-resources" => {
            "there is no swarm"
        }
        "cri-containerd" | "containerd-plugins-namespace" | "containerd-plugin-namespace" => {
            "there is no containerd"
        }
        "userland-proxy-path" => "there is no userland proxy: published ports are handled by the kernel",
        "init-path" => "the init of --init is built in",
        "cpu-rt-period" | "cpu-rt-runtime" => "real-time scheduling is not supported",
        "cdi-spec-dir" | "cdi-spec-dirs" => "CDI devices are not supported yet",
        "bridge-accept-fwmark" | "ip-forward-no-drop" => "this part of the firewall is not configurable yet",
        "builder" => "there is no builder",
        "graph" => "use --data-root",
        _ => return None,
    })
}

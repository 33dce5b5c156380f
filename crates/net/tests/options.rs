//! What each driver and option makes of the host, as the steps that are taken: `options.txt`.
//!
//! `PORTOLAN_BLESS=1 cargo test -p portolan-net --test options` writes it anew, for a person to read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::path::Path;

use lab::{Lab, attach, container, pool, spec};
use portolan_net::{AttachSpec, ErrorKind, IpamPoolSpec, NetworkSpec, SandboxSpec};
use portolan_netcore::model::{DhcpLease, MacAddr};
use portolan_netcore::plan::LinkKind;

/// Driver, options, and what else is asked for.
type Case = (&'static str, &'static [(&'static str, &'static str)], fn(&mut NetworkSpec));

const CASES: &[(&str, Case)] = &[
    ("bridge", ("bridge", &[], |_| {})),
    ("ipv6 from the pools", ("bridge", &[], |spec| spec.ipv6 = Some(true))),
    ("ipv6 only", ("bridge", &[], |spec| (spec.ipv4, spec.ipv6) = (Some(false), Some(true)))),
    (
        "a link-local gateway",
        ("bridge", &[], |spec| {
            spec.ipv6 = Some(true);
            spec.ipam = vec![IpamPoolSpec { gateway: "fe80::1".into(), ..pool("fd33::/64") }];
        }),
    ),
    ("internal", ("bridge", &[], |spec| spec.internal = true)),
    (
        "isolated",
        ("bridge", &[("com.docker.network.bridge.gateway_mode_ipv4", "isolated")], |spec| {
            spec.internal = true
        }),
    ),
    ("routed", ("bridge", &[("com.docker.network.bridge.gateway_mode_ipv4", "routed")], |_| {})),
    ("inhibit_ipv4", ("bridge", &[("com.docker.network.bridge.inhibit_ipv4", "true")], |_| {})),
    (
        "name, mtu, prefix",
        (
            "bridge",
            &[
                ("com.docker.network.bridge.name", "br-mine"),
                ("com.docker.network.driver.mtu", "1400"),
                ("com.docker.network.container_iface_prefix", "net"),
            ],
            |_| {},
        ),
    ),
    ("too small for IPv6", ("bridge", &[("com.docker.network.driver.mtu", "1000")], |_| {})),
    (
        "isolated, both families",
        (
            "bridge",
            &[
                ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
                ("com.docker.network.bridge.gateway_mode_ipv6", "isolated"),
            ],
            |spec| {
                spec.internal = true;
                spec.ipv6 = Some(true);
                spec.ipam = vec![pool("10.3.0.0/24"), pool("fd03::/64")];
            },
        ),
    ),
    (
        "internal, IPv6",
        ("bridge", &[], |spec| {
            (spec.internal, spec.ipv6) = (true, Some(true));
            spec.ipam = vec![pool("10.3.0.0/24"), pool("fd03::/64")];
        }),
    ),
    (
        "isolated, IPv6 alone",
        ("bridge", &[("com.docker.network.bridge.gateway_mode_ipv6", "isolated")], |spec| {
            (spec.internal, spec.ipv4, spec.ipv6) = (true, Some(false), Some(true));
            spec.ipam = vec![pool("fd03::/64")];
        }),
    ),
    (
        "nat-unprotected, routed for IPv6",
        (
            "bridge",
            &[
                ("com.docker.network.bridge.gateway_mode_ipv4", "nat-unprotected"),
                ("com.docker.network.bridge.gateway_mode_ipv6", "routed"),
            ],
            |spec| spec.ipv6 = Some(true),
        ),
    ),
    (
        "no icc, no masquerade, trusted links",
        (
            "bridge",
            &[
                ("com.docker.network.bridge.enable_icc", "false"),
                ("com.docker.network.bridge.enable_ip_masquerade", "false"),
                ("com.docker.network.bridge.trusted_host_interfaces", "eth1:wg0"),
            ],
            |_| {},
        ),
    ),
    (
        "source addresses",
        (
            "bridge",
            &[("com.docker.network.host_ipv4", "192.0.2.7"), ("com.docker.network.host_ipv6", "2001:db8::7")],
            |spec| spec.ipv6 = Some(true),
        ),
    ),
    ("source_guard off", ("bridge", &[("portolan.source_guard", "off")], |_| {})),
    (
        "a range, kept addresses and a gateway",
        ("bridge", &[], |spec| {
            spec.ipv6 = Some(true);
            let auxiliary = |address: &str| [("router".to_owned(), address.to_owned())].into();
            spec.ipam = vec![
                IpamPoolSpec {
                    ip_range: "10.3.0.128/25".into(),
                    gateway: "10.3.0.254".into(),
                    auxiliary: auxiliary("10.3.0.128"),
                    ..pool("10.3.0.0/24")
                },
                IpamPoolSpec {
                    ip_range: "fd03::c0:0/112".into(),
                    auxiliary: auxiliary("fd03::c0:0"),
                    ..pool("fd03::/64")
                },
            ];
        }),
    ),
    (
        "addresses in turn",
        ("bridge", &[], |spec| {
            spec.ipam_options =
                Some([("com.docker.network.ipam.serial".to_owned(), "true".to_owned())].into());
        }),
    ),
    ("the configuration of another network", ("bridge", &[], |spec| spec.config_from = "conf".into())),
    ("a size from the pools", ("bridge", &[], |spec| spec.ipam = vec![pool("0.0.0.0/28")])),
    ("ipam null", ("bridge", &[], |spec| spec.ipam_driver = "null".into())),
    ("isolate", ("bridge", &[("portolan.isolate", "true")], |_| {})),
    ("vlan", ("bridge", &[("portolan.vlan", "10")], |_| {})),
    (
        "a bridge that is there",
        ("bridge", &[("com.docker.network.bridge.name", "br-there")], |spec| {
            spec.ipam = vec![pool("10.3.0.0/24")];
        }),
    ),
    (
        "a bridge that is there, another subnet",
        ("bridge", &[("com.docker.network.bridge.name", "br-there"), ("portolan.vlan", "10")], |spec| {
            spec.ipv6 = Some(true);
            spec.ipam = vec![pool("10.4.0.0/24"), pool("fd03::/64")];
        }),
    ),
    (
        "unmanaged",
        (
            "bridge",
            &[
                ("com.docker.network.bridge.name", "br-lan"),
                ("portolan.unmanaged", "true"),
                ("portolan.vlan", "10"),
            ],
            |spec| spec.ipam = vec![pool("10.3.0.0/24")],
        ),
    ),
    (
        "routes, metric",
        (
            "bridge",
            &[
                ("portolan.routes", "10.9.0.0/16,10.3.0.7,50;10.66.0.0/16,blackhole;10.67.0.0/16,10.3.0.8"),
                ("portolan.metric", "7"),
            ],
            |spec| spec.ipam = vec![pool("10.3.0.0/24")],
        ),
    ),
    (
        "routes that lead nowhere",
        (
            "bridge",
            &[("portolan.routes", "10.66.0.0/16,unreachable;10.67.0.0/16,prohibit,9;fd66::/64,prohibit")],
            |spec| spec.ipv6 = Some(true),
        ),
    ),
    ("no default route", ("bridge", &[("portolan.no_default_route", "true")], |_| {})),
    ("mtu of the way out", ("bridge", &[("portolan.mtu", "auto")], |_| {})),
    ("macvlan", ("macvlan", &[("parent", "eth0")], |spec| spec.ipam = vec![pool("10.3.0.0/24")])),
    (
        "macvlan with a gateway and a second subnet",
        ("macvlan", &[("parent", "eth0"), ("macvlan_mode", "vepa")], |spec| {
            spec.ipam = vec![
                IpamPoolSpec { gateway: "10.3.0.254".into(), ..pool("10.3.0.0/24") },
                pool("10.4.0.0/24"),
            ];
        }),
    ),
    (
        "macvlan on a VLAN",
        ("macvlan", &[("parent", "eth0.10")], |spec| spec.ipam = vec![pool("10.3.0.0/24")]),
    ),
    ("macvlan without a parent", ("macvlan", &[], |spec| spec.ipam = vec![pool("10.3.0.0/24")])),
    ("macvlan private", ("macvlan", &[("parent", "eth0"), ("macvlan_mode", "private")], |_| {})),
    (
        "macvlan, IPv6",
        ("macvlan", &[("parent", "eth0")], |spec| {
            (spec.ipv4, spec.ipv6) = (Some(false), Some(true));
            spec.ipam = vec![IpamPoolSpec { gateway: "fd03::fe".into(), ..pool("fd03::/64") }];
        }),
    ),
    (
        "macvlan, addresses by DHCP",
        ("macvlan", &[("parent", "eth0")], |spec| spec.ipam_driver = "dhcp".into()),
    ),
    ("macvlan passthru", ("macvlan", &[("parent", "eth0"), ("macvlan_mode", "passthru")], |_| {})),
    (
        "macvlan with host access",
        ("macvlan", &[("parent", "eth0"), ("portolan.host_access", "true")], |spec| {
            spec.ipam = vec![pool("10.3.0.0/24")];
        }),
    ),
    ("ipvlan", ("ipvlan", &[("parent", "eth0"), ("ipvlan_flag", "private")], |_| {})),
    (
        "ipvlan l3s, vepa",
        ("ipvlan", &[("parent", "eth0"), ("ipvlan_mode", "l3s"), ("ipvlan_flag", "vepa")], |_| {}),
    ),
    ("ipvlan l3", ("ipvlan", &[("parent", "eth0"), ("ipvlan_mode", "l3")], |_| {})),
];

fn network(name: &str, (driver, options, ask): &Case) -> NetworkSpec {
    let mut spec = NetworkSpec {
        name: name.to_owned(),
        driver: (*driver).to_owned(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..NetworkSpec::default()
    };
    ask(&mut spec);
    spec
}

/// What an endpoint's driver options make of it, on a network without any.
const ENDPOINTS: &[(&str, &[(&str, &str)])] = &[
    (
        "endpoint: names of both ends",
        &[("com.docker.network.endpoint.ifname", "lan0"), ("portolan.endpoint.host_ifname", "web0")],
    ),
    (
        "endpoint: sysctls",
        &[(
            "com.docker.network.endpoint.sysctls",
            "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.IFNAME.gc_stale_time=30",
        )],
    ),
    ("endpoint: source_guard off", &[("portolan.source_guard", "off")]),
    ("endpoint: announced twice", &[("com.docker.network.advertise_addr_nmsgs", "2")]),
];

async fn laboratory() -> Lab {
    let lab = Lab::open().await;
    lab.host.add_host_link("eth0", 1450, true);
    lab.host.add_host_bridge("br-lan", &[]);
    lab.host.add_host_bridge("br-there", &["10.3.0.7/24", "10.3.0.8/24"]);
    let conf = NetworkSpec {
        name: "conf".into(),
        config_only: true,
        ipam: vec![pool("10.3.0.0/24")],
        options: [("com.docker.network.driver.mtu".to_owned(), "1400".to_owned())].into(),
        ..NetworkSpec::default()
    };
    lab.networks.create(conf).await.unwrap();
    *lab.lender.lease.lock().unwrap() = Some(DhcpLease {
        address: "10.9.0.9/24".parse().unwrap(),
        server: [10, 9, 0, 1].into(),
        server_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        gateway: Some([10, 9, 0, 254].into()),
        routes: Vec::new(),
        dns: Vec::new(),
        domains: Vec::new(),
        mtu: Some(1400),
        renew_at: 1,
        rebind_at: 2,
        expires_at: 3,
    });
    lab
}

/// The steps that make a network and a container in it, without what is chosen at random. All of it goes again.
async fn steps(title: &str, asked: NetworkSpec, attach: AttachSpec) -> String {
    let lab = laboratory().await;
    let before = lab.host.state();
    let from = lab.host.log().len();
    let network = lab.networks.create(asked).await.unwrap();
    let made = lab.host.log()[from..].join("\n");
    let from = lab.host.log().len();
    let sandbox = SandboxSpec { attach: vec![attach], ..spec(1, "net", Vec::new()) };
    let info = lab.networks.create_sandbox(sandbox).await.unwrap();
    let started = lab.log_from(from, &info);
    let mut steps = format!("{made}\n-- a container\n{started}").replace(network.id.short(), "NETWORK");
    // Bridges' hardware addresses follow from ids, host MACs too.
    steps = steps
        .lines()
        .map(|line| match line.split_once(" address 02:50:") {
            Some((head, tail)) => format!("{head} address MAC{}\n", &tail[11..]),
            None => format!("{line}\n"),
        })
        .collect();
    let endpoint = &info.endpoints[0].endpoint;
    if network.ipam_driver == "dhcp" {
        steps = steps.replace(&endpoint.mac.to_string(), "MAC");
    }
    let ula = network.ipam.iter().find(|config| config.subnet.addr().is_ipv6());
    if let Some(config) = ula {
        let prefix = config.subnet.network().to_string();
        steps = steps.replace(prefix.trim_end_matches("::"), "ULA");
    }
    if ula.is_some() || endpoint.ipv4.is_none() {
        steps = steps.replace(&endpoint.mac.to_string(), "MAC");
    }
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    lab.networks.forget(&container(1)).await.unwrap();
    lab.networks.remove("net").await.unwrap();
    let mut after = lab.host.state();
    after.links.retain(|_, link| link.kind != LinkKind::Adopted || !link.addresses.is_empty());
    // What was switched on for the whole host stays.
    after.sysctls.retain(|key, _| before.sysctls.contains_key(key));
    assert_eq!(after.links, before.links, "{title}");
    assert_eq!(after.routes, before.routes, "{title}");
    assert_eq!(after.firewall, before.firewall, "{title}");
    format!("# {title}\n{steps}\n")
}

#[tokio::test]
async fn every_driver_and_option_as_steps() {
    let mut text = String::new();
    for (title, case) in CASES {
        text += &steps(title, network("net", case), attach(1, "net")).await;
    }
    for (title, options) in ENDPOINTS {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let attach = AttachSpec { driver_opts: options.collect(), ..attach(1, "net") };
        text += &steps(title, network("net", &("bridge", &[], |_| {})), attach).await;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/options.txt");
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    for (number, (got, want)) in text.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(got, want, "options.txt:{}", number + 1);
    }
    assert_eq!(text.lines().count(), wanted.lines().count());
}

#[tokio::test]
async fn mistakes_about_links_are_told() {
    let lab = Lab::open().await;
    lab.host.add_host_link("eth0", 1500, true);
    for (case, part) in [
        (
            ("macvlan", &[("parent", "eth7")] as &[_], (|_| {}) as fn(&mut NetworkSpec)),
            "parent interface was not found on the host: eth7",
        ),
        (("macvlan", &[("parent", "eth0.5000")], |_| {}), "not found on the host"),
        (("ipvlan", &[("parent", "lo")], |_| {}), "loopback interface is not a valid ipvlan parent link"),
        (("macvlan", &[("macvlan_mode", "loud")], |_| {}), "requested macvlan mode 'loud' is not valid"),
        (("macvlan", &[("com.docker.network.bridge.name", "x")], |_| {}), "com.docker.network.bridge.name"),
        (
            (
                "bridge",
                &[("portolan.unmanaged", "true"), ("com.docker.network.bridge.name", "br-no")],
                |_| {},
            ),
            "br-no was not found",
        ),
        (
            ("bridge", &[("portolan.unmanaged", "true"), ("com.docker.network.bridge.name", "eth0")], |_| {}),
            "link eth0 is not a bridge",
        ),
        (
            (
                "bridge",
                &[("portolan.unmanaged", "true"), ("com.docker.network.bridge.name", "docker0")],
                |_| {},
            ),
            "bridge docker0 is that of network bridge",
        ),
        (("bridge", &[("com.docker.network.bridge.name", "eth0")], |_| {}), "it is not a bridge"),
        (
            ("bridge", &[("portolan.routes", "10.9.0.0/16,10.8.0.1")], |_| {}),
            "in none of the network's subnets",
        ),
        (
            ("bridge", &[("portolan.routes", "10.9.0.0/16,10.3.0.255")], |spec| {
                spec.ipam = vec![pool("10.3.0.0/24")];
            }),
            "it is the broadcast address of the subnet 10.3.0.0/24",
        ),
        (
            ("bridge", &[("portolan.routes", "10.3.0.0/24,10.3.0.9")], |spec| {
                spec.ipam = vec![pool("10.3.0.0/24")];
            }),
            "10.3.0.0/24 is the network's own subnet",
        ),
        (
            ("macvlan", &[("parent", "eth0"), ("portolan.routes", "10.9.0.0/16,0.0.0.0")], |spec| {
                spec.ipam_driver = "dhcp".into();
            }),
            "the next hop 0.0.0.0 of 10.9.0.0/16 can be nobody's address",
        ),
        (
            ("bridge", &[], |spec| {
                (spec.ipam_driver, spec.ipam) = ("null".into(), vec![pool("10.3.0.0/24")])
            }),
            "null ipam driver does not handle",
        ),
        (
            ("bridge", &[], |spec| spec.ipam_options = Some([("x".to_owned(), "y".to_owned())].into())),
            "unknown option \"x\"",
        ),
    ] {
        let error = lab.networks.create(network("net", &case)).await.unwrap_err();
        assert!(error.message().contains(part), "{error}");
    }
    lab.networks.create(network("one", &("macvlan", &[("parent", "eth0")], |_| {}))).await.unwrap();
    let error =
        lab.networks.create(network("two", &("ipvlan", &[("parent", "eth0")], |_| {}))).await.unwrap_err();
    assert_eq!(error.message(), "network one is already using parent interface eth0");
    let taken = |spec: &mut NetworkSpec| spec.ipam = vec![pool("172.17.0.0/24")];
    let error = lab.networks.create(network("net", &("bridge", &[], taken))).await.unwrap_err();
    assert!(
        error.message().ends_with("172.17.0.0/24 overlaps with 172.17.0.0/16 of network bridge"),
        "{error}"
    );
}

#[tokio::test]
async fn a_configuration_is_taken_over_and_cannot_go_while_it_is_used() {
    let lab = Lab::open().await;
    let config = NetworkSpec {
        name: "conf".into(),
        config_only: true,
        ipam: vec![pool("10.3.0.0/24")],
        labels: [("team".to_owned(), "a".to_owned())].into(),
        ..NetworkSpec::default()
    };
    lab.networks.create(config).await.unwrap();
    let from =
        |name: &str| NetworkSpec { name: name.into(), config_from: "conf".into(), ..NetworkSpec::default() };
    let made = lab.networks.create(from("made")).await.unwrap();
    assert_eq!(made.ipam[0].subnet.to_string(), "10.3.0.0/24");
    assert_eq!(made.labels["team"], "a");
    let own = NetworkSpec { ipam: vec![pool("10.4.0.0/24")], ..from("own") };
    let error = lab.networks.create(own).await.unwrap_err();
    assert!(error.message().starts_with("user specified configurations are not supported"), "{error}");
    let error = lab.networks.remove("conf").await.unwrap_err();
    assert_eq!(error.message(), "configuration network \"conf\" is in use");
    let error = lab.networks.create_sandbox(spec(1, "conf", Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    let lab = lab.restart().await;
    assert!(lab.networks.find("conf").await.unwrap().network.config_only);
    lab.networks.remove("made").await.unwrap();
    lab.networks.remove("conf").await.unwrap();
}

#[tokio::test]
async fn a_conflict_names_the_holder() {
    let lab = Lab::open().await;
    let net = NetworkSpec { name: "net".into(), ipam: vec![pool("10.3.0.0/24")], ..NetworkSpec::default() };
    lab.networks.create(net).await.unwrap();
    let info = lab.run(1, "net", Vec::new()).await.unwrap();
    let ask = |address: [u8; 4]| portolan_net::AttachSpec { ipv4: Some(address.into()), ..attach(2, "net") };
    let using = |address: [u8; 4]| {
        let mut spec = lab::spec(2, "net", Vec::new());
        spec.attach = vec![ask(address)];
        lab.networks.create_sandbox(spec)
    };
    let error = using([10, 3, 0, 2]).await.unwrap_err();
    assert!(error.message().contains("belongs to container c1 ("), "{error}");
    // The same for one that does not run and asked for its address by number.
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    let fixed = portolan_net::AttachSpec { ipv4: Some([10, 3, 0, 5].into()), ..attach(1, "net") };
    lab.networks.reserve(&container(1), fixed).await.unwrap();
    let error = using([10, 3, 0, 5]).await.unwrap_err();
    assert!(error.message().contains("belongs to container c1 ("), "{error}");
    let error = lab.networks.reserve(&container(2), ask([10, 3, 0, 1])).await.unwrap_err();
    assert!(error.message().contains("it is its gateway"), "{error}");
}

/// The overlaps that inspect shows.
async fn overlaps(lab: &Lab) -> Vec<String> {
    lab.networks.find("net").await.unwrap().overlaps.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_route_that_overlaps_shows() {
    let lab = Lab::open().await;
    lab.host.add_foreign_route("10.3.0.128/25".parse().unwrap());
    let mut events = lab.networks.events();
    let spec = NetworkSpec { name: "net".into(), ipam: vec![pool("10.3.0.0/24")], ..NetworkSpec::default() };
    lab.networks.create(spec).await.unwrap();
    assert_eq!(overlaps(&lab).await, ["10.3.0.128/25"]);
    let actions = [events.recv().await.unwrap(), events.recv().await.unwrap()];
    assert_eq!(actions.each_ref().map(|event| event.action.as_str()), ["create", "overlap"]);
    assert_eq!(actions[1].route, Some("10.3.0.128/25".parse().unwrap()));
    lab.host.add_foreign_route("10.0.0.0/8".parse().unwrap());
    let lab = lab.restart().await;
    assert_eq!(overlaps(&lab).await, ["10.3.0.128/25", "10.0.0.0/8"]);
}

#[tokio::test]
async fn mistakes_in_options_and_addresses_are_told_together() {
    let lab = Lab::open().await;
    let spec = NetworkSpec {
        name: "net".into(),
        ipam: vec![pool("10.3.0.1/24")],
        options: [
            ("com.docker.network.driver.mtu".to_owned(), "9".to_owned()),
            ("com.docker.network.bridge.enable_icc".to_owned(), "maybe".to_owned()),
        ]
        .into(),
        ..NetworkSpec::default()
    };
    let error = lab.networks.create(spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for part in ["invalid subnet 10.3.0.1/24", "driver.mtu", "enable_icc"] {
        assert!(error.message().contains(part), "{error}");
    }
    let spec = NetworkSpec {
        name: "net".into(),
        ipv4: Some(false),
        ipam: vec![pool("10.3.0.1/24")],
        options: [("com.docker.network.bridge.gateway_mode_ipv4".to_owned(), "isolated".to_owned())].into(),
        ..NetworkSpec::default()
    };
    let error = lab.networks.create(spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let lines: Vec<&str> = error.message().lines().collect();
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    for part in ["invalid subnet 10.3.0.1/24", "only be used for an internal", "IPv4 or IPv6 must be enabled"]
    {
        assert!(has(part), "{error}");
    }
    let spec = NetworkSpec {
        name: "net".into(),
        ipv6: Some(true),
        options: [("com.docker.network.driver.mtu".to_owned(), "1000".to_owned())].into(),
        ..NetworkSpec::default()
    };
    let error = lab.networks.create(spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("1280"), "{error}");
}

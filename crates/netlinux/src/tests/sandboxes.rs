use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use portolan_netcore::host::Host;
use portolan_netcore::model::{MacvlanMode, SandboxId};
use portolan_netcore::plan::{Link, LinkKind, Neighbour, Ns, Step, diff};

use super::lab::{Guest, Lab, add_bridge, bridge, bridge_link, name, open, sandbox_id};
use crate::netlink::{Protocol, Socket};
use crate::observe;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn what_was_executed_is_observed_and_carries_traffic() {
    Lab::run("observe", |lab| {
        lab.execute(&add_bridge());
        let (one, two) = (Guest::new(1), Guest::new(2));
        lab.execute(&one.add());
        lab.execute(&two.add());

        let state = lab.host.observe().unwrap();
        assert_eq!(state.namespaces, [one.id.clone(), two.id.clone()].into());
        assert_eq!(state.links[&bridge()], bridge_link());
        for guest in [&one, &two] {
            let mut host_end = state.links[&guest.host].clone();
            assert!(host_end.mac.take().is_some(), "the kernel chose one");
            assert_eq!(host_end, guest.host_link);
            assert_eq!(state.links[&guest.container], guest.container_link);
            let lo = &state.links[&(Ns::Sandbox(guest.id.clone()), name("lo"))];
            assert!(lo.up && lo.kind == LinkKind::Loopback && lo.addresses.is_empty());
            let unprivileged =
                (Ns::Sandbox(guest.id.clone()), "net/ipv4/ip_unprivileged_port_start".to_owned());
            assert_eq!(state.sysctls[&unprivileged], "0");
        }
        assert_eq!(state.routes, one.routes.union(&two.routes).cloned().collect());

        for address in ["10.77.1.2:80", "[fd77::1:2]:80"] {
            let server = lab.inside(&two.id, || TcpListener::bind(address).unwrap());
            let mut client = lab.inside(&one.id, || TcpStream::connect(address).unwrap());
            client.write_all(b"hello").unwrap();
            let (mut accepted, _) = server.accept().unwrap();
            let mut text = [0; 5];
            accepted.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"hello");
        }
        TcpListener::bind("10.77.0.1:80").unwrap();
    });
}

/// A namespace in which nothing was ever up has no table of routes yet.
#[test]
fn a_host_without_a_route_is_observed() {
    Lab::run("unrouted", |lab| {
        let observed = std::thread::scope(|scope| {
            let observe = || {
                // SAFETY: the thread was started for this and ends with it.
                unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
                open(&lab.exec_root).observe()
            };
            scope.spawn(observe).join().unwrap()
        });
        assert!(observed.unwrap().routes.is_empty());
    });
}

#[test]
fn a_second_process_finds_the_sandboxes_and_can_work_in_them() {
    Lab::run("adopt", |lab| {
        lab.execute(&add_bridge());
        let guest = Guest::new(3);
        lab.execute(&guest.add());
        let before = lab.host.observe().unwrap();
        let next = open(&lab.exec_root);
        let mut adopted = next.observe().unwrap();
        // Set sysctls are in nobody's memory but the first one's.
        adopted.sysctls = before.sysctls.clone();
        assert_eq!(adopted, before);
        let address = "10.77.9.9/32".parse().unwrap();
        let report = next.execute(&[Step::AddAddress(guest.container.clone(), address)]);
        assert_eq!(report.error, None);
        assert!(lab.host.observe().unwrap().links[&guest.container].addresses.contains(&address));
    });
}

#[test]
fn what_a_crash_left_half_made_is_cleared_away() {
    Lab::run("strays", |lab| {
        let (guest, half) = (Guest::new(3), sandbox_id(4));
        lab.execute(&add_bridge());
        lab.execute(&guest.add());
        std::fs::write(lab.host.namespace_path(&half), "").unwrap();
        let label = lab.exec_root.join("netns-ids").join(half.short());
        std::os::unix::fs::symlink(half.as_str(), &label).unwrap();
        let second = open(&lab.exec_root);
        assert!(!second.namespace_path(&half).exists() && !label.is_symlink());
        assert_eq!(
            crate::netns::Pins::open(&lab.exec_root).unwrap().list().unwrap(),
            [guest.id.clone()].into()
        );
    });
}

#[test]
fn removal_returns_at_once_leaves_nothing_and_may_be_repeated() {
    Lab::run("removal", |lab| {
        lab.execute(&add_bridge());
        let guest = Guest::new(4);
        lab.execute(&guest.add());
        let start = Instant::now();
        lab.execute(&[Step::RemoveNamespace(guest.id.clone())]);
        println!("RemoveNamespace: {:?}", start.elapsed());
        assert!(lab.host.await_gone(std::slice::from_ref(&guest.host.1), SOON).unwrap());
        println!("until the host end is gone: {:?}", start.elapsed());

        let removals = [
            Step::RemoveNamespace(guest.id.clone()),
            Step::RemoveLink(guest.host.clone()),
            Step::RemoveLink(guest.container.clone()),
            Step::RemoveAddress(bridge(), "10.77.8.8/16".parse().unwrap()),
            Step::RemoveLink(bridge()),
            Step::RemoveLink(bridge()),
        ];
        lab.execute(&removals);
        let state = lab.host.observe().unwrap();
        assert!(state.links.is_empty() && state.namespaces.is_empty() && state.routes.is_empty());
        assert!(std::fs::read_dir(lab.exec_root.join("netns")).unwrap().next().is_none());
        assert!(std::fs::read_dir(lab.exec_root.join("netns-ids")).unwrap().next().is_none());
        let links = observe::links(&mut Socket::open(Protocol::Route).unwrap()).unwrap();
        assert_eq!(links.len(), 1, "only lo: {links:?}");
    });
}

#[test]
fn fifty_sandboxes_start_side_by_side() {
    Lab::run("parallel", |lab| {
        lab.execute(&add_bridge());
        let guests: Vec<Guest> = (1..=50).map(Guest::new).collect();
        // A test harness has one namespace a thread: started here, they are in the lab's.
        let start = Instant::now();
        std::thread::scope(|scope| {
            for guest in &guests {
                scope.spawn(|| lab.execute(&guest.add()));
            }
        });
        println!("50 sandboxes started side by side: {:?}", start.elapsed());
        let state = lab.host.observe().unwrap();
        assert_eq!(state.namespaces.len(), 50);
        assert!(guests.iter().all(|guest| state.links[&guest.container] == guest.container_link));

        let start = Instant::now();
        std::thread::scope(|scope| {
            for guest in &guests {
                scope.spawn(|| lab.execute(&[Step::RemoveNamespace(guest.id.clone())]));
            }
        });
        println!("removed: {:?}", start.elapsed());
        let ends: Vec<_> = guests.iter().map(|guest| guest.host.1.clone()).collect();
        assert!(lab.host.await_gone(&ends, SOON).unwrap());
        println!("until all host ends are gone: {:?}", start.elapsed());
    });
}

#[test]
fn a_failure_names_the_step_and_what_the_kernel_said() {
    Lab::run("failure", |lab| {
        lab.execute(&add_bridge());
        let report = lab.host.execute(&add_bridge());
        assert_eq!(report.done, 0);
        let error = report.error.unwrap();
        assert_eq!(error.errno, Some(libc::EEXIST));
        assert!(error.to_string().starts_with("[host] link add br-test"), "{error}");
        assert!(error.to_string().ends_with("file exists"), "{error}");

        // The third step of one message: the route's gateway is not reachable.
        let guest = Guest::new(5);
        let mut steps = guest.add();
        let Some(Step::AddRoute(_, route)) = steps.last_mut() else { panic!("routes come last") };
        route.gateway = Some("fd99::1".parse().unwrap());
        let report = lab.host.execute(&steps);
        assert_eq!(report.done, steps.len() - 1);
        assert!(report.error.unwrap().errno.is_some());

        // A stranger's link of that name is left as it is.
        let mut twin = Guest::new(6);
        twin.host = guest.host.clone();
        let report = lab.host.execute(&twin.add());
        assert_eq!(report.error.unwrap().errno, Some(libc::EEXIST));
        let state = lab.host.observe().unwrap();
        assert_eq!(state.links[&guest.host].alias, guest.host_link.alias);
    });
}

/// Whatever is planned: a link without our alias is neither removed nor cut off from its bridge.
#[test]
fn a_strangers_link_is_never_removed() {
    Lab::run("strangers", |lab| {
        let mut strangers = bridge_link();
        strangers.alias = None;
        lab.execute(&[Step::AddBridge(bridge(), Box::new(strangers))]);
        lab.execute(&[Step::RemoveLink(bridge()), Step::CutPort(bridge())]);
        let mut socket = Socket::open(Protocol::Route).unwrap();
        assert!(observe::link_named(&mut socket, &bridge().1).unwrap().is_some());
        assert_eq!(observe::link_named(&mut socket, &name("nobody0")).unwrap(), None);
    });
}

#[test]
fn a_bridge_does_not_learn_from_what_passes_no_rules() {
    Lab::run("learning", |lab| {
        lab.execute(&add_bridge());
        let wanted = lab.host.observe_own().unwrap();
        assert!(!wanted.links[&bridge()].learns_link_local);
        lab.execute(&[Step::SetLinkLocalLearning(bridge(), true)]);
        let found = lab.host.observe_own().unwrap();
        assert!(found.links[&bridge()].learns_link_local);
        lab.execute(&diff(&found, &wanted));
        assert_eq!(lab.host.observe_own().unwrap(), wanted);
    });
}

#[test]
fn links_that_a_container_makes_are_its_own() {
    Lab::run("foreign", |lab| {
        lab.execute(&add_bridge());
        let guest = Guest::new(7);
        lab.execute(&guest.add());
        let before = lab.host.observe().unwrap();
        lab.inside(&guest.id, || {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            let mut batch = crate::netlink::Batch::new();
            crate::link::add_bridge(&mut batch, &name("mine"), &bridge_link());
            let here = crate::netns::current().unwrap();
            let own = Link { master: None, ..Guest::new(70).host_link };
            let (near, far) = (name("near"), name("far"));
            crate::link::add_veth(&mut batch, (&near, &own), None, (&far, &own), here.as_fd());
            socket.transact(&mut batch).unwrap();
        });
        assert_eq!(lab.host.observe().unwrap(), before);
        assert!(lab.host.foreign_routes().unwrap().is_empty(), "the bridge's own subnet is ours");
    });
}

/// Datagrams to an address, of which the first is answered within the time.
fn answered(from: &str, to: &str, within: Duration) -> bool {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(within)).unwrap();
    socket.send_to(b"x", to).unwrap();
    socket.recv(&mut [0; 1]).is_ok()
}

#[test]
fn what_was_asked_in_vain_is_answered_by_an_introduction() {
    Lab::run("introduce", |lab| {
        lab.execute(&add_bridge());
        let (one, two) = (Guest::new(10), Guest::new(11));
        lab.execute(&one.add());
        lab.execute(&two.add());
        // Nobody asks a second time by himself as long as the test takes.
        let patient = |ns: &Ns, link: &str| {
            let key = |family| format!("net/{family}/neigh/{link}/retrans_time_ms");
            ["ipv4", "ipv6"].map(|family| Step::SetSysctl(ns.clone(), key(family), "600000".to_owned()))
        };
        lab.execute(&patient(&Ns::Host, "br-test"));
        lab.execute(&patient(&Ns::Sandbox(one.id.clone()), "eth0"));
        lab.execute(&patient(&Ns::Sandbox(two.id.clone()), "eth0"));
        let echo = |bound: &str| {
            let socket = UdpSocket::bind(bound).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 1];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer, from);
                }
            });
        };
        let everywhere = [
            "10.77.0.1:7",
            "[fd77::1]:7",
            "10.77.1.10:7",
            "[fd77::1:10]:7",
            "10.77.1.11:7",
            "[fd77::1:11]:7",
        ];
        everywhere[..2].iter().for_each(|bound| echo(bound));
        lab.inside(&one.id, || everywhere[2..4].iter().for_each(|bound| echo(bound)));
        lab.inside(&two.id, || everywhere[4..].iter().for_each(|bound| echo(bound)));

        let moment = Duration::from_millis(50);
        let ask = |within: Duration| {
            let from = |to: &str| if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let all = |places: &[&'static str]| {
                places.iter().map(|to| answered(from(to), to, within)).collect::<Vec<_>>()
            };
            let (host, two) = (all(&everywhere[2..4]), lab.inside(&two.id, || all(&everywhere[2..4])));
            let one = lab.inside(&one.id, || all(&[&everywhere[..2], &everywhere[4..]].concat()));
            [host, two, one].concat()
        };
        lab.execute(&[Step::SetMaster(one.host.clone(), None)]);
        assert_eq!(ask(moment), [false; 8], "it is out of the bridge");
        lab.execute(&[Step::SetMaster(one.host.clone(), Some(bridge().1))]);
        assert_eq!(ask(moment), [false; 8], "nobody asks again yet");

        let of = |guest: &Guest| {
            let addresses = guest.container_link.addresses.iter().map(|net| net.addr()).collect();
            Neighbour { mac: guest.container_link.mac.unwrap(), addresses }
        };
        let addresses = bridge_link().addresses.iter().map(|net| net.addr()).collect();
        let gateway = Neighbour { mac: bridge_link().mac.unwrap(), addresses };
        lab.execute(&[
            Step::Introduce { link: one.host.clone(), there: vec![gateway, of(&two)], here: Vec::new() },
            Step::Introduce { link: bridge(), there: vec![of(&one)], here: vec![of(&one)] },
        ]);
        assert_eq!(ask(SOON), [true; 8]);
    });
}

#[test]
fn announcements_reach_the_bridge_and_sysctls_keep_to_their_namespace() {
    Lab::run("announce", |lab| {
        lab.execute(&add_bridge());
        let (one, two) = (Guest::new(8), Guest::new(9));
        lab.execute(&one.add());
        lab.execute(&two.add());
        // Two sends to one, and so knows its hardware address.
        lab.inside(&two.id, || {
            let socket = UdpSocket::bind("10.77.1.9:0").unwrap();
            socket.send_to(b"x", "10.77.1.8:9").unwrap();
        });
        let addresses = one.container_link.addresses.iter().copied().collect();
        lab.execute(&[Step::Announce(one.container.clone(), addresses)]);

        let key = "net/ipv4/ip_forward".to_owned();
        lab.execute(&[Step::SetSysctl(Ns::Host, key.clone(), "1".to_owned())]);
        lab.execute(&[Step::SetSysctl(Ns::Sandbox(one.id.clone()), key.clone(), "0".to_owned())]);
        let state = lab.host.observe().unwrap();
        assert_eq!(state.sysctls[&(Ns::Host, key.clone())], "1");
        assert_eq!(state.sysctls[&(Ns::Sandbox(one.id.clone()), key)], "0");
        for bad in ["net/../kernel/hostname", "/etc/passwd", "net//ipv4"] {
            let step = Step::SetSysctl(Ns::Host, bad.to_owned(), "1".to_owned());
            assert!(lab.host.execute(&[step]).error.is_some(), "{bad}");
        }
        assert_eq!(lab.host.facts().unwrap().ephemeral.first, 32_768);
    });
}

#[test]
fn a_missing_namespace_is_an_error_only_for_those_who_need_it() {
    Lab::run("missing", |lab| {
        let key = (Ns::Sandbox(sandbox_id(99)), name("eth0"));
        lab.execute(&[Step::RemoveLink(key.clone())]);
        let report = lab.host.execute(&[Step::SetUp(key, true)]);
        assert_eq!(report.error.unwrap().errno, Some(libc::ENOENT));
    });
}

#[test]
fn a_copy_of_the_mounts_keeps_no_sandbox_alive() {
    Lab::run("copies", |lab| {
        lab.execute(&add_bridge());
        let guest = Guest::new(10);
        lab.execute(&guest.add());
        let (copied, wait_for_copy) = std::sync::mpsc::channel();
        let (end, wait_for_end) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let flags = rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS;
                // SAFETY: the thread was started for this and ends with the scope.
                unsafe { rustix::thread::unshare_unsafe(flags) }.unwrap();
                copied.send(()).unwrap();
                let _ = wait_for_end.recv();
            });
            wait_for_copy.recv().unwrap();
            lab.execute(&[Step::RemoveNamespace(guest.id.clone())]);
            assert!(lab.host.await_gone(std::slice::from_ref(&guest.host.1), SOON).unwrap());
            drop(end);
        });
    });
}

#[test]
fn a_macvlan_s_address_is_free_once_its_sandbox_is_removed() {
    Lab::run("mac", |lab| {
        lab.execute(&add_bridge());
        let link = Link {
            kind: LinkKind::Macvlan { parent: bridge().1, mode: MacvlanMode::Bridge },
            alias: Some("portolan:11".to_owned()),
            ..Guest::new(11).container_link
        };
        let make = |id: &SandboxId| {
            let key = (Ns::Sandbox(id.clone()), name("eth0"));
            lab.execute(&[
                Step::AddNamespace(id.clone()),
                Step::AddLink(key.clone(), Box::new(link.clone())),
                Step::SetUp(key, true),
            ]);
        };
        let (first, second) = (sandbox_id(11), sandbox_id(12));
        make(&first);
        // Whoever has it open keeps the kernel from taking it down.
        let _open = std::fs::File::open(lab.host.namespace_path(&first)).unwrap();
        let observed = lab.host.observe().unwrap();
        let mut wanted = observed.clone();
        wanted.namespaces.remove(&first);
        wanted.links.retain(|(ns, _), _| *ns == Ns::Host);
        wanted.routes.retain(|(ns, _)| *ns == Ns::Host);
        wanted.sysctls.retain(|(ns, _), _| *ns == Ns::Host);
        lab.execute(&diff(&observed, &wanted));
        make(&second);
    });
}

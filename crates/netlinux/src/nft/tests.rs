//! Against the kernel, each in a network namespace of its own thread. They need root, and say so
//! where they are skipped.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use portolan_netcore::firewall::ruleset::{
    ElementData, ElementKey, Queue, QueueForm, Rule, Statement, TableFamily,
};
use portolan_netcore::firewall::{
    BridgePolicy, CarriedPort, Change, Compiled, Elements, FirewallPolicy, PolicyItem, PublishedPort,
    Transaction, render,
};
use portolan_netcore::model::{IfName, PortBinding, Proto};

use super::backend::NftFirewall;
use super::encode;
use super::{has_dns_redirect, redirect_dns};

/// Runs `body` in a thread with a network namespace of its own.
fn in_namespace(body: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare takes no pointers and affects this thread only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!("skipped: needs root to make a network namespace");
            return;
        }
        body();
    });
    thread.join().unwrap();
}

fn output(command: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn bridge(name: &str, subnet: &str) -> BridgePolicy {
    BridgePolicy::new(IfName::new(name).unwrap(), vec![subnet.parse().unwrap()])
}

fn port(host: u16, target: [u8; 4], container: u16) -> PublishedPort {
    PublishedPort {
        binding: PortBinding {
            proto: Proto::Tcp,
            container_port: container,
            host_ip: Ipv4Addr::UNSPECIFIED.into(),
            host_port: host,
        },
        bridge: IfName::new("docker0").unwrap(),
        target: Ipv4Addr::from(target).into(),
        from: Vec::new(),
    }
}

/// A port at which the engine accepts itself.
fn carried(host: u16, from: &[&str]) -> CarriedPort {
    let binding = PortBinding { host_ip: Ipv6Addr::UNSPECIFIED.into(), ..port(host, [0; 4], 0).binding };
    let from = from.iter().map(|net| net.parse().unwrap()).collect();
    CarriedPort { binding, bridge: IfName::new("docker0").unwrap(), from }
}

fn policy() -> FirewallPolicy {
    let docker0 = bridge("docker0", "172.17.0.0/16");
    let user = bridge("br-0123456789ab", "172.18.0.0/16");
    FirewallPolicy {
        bridges: [docker0, user].into_iter().map(|bridge| (bridge.bridge.clone(), bridge)).collect(),
        endpoints: [].into(),
        published: std::iter::once(port(18080, [172, 17, 0, 4], 80))
            .chain((7000..7010).map(|row| port(row, [172, 17, 0, 4], row)))
            .collect(),
        carried: (7100..7110).map(|row| carried(row, &["fd00::/8"])).collect(),
    }
}

/// A queue in the form that this kernel takes; nobody listens to it.
fn queue() -> Option<Queue> {
    super::queue_form(5).ok().map(|form| Queue { number: 5, form })
}

fn change(remove: Vec<PolicyItem>, add: Vec<PolicyItem>) -> Transaction {
    Transaction::Change { remove, add }
}

/// Messages and bytes of the transactions that publish a port beside so many, and take it back. None of them
/// carries a verdict, for which the kernel would go through all ports.
fn one_beside(many: u16, port: impl Fn(u16) -> PolicyItem) -> [(usize, usize); 2] {
    let mut compiled = Compiled::<Elements>::new(&policy()).unwrap();
    let others: Vec<PolicyItem> = (0..many).map(|n| port(20_000 + n)).collect();
    compiled.change(&[], &others).unwrap();
    let one = [port(8081)];
    [(&[][..], &one[..]), (&one, &[])].map(|(remove, add)| {
        let Change { difference, .. } = compiled.change(remove, add).unwrap();
        let verdict = |(_, data): &(ElementKey, ElementData)| matches!(data, ElementData::Verdict(_));
        assert!(!difference.add.iter().chain(&difference.remove).any(verdict));
        let (bytes, about) = encode::difference(&difference, |_| true).finish();
        (about.len(), bytes.len())
    })
}

#[test]
fn one_port_costs_the_kernel_the_same_beside_ten_thousand() {
    for from in [&[][..], &["10.0.0.0/8", "192.0.2.0/24"]] {
        // In a row with the same ports inside they are a range, with others they are single.
        for off in [0, 9] {
            let published = |host| {
                let from = from.iter().map(|net| net.parse().unwrap()).collect();
                PolicyItem::Port(PublishedPort { from, ..port(host, [172, 17, 0, 4], host + off) })
            };
            assert_eq!(one_beside(10_000, published), one_beside(1, published));
            assert_eq!(one_beside(1, published)[0].0, 2, "an element to lead there and one to open the way");
        }
    }
    for (from, elements) in [(&[][..], 1), (&["fd00::/8"], 3)] {
        for step in [1, 2] {
            let carried = |host: u16| PolicyItem::Carried(carried((host - 8081) * step + 8081, from));
            assert_eq!(one_beside(10_000, carried), one_beside(1, carried));
            assert_eq!(one_beside(1, carried)[0].0, elements);
        }
    }
}

/// What nft 1.0.6 and iptables-nft 1.8.9 send for it, as strace shows it.
#[test]
fn a_queue_is_told_as_others_tell_it() {
    let bytes = |form| {
        let rule = Rule { statements: vec![Statement::Queue(Queue { number: 5, form })], comment: "" };
        let mut writer = super::wire::Writer::default();
        super::expr::rule(&mut writer, &rule, TableFamily::Inet);
        writer.into_bytes()
    };
    let native = b"\x24\x00\x01\x80\x0a\x00\x01\x00queue\x00\x00\x00\x14\x00\x02\x80\
        \x06\x00\x01\x00\x00\x05\x00\x00\x06\x00\x02\x00\x00\x01\x00\x00";
    assert_eq!(bytes(QueueForm::Native), native);
    let target = b"\x34\x00\x01\x80\x0b\x00\x01\x00target\x00\x00\x24\x00\x02\x80\
        \x0c\x00\x01\x00NFQUEUE\x00\x08\x00\x02\x00\x00\x00\x00\x03\
        \x0c\x00\x03\x00\x05\x00\x01\x00\x00\x00\x00\x00";
    assert_eq!(bytes(QueueForm::Xtables), target);
}

#[test]
fn debians_nft_lists_what_we_made() {
    in_namespace(|| {
        let firewall = NftFirewall::open(None, queue()).unwrap();
        firewall.apply(&Transaction::Replace(policy())).unwrap();
        let listing = output("nft list ruleset");
        eprintln!("{listing}");
        assert!(listing.contains("tcp . 18080 : 172.17.0.4 . 80"), "{listing}");
        assert!(listing.contains("br-0123456789ab"), "{listing}");
        assert!(listing.contains("masquerade"), "{listing}");
        assert!(listing.contains("ct state established,related accept"), "{listing}");
        assert_eq!(firewall.verify().unwrap(), Some(policy()));
    });
}

/// The text that people read and the messages that the kernel gets are two translations of one tree.
#[test]
fn the_text_and_the_messages_say_the_same() {
    let listing = |load: fn()| {
        let (send, receive) = std::sync::mpsc::channel();
        in_namespace(move || {
            load();
            let listing = output("nft -s list table inet portolan; nft -s list table bridge portolan");
            let _ = send.send(listing.lines().filter(|line| !is_owner(line)).collect::<Vec<_>>().join("\n"));
        });
        receive.recv().ok()
    };
    let Some(ours) = listing(|| {
        let firewall = NftFirewall::open(None, queue()).unwrap();
        firewall.apply(&Transaction::Replace(policy())).unwrap();
        // Leaves without its owner, as another process would see it.
    }) else {
        return;
    };
    let text = listing(|| {
        let text = render(&Compiled::<Elements>::new(&policy()).unwrap(), queue());
        let text: String = text.split_inclusive('\n').filter(|line| !is_beyond_nft(line)).collect();
        let mut nft =
            Command::new("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(nft.stdin.as_mut().unwrap(), text.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{text}");
    });
    let (ours, text) = (normalised(&ours), normalised(&text.unwrap()));
    for (ours, text) in ours.iter().zip(&text) {
        assert_eq!(ours, text);
    }
    assert_eq!(ours[text.len()..], [""; 0], "and no more");
    assert_eq!(ours.len(), text.len());
}

/// Elements come in the order of a hash: sorted, the rest as it is.
fn normalised(listing: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut elements: Option<Vec<String>> = None;
    for line in listing.lines().map(str::trim) {
        let (begun, line) = match line.strip_prefix("elements = {") {
            Some(rest) => (true, rest),
            None => (elements.is_some(), line),
        };
        if !begun {
            lines.push(line.to_owned());
            continue;
        }
        let found = elements.get_or_insert_default();
        let pieces = line.trim_end_matches('}').split(',').map(str::trim).filter(|piece| !piece.is_empty());
        found.extend(pieces.map(str::to_owned));
        if line.ends_with('}') {
            found.sort();
            lines.append(found);
            elements = None;
        }
    }
    lines
}

/// What only an owned table's listing has.
/// What nft 1.0.6 cannot read: the target of a neighbour advertisement, and translation by a map of
/// intervals; and what not every kernel takes from it, a queue. The packet tests hold these.
fn is_beyond_nft(line: &str) -> bool {
    let beyond = [
        "icmpv6 taddr",
        "@th,64,128",
        "@published4_from",
        "@published6_from",
        "@ranges4",
        "@ranges6",
        "queue",
        "NFQUEUE",
    ];
    beyond.iter().any(|words| line.contains(words))
}

/// Lines that are left out of the comparison: the owner's flags, and what Debian's nft has no word for.
fn is_owner(line: &str) -> bool {
    // Where the queue is a target of iptables, nft and the library of those warn of it.
    let warning = line.starts_with("# ") || line.starts_with("libxtables");
    warning || line.trim().starts_with("flags") || line.trim().is_empty() || is_beyond_nft(line)
}

#[test]
fn a_strangers_flush_leaves_our_table() {
    in_namespace(|| {
        let firewall = NftFirewall::open(None, None).unwrap();
        firewall.apply(&Transaction::Replace(policy())).unwrap();
        output("nft flush ruleset");
        assert!(output("nft list ruleset").contains("18080"));
        assert_eq!(firewall.verify().unwrap(), Some(policy()));
        drop(firewall);

        let next = NftFirewall::open(None, None).unwrap();
        assert_eq!(next.verify().unwrap(), None);
        next.apply(&Transaction::Replace(policy())).unwrap();
        output("nft flush ruleset");
        assert!(output("nft list ruleset").contains("18080"));
    });
}

/// A descriptor of the owner's socket is enough, and the next process goes on with it: also where the one
/// before it left answers unread.
#[test]
fn a_table_stays_owned_while_somebody_keeps_its_socket() {
    in_namespace(|| {
        let firewall = NftFirewall::open(None, None).unwrap();
        firewall.apply(&Transaction::Replace(policy())).unwrap();
        let kept = firewall.owner();
        let address = firewall.port();
        drop(firewall);
        output("nft flush ruleset");
        assert!(output("nft list ruleset").contains("18080"), "in between");

        let next = NftFirewall::open(kept, None).unwrap();
        assert_eq!(next.port(), address);
        next.apply(&Transaction::Replace(policy())).unwrap();
        assert_eq!(next.verify().unwrap(), Some(policy()));
        let second = PolicyItem::Port(port(18081, [172, 17, 0, 4], 80));
        next.apply(&change(vec![], vec![second])).unwrap();
        output("nft flush ruleset");
        assert!(output("nft list ruleset").contains("18081"));

        let not_it = std::fs::File::open("/dev/null").unwrap().into();
        let another = NftFirewall::open(Some(not_it), None).unwrap();
        assert_ne!(another.port(), address);
    });
}

#[test]
fn a_change_is_its_elements_and_can_be_taken_back() {
    in_namespace(|| {
        let firewall = NftFirewall::open(None, None).unwrap();
        firewall.apply(&Transaction::Replace(policy())).unwrap();
        let second = PolicyItem::Port(port(18081, [172, 17, 0, 4], 80));
        firewall.apply(&change(vec![], vec![second.clone()])).unwrap();
        let listing = output("nft list ruleset");
        assert!(listing.contains("18081"), "{listing}");
        firewall.apply(&change(vec![second], vec![])).unwrap();
        let listing = output("nft list ruleset");
        assert!(!listing.contains("18081") && listing.contains("172.17.0.4 . tcp . 80"), "{listing}");
        firewall.apply(&Transaction::Clear).unwrap();
        let listing = output("nft list ruleset");
        assert!(!listing.contains("table inet portolan {") && !listing.contains("bridge"), "{listing}");
    });
}

#[test]
fn a_thousand_ports_are_a_few_messages() {
    in_namespace(|| {
        let firewall = NftFirewall::open(None, None).unwrap();
        firewall.apply(&Transaction::Replace(policy())).unwrap();
        // The most elements: in a row they were one.
        let many: Vec<PolicyItem> =
            (20000..30000).map(|host| PolicyItem::Port(port(host, [172, 17, 0, 4], host + 1))).collect();
        let start = std::time::Instant::now();
        firewall.apply(&change(vec![], many.clone())).unwrap();
        eprintln!("10000 ports: {:?}", start.elapsed());
        let one = PolicyItem::Port(port(19999, [172, 17, 0, 5], 80));
        let start = std::time::Instant::now();
        firewall.apply(&change(vec![], vec![one.clone()])).unwrap();
        eprintln!("one more: {:?}", start.elapsed());
        let again: Vec<PolicyItem> =
            (20000..40000).step_by(2).map(|host| PolicyItem::Carried(carried(host, &[]))).collect();
        firewall.apply(&change(vec![], again.clone())).unwrap();
        let one_carried = PolicyItem::Carried(carried(19_999, &[]));
        let start = std::time::Instant::now();
        firewall.apply(&change(vec![], vec![one_carried.clone()])).unwrap();
        eprintln!("one more that is carried, beside as many: {:?}", start.elapsed());
        firewall.apply(&change(vec![one_carried], vec![])).unwrap();
        firewall.apply(&change(again, vec![])).unwrap();
        firewall.apply(&change(many, vec![])).unwrap();
        firewall.apply(&change(vec![one], vec![])).unwrap();
        assert_eq!(firewall.verify().unwrap(), Some(policy()));
    });
}

#[test]
fn where_nobody_keeps_our_table_drift_is_seen_and_heals() {
    in_namespace(|| {
        let firewall = NftFirewall::open_with(0).unwrap();
        firewall.apply(&Transaction::Replace(policy())).unwrap();
        assert_eq!(firewall.verify().unwrap(), Some(policy()));
        output("nft flush ruleset");
        assert_eq!(firewall.verify().unwrap(), None);
        let next = PolicyItem::Port(port(18081, [172, 17, 0, 5], 81));
        firewall.apply(&change(vec![], vec![next])).unwrap();
        let listing = output("nft list ruleset");
        assert!(listing.contains("18080") && listing.contains("18081"), "{listing}");
        assert!(firewall.verify().unwrap().is_some());
    });
}

#[test]
fn dns_redirect_is_replaced_as_a_whole() {
    in_namespace(|| {
        assert!(!has_dns_redirect().unwrap());
        redirect_dns(4000, 4001).unwrap();
        redirect_dns(5000, 5001).unwrap();
        let listing = output("nft list table ip portolan-dns");
        eprintln!("{listing}");
        assert!(listing.contains("udp dport 53 udp dport set 5000"), "{listing}");
        assert!(listing.contains("tcp sport 5001 tcp sport set 53"), "{listing}");
        assert!(!listing.contains("4000"), "{listing}");
        assert!(has_dns_redirect().unwrap());
    });
}

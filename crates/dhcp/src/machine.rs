//! The client's states (RFC 2131, figure 5), without sockets, clocks or chance.
//!
//! ```text
//!              start                     resume
//!        new  /     \ with an address      |
//!            v       v                     v
//!      Selecting   Rebooting ---ACK----> Bound --T1--> Renewing --T2--> Rebinding
//!       |     ^        |                  ^ ^             |                |
//!     OFFER  NAK,    NAK, silence         | +----ACK------+------ACK-------+
//!       v   silence    |                  |               NAK, end of the lease: lost,
//!      Requesting <----+ (by Selecting)   |               and Selecting again
//!           +-------------ACK-------------+
//! ```
//!
//! Between an ACK of a new address and `Bound` it is `Probing`: ARP asks whether somebody has the address
//! (RFC 5227). If so it is declined, and `Pausing` comes before the next discovery.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use portolan_netcore::model::{DhcpLease, DhcpRoute, MacAddr};

/// How often a server that made an offer is asked for it before others are.
const MAX_REQUESTS: u32 = 4;
/// How often the old address is asked for before a new one is.
const MAX_REBOOTS: u32 = 2;
/// Least time between two requests for a renewal (RFC 2131, section 4.4.5).
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// How often ARP asks for an address before it is used, and how long it waits for each answer. RFC 5227 takes
/// seconds to allow for links that come up slowly; here the link is up, and a container waits to start.
const PROBES: u32 = 2;
const PROBE_PAUSE: Duration = Duration::from_millis(150);
/// How long to leave servers alone after declining an address: RFC 2131, section 3.1, wants ten seconds lest
/// the network be flooded. The first few are let off lightly, since a container waits to start.
const FEW_CONFLICTS: u32 = 3;
const SHORT_DECLINE_PAUSE: Duration = Duration::from_secs(1);
const DECLINE_PAUSE: Duration = Duration::from_secs(10);
/// A lease this short is taken for this long: no server can keep the client busy.
const LEAST_LEASE: u32 = 4;

/// What the client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discover,
    Request,
    Decline,
    Release,
}

/// A message to be sent; the wire adds who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    pub(crate) xid: u32,
    /// Seconds since the exchange began.
    pub(crate) secs: u16,
    /// The address that the client has; unspecified if none.
    pub(crate) ciaddr: Ipv4Addr,
    /// Option 50.
    pub(crate) requested: Option<Ipv4Addr>,
    /// Option 54.
    pub(crate) server: Option<Ipv4Addr>,
    /// To this server alone; to everybody if none.
    pub(crate) to: Option<(Ipv4Addr, MacAddr)>,
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Offer,
    Ack,
    Nak,
}

/// A server's message, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) verdict: Verdict,
    pub(crate) xid: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) server_mac: MacAddr,
    pub(crate) mask: Option<Ipv4Addr>,
    pub(crate) routers: Vec<Ipv4Addr>,
    /// Option 121: (destination, next hop), the latter unspecified on the link itself.
    pub(crate) routes: Vec<(Ipv4Net, Ipv4Addr)>,
    pub(crate) dns: Vec<Ipv4Addr>,
    /// Options 15 and 119.
    pub(crate) domains: Vec<String>,
    pub(crate) mtu: Option<u16>,
    /// Seconds; all ones is for ever.
    pub(crate) lease: Option<u32>,
    pub(crate) t1: Option<u32>,
    pub(crate) t2: Option<u32>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Send(Ask),
    /// Ask by ARP who has the address; whoever answers is told to [`Machine::handle_conflict`].
    Probe(Ipv4Addr),
    /// The address may be used, as the lease says.
    Bound(DhcpLease),
    /// The address must not be used any more.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Selecting,
    Requesting { address: Ipv4Addr, server: Ipv4Addr },
    Rebooting(Ipv4Addr),
    Probing(Box<DhcpLease>),
    Pausing,
    Bound,
    Renewing,
    Rebinding,
}

/// One lease's state. Times are since the Unix epoch.
#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    xid: u32,
    attempt: u32,
    begun: Duration,
    deadline: Option<Duration>,
    lease: Option<DhcpLease>,
    /// The address to ask for in a discovery.
    wanted: Option<Ipv4Addr>,
    /// Addresses declined since there was a lease.
    conflicts: u32,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// Asks for the address it had, or for any.
    pub(crate) fn start(previous: Option<Ipv4Addr>, xid: u32, now: Duration) -> Self {
        let mut machine = Self {
            phase: previous.map_or(Phase::Selecting, Phase::Rebooting),
            xid,
            attempt: 0,
            begun: now,
            deadline: None,
            lease: None,
            wanted: previous,
            conflicts: 0,
            outputs: VecDeque::new(),
        };
        machine.transmit(now);
        machine
    }

    /// Goes on with a lease that was had before: whatever is due is done at the first time-out.
    pub(crate) fn resume(lease: DhcpLease, xid: u32, now: Duration) -> Self {
        let mut machine = Self {
            phase: Phase::Bound,
            xid,
            attempt: 0,
            begun: now,
            deadline: until(lease.renew_at),
            wanted: Some(lease.address.addr()),
            lease: Some(lease),
            conflicts: 0,
            outputs: VecDeque::new(),
        };
        machine.handle_timeout(now);
        machine
    }

    /// When [`Machine::handle_timeout`] has something to do; never if none.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    pub(crate) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// An answer is expected.
    pub(crate) fn is_waiting(&self) -> bool {
        self.phase != Phase::Bound
    }

    /// The address that ARP is asking for.
    pub(crate) fn probed(&self) -> Option<Ipv4Addr> {
        match &self.phase {
            Phase::Probing(lease) => Some(lease.address.addr()),
            _ => None,
        }
    }

    /// Somebody else has the address that ARP is asking for: its server is told not to lend it.
    pub(crate) fn handle_conflict(&mut self, now: Duration) {
        let Phase::Probing(lease) = &self.phase else { return };
        let (address, server) = (lease.address.addr(), lease.server);
        self.outputs.push_back(Output::Send(Ask {
            kind: Kind::Decline,
            xid: self.xid,
            secs: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: Some(address),
            server: Some(server),
            to: None,
        }));
        self.wanted = None;
        self.phase = Phase::Pausing;
        let few = self.conflicts < FEW_CONFLICTS;
        let pause = if few { SHORT_DECLINE_PAUSE } else { DECLINE_PAUSE };
        self.conflicts = self.conflicts.saturating_add(1);
        self.deadline = Some(now.saturating_add(pause));
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.phase {
            Phase::Selecting => self.transmit(now),
            Phase::Requesting { .. } if self.attempt < MAX_REQUESTS => self.transmit(now),
            Phase::Rebooting(_) if self.attempt < MAX_REBOOTS => self.transmit(now),
            Phase::Requesting { .. } | Phase::Rebooting(_) | Phase::Pausing => self.select(now),
            Phase::Probing(_) => self.probe(now),
            Phase::Bound => {
                self.begin(now);
                self.extend(now);
            }
            Phase::Renewing | Phase::Rebinding => self.extend(now),
        }
    }

    pub(crate) fn handle_reply(&mut self, reply: &Reply, now: Duration) {
        if reply.xid != self.xid {
            return;
        }
        match (&self.phase, reply.verdict) {
            (Phase::Selecting, Verdict::Offer) => {
                let Some(server) = reply.server.filter(|_| usable(reply.address)) else { return };
                self.phase = Phase::Requesting { address: reply.address, server };
                self.attempt = 0;
                self.transmit(now);
            }
            (Phase::Requesting { server, .. }, Verdict::Ack | Verdict::Nak)
                if reply.server.is_some_and(|other| other != *server) => {}
            (Phase::Selecting | Phase::Probing(_) | Phase::Pausing | Phase::Bound, _)
            | (_, Verdict::Offer) => {}
            (_, Verdict::Ack) => self.bind(reply, now),
            (_, Verdict::Nak) => {
                // Whatever it was that we wanted is not to be had.
                self.wanted = None;
                self.lose();
                self.select(now);
            }
        }
    }

    /// Gives the address back; nobody is waited for.
    pub(crate) fn release(&mut self) -> Option<Ask> {
        let lease = self.lease.take()?;
        Some(Ask {
            kind: Kind::Release,
            xid: self.next_xid(),
            secs: 0,
            ciaddr: lease.address.addr(),
            requested: None,
            server: Some(lease.server),
            to: Some((lease.server, lease.server_mac)),
        })
    }

    /// A new exchange has a number of its own.
    fn begin(&mut self, now: Duration) {
        self.next_xid();
        self.begun = now;
        self.attempt = 0;
    }

    fn next_xid(&mut self) -> u32 {
        // Odd: all numbers come before one comes again.
        self.xid = self.xid.wrapping_add(0x9e37_79b9);
        self.xid
    }

    fn select(&mut self, now: Duration) {
        self.begin(now);
        self.phase = Phase::Selecting;
        self.transmit(now);
    }

    fn lose(&mut self) {
        if self.lease.take().is_some() {
            self.outputs.push_back(Output::Lost);
        }
    }

    /// Asks for more time: the server, then anybody, until the lease ends.
    fn extend(&mut self, now: Duration) {
        let Some(lease) = &self.lease else { return self.select(now) };
        let (rebind, end) = (until(lease.rebind_at), until(lease.expires_at));
        let passed = |time: Option<Duration>| time.is_some_and(|time| now >= time);
        if passed(end) {
            self.lose();
            return self.select(now);
        }
        let (phase, next) = if passed(rebind) { (Phase::Rebinding, end) } else { (Phase::Renewing, rebind) };
        self.phase = phase;
        self.transmit(now);
        self.deadline = next.map(|next| {
            let half = next.saturating_sub(now) / 2;
            next.min(now.saturating_add(half.max(RENEWAL_PAUSE)))
        });
    }

    fn transmit(&mut self, now: Duration) {
        let held = self.lease.as_ref().map(|lease| (lease.address.addr(), (lease.server, lease.server_mac)));
        let (kind, ciaddr, requested, server, to) = match (&self.phase, held) {
            (Phase::Requesting { address, server }, _) => {
                (Kind::Request, None, Some(*address), Some(*server), None)
            }
            (Phase::Rebooting(address), _) => (Kind::Request, None, Some(*address), None, None),
            (Phase::Renewing, Some((address, server))) => {
                (Kind::Request, Some(address), None, None, Some(server))
            }
            (Phase::Rebinding, Some((address, _))) => (Kind::Request, Some(address), None, None, None),
            _ => (Kind::Discover, None, self.wanted, None, None),
        };
        let secs = u16::try_from(now.saturating_sub(self.begun).as_secs()).unwrap_or(u16::MAX);
        let ciaddr = ciaddr.unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.outputs.push_back(Output::Send(Ask {
            kind,
            xid: self.xid,
            secs,
            ciaddr,
            requested,
            server,
            to,
        }));
        self.deadline = Some(now.saturating_add(self.patience()));
        self.attempt += 1;
    }

    /// How long an answer may take: longer each time, and never quite the same for two clients, lest
    /// those that start together ask together (RFC 2131, section 4.1).
    fn patience(&self) -> Duration {
        let seconds = match self.attempt {
            0 => 1,
            1 => 2,
            2..=4 => 4,
            5..=8 => 16,
            _ => 64,
        };
        let spread = self.xid.rotate_left(self.attempt.wrapping_mul(7) % 32) & 0x1ff;
        Duration::from_secs(seconds) + Duration::from_millis(u64::from(spread)) - Duration::from_millis(256)
    }

    fn bind(&mut self, reply: &Reply, now: Duration) {
        // An acknowledgement without a time lends nothing (RFC 2131, table 3).
        let (Some(seconds), true) = (reply.lease, usable(reply.address)) else { return };
        let known = match &self.phase {
            Phase::Requesting { server, .. } => Some(*server),
            _ => self.lease.as_ref().map(|lease| lease.server),
        };
        let Some(server) = reply.server.or(known) else { return };
        let (gateway, routes) = ways(reply);
        let [renew_at, rebind_at, expires_at] = times(seconds, reply.t1, reply.t2, now);
        let lease = DhcpLease {
            address: with_prefix(reply.address, reply.mask),
            server,
            server_mac: reply.server_mac,
            gateway,
            routes,
            domains: reply.domains.clone(),
            dns: reply.dns.iter().copied().filter(|address| !address.is_unspecified()).collect(),
            // Less than 68 bytes is no MTU (RFC 2132, section 5.1).
            mtu: reply.mtu.filter(|mtu| *mtu >= 68).map(u32::from),
            renew_at,
            rebind_at,
            expires_at,
        };
        if self.lease.as_ref().is_some_and(|held| held.address.addr() == reply.address) {
            return self.settle(lease);
        }
        self.phase = Phase::Probing(Box::new(lease));
        self.attempt = 0;
        self.probe(now);
    }

    /// Asks by ARP; if that was done often enough, the address is free.
    fn probe(&mut self, now: Duration) {
        let Phase::Probing(lease) = &self.phase else { return };
        if self.attempt == PROBES {
            let lease = (**lease).clone();
            return self.settle(lease);
        }
        self.outputs.push_back(Output::Probe(lease.address.addr()));
        self.attempt += 1;
        self.deadline = Some(now.saturating_add(PROBE_PAUSE));
    }

    fn settle(&mut self, lease: DhcpLease) {
        self.phase = Phase::Bound;
        self.conflicts = 0;
        self.deadline = until(lease.renew_at);
        self.wanted = Some(lease.address.addr());
        self.lease = Some(lease.clone());
        self.outputs.push_back(Output::Bound(lease));
    }
}

fn until(time: u64) -> Option<Duration> {
    (time != DhcpLease::NEVER).then(|| Duration::from_secs(time))
}

/// An address that a host may have.
fn usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || address.is_broadcast())
}

/// T1, T2 and the end. Those of the server if they are in order, else half and seven eighths
/// (RFC 2131, section 4.4.5).
fn times(seconds: u32, t1: Option<u32>, t2: Option<u32>, now: Duration) -> [u64; 3] {
    if seconds == u32::MAX {
        return [DhcpLease::NEVER; 3];
    }
    let seconds = seconds.max(LEAST_LEASE);
    let t2 = t2.filter(|t2| (2..seconds).contains(t2)).unwrap_or(seconds - seconds / 8 - 1);
    let t1 = t1.filter(|t1| (1..t2).contains(t1)).unwrap_or((seconds / 2).min(t2 - 1));
    [t1, t2, seconds].map(|after| now.as_secs() + u64::from(after))
}

/// The default route's next hop and the other routes. Where there is option 121, routers do not count
/// (RFC 3442).
fn ways(reply: &Reply) -> (Option<Ipv4Addr>, Vec<DhcpRoute>) {
    let hop = |gateway: Ipv4Addr| Some(gateway).filter(|gateway| !gateway.is_unspecified());
    if reply.routes.is_empty() {
        return (reply.routers.iter().copied().find(|router| usable(*router)), Vec::new());
    }
    let is_default = |net: &Ipv4Net| net.prefix_len() == 0;
    let gateway = reply.routes.iter().find(|(net, _)| is_default(net)).and_then(|(_, gateway)| hop(*gateway));
    let others = reply.routes.iter().filter(|(net, _)| !is_default(net));
    let route =
        |(net, gateway): &(Ipv4Net, Ipv4Addr)| DhcpRoute { destination: net.trunc(), gateway: hop(*gateway) };
    (gateway, others.map(route).collect())
}

/// Without a mask, that of the address's class (RFC 2132, section 3.3 leaves no better guess).
fn with_prefix(address: Ipv4Addr, mask: Option<Ipv4Addr>) -> Ipv4Net {
    let by_class = match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    };
    let named = mask.and_then(|mask| ipnet::ipv4_mask_to_prefix(mask).ok()).filter(|length| *length > 0);
    Ipv4Net::new_assert(address, named.unwrap_or(by_class))
}

#[cfg(test)]
mod tests;

//! Waiting for links to go.

use std::time::{Duration, Instant};

use portolan_netcore::model::IfName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::netlink::{NetlinkError, Protocol, Socket};
use crate::rt::RTNLGRP_LINK;

/// Waits until the calling thread's namespace has none of these links; false if it still has one after
/// `limit`. It sleeps until the kernel tells of a change of a link.
pub fn links_gone(names: &[IfName], limit: Duration) -> Result<bool, NetlinkError> {
    let events = Socket::open(Protocol::Route)?;
    // First the subscription, then the look: a link that goes in between makes an event.
    let mut left = still_there(&events, names.iter().collect())?;
    if left.is_empty() {
        return Ok(true);
    }
    events.join(RTNLGRP_LINK)?;
    left = still_there(&events, left)?;
    let deadline = Instant::now() + limit;
    while !left.is_empty() {
        let Some(rest) = deadline.checked_duration_since(Instant::now()) else { return Ok(false) };
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
        match poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(NetlinkError::Io { operation: "poll", source: errno.into() }),
        }
        match events.receive(|_| {}) {
            // Events that did not fit the queue are lost; looking again makes up for them.
            Err(error) if error.errno() != Some(libc::ENOBUFS) => return Err(error),
            _ => left = still_there(&events, left)?,
        }
    }
    Ok(true)
}

fn still_there<'a>(socket: &Socket, names: Vec<&'a IfName>) -> Result<Vec<&'a IfName>, NetlinkError> {
    let mut left = Vec::new();
    for name in names {
        if socket.index_of(name.as_str())?.is_some() {
            left.push(name);
        }
    }
    Ok(left)
}

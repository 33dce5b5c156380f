//! The elements of sets and maps.

use portolan_netcore::foreign::{Element, Family, Set, Verdict};

use super::expr::read_verdict;
use super::{NFGENMSG_LEN, SUBSYSTEM, number};
use crate::netlink::{Attrs, Batch, NetlinkError, Protocol, Socket, flags};

const GET_SET: u16 = SUBSYSTEM | 10;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const TABLE: u16 = 1;
const NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const INTERVAL: u32 = 0x4;
const CONCATENATED: u32 = 0x80;
const ELEMENTS: u16 = 3;
const KEY: u16 = 1;
const DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const INTERVAL_END: u32 = 1;
const CATCH_ALL: u32 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;

/// Sets with more elements than this (block lists) are not looked at one by one.
const MOST: usize = 4096;

/// One element as the kernel gives it: intervals are a beginning and, one behind the last, an end.
struct Raw {
    key: Vec<u8>,
    end: bool,
    verdict: Option<Verdict>,
}

/// Reads a set. One that is gone by now, or whose elements we cannot compare, is partial.
pub(super) fn read(
    socket: &mut Socket,
    family: Family,
    table: &str,
    name: &str,
) -> Result<Set, NetlinkError> {
    let unknown = Set { elements: Vec::new(), partial: true };
    let Some(kind) = set_flags(family, table, name)? else { return Ok(unknown) };
    if kind & INTERVAL != 0 && kind & CONCATENATED != 0 {
        return Ok(unknown);
    }
    let mut batch = Batch::new();
    let header = [number(family), 0, 0, 0];
    batch.message(GET_ELEMENTS, flags::DUMP, &header).attr_text(TABLE, table).attr_text(NAME, name);
    let read = socket.dump(
        &mut batch,
        || (Vec::new(), false),
        |(elements, partial), reply| {
            let attrs = reply.attrs(NFGENMSG_LEN);
            for element in attrs.get(ELEMENTS).into_iter().flat_map(|list| list.nested()) {
                match raw(&element.nested()) {
                    Some(element) if elements.len() < MOST => elements.push(element),
                    _ => *partial = true,
                }
            }
        },
    );
    let (elements, partial) = match read {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(unknown),
        read => read?,
    };
    if elements.len() == MOST && kind & INTERVAL != 0 {
        // A beginning without its end would be taken for more than it is.
        return Ok(unknown);
    }
    Ok(Set { elements: if kind & INTERVAL != 0 { ranges(elements) } else { single(elements) }, partial })
}

fn set_flags(family: Family, table: &str, name: &str) -> Result<Option<u32>, NetlinkError> {
    // A set that is not there makes an error, after which a socket is not used again.
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut batch = Batch::new();
    let header = [number(family), 0, 0, 0];
    batch.message(GET_SET, 0, &header).attr_text(TABLE, table).attr_text(NAME, name);
    let mut found = None;
    let asked = socket.transact_with(&mut batch, |reply| {
        let flags = reply.attrs(NFGENMSG_LEN).get(SET_FLAGS).and_then(|flags| flags.be32());
        found = Some(flags.unwrap_or(0));
    });
    match asked {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        other => other.map(|()| found),
    }
}

fn raw(element: &Attrs<'_>) -> Option<Raw> {
    let flags = element.get(ELEMENT_FLAGS).and_then(|flags| flags.be32()).unwrap_or(0);
    if flags & CATCH_ALL != 0 {
        return None;
    }
    let key = element.get(KEY)?.nested().get(VALUE)?.payload.to_vec();
    let verdict = element.get(DATA).and_then(|data| data.nested().get(VERDICT));
    let verdict = verdict.and_then(|verdict| read_verdict(verdict.nested()));
    Some(Raw { key, end: flags & INTERVAL_END != 0, verdict })
}

fn single(elements: Vec<Raw>) -> Vec<Element> {
    let element = |raw: Raw| Element { least: raw.key, greatest: None, verdict: raw.verdict };
    elements.into_iter().map(element).collect()
}

fn ranges(mut elements: Vec<Raw>) -> Vec<Element> {
    // Where one ends and the next begins at once, the end comes first.
    elements.sort_by(|a, b| (&a.key, !a.end).cmp(&(&b.key, !b.end)));
    let mut ranges: Vec<Element> = Vec::new();
    for raw in elements {
        if raw.end {
            if let Some(open) = ranges.last_mut() {
                open.greatest = Some(before(&raw.key));
            }
        } else {
            let greatest = Some(vec![0xff; raw.key.len()]);
            ranges.push(Element { least: raw.key, greatest, verdict: raw.verdict });
        }
    }
    ranges
}

/// The value before this one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_and_ends_make_ranges() {
        let raw = |key: [u8; 2], end| Raw { key: key.to_vec(), end, verdict: None };
        let found = ranges(vec![
            raw([9, 0], false),
            raw([0, 0], true),
            raw([2, 0], true),
            raw([2, 0], false),
            raw([1, 0], false),
            raw([3, 0], true),
        ]);
        let found: Vec<_> = found.into_iter().map(|one| (one.least, one.greatest.unwrap())).collect();
        let range = |least: [u8; 2], greatest: [u8; 2]| (least.to_vec(), greatest.to_vec());
        assert_eq!(found, [range([1, 0], [1, 255]), range([2, 0], [2, 255]), range([9, 0], [255, 255])]);
    }
}

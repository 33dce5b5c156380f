//! One transaction of nf_tables: messages between a batch's begin and end, of which the kernel takes
//! all or none.

use std::fmt;

use portolan_netcore::firewall::ruleset::SetName;

use super::consts::{
    NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFPROTO_UNSPEC, NLM_F_ACK, NLM_F_REQUEST,
};
use super::wire::{Head, Writer};

/// What a message of a batch is about, to name the one that the kernel refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum About {
    AddTable(&'static str),
    DeleteTable(&'static str),
    Chain(&'static str),
    Set(SetName),
    Rule(&'static str, usize),
    AddElements(SetName),
    DeleteElements(SetName),
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(name) => write!(f, "add table {name}"),
            Self::DeleteTable(name) => write!(f, "delete table {name}"),
            Self::Chain(name) => write!(f, "add chain {name}"),
            Self::Set(name) => write!(f, "add set {name}"),
            Self::Rule(chain, index) => write!(f, "add rule {} of chain {chain}", index + 1),
            Self::AddElements(set) => write!(f, "add elements of {set}"),
            Self::DeleteElements(set) => write!(f, "delete elements of {set}"),
        }
    }
}

/// A batch under construction. Sequence numbers count from 1; 0 is the begin message.
#[derive(Debug)]
pub(super) struct Batch {
    writer: Writer,
    about: Vec<About>,
    last_start: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { writer: Writer::default(), about: Vec::new(), last_start: 0 };
        batch.border(NFNL_MSG_BATCH_BEGIN, 0);
        batch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.about.is_empty()
    }

    /// Adds a message; `body` writes its attributes.
    pub(super) fn push(
        &mut self,
        about: About,
        kind: u16,
        family: u8,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) {
        self.about.push(about);
        self.last_start = self.writer.len();
        let head = Head {
            kind: (NFNL_SUBSYS_NFTABLES << 8) | kind,
            flags: NLM_F_REQUEST | flags,
            sequence: self.about.len() as u32,
            family,
            resource: 0,
        };
        self.writer.message(head, body);
    }

    /// Ends the batch: its bytes, and what each sequence number is about. The last message asks for
    /// an acknowledgement, which comes after the commit.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<About>) {
        self.border(NFNL_MSG_BATCH_END, self.about.len() as u32 + 1);
        self.unfinished()
    }

    /// The same without its end: the kernel says what it thinks of it and forgets it again, as for `nft --check`.
    pub(super) fn unfinished(self) -> (Vec<u8>, Vec<About>) {
        let flags_at = self.last_start + 6;
        let mut bytes = self.writer.into_bytes();
        let flags = u16::from_ne_bytes([bytes[flags_at], bytes[flags_at + 1]]) | NLM_F_ACK;
        bytes[flags_at..flags_at + 2].copy_from_slice(&flags.to_ne_bytes());
        (bytes, self.about)
    }

    fn border(&mut self, kind: u16, sequence: u32) {
        let family = NFPROTO_UNSPEC;
        let head = Head { kind, flags: NLM_F_REQUEST, sequence, family, resource: NFNL_SUBSYS_NFTABLES };
        self.writer.message(head, |_| {});
    }
}

//! Building requests.

use super::{HEADER_LEN, align, flags};

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// One or more requests that go to the kernel in one `sendmsg`. The kernel carries them out in order,
/// each by itself unless their family says otherwise (nf_tables batches are all or nothing).
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) messages: Vec<Entry>,
    pub(super) oversized: bool,
}

/// What [`Socket`](super::Socket) remembers of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) offset: usize,
    pub(super) acked: bool,
    pub(super) tolerated: &'static [i32],
}

/// The last request of a [`Batch`], to which attributes can be added.
#[derive(Debug)]
pub struct Message<'a> {
    batch: &'a mut Batch,
    offset: usize,
}

impl Batch {
    /// A batch without requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request that the kernel acknowledges. `header` is the family's own header (such as
    /// `struct ifinfomsg`), in the kernel's layout.
    pub fn message(&mut self, kind: u16, flags: u16, header: &[u8]) -> Message<'_> {
        self.push(kind, flags | super::flags::ACK, header, true)
    }

    /// Adds a request that the kernel answers only if it fails. An error of such a request ends the
    /// whole batch (nf_tables: `NFNL_MSG_BATCH_BEGIN` and `_END`, or bulk elements).
    pub fn unacked(&mut self, kind: u16, flags: u16, header: &[u8]) -> Message<'_> {
        self.push(kind, flags, header, false)
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is no request.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes so far.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes so far. Sequence numbers are zero until the batch is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn push(&mut self, kind: u16, flags: u16, header: &[u8], acked: bool) -> Message<'_> {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
        // Sequence number and port id: the socket fills in the first; the kernel is addressed by 0.
        self.bytes.extend_from_slice(&[0; 8]);
        self.messages.push(Entry { offset, acked, tolerated: &[] });
        let mut message = Message { batch: self, offset };
        message.append(header);
        message
    }
}

impl Message<'_> {
    /// Takes these errnos for success, such as ENODEV when a link is to be removed.
    pub fn tolerate(&mut self, errnos: &'static [i32]) -> &mut Self {
        if let Some(entry) = self.batch.messages.last_mut() {
            entry.tolerated = errnos;
        }
        self
    }

    /// Adds an attribute.
    pub fn attr(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let Ok(len) = u16::try_from(payload.len() + 4) else {
            self.batch.oversized = true;
            return self;
        };
        let mut head = [0; 4];
        head[..2].copy_from_slice(&len.to_ne_bytes());
        head[2..].copy_from_slice(&kind.to_ne_bytes());
        self.batch.bytes.extend_from_slice(&head);
        self.append(payload)
    }

    /// Adds an attribute of one byte.
    pub fn attr_u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attr(kind, &[value])
    }

    /// Adds an attribute of two bytes in host order.
    pub fn attr_u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute of four bytes in host order.
    pub fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute of two bytes in network order.
    pub fn attr_be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds an attribute of four bytes in network order.
    pub fn attr_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds an attribute of eight bytes in network order.
    pub fn attr_be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds a NUL-terminated text.
    pub fn attr_text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Adds an attribute that `fill` puts attributes into (`NLA_F_NESTED` set).
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_with_header(kind, &[], fill)
    }

    /// Adds an attribute that begins with a header of its own before its attributes
    /// (`VETH_INFO_PEER` begins with a `struct ifinfomsg`).
    pub fn nest_with_header(&mut self, kind: u16, header: &[u8], fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.batch.bytes.len();
        self.attr(kind | NESTED, header);
        fill(self);
        match u16::try_from(self.batch.bytes.len() - start) {
            Ok(len) => self.batch.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => self.batch.oversized = true,
        }
        self
    }

    /// Bytes of this request so far, header included.
    pub fn byte_len(&self) -> usize {
        self.batch.bytes.len() - self.offset
    }

    /// Appends bytes, pads, and brings the message length up to date.
    fn append(&mut self, bytes: &[u8]) -> &mut Self {
        self.batch.bytes.extend_from_slice(bytes);
        let padded = align(self.batch.bytes.len());
        self.batch.bytes.resize(padded, 0);
        // A message has 32 bits of length: a batch cannot get there before memory is gone.
        let len = (padded - self.offset) as u32;
        self.batch.bytes[self.offset..self.offset + 4].copy_from_slice(&len.to_ne_bytes());
        self
    }
}

const _: () = assert!(HEADER_LEN == 16);

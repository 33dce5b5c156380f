//! Reading attributes.

use super::align;

/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`, which are not part of the type.
const TYPE_MASK: u16 = 0x3fff;

/// Walks a run of attributes (`struct nlattr`). It ends at the first one that does not fit its buffer,
/// as the kernel's own `nla_ok` does.
#[derive(Clone, Debug)]
pub struct Attrs<'a>(&'a [u8]);

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'a> {
    /// Its type, without the flag bits.
    pub kind: u16,
    /// Its bytes, without header and padding.
    pub payload: &'a [u8],
}

impl<'a> Attrs<'a> {
    /// The attributes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The attributes of a message that follow its family header of `header_len` bytes.
    pub fn after(payload: &'a [u8], header_len: usize) -> Self {
        Self(payload.get(align(header_len)..).unwrap_or_default())
    }

    /// The first attribute of a type.
    pub fn get(&self, kind: u16) -> Option<Attr<'a>> {
        self.clone().find(|attr| attr.kind == kind)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let (len, kind) = match self.0 {
            [a, b, c, d, ..] => {
                (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]) & TYPE_MASK)
            }
            _ => return None,
        };
        let payload = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some(Attr { kind, payload })
    }
}

impl<'a> Attr<'a> {
    /// The first byte.
    pub fn u8(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// Two bytes in host order.
    pub fn u16(&self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    /// Four bytes in host order.
    pub fn u32(&self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// Eight bytes in host order.
    pub fn u64(&self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// Two bytes in network order.
    pub fn be16(&self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes in network order.
    pub fn be32(&self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes in network order.
    pub fn be64(&self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Text up to the first NUL or the end; `None` unless UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        let end = self.payload.iter().position(|&byte| byte == 0).unwrap_or(self.payload.len());
        std::str::from_utf8(&self.payload[..end]).ok()
    }

    /// The attributes inside.
    pub fn nested(&self) -> Attrs<'a> {
        Attrs(self.payload)
    }

    /// The payload as an array, if it has at least that many bytes.
    pub fn array<const N: usize>(&self) -> Option<[u8; N]> {
        self.payload.first_chunk().copied()
    }
}

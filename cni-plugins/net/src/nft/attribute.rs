//! Netlink attributes as nf_tables wants them: nested, numbers big-endian.

/// A growing list of attributes.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

const NESTED: u16 = 0x8000;

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// Adds what `with` adds, when there is something to add.
    pub(crate) fn optional<T>(self, value: Option<T>, with: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => with(self, value),
            None => self,
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A comment as `nft` writes and shows it: a type, a length, and a text that ends with a zero.
pub(super) fn comment(text: &str) -> Vec<u8> {
    // The kernel keeps 256 bytes; `nft` shows 127.
    let text = &text.as_bytes()[..text.len().min(250)];
    let mut bytes = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(text);
    bytes.push(0);
    bytes
}

/// The comment in a user data area, if its first entry is one.
pub(super) fn read_comment(bytes: &[u8]) -> Option<String> {
    let (&[kind, length], rest) = bytes.split_first_chunk()?;
    let text = rest.get(..usize::from(length))?.strip_suffix(&[0])?;
    if kind == 0 { String::from_utf8(text.to_vec()).ok() } else { None }
}

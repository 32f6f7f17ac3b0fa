//! D-Bus's messages as bytes (D-Bus Specification 0.43, "Message Protocol"): those few types that systemd's calls have.
//!
//! What is read is bounded and checked; who answers may be anybody who could listen at the socket's path.

use berth_cri_core::systemd::{Property, Value};

/// The largest message that is read, in bytes. systemd's answers here have some hundred.
pub(crate) const LARGEST: usize = 1 << 20;
/// The fixed beginning of a message.
pub(crate) const HEAD: usize = 16;

const LITTLE: u8 = b'l';
const VERSION: u8 = 1;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR: u8 = 4;
const REPLY_TO: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What makes no sense in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message from systemd makes no sense: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Answer,
    Error,
    Signal,
    Unknown,
}

/// Arguments in the making, with their types.
#[derive(Debug, Default)]
pub(crate) struct Body {
    signature: &'static str,
    writer: Writer,
}

impl Body {
    pub(crate) fn new(signature: &'static str) -> Self {
        Self { signature, writer: Writer::default() }
    }

    #[must_use]
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.writer.text(text);
        self
    }

    #[must_use]
    pub(crate) fn bool(mut self, value: bool) -> Self {
        self.writer.u32(u32::from(value));
        self
    }

    /// `a(sv)`
    #[must_use]
    pub(crate) fn properties(mut self, properties: &[Property]) -> Self {
        self.writer.array(8, properties, |writer, property| {
            writer.align(8);
            writer.text(&property.name);
            writer.variant(&property.value);
        });
        self
    }

    /// `a(sa(sv))` without elements.
    #[must_use]
    pub(crate) fn no_units(mut self) -> Self {
        self.writer.array(8, &[] as &[()], |_, ()| {});
        self
    }
}

/// A call's whole message. `serial` is not 0.
pub(crate) fn call(serial: u32, target: &Target<'_>, body: &Body) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes.extend([LITTLE, 1, 0, VERSION]);
    out.u32(length(body.writer.bytes.len()));
    out.u32(serial);
    let mut fields: Vec<(u8, &str, &str)> = vec![
        (PATH, "o", target.path),
        (INTERFACE, "s", target.interface),
        (MEMBER, "s", target.member),
        (DESTINATION, "s", target.destination),
    ];
    if !body.signature.is_empty() {
        fields.push((SIGNATURE, "g", body.signature));
    }
    out.array(8, &fields, |out, (code, signature, value)| {
        out.align(8);
        out.bytes.push(*code);
        out.signature(signature);
        if *signature == "g" { out.signature(value) } else { out.text(value) }
    });
    out.align(8);
    out.bytes.extend(&body.writer.bytes);
    out.bytes
}

/// Who is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

fn length(length: usize) -> u32 {
    // Messages of ours are bounded by their configurations, of 16 MiB at most.
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Bytes, each value at its alignment.
#[derive(Debug, Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// The length counts from the first element on, which may come after padding.
    fn array<T>(&mut self, element: usize, values: &[T], put: impl Fn(&mut Self, &T)) {
        self.u32(0);
        let at = self.bytes.len() - 4;
        self.align(element);
        let start = self.bytes.len();
        for value in values {
            put(self, value);
        }
        let size = length(self.bytes.len() - start).to_le_bytes();
        self.bytes[at..at + 4].copy_from_slice(&size);
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::I32(value) => self.u32(value.cast_unsigned()),
            Value::U32(value) => self.u32(*value),
            Value::I64(value) => self.u64(value.cast_unsigned()),
            Value::U64(value) => self.u64(*value),
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.array(4, texts, |writer, text| writer.text(text)),
            Value::Bytes(bytes) => self.array(1, bytes, |writer, byte| writer.bytes.push(*byte)),
            Value::U32s(numbers) => self.array(4, numbers, |writer, number| writer.u32(*number)),
        }
    }
}

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) reply_to: Option<u32>,
    pub(crate) member: String,
    pub(crate) interface: String,
    /// An error's name.
    pub(crate) error: String,
    pub(crate) signature: String,
    body: Vec<u8>,
}

/// How long a message is by its first [`HEAD`] bytes.
pub(crate) fn size(head: &[u8; HEAD]) -> Result<usize, Malformed> {
    if head[0] != LITTLE || head[3] != VERSION {
        return Err(Malformed("its version or byte order is not ours"));
    }
    let number = |at: usize| Reader { bytes: head, at }.u32().map(|number| number as usize);
    let (body, fields) = (number(4)?, number(12)?);
    let size = HEAD.saturating_add(fields).next_multiple_of(8).saturating_add(body);
    if size > LARGEST { Err(Malformed("it is larger than 1 MiB")) } else { Ok(size) }
}

/// Reads a message of [`size`].
pub(crate) fn read(bytes: &[u8]) -> Result<Message, Malformed> {
    let kind = match bytes.get(1) {
        Some(1) => Kind::Call,
        Some(2) => Kind::Answer,
        Some(3) => Kind::Error,
        Some(4) => Kind::Signal,
        _ => Kind::Unknown,
    };
    let mut reader = Reader { bytes, at: 12 };
    let end = reader.u32()? as usize;
    let end = HEAD.checked_add(end).filter(|end| *end <= bytes.len()).ok_or(Malformed("its fields are cut off"))?;
    let mut message = Message {
        kind,
        reply_to: None,
        member: String::new(),
        interface: String::new(),
        error: String::new(),
        signature: String::new(),
        body: bytes.get(end.next_multiple_of(8)..).unwrap_or_default().to_vec(),
    };
    let mut fields = Reader { bytes: &bytes[..end], at: HEAD };
    while fields.at < end {
        fields.align(8);
        let code = fields.u8()?;
        match (code, fields.signature()?) {
            (REPLY_TO, "u") => message.reply_to = Some(fields.u32()?),
            (MEMBER, "s") => message.member = fields.text()?.to_owned(),
            (INTERFACE, "s") => message.interface = fields.text()?.to_owned(),
            (ERROR, "s") => message.error = fields.text()?.to_owned(),
            (SIGNATURE, "g") => message.signature = fields.signature()?.to_owned(),
            (_, "s" | "o") => drop(fields.text()?),
            (_, "g") => drop(fields.signature()?),
            (_, "u") => drop(fields.u32()?),
            _ => return Err(Malformed("it has a field of a type that is not known")),
        }
    }
    Ok(message)
}

impl Message {
    /// Its arguments.
    pub(crate) fn arguments(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }
}

/// Values out of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed("a length is too large"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed("it ends too early"))?;
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| Malformed("it ends too early"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Also a path.
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.u32()? as usize;
        self.words(length)
    }

    pub(crate) fn signature(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::from(self.u8()?);
        self.words(length)
    }

    fn words(&mut self, length: usize) -> Result<&'a str, Malformed> {
        let words = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(words).map_err(|_| Malformed("a text is not UTF-8"))
    }
}

#[cfg(test)]
pub(crate) mod tests;

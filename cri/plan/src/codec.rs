//! Bounded binary frames: little-endian numbers, length-prefixed texts and lists, one byte an enum's variant.
//!
//! A frame starts with the version of its layout (two bytes) and the kind of its content (one), so that one kind is never
//! taken for another, and must be used up to its last byte. Decoding is total: whatever the bytes, it answers a value or a
//! [`DecodeError`], and allocates in proportion to the frame's length at most.
//!
//! Numbers of variants and the order of fields stay what they are, so that an older peer's frames, and what it left on
//! disk, can be read. What is new is a new variant, which is sent only to a peer whose Hello said that it knows it
//! ([`crate::PROTOCOL`]). A layout that must change gets a new [`Frame::LAYOUT`].

mod wire;

use std::error::Error;
use std::fmt;

use crate::container::{Container, ContainerHead, Exec, ExecHead};
use crate::message::{Exit, Failure, FromShim, ToShim};
use crate::{MAX_MESSAGE, MAX_PLAN};
use wire::{Reader, Wire};

/// The most entries of one list.
pub const MAX_ITEMS: usize = 65_536;

/// Something that travels as a frame of its own.
pub trait Frame: Wire {
    const KIND: u8;
    /// The version of its layout. No kind's has changed since protocol 1.
    const LAYOUT: u16 = 1;
    /// The largest frame, in bytes.
    const LIMIT: usize;
}

impl Frame for Container {
    const KIND: u8 = 1;
    const LIMIT: usize = MAX_PLAN;
}

impl Frame for Exec {
    const KIND: u8 = 2;
    const LIMIT: usize = MAX_PLAN;
}

impl Frame for ToShim {
    const KIND: u8 = 3;
    const LIMIT: usize = MAX_MESSAGE;
}

impl Frame for FromShim {
    const KIND: u8 = 4;
    const LIMIT: usize = MAX_MESSAGE;
}

impl Frame for Exit {
    const KIND: u8 = 5;
    const LIMIT: usize = 256;
}

impl Frame for Failure {
    const KIND: u8 = 6;
    const LIMIT: usize = 4096;
}

/// A frame that nobody would accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// The frame would have more bytes than its kind allows.
    TooLarge { limit: usize },
    /// A list has more than [`MAX_ITEMS`] entries.
    TooMany,
}

/// Bytes that are no frame of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    TooLarge {
        limit: usize,
    },
    /// The frame has another version of its kind's layout.
    Version {
        theirs: u16,
    },
    /// The frame holds something else.
    Kind,
    /// It ends in the middle, or a length points past its end.
    Truncated,
    /// It goes on after its end.
    Trailing,
    TooMany,
    /// A text is not UTF-8.
    Text,
    /// A variant, flag or number that does not exist.
    Value,
}

/// The bytes of a frame.
///
/// # Errors
/// [`EncodeError`] when the value is larger than a frame of its kind may be.
pub fn encode<T: Frame>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut writer = wire::Writer::default();
    T::LAYOUT.put(&mut writer);
    T::KIND.put(&mut writer);
    value.put(&mut writer);
    let bytes = writer.finish()?;
    if bytes.len() > T::LIMIT { Err(EncodeError::TooLarge { limit: T::LIMIT }) } else { Ok(bytes) }
}

/// The value of a frame.
///
/// # Errors
/// [`DecodeError`], whatever the bytes.
pub fn decode<T: Frame>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > T::LIMIT {
        return Err(DecodeError::TooLarge { limit: T::LIMIT });
    }
    let mut reader = open::<T>(bytes)?;
    let value = T::get(&mut reader)?;
    if reader.is_empty() { Ok(value) } else { Err(DecodeError::Trailing) }
}

/// The head of a [`Container`]'s frame, of which `bytes` are the first (at most) [`crate::MAX_HEAD`].
///
/// # Errors
/// [`DecodeError`]; `Truncated` also when the head is longer than that.
pub fn container_head(bytes: &[u8]) -> Result<ContainerHead, DecodeError> {
    let mut reader = open::<Container>(bytes)?;
    ContainerHead::get(&mut reader)
}

/// The head of an [`Exec`]'s frame, as [`container_head`].
///
/// # Errors
/// As [`container_head`].
pub fn exec_head(bytes: &[u8]) -> Result<ExecHead, DecodeError> {
    let mut reader = open::<Exec>(bytes)?;
    ExecHead::get(&mut reader)
}

fn open<T: Frame>(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let theirs = u16::get(&mut reader)?;
    if theirs != T::LAYOUT {
        return Err(DecodeError::Version { theirs });
    }
    if u8::get(&mut reader)? == T::KIND { Ok(reader) } else { Err(DecodeError::Kind) }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "larger than {limit} bytes"),
            Self::TooMany => write!(f, "a list has more than {MAX_ITEMS} entries"),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "larger than {limit} bytes"),
            Self::Version { theirs } => write!(f, "a frame of layout {theirs}, which this version does not know"),
            Self::Kind => f.write_str("a frame of another kind"),
            Self::Truncated => f.write_str("the frame ends too early"),
            Self::Trailing => f.write_str("the frame goes on after its end"),
            Self::TooMany => write!(f, "a list has more than {MAX_ITEMS} entries"),
            Self::Text => f.write_str("a text is not UTF-8"),
            Self::Value => f.write_str("a value that does not exist"),
        }
    }
}

impl Error for EncodeError {}
impl Error for DecodeError {}

#[cfg(test)]
mod tests;

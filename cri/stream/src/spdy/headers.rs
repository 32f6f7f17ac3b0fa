//! Header blocks: name and value pairs inside one zlib stream per direction.

use flate2::{Decompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;
use crate::link::Violation;

/// As much as a block may unfold to. A client's headers take some hundred bytes.
const UNFOLDED: usize = 16 * 1024;
const PAIRS: u32 = 64;
/// The longest value that a caller gets to see; longer ones count as missing.
const VALUE: usize = 256;

/// Reads the client's blocks.
#[derive(Debug)]
pub(super) struct Inflater(Decompress);

/// One block's names and values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Headers(pub(super) Vec<(String, String)>);

impl Headers {
    /// The value of a header, or "" when it is missing or no use. `name` is in lower case, as all names are.
    pub(super) fn value(&self, name: &str) -> String {
        let found = self.0.iter().find(|(found, value)| found.eq_ignore_ascii_case(name) && value.len() <= VALUE);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

impl Inflater {
    pub(super) fn new() -> Inflater {
        Inflater(Decompress::new(true))
    }

    /// Unfolds one block. After an error the connection is of no more use, since the stream's state is lost.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<Headers, Violation> {
        let bad = Violation("a header block is not zlib with SPDY's dictionary");
        let mut plain = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            if plain.len() == plain.capacity() {
                if plain.len() >= UNFOLDED {
                    return Err(Violation("a header block unfolds to more than 16 KiB"));
                }
                plain.reserve_exact(plain.len().min(UNFOLDED - plain.len()));
            }
            let (read, written) = (self.0.total_in(), plain.len());
            let result = self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - read).map_err(|_| bad)?;
            rest = rest.get(taken..).ok_or(bad)?;
            match result {
                Ok(Status::StreamEnd) => return Err(bad),
                // A full buffer may hide that there is more to come.
                Ok(_) if rest.is_empty() && plain.len() < plain.capacity() => break,
                Ok(_) if taken == 0 && plain.len() == written => return Err(bad),
                Ok(_) => {}
                Err(error) => {
                    error.needs_dictionary().ok_or(bad)?;
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| bad)?;
                }
            }
        }
        parse(&plain)
    }
}

fn parse(plain: &[u8]) -> Result<Headers, Violation> {
    let bad = Violation("a header block does not hold what it says");
    let mut rest = plain;
    let count = length(&mut rest).ok_or(bad)?;
    if count > PAIRS {
        return Err(Violation("a header block holds more than 64 headers"));
    }
    let mut headers = Headers::default();
    for _ in 0..count {
        let name = text(&mut rest).ok_or(bad)?;
        let value = text(&mut rest).ok_or(bad)?;
        headers.0.push((name, value));
    }
    if rest.is_empty() { Ok(headers) } else { Err(bad) }
}

fn length(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u32::from_be_bytes(*head))
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(length(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(String::from_utf8_lossy(head).into_owned())
}

/// A block without headers: all that a server has to say. Written as a stored block, so that no compressor (a quarter
/// of a MiB each) is needed, and the empty one of a sync flush, without which Go's reader waits for more. The first
/// one begins the zlib stream.
pub(super) fn empty(first: bool) -> &'static [u8] {
    const BLOCK: &[u8] = &[0x78, 0x01, 0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    if first { BLOCK } else { BLOCK.split_at(2).1 }
}

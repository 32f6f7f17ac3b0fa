//! Mutated recordings of client-go's sessions, always the same ones: whatever comes, nothing panics, nothing loops,
//! and what is held stays small. `corpus/` holds what a client sent after its HTTP request; a found case becomes a
//! file there.

use std::fs;
use std::path::Path;

use bytes::BytesMut;

use crate::link::{Event, Protocol};
use crate::negotiate::Transport;
use crate::websocket::Coding;

/// Mutants of each recording.
const MUTANTS: u64 = 300;

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits")
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() % limit.max(1)
    }
}

fn corpus(folder: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder);
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&path)
        .expect("a corpus")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            (path.display().to_string(), fs::read(&path).expect("a recording"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", path.display());
    files
}

/// A few changes: bits, bytes, lengths, and pieces that are dropped, doubled or moved.
fn mutate(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    const WORDS: &[u32] = &[0, 1, 2, 0x7f, 0xff, 0xffff, 0x00ff_ffff, 0x7fff_ffff, 0x8000_0000, 0x8003_0001, u32::MAX];
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        let length = random.below(64).min(bytes.len() - at);
        match random.below(6) {
            0 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            1 => {
                bytes[at..].iter_mut().take(1).for_each(|byte| *byte = u8::try_from(random.below(256)).expect("a byte"))
            }
            2 => {
                let word = WORDS[random.below(WORDS.len())].to_be_bytes();
                bytes[at..].iter_mut().zip(word).for_each(|(byte, new)| *byte = new);
            }
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let piece = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// What a connection makes of the bytes, cut anywhere: how many events before it ended.
fn play(protocol: &mut dyn Protocol, random: &mut Random, bytes: &[u8]) -> usize {
    let (mut input, mut rest, mut events) = (BytesMut::new(), bytes, 0);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(1 + random.below(rest.len()));
        input.extend_from_slice(now);
        rest = later;
        let mut here = 0;
        loop {
            match protocol.receive(&mut input) {
                Err(_) => return events,
                Ok(None) => break,
                Ok(Some(event)) => {
                    here += 1;
                    // At least a byte each, and the end of a stream that may follow its last byte.
                    assert!(here <= 2 * bytes.len() + 2, "more events than bytes");
                    if let Event::Open { opened, .. } = &event {
                        let headers = [&opened.kind, &opened.port, &opened.request];
                        assert!(headers.iter().all(|value| value.len() <= 1024), "a long header came through");
                    }
                }
            }
        }
        events += here;
        // A control frame and a part of another at most; the rest was passed on.
        assert!(input.len() <= 17 * 1024, "{} bytes are held", input.len());
        // An answer takes no more than a few times what caused it.
        assert!(protocol.output().len() <= 8 * bytes.len() + 64, "{} bytes of answers", protocol.output().len());
    }
    events
}

fn fuzz(folder: &str, transports: &[Transport]) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (name, bytes) in corpus(folder) {
        for (index, transport) in transports.iter().enumerate() {
            let plain = play(transport.protocol().as_mut(), &mut random, &bytes);
            assert!(plain > 0 || index > 0, "{name} means nothing");
            for mutant in 0..MUTANTS {
                let seed = random.0;
                let bytes = mutate(&mut random, &bytes);
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    play(transport.protocol().as_mut(), &mut random, &bytes)
                }));
                assert!(result.is_ok(), "{name}: mutant {mutant} (seed {seed:#x}): {bytes:02x?}");
            }
        }
    }
}

#[test]
fn spdy_survives_anything() {
    fuzz("spdy", &[Transport::Spdy]);
}

#[test]
fn channels_survive_anything() {
    fuzz("socket", &[Transport::Channels(Coding::Binary, true), Transport::Channels(Coding::Base64, false)]);
}

#[test]
fn the_tunnel_survives_anything() {
    fuzz("tunnel", &[Transport::Tunnel]);
}

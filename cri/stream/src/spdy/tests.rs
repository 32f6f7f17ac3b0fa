use bytes::{BufMut, Bytes};
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::dictionary::DICTIONARY;
use super::*;

/// The client's side: what spdystream sends.
pub(crate) struct Client(Compress);

impl Client {
    pub(crate) fn new() -> Client {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&DICTIONARY).expect("dictionary");
        Client(compress)
    }

    pub(crate) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.put_u32(u32::try_from(headers.len()).expect("few"));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(u32::try_from(text.len()).expect("short"));
            plain.put_slice(text.as_bytes());
        }
        self.deflate(&plain)
    }

    pub(crate) fn deflate(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(plain.len() + 1024);
        self.0.compress_vec(plain, &mut out, FlushCompress::Sync).expect("deflate");
        out
    }

    pub(crate) fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let block = self.block(headers);
        let mut body = Vec::new();
        body.put_u32(stream);
        body.put_slice(&[0; 6]);
        body.put_slice(&block);
        control(1, 0, &body)
    }
}

pub(crate) fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 3];
    out.put_u16(kind);
    out.put_u8(flags);
    out.put_uint(body.len() as u64, 3);
    out.put_slice(body);
    out
}

pub(crate) fn data(stream: u32, fin: bool, bytes: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::data(&mut out, stream, fin, bytes);
    out.to_vec()
}

/// All that the bytes mean when they come in these pieces; data of one stream in a row is one event.
fn events(connection: &mut Connection, pieces: &[&[u8]]) -> Result<Vec<Event>, Violation> {
    let mut input = BytesMut::new();
    let mut events: Vec<Event> = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        while let Some(event) = connection.receive(&mut input)? {
            match (events.last_mut(), event) {
                (Some(Event::Data { stream, bytes }), Event::Data { stream: same, bytes: more }) if *stream == same => {
                    bytes.extend_from_slice(&more);
                }
                (_, event) => events.push(event),
            }
        }
    }
    Ok(events)
}

fn opened(stream: u32, kind: &str) -> Event {
    let opened = Opened { kind: kind.to_owned(), ..Opened::default() };
    Event::Open { stream, opened, finished: false, unidirectional: false }
}

#[test]
fn the_dictionary_is_the_one_of_spdy_3() {
    let mut sums = (1u32, 0u32);
    for byte in DICTIONARY.iter() {
        sums.0 = (sums.0 + u32::from(*byte)) % 65521;
        sums.1 = (sums.1 + sums.0) % 65521;
    }
    assert_eq!((DICTIONARY.len(), sums.1 << 16 | sums.0), (1423, 0xe3c6_a7c2));
}

#[test]
fn streams_open_carry_data_and_end() {
    let (mut client, mut connection) = (Client::new(), Connection::new());
    let bytes = [
        client.open(1, &[("streamtype", "stdin")]),
        client.open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "7")]),
        data(1, false, b"hello "),
        data(1, true, b"you"),
        control(3, 0, &[0, 0, 0, 3, 0, 0, 0, 5]),
        control(7, 0, &[0; 8]),
    ]
    .concat();
    let forward = Opened { kind: "data".to_owned(), port: "80".to_owned(), request: "7".to_owned() };
    let wanted = vec![
        opened(1, "stdin"),
        Event::Open { stream: 3, opened: forward, finished: false, unidirectional: false },
        Event::Data { stream: 1, bytes: BytesMut::from(&b"hello you"[..]) },
        Event::Finish { stream: 1 },
        Event::Reset { stream: 3 },
        Event::Goodbye,
    ];
    assert_eq!(events(&mut connection, &[&bytes]), Ok(wanted));
}

#[test]
fn replies_are_a_zlib_stream_without_headers() {
    let (mut client, mut connection) = (Client::new(), Connection::new());
    let bytes = [client.open(1, &[]), client.open(3, &[])].concat();
    events(&mut connection, &[&bytes]).expect("events");
    let mut output = connection.output().split();
    let mut inflater = Inflater::new();
    for stream in [1, 3] {
        let header = frame::Header::parse(&output).expect("frame").expect("whole");
        let frame::Header::Control { kind: 2, flags: 0, length } = header else { panic!("{header:?}") };
        output.advance(frame::HEADER);
        let body = output.split_to(length);
        assert_eq!(body[..4], u32::to_be_bytes(stream));
        assert_eq!(inflater.block(&body[4..]), Ok(headers::Headers::default()));
    }
    assert!(output.is_empty());
}

#[test]
fn pings_of_the_client_are_returned_and_answers_to_ours_are_not() {
    let mut connection = Connection::new();
    let bytes = [control(6, 0, &[0, 0, 0, 5]), control(6, 0, &[0, 0, 0, 2])].concat();
    assert_eq!(events(&mut connection, &[&bytes]), Ok(vec![Event::Alive]));
    assert_eq!(connection.output().split(), Bytes::from(control(6, 0, &[0, 0, 0, 5])));
    connection.ping();
    assert_eq!(connection.output().split(), Bytes::from(control(6, 0, &[0, 0, 0, 2])));
}

#[test]
fn streams_of_our_numbers_or_of_old_ones_are_refused_and_their_headers_still_read() {
    let (mut client, mut connection) = (Client::new(), Connection::new());
    let bytes = [
        client.open(5, &[("streamtype", "error")]),
        client.open(2, &[("streamtype", "even")]),
        client.open(5, &[("streamtype", "again")]),
        client.open(7, &[("streamtype", "stdin")]),
    ]
    .concat();
    assert_eq!(events(&mut connection, &[&bytes]), Ok(vec![opened(5, "error"), opened(7, "stdin")]));
    let output = connection.output().split();
    for stream in [2u8, 5] {
        let rst = control(3, 0, &[0, 0, 0, stream, 0, 0, 0, 1]);
        assert!(output.windows(rst.len()).any(|window| window == rst), "no RST_STREAM for {stream}");
    }
}

#[test]
fn what_has_no_meaning_here_is_passed_over() {
    let mut connection = Connection::new();
    let bytes = [
        control(4, 0, &[0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 1, 0]),
        control(9, 0, &[0, 0, 0, 1, 0, 0, 1, 0]),
        control(99, 0, b"what"),
        control(6, 0, &[0, 0, 0, 1]),
    ]
    .concat();
    assert_eq!(events(&mut connection, &[&bytes]), Ok(vec![Event::Alive]));
}

#[test]
fn a_long_frame_is_passed_on_before_it_is_whole() {
    let mut connection = Connection::new();
    let mut input = BytesMut::from(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff, b'x'][..]);
    let event = connection.receive(&mut input);
    assert_eq!(event, Ok(Some(Event::Data { stream: 1, bytes: BytesMut::from(&b"x"[..]) })));
    assert!(input.is_empty());
}

#[test]
fn hostile_bytes_end_the_connection() {
    let bomb = {
        let mut client = Client::new();
        let mut plain = vec![0, 0, 0, 1, 0, 0, 0, 1, b'a'];
        plain.put_u32(10 << 20);
        plain.resize(plain.len() + (10 << 20), b'a');
        let block = client.deflate(&plain);
        assert!(block.len() < CONTROL, "{}", block.len());
        control(1, 0, &[&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &block].concat())
    };
    let block = |plain: &[u8]| control(8, 0, &[&[0, 0, 0, 1][..], &Client::new().deflate(plain)].concat());
    let cases: &[(&str, Vec<u8>)] = &[
        ("a header bomb", bomb),
        ("too many headers", block(&[0, 0, 0, 65])),
        ("a length past the block's end", block(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff])),
        ("bytes after the headers", block(&[0, 0, 0, 0, 0])),
        ("no zlib", control(1, 0, &[1; 30])),
        ("an empty block", control(1, 0, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0])),
        ("another version", vec![0x80, 2, 0, 1, 0, 0, 0, 10]),
        ("a long control frame", vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]),
        ("a short SYN_STREAM", control(1, 0, &[0; 9])),
        ("a long PING", control(6, 0, &[0; 5])),
        ("PING 0", control(6, 0, &[0; 4])),
        ("a short RST_STREAM", control(3, 0, &[0; 4])),
        ("data of stream 0", data(0, false, b"x")),
    ];
    for (name, bytes) in cases {
        let result = events(&mut Connection::new(), &[bytes]);
        assert!(result.is_err(), "{name}: {result:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open(String, String),
    Data(u32, bool, Vec<u8>),
    Reset(u32),
    Ping,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        ("[a-z]{1,8}", "[ -~]{0,80}").prop_map(|(kind, more)| Step::Open(kind, more)),
        (1u32..20, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(stream, fin, bytes)| Step::Data(stream, fin, bytes)),
        (1u32..20).prop_map(Step::Reset),
        Just(Step::Ping),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Where the network cuts means nothing, and every header comes out as it went in.
    #[test]
    fn cuts_mean_nothing(steps in proptest::collection::vec(step(), 1..30), size in 1usize..64) {
        let mut client = Client::new();
        let mut bytes = Vec::new();
        let mut kinds = Vec::new();
        for step in &steps {
            match step {
                Step::Open(kind, more) => {
                    let stream = u32::try_from(2 * kinds.len() + 1).expect("few");
                    bytes.extend(client.open(stream, &[("other", more), ("streamtype", kind)]));
                    kinds.push(kind.clone());
                }
                Step::Data(stream, fin, payload) => bytes.extend(data(*stream, *fin, payload)),
                Step::Reset(stream) => bytes.extend(control(3, 0, &[stream.to_be_bytes(), [0, 0, 0, 5]].concat())),
                Step::Ping => bytes.extend(control(6, 0, &[0, 0, 0, 9])),
            }
        }
        let whole = events(&mut Connection::new(), &[&bytes]).expect("whole");
        let cut: Vec<&[u8]> = bytes.chunks(size).collect();
        let parts = events(&mut Connection::new(), &cut).expect("parts");
        prop_assert_eq!(&whole, &parts);
        let found: Vec<String> = whole.iter().filter_map(|event| match event {
            Event::Open { opened, .. } => Some(opened.kind.clone()),
            _ => None,
        }).collect();
        prop_assert_eq!(found, kinds);
    }
}

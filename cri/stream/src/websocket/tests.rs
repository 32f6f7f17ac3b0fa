use proptest::prelude::*;

use super::*;
use crate::link::{Event, Protocol};

/// A client's frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 250];
    let mut out = vec![first];
    match payload.len() {
        short @ 0..126 => out.push(0x80 | u8::try_from(short).expect("short")),
        medium @ 126..65536 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(medium).expect("medium").to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn message(payload: &[u8]) -> Vec<u8> {
    frame(0x82, payload)
}

fn events(protocol: &mut dyn Protocol, pieces: &[&[u8]]) -> Result<Vec<Event>, Violation> {
    let mut input = BytesMut::new();
    let mut events: Vec<Event> = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        while let Some(event) = protocol.receive(&mut input)? {
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

fn data(stream: u32, bytes: &[u8]) -> Event {
    Event::Data { stream, bytes: BytesMut::from(bytes) }
}

#[test]
fn the_first_byte_names_the_channel() {
    let bytes = [message(b"\x00in"), message(b"\x04{}"), message(b""), message(b"\x00")].concat();
    let mut channels = Channels::new(Coding::Binary, false);
    assert_eq!(events(&mut channels, &[&bytes]), Ok(vec![data(0, b"in"), data(4, b"{}")]));
    channels.data(1, b"out");
    channels.data(1, b"");
    assert_eq!(channels.output().split(), &b"\x82\x04\x01out\x82\x01\x01"[..]);
}

#[test]
fn base64_is_text_with_a_digit() {
    let bytes = [frame(0x81, b"0Zm9vCg=="), frame(0x81, b"0!!!!"), frame(0x81, b"0aGV5")].concat();
    let mut channels = Channels::new(Coding::Base64, false);
    let wanted = Ok(vec![data(0, b"foo\nhey")]);
    assert_eq!(events(&mut channels, &[&bytes]), wanted);
    let mut channels = Channels::new(Coding::Base64, false);
    let bytes: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(events(&mut channels, &bytes), wanted);
    channels.data(3, b"\n");
    assert_eq!(channels.output().split(), &b"\x81\x053Cg=="[..]);
}

#[test]
fn version_5_closes_channels_and_others_do_not() {
    let bytes = message(&[255, 0]);
    assert_eq!(events(&mut Channels::new(Coding::Binary, true), &[&bytes]), Ok(vec![Event::Finish { stream: 0 }]));
    assert_eq!(events(&mut Channels::new(Coding::Binary, false), &[&bytes]), Ok(vec![data(255, &[0])]));
    for bad in [message(&[255]), message(&[255, 0, 0])] {
        assert!(events(&mut Channels::new(Coding::Binary, true), &[&bad]).is_err());
    }
}

#[test]
fn a_message_may_come_in_frames_with_a_ping_between() {
    let bytes = [frame(0x02, b"\x00a"), frame(0x89, b"sign"), frame(0x00, b"b"), frame(0x80, b"c"), frame(0x8a, b"")];
    let mut channels = Channels::new(Coding::Binary, false);
    let events = events(&mut channels, &[&bytes.concat()]);
    assert_eq!(events, Ok(vec![data(0, b"a"), Event::Alive, data(0, b"bc")]));
    assert_eq!(channels.output().split(), &b"\x8a\x04sign"[..]);
}

#[test]
fn a_close_is_answered_and_nothing_comes_after_it() {
    let mut channels = Channels::new(Coding::Binary, false);
    assert_eq!(events(&mut channels, &[&frame(0x88, &[3, 232])]), Ok(vec![Event::Goodbye]));
    channels.data(1, b"late");
    channels.goodbye();
    assert_eq!(channels.output().split(), &b"\x88\x02\x03\xe8"[..]);
}

#[test]
fn a_huge_frame_is_passed_on_as_it_comes() {
    let mut channels = Channels::new(Coding::Binary, false);
    let mut head = vec![0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0];
    head.extend([0, 0, 0, 0, 0, b'x', b'y']);
    let mut input = BytesMut::from(&head[..]);
    assert_eq!(channels.receive(&mut input), Ok(Some(data(0, b"xy"))));
    assert!(input.is_empty());
}

#[test]
fn hostile_frames_end_the_connection() {
    let cases: &[(&str, Vec<u8>)] = &[
        ("no mask", vec![0x82, 1, 0]),
        ("an extension", vec![0xc2, 0x81, 0, 0, 0, 0, 0]),
        ("an unknown kind", vec![0x83, 0x80, 0, 0, 0, 0]),
        ("a long ping", frame(0x89, &[0; 126])),
        ("a ping in parts", frame(0x09, b"")),
        ("a length of 64 bits", vec![0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0]),
        ("no beginning", frame(0x80, b"x")),
        ("two beginnings", [frame(0x02, b"x"), frame(0x02, b"x")].concat()),
    ];
    for (name, bytes) in cases {
        let result = events(&mut Channels::new(Coding::Binary, true), &[bytes]);
        assert!(result.is_err(), "{name}: {result:?}");
    }
}

#[test]
fn a_tunnel_carries_spdy_whatever_the_messages_are() {
    let mut client = crate::spdy::tests::Client::new();
    let spdy = [client.open(1, &[("streamtype", "data")]), crate::spdy::tests::data(1, true, b"hello")].concat();
    for size in [1, 7, 1000] {
        let bytes: Vec<u8> = spdy.chunks(size).flat_map(message).collect();
        let mut tunnel = Tunnel::new();
        let events = events(&mut tunnel, &[&bytes]).expect("events");
        assert!(matches!(events[0], Event::Open { stream: 1, .. }), "{events:?}");
        assert_eq!(events[1..], [data(1, b"hello"), Event::Finish { stream: 1 }]);
        // A SYN_REPLY in one binary message.
        assert_eq!(tunnel.output().split()[..6], [0x82, 28, 0x80, 3, 0, 2]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Where the network cuts means nothing.
    #[test]
    fn cuts_mean_nothing(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..20),
        size in 1usize..64,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|payload| message(payload)).collect();
        let whole = events(&mut Channels::new(Coding::Binary, false), &[&bytes]).expect("whole");
        let cut: Vec<&[u8]> = bytes.chunks(size).collect();
        let parts = events(&mut Channels::new(Coding::Binary, false), &cut).expect("parts");
        prop_assert_eq!(&whole, &parts);
        let length = |event: &Event| if let Event::Data { bytes, .. } = event { bytes.len() } else { 0 };
        let total: usize = whole.iter().map(length).sum();
        prop_assert_eq!(total, messages.iter().map(|message| message.len() - 1).sum::<usize>());
    }
}

use std::fs::File;
use std::io::{Read, Write};

use super::*;

#[test]
fn packets_keep_their_bounds_and_carry_descriptors() {
    let (a, b) = pair().expect("pair");
    let (reader, writer) = crate::fd::pipe().expect("pipe");
    send(a.as_fd(), b"one", &[writer.as_fd()]).expect("send");
    send(a.as_fd(), b"two", &[]).expect("send");
    drop(writer);
    let mut buffer = [0; 8];
    let (length, mut descriptors) = recv(b.as_fd(), &mut buffer).expect("recv");
    assert_eq!((&buffer[..length], descriptors.len()), (&b"one"[..], 1));
    File::from(descriptors.remove(0)).write_all(b"through").expect("write");
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).expect("read");
    assert_eq!(text, "through");
    assert_eq!(recv(b.as_fd(), &mut buffer).expect("recv").0, 3);
    drop(a);
    assert_eq!(recv(b.as_fd(), &mut buffer).expect("end").0, 0);
}

#[test]
fn a_packet_past_the_buffer_is_refused_and_its_descriptors_closed() {
    let (a, b) = pair().expect("pair");
    let (reader, writer) = crate::fd::pipe().expect("pipe");
    send(a.as_fd(), b"too long", &[writer.as_fd()]).expect("send");
    drop(writer);
    let error = recv(b.as_fd(), &mut [0; 4]).expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    // The end comes only when no copy of the write end is left.
    assert_eq!(File::from(reader).read(&mut [0; 1]).expect("read"), 0);
}

#[test]
fn the_last_words_of_a_peer_that_left_something_unread_are_heard() {
    let (a, b) = pair().expect("pair");
    send(b.as_fd(), b"never read", &[]).expect("send");
    send(a.as_fd(), b"last words", &[]).expect("send");
    drop(a);
    assert_eq!(recv_vec(b.as_fd(), 100).expect("heard").0, b"last words");
    assert_eq!(recv_vec(b.as_fd(), 100).expect("the end").0, b"");
}

#[test]
fn a_closed_peer_is_an_error() {
    let (a, b) = pair().expect("pair");
    drop(b);
    assert_eq!(send(a.as_fd(), b"x", &[]).expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_listener_knows_its_peer() {
    let path = std::env::temp_dir().join(format!("berth-sys-{}-listen", std::process::id()));
    let listener = listen(&path).expect("listen");
    let client = connect(&path).expect("connect");
    let server = accept(listener.as_fd()).expect("accept");
    std::fs::remove_file(&path).expect("remove");
    let me = i32::try_from(std::process::id()).expect("a pid");
    assert_eq!(peer(server.as_fd()).expect("peer").pid, me);
    assert!(!readable(server.as_fd(), 0).expect("poll"));
    drop(client);
    assert!(readable(server.as_fd(), -1).expect("poll"));
}

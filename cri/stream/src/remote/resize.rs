//! Sizes of the client's terminal: JSON objects one after the other.

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::backend::{Reader, TerminalSize};

/// More than one object can take, in bytes.
const OBJECT: usize = 1024;

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width", alias = "width")]
    width: u16,
    #[serde(rename = "Height", alias = "height")]
    height: u16,
}

/// Passes sizes on until the client's stream ends or says something else. One that comes while the last was not taken
/// yet takes its place.
pub(super) async fn pass_on(mut stream: Reader, queue: mpsc::Sender<TerminalSize>) {
    let mut buffer = Vec::new();
    let mut newest = None;
    loop {
        let mut chunk = [0; 256];
        tokio::select! {
            read = stream.read(&mut chunk) => {
                let Ok(read) = read else { return };
                buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
                match parse(&mut buffer) {
                    Ok(size) => newest = size.or(newest),
                    Err(()) => return,
                }
                if read == 0 {
                    if let Some(size) = newest {
                        let _gone = queue.send(size).await;
                    }
                    return;
                }
            }
            permit = queue.reserve(), if newest.is_some() => {
                let (Ok(permit), Some(size)) = (permit, newest.take()) else { return };
                permit.send(size);
            }
        }
    }
}

/// The last whole object in `buffer`, which keeps what comes after it.
fn parse(buffer: &mut Vec<u8>) -> Result<Option<TerminalSize>, ()> {
    let mut objects = serde_json::Deserializer::from_slice(buffer).into_iter::<Size>();
    let mut last = None;
    let mut taken = 0;
    while let Some(object) = objects.next() {
        match object {
            Ok(Size { width, height }) => {
                last = Some(TerminalSize { width, height });
                taken = objects.byte_offset();
            }
            Err(error) if error.is_eof() => break,
            Err(_) => return Err(()),
        }
    }
    buffer.drain(..taken);
    if buffer.len() > OBJECT { Err(()) } else { Ok(last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u16, height: u16) -> TerminalSize {
        TerminalSize { width, height }
    }

    #[test]
    fn objects_may_come_in_parts_and_the_last_counts() {
        let mut buffer = br#"{"Width":80,"Height":24}
{"Width":100,"Height":50}{"Wid"#
            .to_vec();
        assert_eq!(parse(&mut buffer), Ok(Some(size(100, 50))));
        assert_eq!(buffer, br#"{"Wid"#);
        assert_eq!(parse(&mut buffer), Ok(None));
        buffer.extend_from_slice(br#"th":1,"Height":2}"#);
        assert_eq!(parse(&mut buffer), Ok(Some(size(1, 2))));
    }

    #[test]
    fn other_things_end_it() {
        assert_eq!(parse(&mut br#"{"Width":-1,"Height":2}"#.to_vec()), Err(()));
        assert_eq!(parse(&mut b"bell".to_vec()), Err(()));
        assert_eq!(parse(&mut [b"[\"".to_vec(), vec![b' '; 2 * OBJECT]].concat()), Err(()));
    }

    #[tokio::test]
    async fn the_newest_size_stays_when_nobody_takes_them() {
        let (mut client, server) = tokio::io::duplex(64);
        let (sender, mut queue) = mpsc::channel(1);
        let passing = tokio::spawn(pass_on(Box::pin(server), sender));
        for width in 1..=1000u16 {
            let object = format!("{{\"Width\":{width},\"Height\":1}}");
            tokio::io::AsyncWriteExt::write_all(&mut client, object.as_bytes()).await.expect("write");
        }
        drop(client);
        let mut seen = Vec::new();
        while let Some(size) = queue.recv().await {
            seen.push(size.width);
        }
        passing.await.expect("task");
        assert_eq!(seen.last(), Some(&1000));
        assert!(seen.len() <= 3, "{seen:?}");
    }
}

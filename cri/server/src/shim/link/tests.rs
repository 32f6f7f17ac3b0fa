use std::future::pending;

use berth_plan::message::{Event, Exit};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::*;

/// A link in use, the shim's end of it, and what it tells.
fn linked() -> (std::sync::Arc<Link>, OwnedFd, mpsc::UnboundedReceiver<News>) {
    let (ours, theirs) = seqpacket::pair().expect("a pair");
    berth_sys::fd::set_nonblocking(ours.as_fd(), true).expect("set");
    let link = std::sync::Arc::new(Link::new(ours).expect("a link"));
    let (sender, news) = mpsc::unbounded_channel();
    let reading = std::sync::Arc::clone(&link);
    tokio::spawn(async move { reading.read(pending(), &sender).await });
    (link, theirs, news)
}

fn reply(number: u64) -> Vec<u8> {
    codec::encode(&FromShim::Reply { number, reply: Reply::Done }).expect("encoded")
}

/// The number of the next request.
fn asked(shim: &OwnedFd) -> u64 {
    let (bytes, _) = seqpacket::recv_vec(shim.as_fd(), MAX_MESSAGE).expect("a request");
    codec::decode::<ToShim>(&bytes).expect("decoded").number
}

fn request() -> Request {
    Request::Forget { container: "c".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_loses_its_descriptors_costs_its_own_call_alone() {
    let (link, shim, mut news) = linked();
    let answering = tokio::task::spawn_blocking(move || {
        let number = asked(&shim);
        // More than a receiver takes, which then has none of them: as when it has no room for more.
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        let many = [null.as_fd(); seqpacket::MAX_DESCRIPTORS + 8];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        let bytes = reply(number);
        rustix::net::sendmsg(&shim, &[io::IoSlice::new(&bytes)], &mut control, SendFlags::empty()).expect("sent");
        let number = asked(&shim);
        seqpacket::send(shim.as_fd(), &reply(number), &[]).expect("sent");
        shim
    });
    let first = link.call(request(), &[]).await;
    assert!(matches!(first, Err(ShimError::Unexpected)), "{first:?}");
    let second = link.call(request(), &[]).await;
    assert!(matches!(second, Ok((Reply::Done, _))), "{second:?}");
    drop(answering.await.expect("a shim"));
    assert!(news.recv().await.is_none(), "nothing else was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_told_and_passed_over() {
    let (link, shim, mut news) = linked();
    seqpacket::send(shim.as_fd(), b"\xff\xffwhat?", &[]).expect("sent");
    let exit = Exit { pid: 1, code: 0, signal: 0, started_at: 1, finished_at: 2 };
    let event = FromShim::Event { event: Event::ExecExited { exec: "e".to_owned(), exit } };
    seqpacket::send(shim.as_fd(), &codec::encode(&event).expect("encoded"), &[]).expect("sent");
    assert!(matches!(news.recv().await, Some(News::Missed)));
    assert!(matches!(news.recv().await, Some(News::Event(Event::ExecExited { .. }))));
    drop(shim);
    let call = link.call(request(), &[]).await;
    assert!(matches!(call, Err(ShimError::Broken)), "{call:?}");
    assert!(news.recv().await.is_none());
}

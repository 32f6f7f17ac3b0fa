//! Tracked connections: forgetting those that new rules would not reach.
//!
//! Address translation is decided with a connection's first packet. A UDP client that goes on sending from one port keeps
//! its tracked connection alive, and with it the decision of a time before the rules were there, or of rules that are gone.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::NetError;
use crate::nft::{Attributes, Family};
use crate::socket::{Channel, ack, frame};

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
/// `CTA_FILTER` and in it `CTA_FILTER_ORIG_FLAGS`: which parts of the tuple count (Linux 5.8).
const FILTER: u16 = 25;
const FILTER_ORIG_FLAGS: u16 = 1;
const COMPARE_PROTOCOL: u32 = 1 << 3;
const COMPARE_DST_PORT: u32 = 1 << 5;

const UDP: u8 = 17;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Forgets the UDP connections to a port, in the calling thread's network namespace.
///
/// # Errors
/// What the kernel answers; `EOPNOTSUPP` or `EINVAL` where it can't do that.
pub fn forget_udp(family: Family, port: u16) -> Result<(), NetError> {
    let operation = format!("forget UDP connections to port {port}");
    let mut channel = Channel::open(NETLINK_NETFILTER)?;
    let protocol = Attributes::default().bytes(PROTO_NUM, &[UDP]).bytes(PROTO_DST_PORT, &port.to_be_bytes());
    let flags = (COMPARE_PROTOCOL | COMPARE_DST_PORT).to_ne_bytes();
    let attributes = Attributes::default()
        .nested(TUPLE_ORIG, &Attributes::default().nested(TUPLE_PROTO, &protocol))
        .nested(FILTER, &Attributes::default().bytes(FILTER_ORIG_FLAGS, &flags))
        .into_bytes();
    // Version 1 of the header: the kernel then looks at the family.
    let mut payload = vec![if family == Family::Ip6 { AF_INET6 } else { AF_INET }, 1, 0, 0];
    payload.extend_from_slice(&attributes);
    let sequence = channel.sequences(1).start;
    let mut buffer = Vec::new();
    frame(&mut buffer, DELETE, NLM_F_REQUEST | NLM_F_ACK, sequence, &payload);
    channel.send(&buffer)?;
    loop {
        for answer in channel.receive(&operation)? {
            if answer.sequence == sequence && answer.kind == NLMSG_ERROR {
                return ack(&operation, &answer)?.check(&operation);
            }
        }
    }
}

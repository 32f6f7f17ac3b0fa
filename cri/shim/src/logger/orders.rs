//! What the shim tells the logger and what it answers: an order's number, the container's, and a path, flags or an errno.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The read ends of standard output and error, or none where a terminal is to come; the log's path, empty for none.
    Open,
    /// The log's path, opened anew: the file was renamed.
    Reopen,
    /// Write what the pipes hold now.
    Drain,
    /// Close the log and the pipes.
    Close,
    /// One descriptor, the master of a container's terminal, which is read as its standard output.
    Terminal,
    /// Pipes of a client that what is read is copied to; a byte that says of which streams, see [`Streams`].
    Join,
}

/// Which of the two streams: bit 0 for standard output, bit 1 for standard error.
pub(super) type Streams = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) order: Order,
    pub(super) id: u32,
    /// 0 for success.
    pub(super) errno: i32,
}

const ALL: [Order; 6] = [Order::Open, Order::Reopen, Order::Drain, Order::Close, Order::Terminal, Order::Join];

impl Order {
    /// Whether the shim waits for an answer.
    pub(super) fn is_answered(self) -> bool {
        !matches!(self, Self::Close | Self::Terminal)
    }

    fn number(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Reopen => 2,
            Self::Drain => 3,
            Self::Close => 4,
            Self::Terminal => 5,
            Self::Join => 6,
        }
    }

    fn of(number: u8) -> Option<Self> {
        ALL.into_iter().find(|order| order.number() == number)
    }
}

pub(super) fn encode(order: Order, id: u32, path: &[u8]) -> Vec<u8> {
    let mut bytes = vec![order.number()];
    bytes.extend(id.to_le_bytes());
    bytes.extend(path);
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Option<(Order, u32, &[u8])> {
    let (order, rest) = bytes.split_first()?;
    let (id, path) = rest.split_first_chunk()?;
    Some((Order::of(*order)?, u32::from_le_bytes(*id), path))
}

pub(super) fn encode_answer(done: Done) -> Vec<u8> {
    let mut bytes = vec![done.order.number()];
    bytes.extend(done.id.to_le_bytes());
    bytes.extend(done.errno.to_le_bytes());
    bytes
}

pub(super) fn decode_answer(bytes: &[u8]) -> Option<Done> {
    let (order, id, errno) = decode(bytes)?;
    Some(Done { order, id, errno: i32::from_le_bytes(errno.try_into().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_come_back() {
        for order in ALL {
            assert_eq!(decode(&encode(order, 7, b"/var/log/x")), Some((order, 7, &b"/var/log/x"[..])));
            let done = Done { order, id: u32::MAX, errno: 13 };
            assert_eq!(decode_answer(&encode_answer(done)), Some(done));
        }
        assert_eq!(decode(&[9, 0, 0, 0, 0]), None);
        assert_eq!(decode(&[1, 0]), None);
        assert_eq!(decode_answer(&[1, 0, 0, 0, 0, 1]), None);
    }
}

//! What the shim tells the logger and what it answers: an order's number, the container's, and a path or an errno.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Two descriptors, the read ends of standard output and error; the log's path.
    Open,
    /// The log's path, opened anew: the file was renamed.
    Reopen,
    /// Write what the pipes hold now.
    Drain,
    /// Close the log and the pipes.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) order: Order,
    pub(super) id: u32,
    /// 0 for success.
    pub(super) errno: i32,
}

impl Order {
    fn number(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Reopen => 2,
            Self::Drain => 3,
            Self::Close => 4,
        }
    }

    fn of(number: u8) -> Option<Self> {
        [Self::Open, Self::Reopen, Self::Drain, Self::Close].into_iter().find(|order| order.number() == number)
    }
}

pub(super) fn encode(order: Order, id: u32, path: &str) -> Vec<u8> {
    let mut bytes = vec![order.number()];
    bytes.extend(id.to_le_bytes());
    bytes.extend(path.as_bytes());
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
        for order in [Order::Open, Order::Reopen, Order::Drain, Order::Close] {
            assert_eq!(decode(&encode(order, 7, "/var/log/x")), Some((order, 7, &b"/var/log/x"[..])));
            let done = Done { order, id: u32::MAX, errno: 13 };
            assert_eq!(decode_answer(&encode_answer(done)), Some(done));
        }
        assert_eq!(decode(&[9, 0, 0, 0, 0]), None);
        assert_eq!(decode(&[1, 0]), None);
        assert_eq!(decode_answer(&[1, 0, 0, 0, 0, 1]), None);
    }
}

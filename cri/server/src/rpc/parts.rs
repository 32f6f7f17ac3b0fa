//! Lists in parts, for nodes whose lists outgrow one message (KEP-5825).

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use prost::Message;
use tonic::Status;

use crate::runtime::Runtime;

/// The size of a part, in bytes, unless a single item is larger: far below the 16 MiB that clients take.
const PART: usize = 1 << 20;

/// And how many items it has at most.
const ITEMS: usize = 256;

/// The items of a list that is made when the client begins to read, in messages made by `wrap`. An empty list is a
/// stream without messages.
pub(super) fn parts<T, M, F>(
    runtime: &Arc<Runtime>,
    list: impl FnOnce(Arc<Runtime>) -> F + Send + 'static,
    wrap: fn(Vec<T>) -> M,
) -> BoxStream<'static, Result<M, Status>>
where
    T: Message + 'static,
    M: Send + 'static,
    F: Future<Output = Result<Vec<T>, Status>> + Send + 'static,
{
    let runtime = Arc::clone(runtime);
    stream::once(async move { list(runtime).await })
        .flat_map(move |listed| {
            let parts: Vec<_> = match listed {
                Ok(items) => split(items).into_iter().map(|part| Ok(wrap(part))).collect(),
                Err(status) => vec![Err(status)],
            };
            stream::iter(parts)
        })
        .boxed()
}

fn split<T: Message>(items: Vec<T>) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<T>> = Vec::new();
    let mut size = 0;
    for item in items {
        let bytes = item.encoded_len();
        match parts.last_mut() {
            Some(part) if part.len() < ITEMS && size + bytes <= PART => {
                size += bytes;
                part.push(item);
            }
            _ => {
                size = bytes;
                parts.push(vec![item]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use berth_cri_proto::v1::Container;

    use super::*;

    #[test]
    fn parts_are_small_and_hold_everything_in_its_order() {
        let container = |size: usize| Container { id: "x".repeat(size), ..Container::default() };
        let lengths = |sizes: &[usize]| -> Vec<usize> {
            split(sizes.iter().map(|size| container(*size)).collect()).iter().map(Vec::len).collect()
        };
        assert_eq!(lengths(&[]), Vec::<usize>::new());
        assert_eq!(lengths(&[1; 600]), [256, 256, 88]);
        assert_eq!(lengths(&[700_000, 300_000, 100_000, 2_000_000, 1]), [2, 1, 1, 1]);
        let items: Vec<_> = (1..=600).map(container).collect();
        assert_eq!(split(items.clone()).concat(), items);
    }
}

//! Reading elements back.

use netlink_packet_core::{NlaBuffer, NlasIterator};

use super::attribute::read_comment;

/// An element as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: Vec<u8>,
    /// Of a map with values.
    pub value: Option<Vec<u8>>,
    /// Of a verdict map: the chain that is jumped or gone to.
    pub chain: Option<String>,
    pub comment: Option<String>,
}

/// The elements in one message of a listing, after its 4-byte header.
pub(super) fn elements(payload: &[u8]) -> Vec<Listed> {
    let Some(attributes) = payload.get(4..) else { return Vec::new() };
    let Some(list) = find(attributes, 3) else { return Vec::new() };
    NlasIterator::new(list.as_slice()).flatten().filter_map(|element| read(element.value())).collect()
}

fn read(element: &[u8]) -> Option<Listed> {
    let mut listed = Listed { key: find(&find(element, 1)?, 1)?, value: None, chain: None, comment: None };
    if let Some(data) = find(element, 2) {
        listed.value = find(&data, 1);
        listed.chain = find(&data, 2).and_then(|verdict| text(&find(&verdict, 2)?));
    }
    listed.comment = find(element, 6).and_then(|userdata| read_comment(&userdata));
    Some(listed)
}

/// The value of the first attribute of a kind.
pub(super) fn find(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut all = NlasIterator::new(attributes).flatten();
    all.find(|attribute| attribute.kind() == kind).map(|attribute: NlaBuffer<&[u8]>| attribute.value().to_vec())
}

/// A text that ends with a zero.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.split(|byte| *byte == 0).next()?.to_vec()).ok()
}

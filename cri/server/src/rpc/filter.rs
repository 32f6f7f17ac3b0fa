//! Which ids a list call is limited to.

use berth_cri_core::ids::{self, Unresolved};
use tonic::Status;

/// The one id that a filter's (possibly shortened) id means: `None` when there is no such id, so the list is empty.
pub(super) fn one<'a>(id: &str, ids: impl IntoIterator<Item = &'a str>) -> Result<Option<&'a str>, Status> {
    match ids::resolve(id, ids) {
        Ok(id) => Ok(Some(id)),
        Err(Unresolved::Unknown) => Ok(None),
        Err(error @ Unresolved::Ambiguous) => Err(Status::invalid_argument(format!("filter.id {id:?}: {error}"))),
    }
}

//! `state`.

use crate::arguments::{self, Until};
use crate::fault::{Fault, Outcome};
use crate::global::Global;
use crate::state::{self, Status};
use crate::store::Store;

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &[], Until::End)?;
    let (folder, record) = Store::new(&global.root).open(given.id("state")?)?;
    let value = state::describe(&record, Status::of(&folder, &record));
    let text = serde_json::to_string_pretty(&value).map_err(|error| Fault::new(error.to_string()))?;
    println!("{text}");
    Ok(0)
}

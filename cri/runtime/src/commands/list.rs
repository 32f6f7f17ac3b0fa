//! `list`.

use serde_json::Value;

use crate::arguments::{self, Until, flag, value};
use crate::fault::{Fault, Outcome};
use crate::global::Global;
use crate::state::{self, Status};
use crate::store::Store;

const COLUMNS: [(&str, &str); 6] = [
    ("ID", "id"),
    ("PID", "pid"),
    ("STATUS", "status"),
    ("BUNDLE", "bundle"),
    ("CREATED", "created"),
    ("OWNER", "owner"),
];

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &[value("format", "f"), flag("quiet", "q")], Until::End)?;
    let store = Store::new(&global.root);
    let ids = store.ids()?;
    if given.flag("quiet") {
        ids.iter().for_each(|id| println!("{id}"));
        return Ok(0);
    }
    let mut containers = Vec::new();
    for id in ids {
        match store.open(&id) {
            Ok((folder, record)) => containers.push(state::describe(&record, Status::of(&folder, &record))),
            // Deleted meanwhile, or not there yet.
            Err(fault) if fault.message.starts_with("container does not exist") => {}
            Err(fault) => global.log.warn(&fault.during(format!("load container {id}")).message),
        }
    }
    match given.value("format") {
        None | Some("table") => table(&containers),
        // As runc has it for none.
        Some("json") if containers.is_empty() => println!("null"),
        Some("json") => println!("{}", Value::Array(containers)),
        Some(_) => return Err(Fault::new("invalid format option")),
    }
    Ok(0)
}

fn table(containers: &[Value]) {
    let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let head = COLUMNS.map(|(title, _)| title.to_owned());
    let rows = containers.iter().map(|container| COLUMNS.map(|(_, key)| cell(&container[key])));
    let rows: Vec<_> = [head].into_iter().chain(rows).collect();
    let mut widths = [12; COLUMNS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len() + 1);
        }
    }
    for row in rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", line.trim_end());
    }
}

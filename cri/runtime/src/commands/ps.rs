//! `ps`.

use std::process::Command;

use crate::arguments::{self, Until, value};
use crate::fault::{During, Fault, Outcome};
use crate::global::Global;
use crate::state;
use crate::store::Store;

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &[value("format", "f")], Until::First)?;
    let Some((id, options)) = given.rest.split_first() else {
        return Err(Fault::new("\"ps\" requires a minimum of 1 argument: the container's id"));
    };
    let (_, record) = Store::new(&global.root).open(id)?;
    let pids = state::cgroup(&record)?.procs();
    match given.value("format") {
        Some("json") => println!("{}", serde_json::json!(pids)),
        None | Some("table") => {
            let options = if options.is_empty() { &["-ef".to_owned()][..] } else { options };
            let output = Command::new("ps").args(options).output().during(|| "run ps".to_owned())?;
            if !output.status.success() {
                return Err(Fault::new(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim_end())));
            }
            table(&String::from_utf8_lossy(&output.stdout), &pids)?;
        }
        Some(_) => return Err(Fault::new("invalid format option")),
    }
    Ok(0)
}

/// The lines of the container's processes.
fn table(text: &str, pids: &[i32]) -> Outcome<()> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|title| title == "PID");
    let column = column.ok_or_else(|| Fault::new("couldn't find PID field in ps output"))?;
    println!("{head}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(())
}

//! The commands, a file each.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::fmt::Write;

use crate::fault::{Fault, Outcome};
use crate::global::{self, Global};

/// A command: its name, what it does, and how.
type Command = (&'static str, &'static str, fn(&Global, &[String]) -> Outcome<u8>);

const COMMANDS: [Command; 15] = [
    ("create", "make a container whose process waits for its start", create::run),
    ("delete", "forget a container that has stopped, and what it used", delete::run),
    ("events", "show what a container uses, again and again", events::run),
    ("exec", "run one more process in a container", exec::run),
    ("features", "show what this runtime can do", features::run),
    ("kill", "send a signal to a container's first process", kill::run),
    ("list", "list the containers below the root", list::run),
    ("pause", "stop all processes of a container where they are", pause::pause),
    ("ps", "list the processes of a container", ps::run),
    ("resume", "let the processes of a paused container go on", pause::resume),
    ("run", "make a container and start it", run::run),
    ("spec", "write an example of a configuration", spec::run),
    ("start", "start the process of a container that was made", start::run),
    ("state", "show a container's state", state::run),
    ("update", "change a container's limits", update::run),
];

pub(crate) fn run(arguments: &[String]) -> Outcome<u8> {
    let global = global::parse(arguments)?;
    if global.version {
        println!("berth-oci version {}\nspec: {}", env!("CARGO_PKG_VERSION"), features::SPECIFICATION);
        return Ok(0);
    }
    let Some((name, own)) = global.rest.split_first().filter(|(name, _)| !global.help && *name != "help") else {
        print!("{}", usage());
        return Ok(0);
    };
    let known = COMMANDS.iter().find(|(known, ..)| known == name);
    let outcome = match known {
        Some((_, _, run)) => run(&global, own),
        None if name == "checkpoint" || name == "restore" => Err(Fault::new(format!("{name}: not supported"))),
        None => Err(Fault::new(format!("No help topic for '{name}'"))),
    };
    if let Err(fault) = &outcome {
        global.log.error(&fault.message);
    }
    outcome
}

fn usage() -> String {
    let mut text =
        "usage: berth-oci [--root DIR] [--log FILE] [--log-format text|json] [--debug] [--systemd-cgroup] COMMAND …\n\n".to_owned();
    for (name, what, _) in COMMANDS {
        let _ = writeln!(text, "  {name:<9} {what}");
    }
    text
}

//! `berth doctor`: what this machine lacks, what that costs, and what to do about it.
//!
//! Facts are read first ([`machine`], [`node`], [`server`]), then judged without touching anything, then shown
//! ([`report`]). What is tried is tried where it leaves no trace.

mod finding;
mod machine;
mod node;
mod report;
mod server;
mod sockets;

use std::io::Write as _;

use crate::cli::{Doctor, Output};
use finding::{Finding, Verdict};
use machine::Machine;
use node::Node;
use server::Server;

/// Reads, judges and prints; whether nothing is missing.
pub(crate) fn run(options: &Doctor) -> bool {
    let mut machine = Machine::read();
    machine.try_network();
    let mut findings = machine::judge(&machine);
    findings.extend(node::judge(&Node::read(options.node_name.as_deref())));
    if let Some(server) = &options.api_server {
        findings.extend(server::judge(&Server::visit(server)));
    }
    let text = match options.output {
        Output::Text => report::text(&findings),
        Output::Json => format!("{:#}\n", report::json(&findings)),
    };
    // A reader that went away (`| head`) has read enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    !findings.iter().any(is_missing)
}

/// The first thing that keeps pods from running, as one line, for commands that are about to start.
pub(crate) fn first_obstacle() -> Option<String> {
    let Finding { what, detail, remedy, .. } = machine::judge(&Machine::read()).into_iter().find(is_missing)?;
    Some(format!("{what}: {detail}: {remedy} (`berth doctor` shows all)"))
}

fn is_missing(finding: &Finding) -> bool {
    finding.verdict == Verdict::Missing
}

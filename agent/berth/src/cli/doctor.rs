//! `berth doctor`'s options.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The API server to be joined: its name, its reachability, its clock and its version are looked at too
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) api_server: Option<String>,
    /// The name that the node is to have, instead of the host's
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// How the findings are shown
    #[arg(long, short, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table for people
    Text,
    /// One object for programs
    Json,
}

//! The plugins as one program, which acts as the one that it is called by: `bridge`, or `berth-cni bridge`.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use berth_cni::protocol::{Environment, serve};
use berth_cni_plugins::{TYPES, builtin};

/// A network configuration with its previous result has a few kilobytes.
const LARGEST_STDIN: u64 = 4 << 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let own = arguments.next().unwrap_or_default();
    let own = Path::new(&own).file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let Some((kind, plugin)) =
        [Some(own), arguments.next()].into_iter().flatten().find_map(|name| Some((name.clone(), builtin(&name)?)))
    else {
        eprintln!("usage: berth-cni {}, or a link of that name to berth-cni", TYPES.join("|"));
        return ExitCode::from(2);
    };
    let environment = Environment::read(|name| std::env::var(name).ok());
    let mut stdin = Vec::new();
    if environment.command.is_some()
        && let Err(error) = std::io::stdin().take(LARGEST_STDIN).read_to_end(&mut stdin)
    {
        eprintln!("standard input can't be read: {error}");
        return ExitCode::FAILURE;
    }
    let version = env!("CARGO_PKG_VERSION");
    let reply = serve(&format!("CNI {kind} plugin of Berth {version}"), plugin, builtin, &environment, &stdin);
    eprint!("{}", reply.stderr);
    // A caller that went away has no use for the answer.
    let _ = std::io::stdout().write_all(reply.stdout.as_bytes());
    ExitCode::from(reply.exit)
}

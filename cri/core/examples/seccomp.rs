//! Shows seccomp filters: `seccomp profile [arch]` prints the default profile as JSON, and `seccomp compile [arch]` turns
//! a profile on standard input into BPF (an array of `sock_filter`) on standard output, for disassemblers and for
//! comparison with libseccomp.

use std::io::{Read as _, Write as _};

use berth_cri_core::{capabilities, host::Arch, seccomp};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let arch = match args.next().as_deref() {
        Some("aarch64") => Arch::Aarch64,
        Some("x86_64") => Arch::X86_64,
        Some(other) => return Err(format!("unknown architecture {other:?}: use x86_64 or aarch64").into()),
        None => Arch::NATIVE,
    };
    let mut out = std::io::stdout().lock();
    match command.as_str() {
        "profile" => serde_json::to_writer_pretty(out, &seccomp::runtime_default(arch, capabilities::DEFAULT))?,
        "compile" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            out.write_all(&seccomp::compile(&serde_json::from_str(&text)?, arch)?)?;
        }
        _ => return Err("usage: seccomp profile|compile [x86_64|aarch64]".into()),
    }
    Ok(())
}

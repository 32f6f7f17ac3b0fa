//! `berth-oci`: an OCI runtime (specification 1.3, Linux) with runc's command line, so that podman, containerd
//! (`BinaryName`), CRI-O and people can use it in runc's place.
//!
//! One program of one thread that ends soon. A container's configuration is compiled by `berth_cri_core::bundle`, which
//! decides everything; `berth_oci::embryo` forks the process that becomes the container; this crate keeps the record
//! (`ROOT/ID/`, see [`store`]), the cgroup, hooks and streams around it. `create` writes its intent first and undoes
//! everything when a step fails; what a killed `create` leaves is a record in phase "creating", which `delete --force`
//! clears away.
//!
//! What is refused is named: by its JSON path in a configuration, by its option on the command line.

mod arguments;
mod clock;
mod commands;
mod configuration;
mod console;
mod fault;
mod global;
mod home;
mod json_path;
mod launch;
mod limits;
mod log;
mod procfs;
mod scope;
mod sealed;
mod signals;
mod state;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Option<Vec<String>> = std::env::args_os().skip(1).map(|one| one.into_string().ok()).collect();
    let Some(arguments) = arguments else {
        eprintln!("berth-oci: an argument is not UTF-8");
        return ExitCode::from(1);
    };
    match commands::run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            eprintln!("berth-oci: {}", fault.message);
            ExitCode::from(fault.code)
        }
    }
}

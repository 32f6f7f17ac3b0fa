//! client-go as a program: what exec, attach and port-forward look like from kubectl's side.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::controlplane::build;
use crate::{command, paths};

/// Builds it when it is missing or was built from something else (some seconds with the control plane's modules there);
/// answers with its path.
///
/// # Errors
/// Go is missing or refuses.
pub fn build() -> Result<PathBuf> {
    let (folder, module) = (paths::cache().join("streamclient"), paths::checkout().join("e2e/streamclient"));
    fs::create_dir_all(&folder)?;
    let program = folder.join("streamclient");
    let (stamp, wanted) = (folder.join("modules.sha256"), build::digest(&module, &["go.mod", "go.sum", "main.go"])?);
    let current = fs::read_to_string(&stamp).is_ok_and(|recorded| recorded == wanted);
    if !current || !program.is_file() {
        command::logged(build::go(&module, &program, "-s -w").arg("."), &folder.join("build.log"))?;
    }
    fs::write(stamp, wanted)?;
    Ok(program)
}

//! Finding the program, with the errors that users of other runtimes know by heart.

use std::ffi::CString;
use std::fs;
use std::io;

use berth_plan::message::{Failure, Stage};
use berth_sys::process;

use crate::failure::{describe, refused};

/// Where programs are looked for when the environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path of `name`, looked up in the environment's PATH unless it has a slash; as the current user, in the current root.
pub(crate) fn program(name: &str, environment: &[String]) -> Result<CString, Failure> {
    let fail = |errno, text: &str| Failure { stage: Stage::Execve, errno, message: format!("exec: {name:?}: {text}") };
    if name.contains('/') {
        return match check(name) {
            Ok(()) => path(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(fail(2, &format!("stat {name}: {}", describe(&error))))
            }
            Err(error) => Err(fail(error.raw_os_error().unwrap_or(0), &describe(&error))),
        };
    }
    let folders = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH);
    let mut denied = None;
    for folder in folders.split(':') {
        // An empty folder means the current one.
        let candidate = if folder.is_empty() { format!("./{name}") } else { format!("{folder}/{name}") };
        match check(&candidate) {
            Ok(()) => return path(&candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = Some(error),
            Err(_) => {}
        }
    }
    match denied {
        Some(error) if !name.is_empty() => Err(fail(error.raw_os_error().unwrap_or(0), &describe(&error))),
        _ => Err(fail(2, "executable file not found in $PATH")),
    }
}

fn check(candidate: &str) -> io::Result<()> {
    if fs::metadata(candidate)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    process::check_executable(candidate)
}

fn path(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| refused(Stage::Execve, format!("exec: {text:?}: the name has a zero byte")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, path: &str) -> String {
        program(name, &[format!("PATH={path}")]).expect_err(name).message
    }

    #[test]
    fn programs_are_found_and_the_rest_is_explained() {
        assert_eq!(program("sh", &["PATH=/nowhere:/bin".to_owned()]).expect("sh").as_c_str(), c"/bin/sh");
        assert_eq!(program("sh", &[]).expect("the default path").to_bytes().last(), Some(&b'h'));
        assert_eq!(message("nope", "/bin"), "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(message("/no/such", "/bin"), "exec: \"/no/such\": stat /no/such: no such file or directory");
        assert_eq!(message("/etc/passwd", "/bin"), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(message("/etc", "/bin"), "exec: \"/etc\": is a directory");
        assert_eq!(message("passwd", "/etc"), "exec: \"passwd\": permission denied");
    }
}

//! A look over the sources for what no compiler refuses.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use berth_e2e::{command, paths};

/// Lines of a file before its tests. Past this a file has more than one reason to change.
const LONGEST: usize = 600;

/// The only crate that may contain unsafe code.
const UNSAFE_HOME: &str = "cri/sys/";

/// What must not be left in code. Written in two halves so that this file does not find itself.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ig", "nore"),
];

pub(super) fn check() -> Result<()> {
    let root = paths::checkout();
    let listed = command::output(Command::new("git").current_dir(&root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*.rs",
    ]))?;
    let mut faults = Vec::new();
    for path in listed.lines() {
        // A file may be deleted but not yet committed so.
        if let Ok(text) = fs::read_to_string(root.join(path)) {
            faults.extend(look(path, &text));
        }
    }
    faults.extend(manifests(&root)?);
    ensure!(faults.is_empty(), "\n  {}", faults.join("\n  "));
    Ok(())
}

fn look(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let code = text.lines().take_while(|line| line.trim_end() != "#[cfg(test)]").count();
    if code > LONGEST && !path.contains("/tests/") {
        faults.push(format!("{path}: {code} lines before its tests, more than {LONGEST}"));
    }
    // In a tests folder cargo takes every other file for a test program of its own.
    if path.ends_with("/mod.rs") && !path.contains("/tests/") {
        faults.push(format!("{path}: a module is foo.rs beside foo/"));
    }
    for (index, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", index + 1);
        if !path.starts_with(UNSAFE_HOME) && has_unsafe(line) {
            faults.push(format!("{place}: unsafe code outside {UNSAFE_HOME}"));
        }
        if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
            faults.push(format!("{place}: {word}"));
        }
    }
    faults
}

fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    // Written in two halves, as above.
    [
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
        concat!("unsafe", " extern"),
        concat!("#[", "unsafe("),
    ]
    .iter()
    .any(|word| code.contains(word))
}

/// Every crate takes the workspace's lints, which forbid unsafe code, or says why not.
fn manifests(root: &Path) -> Result<Vec<String>> {
    let listed = command::output(Command::new("git").current_dir(root).args(["ls-files", "*/Cargo.toml"]))?;
    let mut faults = Vec::new();
    for path in listed.lines().filter(|path| !path.starts_with(UNSAFE_HOME)) {
        let text = fs::read_to_string(root.join(path)).unwrap_or_default();
        if !text.contains("[lints]\nworkspace = true") {
            faults.push(format!("{path}: takes other lints than the workspace's"));
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_is_found_outside_its_home_only() {
        let line = concat!("let x = uns", "afe { f() };");
        assert_eq!(look("agent/x/src/a.rs", line).len(), 1);
        assert!(look("cri/sys/src/a.rs", line).is_empty());
        assert!(look("agent/x/src/a.rs", concat!("// uns", "afe { f() }")).is_empty());
    }

    #[test]
    fn long_files_are_found_but_their_tests_do_not_count() {
        let long = "x\n".repeat(LONGEST + 1);
        assert_eq!(look("a/src/b.rs", &long).len(), 1);
        assert!(look("a/src/b.rs", &format!("x\n#[cfg(test)]\n{long}")).is_empty());
    }
}

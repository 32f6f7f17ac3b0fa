//! The table in cri/ATTACKS.md.

use std::fmt;
use std::fs;

use anyhow::{Context, Result, ensure};
use berth_e2e::paths;

/// One flaw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) number: u32,
    pub(super) tests: Vec<Test>,
}

/// `PROGRAM NAME` and the guards without which it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) program: String,
    pub(super) name: String,
    pub(super) without: Vec<String>,
}

impl Test {
    /// A stage of `cargo xtask ci` that plays a scenario; it is not run here.
    pub(super) fn is_a_stage(&self) -> bool {
        self.program == "e2e"
    }
}

impl fmt::Display for Test {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.program, self.name)
    }
}

pub(super) fn read() -> Result<Vec<Row>> {
    rows(&fs::read_to_string(paths::checkout().join("cri/ATTACKS.md"))?)
}

fn rows(text: &str) -> Result<Vec<Row>> {
    let lines = text
        .lines()
        .filter(|line| line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())));
    lines.map(|line| row(line).with_context(|| format!("cri/ATTACKS.md: {line}"))).collect()
}

fn row(line: &str) -> Result<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [number, _, _, tests] = cells[..] else { anyhow::bail!("{} columns instead of 4", cells.len()) };
    let tests: Vec<Test> = tests.split("<br>").map(test).collect::<Result<_>>()?;
    ensure!(!tests.is_empty(), "no test");
    Ok(Row { number: number.parse()?, tests })
}

/// The first word in backticks is the test, the others are its guards.
fn test(text: &str) -> Result<Test> {
    let mut quoted = text.split('`').skip(1).step_by(2);
    let (program, name) = quoted.next().and_then(|test| test.split_once(' ')).context("no `PROGRAM TEST`")?;
    // Behind a bracket something else is told.
    let told = text.split_once('(').map_or(0, |(_, rest)| rest.matches('`').count() / 2);
    let without: Vec<String> = quoted.map(str::to_owned).collect();
    let without = without[..without.len() - told].to_vec();
    Ok(Test { program: program.to_owned(), name: name.to_owned(), without })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use berth_e2e::command;
    use berth_guard::Guard;

    use super::*;
    use crate::attacks::programs::PROGRAMS;

    #[test]
    fn a_row_is_read_with_its_tests_and_their_guards() {
        let line = "| 9 | flaw | why | `shim a::b` without `x` `y`<br>`e2e soak`<br>`cri c` (and `d`: left) |";
        let test = |program: &str, name: &str, without: &[&str]| Test {
            program: program.to_owned(),
            name: name.to_owned(),
            without: without.iter().map(|name| (*name).to_owned()).collect(),
        };
        let tests = vec![test("shim", "a::b", &["x", "y"]), test("e2e", "soak", &[]), test("cri", "c", &[])];
        assert_eq!(row(line).expect("a row"), Row { number: 9, tests });
        assert!(row("| 9 | flaw | `shim a::b` |").is_err());
    }

    #[test]
    fn the_list_is_whole_and_its_guards_are_those_of_the_code() {
        let rows = read().expect("the table");
        assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
        let named: BTreeSet<&str> =
            rows.iter().flat_map(|row| &row.tests).flat_map(|test| &test.without).map(String::as_str).collect();
        let known: BTreeSet<&str> = Guard::ALL.iter().map(|guard| guard.name()).collect();
        assert_eq!(named, known);
        let red = rows.iter().filter(|row| row.tests.iter().any(|test| !test.without.is_empty())).count();
        assert!(red >= 25, "{red} rows");
    }

    #[test]
    fn every_test_is_in_the_sources() {
        let mut list = Command::new("git");
        list.current_dir(paths::checkout()).args(["grep", "-hoE", r"fn [a-z0-9_]+\(", "--", "*.rs"]);
        let text = command::output(&mut list).expect("git grep");
        let known: BTreeSet<&str> = text.lines().collect();
        for test in read().expect("the table").iter().flat_map(|row| &row.tests).filter(|test| !test.is_a_stage()) {
            let function = format!("fn {}(", test.name.rsplit("::").next().expect("a name"));
            assert!(known.contains(function.as_str()), "{test}");
            assert!(PROGRAMS.iter().any(|program| program.name == test.program), "{test}");
        }
    }
}

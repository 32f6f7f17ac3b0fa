//! `cargo xtask attacks`: the tests of cri/ATTACKS.md, and with `--red` each of them without the guard that it tests.

mod list;
mod programs;

use anyhow::{Result, bail, ensure};

use self::list::{Row, Test};
use self::programs::{Outcome, Programs};

/// Runs the tests of one row or of all, or shows that they fail without their guards.
pub(crate) fn run(row: Option<u32>, red: bool) -> Result<()> {
    let rows: Vec<Row> =
        list::read()?.into_iter().filter(|one| row.is_none_or(|number| number == one.number)).collect();
    ensure!(!rows.is_empty(), "cri/ATTACKS.md has no such row");
    let programs = Programs::build(red)?;
    if red { without_guards(&programs, &rows) } else { with_guards(&programs, &rows) }
}

fn with_guards(programs: &Programs, rows: &[Row]) -> Result<()> {
    let mut failed = Vec::new();
    for row in rows {
        for test in row.tests.iter().filter(|test| !test.is_a_stage()) {
            let outcome = programs.run(test, &[])?;
            println!("{:>2} {test}: {outcome}", row.number);
            if outcome != Outcome::Passed {
                failed.push(format!("{} {test}", row.number));
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// How many rows must have been seen red.
const RED_ROWS: usize = 25;

fn without_guards(programs: &Programs, rows: &[Row]) -> Result<()> {
    let (mut red, mut green) = (0, Vec::new());
    for row in rows {
        let guarded: Vec<&Test> = row.tests.iter().filter(|test| !test.without.is_empty()).collect();
        let mut all = !guarded.is_empty();
        for test in guarded {
            // The same program must pass with its guards, or a failure would show nothing.
            let (with, without) = (programs.run(test, &[])?, programs.run(test, &test.without)?);
            println!("{:>2} {test}: {with}, without {}: {without}", row.number, test.without.join(" and "));
            if (with, without) != (Outcome::Passed, Outcome::Failed) {
                all = false;
                green.push(format!("{} {test}", row.number));
            }
        }
        red += usize::from(all);
    }
    println!("{red} of {} rows fail without their guards", rows.len());
    if !green.is_empty() {
        bail!("not shown: {}", green.join(", "));
    }
    ensure!(rows.len() < 40 || red >= RED_ROWS, "{red} rows, fewer than {RED_ROWS}");
    Ok(())
}

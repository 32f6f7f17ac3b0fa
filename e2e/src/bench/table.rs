//! Rows for people (80 columns) and for programs (JSON).

use serde::Serialize;
use serde_json::{Value, json};

use super::figure::Figure;

/// One line of a comparison. All figures are in the row's unit; smaller is better.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// The row's name in the table of bars (design).
    pub(super) id: &'static str,
    pub(super) work: &'static str,
    pub(super) unit: &'static str,
    pub(super) ours: f64,
    /// The references', in the order of the table's heads; none where a reference has no such thing.
    pub(super) theirs: Vec<Option<f64>>,
    /// What ours may be at most.
    pub(super) bar: f64,
}

impl Row {
    /// A row whose bar is a part of what the fastest reference takes.
    pub(super) fn against(
        id: &'static str,
        work: &'static str,
        ours: f64,
        theirs: Vec<Option<f64>>,
        part: f64,
    ) -> Self {
        let bar = best(&theirs).map_or(0.0, |best| best / part);
        Self { id, work, unit: "ms", ours, theirs, bar }
    }

    fn verdict(&self) -> &'static str {
        match self.ours / self.bar {
            ratio if ratio <= 1.0 => "met",
            ratio if ratio <= 2.0 => "within 2x",
            _ => "MISSED",
        }
    }
}

fn best(theirs: &[Option<f64>]) -> Option<f64> {
    theirs.iter().flatten().copied().min_by(f64::total_cmp)
}

/// The table of a comparison with these references. The ratio is to the fastest of them.
pub(super) fn rows(rows: &[Row], references: &[&str]) -> String {
    let width = 42 - 8 * references.len();
    let heads: String = references.iter().map(|head| format!(" {head:>7}")).collect();
    let mut text = format!(
        "{:<3} {:<width$} {:>7}{heads} {:>6} {:>7}  {}\n",
        "", "milliseconds", "ours", "ratio", "bar", "bar is"
    );
    for row in rows {
        let dash = || "-".to_owned();
        let theirs: String =
            row.theirs.iter().map(|theirs| format!(" {:>7}", theirs.map_or_else(dash, number))).collect();
        let ratio = best(&row.theirs).map_or_else(dash, |best| format!("{:.2}", row.ours / best));
        let work = if row.unit == "ms" { row.work.to_owned() } else { format!("{}, {}", row.work, row.unit) };
        let (ours, bar) = (number(row.ours), number(row.bar));
        let verdict = row.verdict();
        text.push_str(&format!(
            "{:<3} {work:<width$.width$} {ours:>7}{theirs} {ratio:>6} {bar:>7}  {verdict}\n",
            row.id
        ));
    }
    text
}

/// The table of plain figures.
pub(super) fn figures(figures: &[(&'static str, Figure)]) -> String {
    let mut text = format!("{:<44} {:>6} {:>8} {:>8} {:>8}\n", "milliseconds", "count", "min", "median", "p99");
    for (name, figure) in figures {
        text.push_str(&format!(
            "{name:<44} {:>6} {:>8.3} {:>8.3} {:>8.3}\n",
            figure.count, figure.min, figure.median, figure.p99
        ));
    }
    text
}

/// Both tables for programs.
pub(super) fn json(rows: &[Row], references: &[&str], figures: &[(&'static str, Figure)]) -> Value {
    json!({"rows": rows, "references": references, "figures": named(figures)})
}

/// Figures by their names.
pub(super) fn named(figures: &[(&'static str, Figure)]) -> Value {
    let figures: serde_json::Map<String, Value> =
        figures.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect();
    Value::Object(figures)
}

fn number(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_80_columns_and_says_which_bars_are_met() {
        let row = |ours| {
            Row::against("R3", "StopPodSandbox + RemovePodSandb", ours, vec![Some(5136.0), Some(6136.0), None], 5.0)
        };
        let text = rows(&[row(1000.0), row(2000.0), row(9000.0)], &["crun", "runc", "none"]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("met") && lines[2].ends_with("within 2x") && lines[3].ends_with("MISSED"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
        // The ratio and the bar are to the fastest.
        assert!(lines[1].contains("5136.0") && lines[1].contains(" 0.19  1027.2 "), "{text}");
        let text = figures(&[("clone3 into namespaces, overlay root, exec", Figure::default())]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}

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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) theirs: Option<f64>,
    /// What ours may be at most.
    pub(super) bar: f64,
}

impl Row {
    fn verdict(&self) -> &'static str {
        match self.ours / self.bar {
            ratio if ratio <= 1.0 => "met",
            ratio if ratio <= 2.0 => "within 2x",
            _ => "MISSED",
        }
    }
}

/// The table of a comparison.
pub(super) fn rows(rows: &[Row]) -> String {
    let mut text =
        format!("{:<3} {:<34} {:>7} {:>7} {:>6} {:>7}  {}\n", "", "", "ours", "theirs", "ratio", "bar", "bar is");
    for row in rows {
        let theirs = row.theirs.map_or_else(|| "-".to_owned(), number);
        let ratio = row.theirs.map_or_else(|| "-".to_owned(), |theirs| format!("{:.2}", row.ours / theirs));
        let work = format!("{}, {}", row.work, row.unit);
        let (ours, bar) = (number(row.ours), number(row.bar));
        let verdict = row.verdict();
        text.push_str(&format!("{:<3} {work:<34.34} {ours:>7} {theirs:>7} {ratio:>6} {bar:>7}  {verdict}\n", row.id));
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
pub(super) fn json(rows: &[Row], figures: &[(&'static str, Figure)]) -> Value {
    let figures: serde_json::Map<String, Value> =
        figures.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect();
    json!({"rows": rows, "figures": figures})
}

fn number(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_80_columns_and_says_which_bars_are_met() {
        let row = |ours| Row {
            id: "R3",
            work: "StopPodSandbox + RemovePodSandb",
            unit: "ms",
            ours,
            theirs: Some(1136.0),
            bar: 1027.2,
        };
        let text = rows(&[row(1000.0), row(2000.0), row(9000.0)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("met") && lines[2].ends_with("within 2x") && lines[3].ends_with("MISSED"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
        let text = figures(&[("clone3 into namespaces, overlay root, exec", Figure::default())]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}

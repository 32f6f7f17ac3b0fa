//! What became of each spec, and the table of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::report::Spec;

/// Lines of a failure's message that are shown.
const MESSAGE_LINES: usize = 12;

/// How a spec ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Passed,
    Failed {
        message: String,
        place: String,
    },
    /// For a reason that the machine or the network gives.
    Excused {
        reason: String,
    },
    /// For another reason: something is missing.
    Skipped {
        reason: String,
    },
}

/// The specs of a run by name; those that nobody selected are not among them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Outcomes(BTreeMap<String, Outcome>);

impl Outcomes {
    /// `skipped`: specs that were left out, by name; `excused`: reasons for which they may skip themselves.
    pub(super) fn new(specs: &[Spec], skipped: &[(&str, &str)], excused: &[(&str, &str)]) -> Self {
        let mut outcomes = BTreeMap::new();
        for spec in specs {
            if let Some(outcome) = outcome(spec, skipped, excused) {
                outcomes.insert(name(spec), outcome);
            }
        }
        Self(outcomes)
    }

    /// What an earlier run has left, if anything that can be read.
    pub(super) fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_vec_pretty(self)?).with_context(|| path.display().to_string())
    }

    pub(super) fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.0.values().filter(|outcome| which(outcome)).count()
    }

    /// Numbers by area, then what failed and what was skipped, each beside what the reference did.
    pub(super) fn table(&self, reference: Option<&Self>) -> String {
        let mut text = String::new();
        let mut areas: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
        for (name, outcome) in &self.0 {
            let area = name.split(" / ").next().unwrap_or(name);
            areas.entry(area).or_default()[column(outcome)] += 1;
        }
        let mut sum = [0; 4];
        let _ = writeln!(text, "\n{:<40} {:>7} {:>7} {:>8} {:>8}", "area", "passed", "failed", "skipped", "excused");
        for (area, counts) in &areas {
            row(&mut text, area, counts);
            for (sum, count) in sum.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        row(&mut text, "total", &sum);
        for (name, outcome) in &self.0 {
            let Outcome::Failed { message, place } = outcome else { continue };
            let _ = writeln!(text, "\nFAILED {name}{}\n  at {place}", beside(reference, name));
            // What follows a lone brace is the error once more, as Go's fields.
            let told = message.lines().take_while(|line| line.trim() != "{");
            for line in told.filter(|line| !line.trim().is_empty()).take(MESSAGE_LINES) {
                let _ = writeln!(text, "  {line}");
            }
        }
        for (mark, names) in [("SKIPPED", self.reasons(false)), ("excused", self.reasons(true))] {
            for (reason, names) in names {
                let _ = writeln!(text, "\n{mark} ({}) because {reason}", names.len());
                for name in names {
                    let _ = writeln!(text, "  {name}{}", beside(reference, name));
                }
            }
        }
        text.push('\n');
        text
    }

    fn reasons(&self, excused: bool) -> BTreeMap<&str, Vec<&str>> {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, outcome) in &self.0 {
            let reason = match outcome {
                Outcome::Skipped { reason } if !excused => reason,
                Outcome::Excused { reason } if excused => reason,
                _ => continue,
            };
            reasons.entry(reason).or_default().push(name);
        }
        reasons
    }
}

fn row(text: &mut String, area: &str, counts: &[usize; 4]) {
    let [passed, failed, skipped, excused] = counts;
    let _ = writeln!(text, "{area:<40} {passed:>7} {failed:>7} {skipped:>8} {excused:>8}");
}

fn column(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Passed => 0,
        Outcome::Failed { .. } => 1,
        Outcome::Skipped { .. } => 2,
        Outcome::Excused { .. } => 3,
    }
}

/// A spec only counts if the reference passes it.
fn beside(reference: Option<&Outcomes>, name: &str) -> &'static str {
    match reference.and_then(|reference| reference.0.get(name)) {
        Some(Outcome::Failed { .. }) => " (containerd fails, too)",
        Some(Outcome::Skipped { .. } | Outcome::Excused { .. }) => " (containerd skips it, too)",
        Some(Outcome::Passed) | None => "",
    }
}

/// The areas and the spec's own text, without the mark that all have.
fn name(spec: &Spec) -> String {
    let mut parts: Vec<&str> = spec.container_hierarchy_texts.iter().map(String::as_str).collect();
    parts.push(if spec.leaf_node_text.is_empty() { &spec.leaf_node_type } else { &spec.leaf_node_text });
    parts.join(" / ").replace("[k8s.io] ", "").replace(" [Conformance]", "")
}

fn outcome(spec: &Spec, skipped: &[(&str, &str)], excused: &[(&str, &str)]) -> Option<Outcome> {
    let failure = spec.failure.as_ref();
    let message = failure.map(|failure| failure.message.trim().to_owned()).unwrap_or_default();
    match spec.state.as_str() {
        // What runs before and after the specs counts when it fails.
        "passed" => (spec.leaf_node_type == "It").then_some(Outcome::Passed),
        "skipped" | "pending" if message.is_empty() => {
            let left_out = skipped.iter().find(|(text, _)| spec.leaf_node_text.contains(text));
            left_out.map(|(_, reason)| Outcome::Excused { reason: (*reason).to_owned() })
        }
        "skipped" | "pending" => Some(match excused.iter().find(|(start, _)| message.starts_with(start)) {
            Some((_, reason)) => Outcome::Excused { reason: (*reason).to_owned() },
            None => Outcome::Skipped { reason: message },
        }),
        state => {
            let panic = failure.map(|failure| failure.forwarded_panic.as_str()).unwrap_or_default();
            let place = failure.map(|failure| &failure.location);
            let file = place.and_then(|place| place.file_name.rsplit('/').next()).unwrap_or_default();
            let line = place.map_or(0, |place| place.line_number);
            let place = format!("{file}:{line}");
            Some(Outcome::Failed { message: format!("{state}: {message}\n{panic}"), place })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Failure;
    use super::*;

    fn spec(text: &str, state: &str, message: &str) -> Spec {
        Spec {
            container_hierarchy_texts: vec!["[k8s.io] Area".into()],
            leaf_node_type: "It".into(),
            leaf_node_text: text.into(),
            state: state.into(),
            failure: (!message.is_empty()).then(|| Failure { message: message.into(), ..Failure::default() }),
        }
    }

    #[test]
    fn only_known_reasons_excuse_and_what_nobody_selected_is_left_out() {
        let specs = [
            spec("a [Conformance]", "passed", ""),
            spec("b", "skipped", "No such thing here"),
            spec("c", "skipped", "Not done yet"),
            spec("d", "skipped", ""),
            spec("e", "skipped", ""),
            spec("f", "timedout", "too long"),
        ];
        let outcomes = Outcomes::new(&specs, &[("d", "can't")], &[("No such", "no hardware")]);
        let of = |name: &str| outcomes.0.get(&format!("Area / {name}"));
        assert_eq!(of("a"), Some(&Outcome::Passed));
        assert_eq!(of("b"), Some(&Outcome::Excused { reason: "no hardware".into() }));
        assert_eq!(of("c"), Some(&Outcome::Skipped { reason: "Not done yet".into() }));
        assert_eq!(of("d"), Some(&Outcome::Excused { reason: "can't".into() }));
        assert_eq!(of("e"), None);
        assert!(matches!(of("f"), Some(Outcome::Failed { message, .. }) if message.starts_with("timedout: too long")));
    }

    #[test]
    fn the_table_says_what_the_reference_fails_too() {
        let specs = [spec("a", "failed", "this\nand that"), spec("b", "failed", "x")];
        let ours = Outcomes::new(&specs, &[], &[]);
        let theirs = Outcomes::new(&specs[..1], &[], &[]);
        let table = ours.table(Some(&theirs));
        assert!(table.contains("FAILED Area / a (containerd fails, too)\n"), "{table}");
        assert!(table.contains("FAILED Area / b\n"), "{table}");
        assert!(table.contains("  and that\n"), "{table}");
    }

    #[test]
    fn a_failure_before_the_specs_is_not_lost() {
        let mut before = spec("", "failed", "no connection");
        before.leaf_node_type = "BeforeSuite".into();
        before.container_hierarchy_texts.clear();
        let outcomes = Outcomes::new(&[before], &[], &[]);
        assert_eq!(outcomes.count(|outcome| matches!(outcome, Outcome::Failed { .. })), 1);
        assert!(outcomes.table(None).contains("FAILED BeforeSuite"));
    }
}

//! Findings for people, within 80 columns, and for programs.

use std::fmt::Write as _;

use berth_join::status::wrap;
use serde_json::{Value, json};

use super::finding::{Finding, Subject, Verdict};

const WIDTH: usize = 80;
const WHAT: usize = 19;
/// Where details begin: after the verdict's 8 columns, what was looked at, and a space.
const DETAIL: usize = 8 + WHAT + 1;
/// Where cost and remedy begin: below what was looked at, after a word of 6 columns.
const REMEDY: usize = 8 + 6;

/// The table and the conclusion.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for subject in Subject::ALL {
        let of: Vec<_> = findings.iter().filter(|finding| finding.subject == subject).collect();
        if of.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        let _ = writeln!(out, "{}", heading(subject));
        for finding in of {
            line(&mut out, finding);
        }
    }
    let _ = writeln!(out, "\n{}", conclusion(findings));
    out
}

fn heading(subject: Subject) -> &'static str {
    match subject {
        Subject::Pods => "To run pods",
        Subject::Node => "To be a cluster's node",
        Subject::Server => "To join the cluster of the API server",
    }
}

fn line(out: &mut String, finding: &Finding) {
    let mark = match finding.verdict {
        Verdict::Good => "ok",
        Verdict::Less => "less",
        Verdict::Missing => "MISSING",
    };
    let mut lines = wrap(&finding.detail, WIDTH - DETAIL).into_iter();
    let _ = writeln!(out, "{mark:<7} {:<WHAT$} {}", finding.what, lines.next().unwrap_or_default());
    for more in lines {
        let _ = writeln!(out, "{:DETAIL$}{more}", "");
    }
    let below = [("cost:", &finding.cost), ("do:", &finding.remedy)];
    for (word, text) in below.into_iter().filter(|(_, text)| !text.trim().is_empty()) {
        for (index, line) in wrap(text, WIDTH - REMEDY).iter().enumerate() {
            let _ = writeln!(out, "        {:<6}{line}", if index == 0 { word } else { "" });
        }
    }
}

fn conclusion(findings: &[Finding]) -> String {
    let about = |subjects: &[Subject]| missing(findings, subjects);
    match (about(&[Subject::Pods]), about(&[Subject::Node, Subject::Server])) {
        (0, 0) => "Pods can run here, and a cluster can be joined.".to_owned(),
        (0, 1) => "Pods can run here; 1 thing keeps this machine from joining a cluster.".to_owned(),
        (0, n) => format!("Pods can run here; {n} things keep this machine from joining a cluster."),
        (1, _) => "1 thing is missing: pods can't run here.".to_owned(),
        (n, _) => format!("{n} things are missing: pods can't run here."),
    }
}

fn missing(findings: &[Finding], subjects: &[Subject]) -> usize {
    findings.iter().filter(|f| f.verdict == Verdict::Missing && subjects.contains(&f.subject)).count()
}

/// The same for programs.
pub(super) fn json(findings: &[Finding]) -> Value {
    json!({
        "podsCanRun": missing(findings, &[Subject::Pods]) == 0,
        "clusterCanBeJoined": missing(findings, &Subject::ALL) == 0,
        "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let long = "a-name-that-nobody-should-have-".repeat(4);
        vec![
            Finding::good(Subject::Pods, "kernel", "6.18"),
            Finding::good(Subject::Node, "node name", long.clone()).bad(Verdict::Missing, &long, "use another name"),
            Finding::good(Subject::Server, "clock", "it differs").bad(
                Verdict::Less,
                "certificates look as if they were not yet valid, and the handshake fails without saying why",
                "timedatectl set-ntp true",
            ),
        ]
    }

    #[test]
    fn the_table_fits_eighty_columns_and_tells_costs_and_remedies() {
        let text = text(&findings());
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        for part in
            ["ok      kernel", "MISSING node name", "less    clock", "\n        do:   timedatectl", "cost: certif"]
        {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(text.ends_with("\nPods can run here; 1 thing keeps this machine from joining a cluster.\n"), "{text}");
    }

    #[test]
    fn the_conclusion_is_about_pods_first() {
        let mut all = findings();
        all[0].verdict = Verdict::Missing;
        assert_eq!(conclusion(&all), "1 thing is missing: pods can't run here.");
        assert_eq!(conclusion(&all[2..]), "Pods can run here, and a cluster can be joined.");
    }

    #[test]
    fn programs_get_verdicts_and_remedies() {
        let value = json(&findings());
        assert_eq!((&value["podsCanRun"], &value["clusterCanBeJoined"]), (&json!(true), &json!(false)));
        let expected = json!({"about": "pods", "what": "kernel", "verdict": "good", "detail": "6.18"});
        assert_eq!(value["findings"][0], expected);
        assert_eq!(value["findings"][2]["remedy"], "timedatectl set-ntp true");
    }
}

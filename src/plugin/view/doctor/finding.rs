//! A finding, and findings as text.

use serde::Serialize;

use crate::plugin::view::table::{Cell, Table, Tone};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum FindingState {
    #[serde(rename = "ok")]
    Good,
    #[serde(rename = "not checked")]
    NotChecked,
    #[serde(rename = "warning")]
    Warning,
    #[serde(rename = "problem")]
    Problem,
}

impl FindingState {
    fn cell(self) -> Cell {
        match self {
            Self::Good => Cell::new("ok", Tone::Good),
            Self::NotChecked => Cell::new("not checked", Tone::Faint),
            Self::Warning => Cell::new("warning", Tone::Busy),
            Self::Problem => Cell::new("PROBLEM", Tone::Bad),
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DoctorFinding {
    pub check: &'static str,
    pub state: FindingState,
    /// What was found.
    pub what: String,
    /// What it means for the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl DoctorFinding {
    fn of(check: &'static str, state: FindingState, what: impl Into<String>) -> Self {
        Self { check, state, what: what.into(), why: String::new(), remedy: String::new() }
    }

    pub fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self::of(check, FindingState::Good, what)
    }

    /// `why_not`: a sentence that says why nothing is known.
    pub fn not_checked(check: &'static str, why_not: impl Into<String>) -> Self {
        Self::of(check, FindingState::NotChecked, why_not)
    }

    pub fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self::of(check, FindingState::Warning, what)
    }

    pub fn problem(check: &'static str, what: impl Into<String>) -> Self {
        Self::of(check, FindingState::Problem, what)
    }

    pub fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }
}

/// Number of problems.
pub fn problems(findings: &[DoctorFinding]) -> usize {
    findings.iter().filter(|finding| finding.state == FindingState::Problem).count()
}

/// Findings as lines for a terminal.
pub fn screen(findings: &[DoctorFinding], has_colours: bool) -> String {
    let mut table = Table::new(&["STATE", "CHECK", "FOUND"]);
    for finding in findings {
        table.row(vec![finding.state.cell(), finding.check.into(), finding.what.as_str().into()]);
        for (label, text) in [("why", &finding.why), ("remedy", &finding.remedy)] {
            if !text.is_empty() {
                table.row(vec!["".into(), "".into(), Cell::new(format!("  {label}: {text}"), Tone::Plain)]);
            }
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let summary = format!(
        "problems: {}, warnings: {}, not checked: {}, ok: {}",
        count(FindingState::Problem),
        count(FindingState::Warning),
        count(FindingState::NotChecked),
        count(FindingState::Good)
    );
    [table.lines("", has_colours), vec![String::new(), summary]].concat().join("\n") + "\n"
}

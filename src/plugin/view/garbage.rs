//! What a sweep found or removed, as text.

use serde::Serialize;

use super::amount::bytes;
use super::table::{Cell, Table, Tone};
use crate::ledger::asked::SweepAnswer;

/// A sweep that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GarbageReport {
    pub namespace: String,
    pub name: String,
    /// The gateway that swept.
    pub pod: String,
    /// Nothing was to be removed.
    pub is_dry_run: bool,
    #[serde(flatten)]
    pub swept: SweepAnswer,
}

/// Lines for a terminal.
pub fn screen(report: &GarbageReport, has_colours: bool) -> String {
    let GarbageReport { swept, is_dry_run, .. } = report;
    let mut lines = Vec::new();
    if !swept.files.is_empty() {
        let mut table = Table::new(&["ORPHAN", "SIZE", "AGE"]);
        for file in &swept.files {
            let age = humantime::format_duration(std::time::Duration::from_secs(file.age_seconds)).to_string();
            table.row(vec![file.path.as_str().into(), bytes(file.bytes).into(), age.into()]);
        }
        lines = table.lines("", has_colours);
        let all = swept.orphans.files + swept.orphans.removed;
        if all > swept.files.len() as u64 {
            lines.push(format!("and {} more", all - swept.files.len() as u64));
        }
        lines.push(String::new());
    }
    let orphans = &swept.orphans;
    let limit = humantime::format_duration(std::time::Duration::from_secs(swept.age_limit_seconds));
    lines.push(format!(
        "{} swept {}/{}: orphans: {} ({}), unchanged for at least {limit}; protected by pointers that cannot be \
         read: {}, not Flink's: {}",
        report.pod,
        report.namespace,
        report.name,
        orphans.files,
        bytes(orphans.bytes),
        orphans.protected,
        orphans.foreign
    ));
    lines.push(match is_dry_run {
        true if orphans.files > 0 => "Nothing was removed; --yes asks the leader to remove them.".to_owned(),
        true => "Nothing is to be removed.".to_owned(),
        false => format!("{} files were removed.", orphans.removed),
    });
    if let Some(why) = &swept.withheld {
        lines.push(Cell::new(format!("Nothing was removed: {why}"), Tone::Bad).painted(has_colours));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::asked::OrphanFile;
    use crate::ledger::jobs::OrphanCounts;

    #[test]
    fn a_dry_run_says_what_would_go_and_a_sweep_what_has_gone() {
        let file = OrphanFile { path: "blob/\u{1b}x".to_owned(), bytes: 2048, age_seconds: 90_000 };
        let swept = SweepAnswer {
            orphans: OrphanCounts { files: 3, bytes: 4096, protected: 1, foreign: 2, removed: 0 },
            files: vec![file],
            age_limit_seconds: 86_400,
            withheld: None,
        };
        let of = |is_dry_run, swept| GarbageReport {
            namespace: "flink".to_owned(),
            name: "demo".to_owned(),
            pod: "demo-0".to_owned(),
            is_dry_run,
            swept,
        };
        let text = screen(&of(true, swept.clone()), false);
        for part in [
            "blob/\\u{1b}x   2.0 KiB   1day 1h\n",
            "and 2 more\n",
            "demo-0 swept flink/demo: orphans: 3 (4.0 KiB), unchanged for at least 1day; protected by pointers",
            "Nothing was removed; --yes asks the leader",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let withheld = Some("more than 100 jobs have not ended".to_owned());
        let removed =
            SweepAnswer { orphans: OrphanCounts { removed: 3, ..OrphanCounts::default() }, withheld, ..swept };
        let text = screen(&of(false, removed), false);
        assert!(text.contains("\n3 files were removed.\nNothing was removed: more than 100"), "{text}");
    }
}

//! Decoded HA data as text.

use jiff::Timestamp;

use super::amount::{age, bytes, moment};
use super::stored::{PointerReport, StoredReport};
use super::table::{Cell, Table, Tone};

/// Returns the report as lines for a terminal.
pub fn screen(report: &StoredReport, now: Timestamp, has_colours: bool) -> String {
    let mut lines = head(report, now, has_colours);
    let mut add = |table: &Table| {
        lines.push(String::new());
        lines.extend(table.lines("", has_colours));
    };
    if !report.plans.is_empty() {
        let mut table = Table::new(&["KEY", "FILE", "SIZE", "STATE"]);
        for plan in &report.plans {
            table.row([vec![plan.key.as_str().into()], pointer(&plan.pointer)].concat());
        }
        add(&table);
    }
    for job in &report.jobs {
        let mut table = Table::new(&["CHECKPOINT", "FILE", "SIZE", "STATE"]);
        for (index, checkpoint) in job.checkpoints.iter().enumerate() {
            let mut cells = [vec![checkpoint.checkpoint.as_str().into()], pointer(&checkpoint.pointer)].concat();
            // Only of the latest one it is known when it was written.
            let at = checkpoint.pointer.written.as_ref().filter(|_| index + 1 == job.checkpoints.len());
            if let Some(at) = at.and_then(|at| at.parse().ok()) {
                cells.push(Cell::new(format!("written {} ago", age(at, now)), Tone::Faint));
            }
            table.row(cells);
        }
        let name = job.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let counter = job.counter.as_ref().map(|counter| format!(", next checkpoint {counter}")).unwrap_or_default();
        let size = format!("{}, {} % of its limit", bytes(job.bytes as u64), job.per_cent);
        let title = format!("Job {}{name}: ConfigMap {} ({size}){counter}", job.id, job.config_map);
        lines.extend([String::new(), Cell::from(title).painted(has_colours)]);
        if job.checkpoints.is_empty() {
            lines.push("no checkpoint".to_owned());
        } else {
            lines.extend(table.lines("", has_colours));
        }
    }
    if !report.ended.is_empty() {
        let mut table = Table::new(&["ENDED JOB", "ID", "STATE", "ENDED", "HA DATA"]);
        for job in &report.ended {
            let removed = job.collected.as_ref().map(|at| format!("removed {} ago", age(at.0, now)));
            let kept = || Cell::new("not known to be removed", Tone::Busy);
            table.row(vec![
                Cell::or_dash(Some(job.name.as_str()).filter(|name| !name.is_empty())),
                job.id.as_str().into(),
                job.state.as_str().into(),
                Cell::or_dash(job.ended.as_ref().map(|at| format!("{} ago", age(at.0, now)))),
                removed.map_or_else(kept, Cell::from),
            ]);
        }
        lines.push(String::new());
        lines.extend(table.lines("", has_colours));
    }
    lines.extend(of_storage(report, now, has_colours));
    lines.push(String::new());
    let findings = report.findings.iter().map(|finding| Cell::new(finding, Tone::Bad));
    let unknown = report.not_known.iter().map(|(what, why)| Cell::new(format!("not known: {what}: {why}"), Tone::Busy));
    lines.extend(findings.chain(unknown).map(|cell| cell.painted(has_colours)));
    lines.push(format!("Files: {}. The storage directory is reached from the cluster's pods only.", report.files));
    lines.join("\n") + "\n"
}

/// Result stores and marks, as the storage has them.
fn of_storage(report: &StoredReport, now: Timestamp, has_colours: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |table: &Table| {
        lines.push(String::new());
        lines.extend(table.lines("", has_colours));
    };
    if !report.results.is_empty() {
        let mut table = Table::new(&["RESULT STORE", "ID", "STATE"]);
        for result in &report.results {
            let state = match (&result.state, result.is_dirty) {
                (_, true) => Cell::new("Flink is still cleaning up", Tone::Busy),
                (Some(state), false) => state.as_str().into(),
                (None, false) => Cell::new("unreadable", Tone::Bad),
            };
            table.row(vec![result.store.as_str().into(), result.id.as_str().into(), state]);
        }
        add(&table);
    }
    if !report.marks.is_empty() {
        let mut table = Table::new(&["MARK OF", "WRITTEN"]);
        for mark in &report.marks {
            let written = mark.written.parse().map(|at| format!("{} ago", age(at, now)));
            table.row(vec![mark.owner.as_str().into(), Cell::or_dash(written.ok())]);
        }
        add(&table);
    }
    lines
}

fn head(report: &StoredReport, now: Timestamp, has_colours: bool) -> Vec<String> {
    let owner = match report.term {
        Some(term) => format!("written by FlinkHaCluster, term {term}"),
        None if report.is_empty() => "nothing is stored in ConfigMaps".to_owned(),
        None => "written by Flink alone (no term)".to_owned(),
    };
    let size = bytes(report.bytes as u64);
    let mut cells = vec![Cell::from(format!("HA data of {}/{}: {owner}, {size}", report.namespace, report.name))];
    // A gateway answers its JVM's requests for the lock by itself, so there the stored one says nothing.
    if let Some(lock) = report.lock.as_ref().filter(|_| report.term.is_none()) {
        let renewed = lock.renewed.parse().map(|at| moment(at, now)).unwrap_or_else(|_| lock.renewed.clone());
        cells.push(format!("Leader lock: {}, renewed {renewed}", lock.holder).into());
    }
    cells.extend(report.leaders.iter().map(|(component, address)| format!("Leader of {component}: {address}").into()));
    if let Some(ha_data) = &report.ha_data {
        let message = if ha_data.message.is_empty() { String::new() } else { format!(": {}", ha_data.message) };
        let tone = if ha_data.state == "Collectable" { Tone::Good } else { Tone::Busy };
        cells.push(Cell::new(format!("Removal of ended jobs' files: {}{message}", ha_data.state), tone));
    }
    if let Some(orphans) = report.orphans() {
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        cells.push(
            format!(
                "Orphans, by the last sweep: {} files, {}; {} protected, {} not Flink's, {} removed so far",
                orphans.files,
                bytes(count(orphans.bytes)),
                orphans.protected,
                orphans.foreign,
                orphans.removed
            )
            .into(),
        );
    }
    cells.iter().map(|cell| cell.painted(has_colours)).collect()
}

/// File, size and state of a pointer.
fn pointer(pointer: &PointerReport) -> Vec<Cell> {
    let state = match (&pointer.unreadable, pointer.is_marked) {
        (Some(why), _) => Cell::new(format!("unreadable: {why}"), Tone::Bad),
        (None, true) => Cell::new("being removed", Tone::Busy),
        (None, false) => match &pointer.stored {
            None => Cell::new("readable", Tone::Good),
            Some(stored) if stored.failed.is_some() => Cell::new("readable, its file not known", Tone::Busy),
            Some(stored) if stored.bytes.is_none() => Cell::new("DANGLING: no such file", Tone::Bad),
            Some(_) => Cell::new("its file is there", Tone::Good),
        },
    };
    vec![Cell::or_dash(pointer.file.as_ref()), Cell::or_dash(pointer.size.map(bytes)), state]
}

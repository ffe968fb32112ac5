//! What has happened to a cluster, in the order of time: `history`.
//!
//! The status and the Lease remember the last change of leader, ten upgrades and twenty ended jobs; events know more,
//! and the API server forgets them after an hour. What both say is told once.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::table::{Cell, Table, Tone};
use crate::api::status::{Failover, FlinkHaClusterStatus, JobStatus};
use crate::cluster::events::{ended, moved};

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// RFC 3339, whole seconds.
    #[serde(serialize_with = "whole")]
    pub at: Timestamp,
    /// CamelCase, as in an event: `Failover`, `Upgrade`, `JobEnded`, …
    pub what: String,
    pub message: String,
    /// Something was wrong.
    pub is_warning: bool,
}

fn whole<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.0}"))
}

/// Puts together what the status and the events of a resource say. `failover`: the last one, by the Lease; `jobs`:
/// those of the ledger.
pub fn history(
    status: &FlinkHaClusterStatus,
    failover: Option<&Failover>,
    jobs: &[JobStatus],
    events: &[Value],
) -> Vec<HistoryEntry> {
    let of_status = status.last_failover.as_ref().filter(|known| Some(*known) != failover);
    let failovers = failover.into_iter().chain(of_status).filter_map(|failover| {
        let at = failover.at.as_ref()?.0;
        Some(HistoryEntry { at, what: "Failover".to_owned(), message: moved(failover), is_warning: false })
    });
    let upgrades = status.application.iter().flat_map(|application| &application.upgrades).filter_map(|upgrade| {
        let took = upgrade.milliseconds.map(|milliseconds| format!(", all tasks ran again after {milliseconds} ms"));
        let from = upgrade.restored_from.as_ref().map(|from| format!(", from {from}"));
        let why = upgrade.why.as_ref().map(|why| format!(": {why}"));
        let parts = [from, took, why].into_iter().flatten().collect::<String>();
        Some(HistoryEntry {
            at: upgrade.at.as_ref()?.0,
            what: "Upgrade".to_owned(),
            message: format!("generation {} ({}): {}{parts}", upgrade.generation, upgrade.mode, upgrade.result),
            is_warning: !["Succeeded", "InProgress"].contains(&upgrade.result.as_str()),
        })
    });
    let ends = jobs.iter().filter_map(|job| {
        let is_warning = job.state == "Failed";
        Some(HistoryEntry { at: job.ended.as_ref()?.0, what: "JobEnded".to_owned(), message: ended(job), is_warning })
    });
    let mut all: Vec<HistoryEntry> = failovers.chain(upgrades).chain(ends).collect();
    for event in events.iter().filter_map(event) {
        if !all.iter().any(|known| known.what == event.what && known.message == event.message) {
            all.push(event);
        }
    }
    all.sort_by(|one, other| (one.at, &one.what).cmp(&(other.at, &other.what)));
    all
}

/// Reads an event of `events.k8s.io/v1`, also one that was written as an event of the core group.
fn event(event: &Value) -> Option<HistoryEntry> {
    let times = [&event["series"]["lastObservedTime"], &event["eventTime"], &event["deprecatedLastTimestamp"]];
    let created = &event["metadata"]["creationTimestamp"];
    let at = times.into_iter().chain([created]).filter_map(Value::as_str).find_map(|at| at.parse().ok())?;
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    Some(HistoryEntry { at, what: text("reason"), message: text("note"), is_warning: event["type"] == "Warning" })
}

/// Returns the history as lines for a terminal, the latest at the end.
pub fn screen(entries: &[HistoryEntry], has_colours: bool) -> String {
    if entries.is_empty() {
        return "nothing is known to have happened\n".to_owned();
    }
    let mut table = Table::new(&["TIME", "WHAT", "MESSAGE"]);
    for entry in entries {
        let tone = if entry.is_warning { Tone::Bad } else { Tone::Plain };
        let at = format!("{:.0}", entry.at);
        table.row(vec![at.into(), Cell::new(&entry.what, tone), entry.message.as_str().into()]);
    }
    table.lines("", has_colours).join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_status_and_the_events_say_is_told_once_and_in_order() {
        let failover: Failover = serde_json::from_value(json!({
            "from": "a", "to": "b", "why": "JobManagerDied", "leaderlessMilliseconds": 240, "at": "2026-01-01T02:00:00Z",
        }))
        .expect("a failover");
        let status: FlinkHaClusterStatus = serde_json::from_value(json!({
            "lastFailover": failover, "conditions": [],
            "application": { "upgrades": [{
                "at": "2026-01-01T01:00:00Z", "generation": 3, "mode": "savepoint", "result": "RolledBack", "why": "x",
                "milliseconds": 900,
            }] },
        }))
        .expect("a status");
        let jobs: Vec<JobStatus> = serde_json::from_value(json!([
            { "id": "1", "name": "batch", "state": "Failed", "ended": "2026-01-01T03:00:00Z" },
            { "id": "2", "name": "runs", "state": "Running" },
        ]))
        .expect("jobs");
        let events = [
            json!({ "eventTime": "2026-01-01T02:00:01.5Z", "reason": "Failover", "type": "Normal",
                    "note": "leadership moved from a to b after 240 ms: JobManagerDied" }),
            json!({ "eventTime": "2026-01-01T03:00:02.5Z", "reason": "JobEnded", "type": "Warning",
                    "note": "job batch (1) has ended: Failed" }),
            json!({ "eventTime": null, "deprecatedLastTimestamp": "2026-01-01T00:30:00Z", "reason": "Failover",
                    "note": "leadership moved from c to a after 9 ms: Switch\u{1b}over" }),
            json!({ "reason": "NoTime" }),
        ];
        let entries = history(&status, Some(&failover), &jobs, &events);
        let expected = "\
TIME                   WHAT       MESSAGE
2026-01-01T00:30:00Z   Failover   leadership moved from c to a after 9 ms: Switch\\u{1b}over
2026-01-01T01:00:00Z   Upgrade    generation 3 (savepoint): RolledBack, all tasks ran again after 900 ms: x
2026-01-01T02:00:00Z   Failover   leadership moved from a to b after 240 ms: JobManagerDied
2026-01-01T03:00:00Z   JobEnded   job batch (1) has ended: Failed
";
        assert_eq!(screen(&entries, false), expected);
        assert_eq!(json!(entries)[2]["at"], "2026-01-01T02:00:00Z");
        assert_eq!(screen(&[], false), "nothing is known to have happened\n");
    }
}

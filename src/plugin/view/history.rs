//! What has happened to a cluster, in the order of time: `history`.
//!
//! Ledger and status remember the last twenty changes of leader, savepoints and ended jobs, and ten upgrades; events
//! know more, and the API server forgets them after an hour. What both say is told once.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::failover::{restored, told};
use super::table::{Cell, Table, Tone};
use crate::api::status::{Failover, FailoverEntry, FlinkHaClusterStatus, JobStatus};
use crate::cluster::events::{ended, moved, taken};

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// What is known of a change of leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverEntry>,
}

impl HistoryEntry {
    fn of(at: Timestamp, what: &str, message: String) -> Self {
        Self { at, what: what.to_owned(), message, is_warning: false, failover: None }
    }
}

fn whole<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.0}"))
}

/// Puts together what the status and the events of a resource say. `failovers`: those of Lease, ledger and status;
/// `jobs`: those of the ledger.
pub fn history(
    status: &FlinkHaClusterStatus,
    failovers: &[FailoverEntry],
    jobs: &[JobStatus],
    events: &[Value],
) -> Vec<HistoryEntry> {
    let last = status.last_failover.as_ref().filter(|_| failovers.is_empty());
    let changes = failovers.iter().filter_map(|change| {
        let (at, message) = (change.at.as_ref()?.0, moved(&failover_of(change)));
        Some(HistoryEntry { failover: Some(change.clone()), ..HistoryEntry::of(at, "Failover", message) })
    });
    let last = last.and_then(|last| Some(HistoryEntry::of(last.at.as_ref()?.0, "Failover", moved(last))));
    let upgrades = status.application.iter().flat_map(|application| &application.upgrades).filter_map(|upgrade| {
        let took = upgrade.milliseconds.map(|milliseconds| format!(", all tasks ran again after {milliseconds} ms"));
        let from = upgrade.restored_from.as_ref().map(|from| format!(", from {from}"));
        let why = upgrade.why.as_ref().map(|why| format!(": {why}"));
        let parts = [from, took, why].into_iter().flatten().collect::<String>();
        let message = format!("generation {} ({}): {}{parts}", upgrade.generation, upgrade.mode, upgrade.result);
        let is_warning = !["Succeeded", "InProgress"].contains(&upgrade.result.as_str());
        Some(HistoryEntry { is_warning, ..HistoryEntry::of(upgrade.at.as_ref()?.0, "Upgrade", message) })
    });
    let ends = jobs.iter().filter_map(|job| {
        let is_warning = job.state == "Failed";
        Some(HistoryEntry { is_warning, ..HistoryEntry::of(job.ended.as_ref()?.0, "JobEnded", ended(job)) })
    });
    let savepoints = status.application.iter().flat_map(|application| &application.savepoints);
    let savepoints =
        savepoints.filter_map(|one| Some(HistoryEntry::of(one.at.as_ref()?.0, "SavepointTaken", taken(one))));
    let mut all: Vec<HistoryEntry> = changes.chain(last).chain(upgrades).chain(ends).chain(savepoints).collect();
    for (mut event, times) in events.iter().filter_map(|one| Some((event(one)?, times(one)))) {
        if !all.iter().any(|known| known.what == event.what && known.message == event.message) {
            event.message.push_str(&times);
            all.push(event);
        }
    }
    for entry in &mut all {
        if let Some(change) = &entry.failover {
            entry.message = [vec![told(change)], restored(change, jobs)].concat().join("; ");
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
    let is_warning = event["type"] == "Warning";
    Some(HistoryEntry { is_warning, ..HistoryEntry::of(at, &text("reason"), text("note")) })
}

/// How often an event was published, if that was more than once.
fn times(event: &Value) -> String {
    let count = event["series"]["count"].as_i64().unwrap_or_default();
    match event["eventTime"].as_str().and_then(|at| at.parse::<Timestamp>().ok()) {
        Some(first) if count > 1 => format!(" ({count} times since {first:.0})"),
        _ => String::new(),
    }
}

/// The change as an event tells of it.
fn failover_of(change: &FailoverEntry) -> Failover {
    Failover {
        from: change.from.clone(),
        to: change.to.clone(),
        why: change.reason.clone(),
        leaderless_milliseconds: change.leaderless_millis,
        at: change.at.clone(),
    }
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
        let failovers: Vec<FailoverEntry> = serde_json::from_value(json!([
            { "from": "a", "to": "b", "reason": "JobManagerDied", "leaderlessMillis": 240, "at": "2026-01-01T02:00:00Z",
              "term": 7, "runningMillis": 1100, "restored": [{ "job": "0e", "checkpoint": 17 }, { "job": "1e" }] },
            { "from": "d", "to": "c", "reason": "Switchover", "leaderlessMillis": 30, "at": "2026-01-01T00:10:00Z", "term": 5,
              "planned": true },
        ]))
        .expect("failovers");
        let status: FlinkHaClusterStatus = serde_json::from_value(json!({
            "lastFailover": { "from": "a", "to": "b", "why": "JobManagerDied", "at": "2026-01-01T02:00:00Z" },
            "conditions": [],
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
            json!({ "eventTime": "2026-01-01T03:10:00.5Z", "reason": "NoStandby", "note": "no standby",
                    "series": { "count": 3, "lastObservedTime": "2026-01-01T03:14:00.000000Z" } }),
        ];
        let entries = history(&status, &failovers, &jobs, &events);
        let expected = "\
TIME                   WHAT        MESSAGE
2026-01-01T00:10:00Z   Failover    d led until a switchover was asked for (Switchover, planned); after 30 ms without a leader c \
led, in term 5
2026-01-01T00:30:00Z   Failover    leadership moved from c to a after 9 ms: Switch\\u{1b}over
2026-01-01T01:00:00Z   Upgrade     generation 3 (savepoint): RolledBack, all tasks ran again after 900 ms: x
2026-01-01T02:00:00Z   Failover    a led until its JVM ended (JobManagerDied); after 240 ms without a leader b led, in term 7; \
all jobs ran again after 1100 ms; job 0e went on from checkpoint 17; job 1e began anew, because it had no checkpoint
2026-01-01T03:00:00Z   JobEnded    job batch (1) has ended: Failed
2026-01-01T03:14:00Z   NoStandby   no standby (3 times since 2026-01-01T03:10:00Z)
";
        assert_eq!(screen(&entries, false), expected);
        assert_eq!(json!(entries)[3]["at"], "2026-01-01T02:00:00Z");
        assert_eq!(json!(entries)[3]["failover"]["runningMillis"], 1100);
        let only = history(&status, &[], &[], &[]);
        assert_eq!(only[1].message, "leadership moved from a to b: JobManagerDied", "an operator of a former version");
        assert_eq!(screen(&[], false), "nothing is known to have happened\n");
    }
}

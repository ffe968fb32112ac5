//! The last changes of leader as the status lists them: the one that the Lease tells of, those that gateways recorded
//! in the ledger, and those that the status has, which are left when the ledger was deleted.

use crate::api::status::{FailoverEntry, RestoredJobStatus};
use crate::api::time::seconds;
use crate::flink::job_id::JobId;
use crate::lease::record::Record;
use crate::ledger::failovers::{Failovers, RecordedFailover, RestoredJob, merged};

/// The changes, the newest first. `record`: what the Lease says; `before`: those of the status until now.
pub fn failovers(record: &Record, ledger: Option<&Failovers>, before: &[FailoverEntry]) -> Vec<FailoverEntry> {
    let last = record.change.as_ref().and_then(RecordedFailover::of);
    let recorded = ledger.into_iter().flat_map(|failovers| failovers.0.iter().cloned());
    let term = record.term.as_ref().map_or(0, |term| term.number);
    let all = merged(term, last.into_iter().chain(recorded).chain(before.iter().map(recorded_of)));
    all.iter().map(entry).collect()
}

fn entry(change: &RecordedFailover) -> FailoverEntry {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let restored = |restored: &RestoredJob| RestoredJobStatus {
        job: restored.job.to_string(),
        checkpoint: restored.checkpoint.map(number),
    };
    FailoverEntry {
        at: change.at.parse().ok().map(seconds),
        from: change.from.clone(),
        to: change.to.clone(),
        term: number(change.term),
        reason: change.reason.clone(),
        planned: change.is_planned(),
        leaderless_millis: Some(number(change.leaderless_millis)),
        running_millis: change.running_millis.map(number),
        restored: change.restored.iter().map(restored).collect(),
    }
}

fn recorded_of(entry: &FailoverEntry) -> RecordedFailover {
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let restored = |restored: &RestoredJobStatus| {
        Some(RestoredJob { job: JobId::of(&restored.job)?, checkpoint: restored.checkpoint.map(number) })
    };
    RecordedFailover {
        at: entry.at.as_ref().map(|at| format!("{:.0}", at.0)).unwrap_or_default(),
        from: entry.from.clone(),
        to: entry.to.clone(),
        term: number(entry.term),
        reason: entry.reason.clone(),
        leaderless_millis: number(entry.leaderless_millis.unwrap_or_default()),
        running_millis: entry.running_millis.map(number),
        restored: entry.restored.iter().filter_map(restored).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lease::record::Change;

    fn change(term: u64) -> Change {
        let at = format!("2026-01-01T00:00:{term:02}.123Z");
        let why = "JobManagerDied".to_owned();
        Change { term, from: "a".into(), to: "b".into(), why, leaderless_millis: 24, at, ..Change::default() }
    }

    #[test]
    fn an_operator_that_was_away_lists_all_changes_and_what_it_has_listed_stays() {
        let recorded = |term| RecordedFailover::of(&change(term)).expect("a change");
        let running = RecordedFailover { running_millis: Some(900), ..recorded(5) };
        let ledger = Failovers(vec![running, recorded(4), recorded(3)]);
        let record = Record { change: Some(change(6)), ..Record::default() };
        let listed = failovers(&record, Some(&ledger), &[]);
        assert_eq!(listed.iter().map(|one| one.term).collect::<Vec<_>>(), [6, 5, 4, 3]);
        assert_eq!(
            (listed[1].running_millis, listed[1].leaderless_millis, listed[1].planned),
            (Some(900), Some(24), false)
        );
        assert_eq!(json!(listed[0].at), "2026-01-01T00:00:06Z");
        assert_eq!(failovers(&record, Some(&ledger), &listed), listed, "a second look changes nothing");
        assert_eq!(failovers(&record, None, &listed), listed, "the ledger is gone");
    }

    #[test]
    fn a_first_leader_is_no_failover() {
        let first = Change { from: String::new(), ..change(1) };
        assert!(failovers(&Record { change: Some(first), ..Record::default() }, None, &[]).is_empty());
    }
}

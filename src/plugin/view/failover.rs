//! A change of leader in words: who led, why that ended, how long nobody led, and from which checkpoints jobs went on.

use crate::api::status::{FailoverEntry, JobStatus, RestoredJobStatus};

/// Why a pod stopped leading, by the reason that gateways give: `<pod> led until …`.
const CAUSES: [(&str, &str); 10] = [
    ("GrantTimedOut", "its JVM did not take the leadership in time"),
    ("JobManagerDied", "its JVM ended"),
    ("JobManagerHung", "its JVM hung"),
    ("JobManagerResigned", "its Flink gave the leadership up"),
    ("LeaderSilent", "its pod or node was not heard of any more"),
    ("PodTerminating", "its pod was told to end"),
    ("SessionEnded", "its session with the ZooKeeper quorum ended"),
    ("StampingFailed", "its term could not be written into the HA data"),
    ("Switchover", "a switchover was asked for"),
    ("TermRaised", "its gateway began a new term"),
];

/// One sentence, without what became of each job.
pub fn told(change: &FailoverEntry) -> String {
    let FailoverEntry { from, to, reason, term, .. } = change;
    let cause = CAUSES.iter().find(|(known, _)| known == reason).map_or("it stopped", |(_, cause)| cause);
    let planned = if change.planned { ", planned" } else { "" };
    let then = match change.leaderless_millis {
        Some(millis) => format!("after {millis} ms without a leader"),
        None => "then".to_owned(),
    };
    let running = change.running_millis.map(|millis| format!("; all jobs ran again after {millis} ms"));
    format!(
        "{from} led until {cause} ({reason}{planned}); {then} {to} led, in term {term}{}",
        running.unwrap_or_default()
    )
}

/// Where each job went on. `jobs`: those whose names are known.
pub fn restored(change: &FailoverEntry, jobs: &[JobStatus]) -> Vec<String> {
    let told = |RestoredJobStatus { job, checkpoint }: &RestoredJobStatus| {
        let named = jobs.iter().find(|known| known.id == *job && !known.name.is_empty());
        let job = named.map_or_else(|| job.clone(), |known| format!("{} ({job})", known.name));
        match checkpoint {
            Some(checkpoint) => format!("job {job} went on from checkpoint {checkpoint}"),
            None => format!("job {job} began anew, because it had no checkpoint"),
        }
    };
    change.restored.iter().map(told).collect()
}

/// The number of the checkpoint from which a job went on.
pub fn restored_from(change: &FailoverEntry, job: &str) -> Option<i64> {
    change.restored.iter().find(|restored| restored.job == job)?.checkpoint
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateway::counters::REASONS;

    #[test]
    fn every_reason_that_gateways_give_is_told_in_words() {
        let of_change: Vec<&str> = CAUSES.iter().map(|(reason, _)| *reason).collect();
        let given: Vec<&str> =
            REASONS.iter().copied().filter(|reason| !["FirstLeader", "Other"].contains(reason)).collect();
        assert_eq!(of_change, given);
    }

    #[test]
    fn a_change_answers_who_led_why_that_ended_how_long_nobody_led_and_where_jobs_went_on() {
        let change: FailoverEntry = serde_json::from_value(json!({
            "from": "a", "to": "b", "reason": "JobManagerDied", "leaderlessMillis": 24, "term": 7, "runningMillis": 910,
            "restored": [{ "job": "0e", "checkpoint": 17 }, { "job": "1e" }],
        }))
        .expect("a change");
        let expected = "a led until its JVM ended (JobManagerDied); after 24 ms without a leader b led, in term 7; all jobs ran \
                        again after 910 ms";
        assert_eq!(told(&change), expected);
        let jobs = [JobStatus { id: "0e".to_owned(), name: "sequence".to_owned(), ..JobStatus::default() }];
        let expected =
            ["job sequence (0e) went on from checkpoint 17", "job 1e began anew, because it had no checkpoint"];
        assert_eq!(restored(&change, &jobs), expected);
        let later = FailoverEntry { reason: "Later".to_owned(), ..FailoverEntry::default() };
        assert_eq!(told(&later), " led until it stopped (Later); then  led, in term 0");
    }
}

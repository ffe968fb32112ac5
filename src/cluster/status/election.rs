//! Who leads, as the Lease says it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::kinds::{LEADER_ELECTED, Verdict};
use crate::api::status::{Failover, Leader};
use crate::api::time::seconds;
use crate::cluster::observed::Observed;
use crate::lease::record::Record;

/// What the Lease says, held against the pods.
pub(super) struct Election {
    pub record: Record,
    pub since: Option<Time>,
    /// The holder is a pod that exists.
    has_pod: bool,
}

impl Election {
    pub fn of(observed: &Observed) -> Self {
        let record = observed.lease.as_deref().map(Record::of).unwrap_or_default();
        let acquired = observed.lease.as_ref().and_then(|lease| lease.spec.as_ref()?.acquire_time.clone());
        let has_pod = observed.job_manager_pods.iter().any(|pod| pod.is_live() && pod.name() == record.holder);
        Self { record, since: acquired.map(|time| seconds(time.0)), has_pod }
    }

    fn term(&self) -> u64 {
        self.record.term.as_ref().map_or(0, |term| term.number)
    }

    /// The holder's JobManager leads: the gateway says so in the record of the change, once Flink has been granted
    /// leadership.
    pub fn granted(&self) -> bool {
        self.has_pod && self.record.change.as_ref().is_some_and(|change| change.to == self.record.holder)
    }

    pub fn leader(&self) -> Option<Leader> {
        let leader = || Leader {
            pod: self.record.holder.clone(),
            term: i64::try_from(self.term()).unwrap_or(i64::MAX),
            since: self.since.clone(),
        };
        self.has_pod.then(leader)
    }

    pub fn failover(&self) -> Option<Failover> {
        let change = self.record.change.as_ref().filter(|change| !change.from.is_empty() && !change.to.is_empty())?;
        Some(Failover {
            from: change.from.clone(),
            to: change.to.clone(),
            why: change.why.clone(),
            leaderless_milliseconds: i64::try_from(change.leaderless_millis).ok(),
            at: change.at.parse().ok().map(seconds),
        })
    }

    pub fn verdict(&self) -> Verdict {
        let holder = &self.record.holder;
        let (holds, reason, message) = if holder.is_empty() {
            (false, "NoLeader", "no JobManager is elected".to_owned())
        } else if !self.has_pod {
            (
                false,
                "LeaderGone",
                format!("the elected pod {holder} is gone, and its term expires soon; or the pod has lost its labels"),
            )
        } else if self.granted() {
            (true, "LeaderElected", format!("{holder} leads in term {}", self.term()))
        } else {
            (
                false,
                "TakingOver",
                format!("{holder} was elected in term {}; its JobManager is taking over", self.term()),
            )
        };
        Verdict::new(LEADER_ELECTED, holds, reason, message)
    }
}

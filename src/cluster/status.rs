//! The status of a cluster, made of what has been observed.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use super::application::{Desired, conditions};
use super::build;
use super::cause::{self, Cause};
use super::ha_status::{ha_data, job};
use super::observed::{Observed, ObservedDeployment, ObservedPod};
use super::rejection::Rejection;
use crate::api::FlinkHaCluster;
use crate::api::application::{Application, Phase};
use crate::api::names::{JOB_MANAGER, TASK_MANAGER};
use crate::api::status::{Failover, FlinkHaClusterStatus, Leader, Members};
use crate::api::time::seconds;
use crate::lease::record::Record;

/// Who leads is elected on a Lease, and there is somebody.
pub const LEADER_ELECTED: &str = "LeaderElected";
/// The cluster does its work and survives the loss of its leader.
pub const READY: &str = "Ready";
/// The operator or Kubernetes is on the way to what the resource asks for.
pub const PROGRESSING: &str = "Progressing";
/// Something is wrong that will not go by itself; the message says what.
pub const DEGRADED: &str = "Degraded";

/// All objects are as the resource asks for.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The gateway's image that was chosen.
    pub gateway_image: String,
}

/// The status that goes with what was observed. `before` is the status until now, and `now` the time of the transitions
/// found.
pub fn status(
    resource: &FlinkHaCluster,
    desired: &Desired,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    outcome: &Result<Applied, Rejection>,
    now: Timestamp,
) -> FlinkHaClusterStatus {
    let generation = resource.metadata.generation;
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    let (application, replicas) = (desired.application(), |asked| if desired.is_stopped() { 0 } else { asked });
    let election = Election::of(observed);
    let job_managers =
        Group::of(name, JOB_MANAGER, replicas(desired.spec.job_manager.replicas), &observed.job_manager_pods);
    let task_managers =
        Group::of(name, TASK_MANAGER, replicas(desired.spec.task_manager.replicas), &observed.task_manager_pods);
    let mut verdicts = vec![
        election.verdict(),
        ready(&election, &job_managers, &task_managers),
        progressing(observed, outcome, &job_managers, &task_managers),
        degraded(observed, outcome, application),
    ];
    if let Some(application) = application {
        if let Some((reason, message)) = conditions::rests(application) {
            verdicts[1] = Verdict { kind: READY, holds: false, reason: reason.to_owned(), message };
        } else if application.phase == Phase::Starting && verdicts[1].holds {
            let message = format!("not all tasks of job {} have run yet", application.job_id);
            verdicts[1] = Verdict { kind: READY, holds: false, reason: "JobStarting".to_owned(), message };
        }
        let ends = conditions::ends(application).into_iter();
        verdicts.extend(ends.map(|(kind, holds, reason, message)| Verdict { kind, holds, reason, message }));
    }
    FlinkHaClusterStatus {
        observed_generation: generation,
        leader: election.leader(),
        job_manager: job_managers.members,
        task_manager: task_managers.members,
        last_failover: election.failover().or_else(|| before.last_failover.clone()),
        jobs: observed.jobs().iter().map(job).collect(),
        ha_data: observed.ha_data().map(ha_data),
        application: application.cloned(),
        gateway_image: match outcome {
            Ok(applied) => Some(applied.gateway_image.clone()),
            Err(_) => before.gateway_image.clone(),
        },
        conditions: verdicts
            .into_iter()
            .map(|verdict| verdict.condition(&before.conditions, generation, now))
            .collect(),
    }
}

/// A condition without its times.
struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn condition(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let unchanged = before.iter().find(|condition| condition.type_ == self.kind && condition.status == status);
        Condition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason,
            message: self.message,
            observed_generation: generation,
            last_transition_time: unchanged
                .map_or_else(|| seconds(now), |condition| condition.last_transition_time.clone()),
        }
    }
}

/// What the Lease says, held against the pods.
struct Election {
    record: Record,
    since: Option<Time>,
    /// The holder is a pod that exists.
    has_pod: bool,
}

impl Election {
    fn of(observed: &Observed) -> Self {
        let record = observed.lease.as_deref().map(Record::of).unwrap_or_default();
        let acquired = observed.lease.as_ref().and_then(|lease| lease.spec.as_ref()?.acquire_time.clone());
        let has_pod = observed.job_manager_pods.iter().any(|pod| pod.name() == record.holder);
        Self { record, since: acquired.map(|time| seconds(time.0)), has_pod }
    }

    fn term(&self) -> u64 {
        self.record.term.as_ref().map_or(0, |term| term.number)
    }

    /// The holder's JobManager leads: the gateway says so in the record of the change, once Flink has been granted
    /// leadership.
    fn granted(&self) -> bool {
        self.has_pod && self.record.change.as_ref().is_some_and(|change| change.to == self.record.holder)
    }

    fn leader(&self) -> Option<Leader> {
        let leader = || Leader {
            pod: self.record.holder.clone(),
            term: i64::try_from(self.term()).unwrap_or(i64::MAX),
            since: self.since.clone(),
        };
        self.has_pod.then(leader)
    }

    fn failover(&self) -> Option<Failover> {
        let change = self.record.change.as_ref().filter(|change| !change.from.is_empty() && !change.to.is_empty())?;
        Some(Failover {
            from: change.from.clone(),
            to: change.to.clone(),
            why: change.why.clone(),
            leaderless_milliseconds: i64::try_from(change.leaderless_millis).ok(),
            at: change.at.parse().ok().map(seconds),
        })
    }

    fn verdict(&self) -> Verdict {
        let holder = &self.record.holder;
        let (holds, reason, message) = if holder.is_empty() {
            (false, "NoLeader", "no JobManager is elected".to_owned())
        } else if !self.has_pod {
            (
                false,
                "LeaderGone",
                format!("pod {holder}, which was elected, is gone, and its term runs out; or it has lost its labels"),
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
        Verdict { kind: LEADER_ELECTED, holds, reason: reason.to_owned(), message }
    }
}

/// JobManagers or TaskManagers.
struct Group {
    wanted: i32,
    members: Members,
}

impl Group {
    fn of(cluster: &str, component: &str, wanted: i32, pods: &[Arc<ObservedPod>]) -> Self {
        let ready = count(pods.iter().filter(|pod| pod.is_ready()).count());
        let label = |(key, value): (String, Value)| format!("{key}={}", value.as_str().unwrap_or_default());
        let selector = build::selector(cluster, component).into_iter().map(label).collect::<Vec<_>>().join(",");
        let members = Members {
            replicas: count(pods.len()),
            ready_replicas: ready,
            ready: format!("{ready}/{wanted}"),
            selector,
        };
        Self { wanted, members }
    }

    fn is_complete(&self) -> bool {
        self.members.ready_replicas >= self.wanted
    }

    /// The Deployment has not yet come to what is asked for.
    fn is_rolling_out(&self, deployment: Option<&ObservedDeployment>) -> bool {
        deployment.is_none_or(|deployment| {
            let status = &deployment.status;
            status.observed_generation < deployment.metadata.generation.unwrap_or_default()
                || status.updated_replicas < self.wanted
                || status.replicas > status.updated_replicas
        })
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn ready(election: &Election, job_managers: &Group, task_managers: &Group) -> Verdict {
    let (job, task) = (&job_managers.members.ready, &task_managers.members.ready);
    let (holds, reason, message) = if !election.granted() {
        (false, "NoLeader", election.verdict().message)
    } else if !task_managers.is_complete() {
        (false, "TaskManagersNotReady", format!("{task} TaskManagers are ready"))
    } else if job_managers.wanted > 1 && job_managers.members.ready_replicas < 2 {
        (false, "NoStandby", "no standby could take over if the leader failed".to_owned())
    } else {
        (
            true,
            "Ready",
            format!("{} leads; {job} JobManagers and {task} TaskManagers are ready", election.record.holder),
        )
    };
    Verdict { kind: READY, holds, reason: reason.to_owned(), message }
}

fn progressing(
    observed: &Observed,
    outcome: &Result<Applied, Rejection>,
    job_managers: &Group,
    task_managers: &Group,
) -> Verdict {
    let (holds, reason, message) = if outcome.is_err() {
        (false, "Refused", "the resource cannot be applied until it is changed; see Degraded".to_owned())
    } else if job_managers.is_rolling_out(observed.job_manager_deployment.as_deref()) {
        (
            true,
            "JobManagersRollingOut",
            "JobManagers are being replaced, created or removed; the leader goes last".to_owned(),
        )
    } else if task_managers.is_rolling_out(observed.task_manager_deployment.as_deref()) {
        (true, "TaskManagersRollingOut", "TaskManagers are being replaced, created or removed".to_owned())
    } else if !job_managers.is_complete() || !task_managers.is_complete() {
        let (job, task) = (&job_managers.members.ready, &task_managers.members.ready);
        (true, "PodsStarting", format!("{job} JobManagers and {task} TaskManagers are ready"))
    } else {
        (false, "Complete", "everything is as the resource asks for".to_owned())
    };
    Verdict { kind: PROGRESSING, holds, reason: reason.to_owned(), message }
}

fn degraded(observed: &Observed, outcome: &Result<Applied, Rejection>, application: Option<&Application>) -> Verdict {
    let rejected = outcome.as_ref().err().map(|rejection| rejection.cause.clone());
    let causes: Vec<Cause> = rejected
        .into_iter()
        .chain(application.and_then(|application| conditions::cause(application, observed.progress().error.as_deref())))
        .chain(cause::causes(observed))
        .collect();
    let (holds, reason, message) = match causes.as_slice() {
        [] => (false, "AsExpected", "no problem is known".to_owned()),
        [only] => (true, only.reason, only.message.clone()),
        [first, others @ ..] => (true, first.reason, format!("{}; and {} more", first.message, others.len())),
    };
    Verdict { kind: DEGRADED, holds, reason: reason.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::events::notes;
    use crate::cluster::tests as fixture;

    fn pod(name: &str, ready: &str) -> Arc<ObservedPod> {
        let pod =
            json!({ "metadata": { "name": name }, "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
        Arc::new(serde_json::from_value(pod).unwrap_or_default())
    }

    fn deployment(replicas: i32) -> Option<Arc<ObservedDeployment>> {
        let status = json!({ "observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas });
        Some(Arc::new(
            serde_json::from_value(json!({ "metadata": { "generation": 1 }, "status": status })).unwrap_or_default(),
        ))
    }

    /// Three JobManagers and two TaskManagers, as the fixture asks for, and the Lease as given.
    fn observed(holder: &str, change: Value) -> Observed {
        let annotations =
            json!({ "flinkha.dev/term": "3.uid.process.1-1", "flinkha.dev/last-change": change.to_string() });
        let lease = json!({ "metadata": { "annotations": annotations }, "spec": { "holderIdentity": holder } });
        Observed {
            lease: serde_json::from_value(lease).ok().map(Arc::new),
            job_manager_pods: vec![pod("a", "True"), pod("b", "True"), pod("c", "False")],
            task_manager_pods: vec![pod("t", "True"), pod("u", "True")],
            job_manager_deployment: deployment(3),
            task_manager_deployment: deployment(2),
            ..Observed::default()
        }
    }

    fn change(from: &str, to: &str) -> Value {
        json!({ "term": 3, "from": from, "to": to, "why": "JobManagerDied", "leaderlessMillis": 25, "at": "2026-01-02T03:04:05.678Z" })
    }

    fn of(observed: &Observed, before: &FlinkHaClusterStatus, second: i64) -> FlinkHaClusterStatus {
        let outcome = Ok(Applied { gateway_image: "flinkha:1".to_owned() });
        let now = Timestamp::from_second(second).unwrap_or_default();
        let resource = fixture::resource();
        let desired =
            Desired::of(&resource, before, observed, now).unwrap_or_else(|_| Desired::kept(&resource, before));
        status(&resource, &desired, before, observed, &outcome, now)
    }

    fn reasons(status: &FlinkHaClusterStatus) -> Vec<(&str, &str, &str)> {
        status
            .conditions
            .iter()
            .map(|condition| (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str()))
            .collect()
    }

    #[test]
    fn a_granted_leader_with_a_ready_standby_makes_the_cluster_ready() {
        let status = of(&observed("a", change("", "a")), &FlinkHaClusterStatus::default(), 0);
        assert_eq!(
            reasons(&status),
            [
                ("LeaderElected", "True", "LeaderElected"),
                ("Ready", "True", "Ready"),
                ("Progressing", "True", "PodsStarting"),
                ("Degraded", "False", "AsExpected"),
            ]
        );
        assert_eq!(status.job_manager.ready, "2/3");
        assert_eq!(status.leader.map(|leader| (leader.pod, leader.term)), Some(("a".to_owned(), 3)));
        assert_eq!(status.last_failover, None, "the first election is no failover");
    }

    #[test]
    fn an_elected_pod_leads_only_when_its_job_manager_has_taken_over_and_while_it_exists() {
        let before = FlinkHaClusterStatus::default();
        let reason = |observed: &Observed| of(observed, &before, 0).conditions[0].reason.clone();
        assert_eq!(reason(&observed("b", change("a", ""))), "TakingOver");
        assert_eq!(reason(&observed("", change("a", ""))), "NoLeader");
        assert_eq!(reason(&observed("gone", change("a", "gone"))), "LeaderGone");
        assert_eq!(reason(&Observed::default()), "NoLeader");
    }

    #[test]
    fn without_a_standby_that_is_ready_the_cluster_is_not() {
        let mut observed = observed("a", change("", "a"));
        observed.job_manager_pods = vec![pod("a", "True"), pod("b", "False")];
        assert_eq!(reasons(&of(&observed, &FlinkHaClusterStatus::default(), 0))[1], ("Ready", "False", "NoStandby"));
        observed.task_manager_pods.clear();
        assert_eq!(
            reasons(&of(&observed, &FlinkHaClusterStatus::default(), 0))[1],
            ("Ready", "False", "TaskManagersNotReady")
        );
    }

    #[test]
    fn a_transition_has_the_time_of_the_change_of_status_and_not_of_reason() {
        let first = of(&observed("", change("", "")), &FlinkHaClusterStatus::default(), 10);
        let second = of(&observed("gone", change("", "")), &first, 20);
        let third = of(&observed("a", change("", "a")), &second, 30);
        let times: Vec<i64> = [&first, &second, &third]
            .iter()
            .map(|status| status.conditions[0].last_transition_time.0.as_second())
            .collect();
        assert_eq!(times, [10, 10, 30]);
    }

    #[test]
    fn a_failover_is_told_once() {
        let first = of(&observed("a", change("", "a")), &FlinkHaClusterStatus::default(), 0);
        let second = of(&observed("b", change("a", "b")), &first, 1);
        let third = of(&observed("b", change("a", "b")), &second, 2);
        fn told(before: &FlinkHaClusterStatus, after: &FlinkHaClusterStatus) -> Vec<String> {
            notes(before, after).into_iter().map(|news| news.reason).collect()
        }
        assert_eq!(told(&FlinkHaClusterStatus::default(), &first), ["LeaderElected", "Ready"]);
        assert_eq!(notes(&first, &second)[0].message, "leadership went from a to b after 25 ms: JobManagerDied");
        assert_eq!(second, third);
        assert_eq!(told(&second, &third), Vec::<String>::new());
    }

    #[test]
    fn what_is_refused_is_degraded_and_makes_no_progress() {
        let refused = Err(Rejection::of(Cause { reason: "InvalidSpec", message: "spec.x: no".to_owned() }));
        let before = FlinkHaClusterStatus { gateway_image: Some("old".to_owned()), ..FlinkHaClusterStatus::default() };
        let status = {
            let (resource, observed) = (fixture::resource(), observed("a", change("", "a")));
            let desired = Desired::kept(&resource, &before);
            status(&resource, &desired, &before, &observed, &refused, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(reasons(&status)[2..], [("Progressing", "False", "Refused"), ("Degraded", "True", "InvalidSpec")]);
        assert_eq!(status.gateway_image.as_deref(), Some("old"));
    }

    #[test]
    fn two_clusters_that_share_a_directory_are_told_of_it() {
        let mut observed = observed("a", change("", "a"));
        let ledger = json!({ "metadata": {}, "data": { "haData": r#"{"state":"Shared","message":"another cluster uses it"}"#, "jobs": "[]" } });
        observed.ledger = serde_json::from_value(ledger).ok().map(Arc::new);
        let status = of(&observed, &FlinkHaClusterStatus::default(), 0);
        assert_eq!(reasons(&status)[3], ("Degraded", "True", "StorageShared"));
        assert_eq!(status.ha_data.map(|ha_data| ha_data.state).as_deref(), Some("Shared"));
    }
}

//! Many clusters, each on one line: `status` without a name.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;
use serde_json::Value;

use super::amount::age;
use super::cluster::{LeaderReport, leader, leader_of_status};
use super::problems::{problems, work};
use super::table::{Cell, Table, Tone};
use crate::api::FlinkHaCluster;
use crate::api::names;
use crate::api::v1alpha1::Provider;
use crate::lease::record::Record;

/// Several clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OverviewReport {
    pub clusters: Vec<OverviewEntry>,
    /// What could not be read, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_known: BTreeMap<String, String>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OverviewEntry {
    pub namespace: String,
    pub name: String,
    /// `True`, `False` or `Unknown`; absent if no operator has reported about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderReport>,
    /// Ready JobManagers of those desired, for example `2/3`.
    pub job_managers: String,
    pub task_managers: String,
    /// Jobs that have not ended.
    pub jobs: usize,
    /// Phase of an application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<String>,
    pub in_progress: bool,
    /// Conditions that are not as they should be, as `<condition>: <reason>`.
    pub problems: Vec<String>,
}

/// Makes the overview of resources and Leases as JSON. A resource that is not understood is told of by name.
pub fn overview(resources: &[Value], leases: Result<&[Value], String>) -> OverviewReport {
    let mut report = OverviewReport::default();
    let place = |object: &Value| {
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    };
    let leases: BTreeMap<(String, String), &Value> = match leases {
        Ok(leases) => leases.iter().map(|lease| (place(lease), lease)).collect(),
        Err(why) => {
            report.not_known.insert("leases".to_owned(), format!("{why}; leaders are as the operator saw them last"));
            BTreeMap::new()
        }
    };
    for resource in resources {
        let (namespace, name) = place(resource);
        match serde_json::from_value::<FlinkHaCluster>(resource.clone()) {
            Ok(read) => {
                let lease = leases.get(&(namespace.clone(), names::lease(&name)));
                let lease = lease.and_then(|lease| serde_json::from_value::<Lease>((*lease).clone()).ok());
                report.clusters.push(entry(&read, lease.as_ref(), (namespace, name)));
            }
            Err(error) => {
                let why = format!("the resource is not understood by this version of the plugin: {error}");
                report.not_known.insert(format!("{namespace}/{name}"), why);
            }
        }
    }
    report.clusters.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    report
}

fn entry(resource: &FlinkHaCluster, lease: Option<&Lease>, (namespace, name): (String, String)) -> OverviewEntry {
    let status = resource.status.clone().unwrap_or_default();
    let is_zookeeper = resource.spec.high_availability.provider == Provider::ZooKeeper;
    // With ZooKeeper the ledger says who leads, and one request for all ledgers would carry all jobs.
    let lease = lease.filter(|_| !is_zookeeper);
    let record = lease.map(Record::of).unwrap_or_default();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let phase = status.application.as_ref().map(|application| serde_json::to_value(application.phase));
    let problems = problems(&status);
    let wrong = problems.iter().filter(|problem| !problem.is_expected || problem.reason == "ReconcileDisabled");
    OverviewEntry {
        ready: ready.map(|ready| ready.status.clone()),
        leader: leader(lease, &record).or_else(|| leader_of_status(&status).filter(|_| lease.is_none())),
        job_managers: status.job_manager.ready.clone(),
        task_managers: status.task_manager.ready.clone(),
        jobs: status.jobs.iter().filter(|job| job.ended.is_none()).count(),
        application: phase.and_then(Result::ok).and_then(|phase| phase.as_str().map(str::to_owned)),
        last_failover: status.last_failover.as_ref().and_then(|one| one.at.as_ref()).map(|at| at.0.to_string()),
        in_progress: !work(&status).is_empty(),
        problems: wrong.map(|problem| format!("{}: {}", problem.conditions.join(", "), problem.reason)).collect(),
        namespace,
        name,
    }
}

/// Returns the overview as lines for a terminal. `with_namespace`: it is of all namespaces.
pub fn screen(report: &OverviewReport, with_namespace: bool, now: Timestamp, has_colours: bool) -> String {
    let headings = [
        "NAMESPACE",
        "NAME",
        "READY",
        "LEADER",
        "TERM",
        "SINCE",
        "JOBMANAGERS",
        "TASKMANAGERS",
        "JOBS",
        "FAILOVER",
        "PROBLEMS",
    ];
    let skipped = usize::from(!with_namespace);
    let mut table = Table::new(&headings[skipped..]);
    let ago = |at: Option<&String>| at.and_then(|at| at.parse().ok()).map(|at| age(at, now));
    for one in &report.clusters {
        let leader = one.leader.as_ref();
        let ready = match one.ready.as_deref() {
            Some("True") => Cell::new("yes", Tone::Good),
            Some(_) => Cell::new("no", Tone::Bad),
            None => Cell::new("?", Tone::Busy),
        };
        let work = one.in_progress.then(|| Cell::new("in progress", Tone::Busy));
        let problems = (!one.problems.is_empty()).then(|| Cell::new(one.problems.join("; "), Tone::Bad));
        let cells = vec![
            one.namespace.as_str().into(),
            one.name.as_str().into(),
            ready,
            Cell::or_dash(leader.map(|leader| &leader.pod)),
            Cell::or_dash(leader.map(|leader| leader.term.to_string())),
            Cell::or_dash(ago(leader.and_then(|leader| leader.since.as_ref()))),
            one.job_managers.as_str().into(),
            one.task_managers.as_str().into(),
            one.application.clone().map_or_else(|| one.jobs.to_string().into(), Cell::from),
            Cell::or_dash(ago(one.last_failover.as_ref())),
            problems.or(work).unwrap_or_default(),
        ];
        table.row(cells.into_iter().skip(skipped).collect());
    }
    let mut lines = Vec::new();
    if report.clusters.is_empty() {
        lines.push("no FlinkHaCluster was found".to_owned());
    } else {
        lines.extend(table.lines("", has_colours));
        let ready = report.clusters.iter().filter(|one| one.ready.as_deref() == Some("True")).count();
        let ill = report.clusters.iter().filter(|one| !one.problems.is_empty()).count();
        let all = report.clusters.len();
        if all > 1 {
            lines.push(format!("{all} clusters: {ready} ready, {ill} with problems"));
        }
    }
    for (what, why) in &report.not_known {
        lines.push(Cell::new(format!("not known: {what}: {why}"), Tone::Busy).painted(has_colours));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(name: &str, ready: &str, leader: &str) -> Value {
        let at = "2026-01-01T00:00:00Z";
        let message = if ready == "True" { "" } else { "no JobManager is elected" };
        json!({
            "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster",
            "metadata": { "name": name, "namespace": "flink" },
            "spec": { "image": "flink:2.3.0", "highAvailability": { "storageDir": "file:///flink/ha" } },
            "status": {
                "leader": { "pod": leader, "term": 3, "since": at },
                "jobManager": { "ready": "2/2" }, "taskManager": { "ready": "1/1" },
                "jobs": [{ "id": "a", "state": "Running" }, { "id": "b", "state": "Finished", "ended": at }],
                "lastFailover": { "from": "x", "to": "y", "why": "JobManagerDied", "at": at },
                "conditions": [
                    { "type": "Ready", "status": ready, "reason": "NoLeader", "message": message, "lastTransitionTime": at },
                ],
            },
        })
    }

    #[test]
    fn each_cluster_is_a_line_and_one_that_is_not_understood_is_named() {
        let lease = json!({
            "metadata": {
                "name": "b", "namespace": "flink",
                "annotations": { "flinkha.dev/term": "5.u.p.1-2" },
            },
            "spec": { "holderIdentity": "b-1", "acquireTime": "2026-01-01T00:59:00.000000Z" },
        });
        let mut strange = resource("c", "True", "c-0");
        strange["spec"]["highAvailability"]["provider"] = json!("Raft");
        let resources = [resource("b", "False", "b-0"), resource("a", "True", "a-0"), strange];
        let report = overview(&resources, Ok(&[lease]));
        let now = "2026-01-01T01:00:00Z".parse().expect("a time");
        let head = "\
NAME   READY   LEADER   TERM   SINCE   JOBMANAGERS   TASKMANAGERS   JOBS   FAILOVER   PROBLEMS
a      yes     a-0      3      1h      2/2           1/1            1      1h
b      no      b-1      5      1m      2/2           1/1            1      1h         Ready: NoLeader
2 clusters: 1 ready, 1 with problems
not known: flink/c: the resource is not understood by this version of the plugin: unknown variant `Raft`, expected ";
        let shown = screen(&report, false, now, false);
        assert!(shown.starts_with(head) && shown.lines().count() == 5, "{shown}");
        let all = screen(&report, true, now, false);
        assert!(all.starts_with("NAMESPACE   NAME   READY") && all.contains("\nflink       a      yes"), "{all}");
    }

    #[test]
    fn without_leases_leaders_are_those_of_the_status() {
        let report = overview(&[resource("b", "True", "b-0")], Err("forbidden".to_owned()));
        assert_eq!(report.clusters[0].leader.as_ref().map(|leader| leader.pod.as_str()), Some("b-0"));
        assert_eq!(report.not_known["leases"], "forbidden; leaders are as the operator saw them last");
        let text = screen(&OverviewReport::default(), true, Timestamp::UNIX_EPOCH, false);
        assert_eq!(text, "no FlinkHaCluster was found\n");
    }
}

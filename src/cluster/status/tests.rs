//! What the status says of what is observed.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::rest::IpFamilyPolicy;
use crate::cluster::cause::Cause;
use crate::cluster::events::notes;
use crate::cluster::observed::{ObservedDeployment, ObservedPod};
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
    let annotations = json!({ "flinkha.dev/term": "3.uid.process.1-1", "flinkha.dev/last-change": change.to_string() });
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

fn desired(resource: &FlinkHaCluster, before: &FlinkHaClusterStatus, observed: &Observed, now: Timestamp) -> Desired {
    Desired::of(resource, before, observed, now).unwrap_or_else(|_| Desired::kept(resource, before))
}

fn of(observed: &Observed, before: &FlinkHaClusterStatus, second: i64) -> FlinkHaClusterStatus {
    let outcome = Ok(Applied { gateway_image: "flinkha:1".to_owned(), objects: None, turn: None });
    let now = Timestamp::from_second(second).unwrap_or_default();
    let resource = fixture::resource();
    let desired = desired(&resource, before, observed, now);
    status(&resource, &desired, before, observed, &outcome, now).status
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
            ("Reconciling", "True", "PodsStarting"),
            ("Stalled", "False", "Reconciling"),
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
    assert_eq!(notes(&first, &second)[0].message, "leadership moved from a to b after 25 ms: JobManagerDied");
    assert_eq!(second, third);
    assert_eq!(told(&second, &third), Vec::<String>::new());
    let (last, listed) = (second.last_failover.unwrap_or_default(), &second.failovers);
    assert_eq!(
        (listed.len(), listed[0].term, listed[0].reason.as_str(), listed[0].planned),
        (1, 3, "JobManagerDied", false)
    );
    assert_eq!((&listed[0].from, &listed[0].to, &listed[0].at), (&last.from, &last.to, &last.at));
    assert_eq!(listed[0].leaderless_millis, last.leaderless_milliseconds);
    assert!(first.failovers.is_empty(), "the first election is no failover");
}

#[test]
fn what_is_refused_is_degraded_and_makes_no_progress() {
    let refused = Err(Rejection::of(Cause { reason: "InvalidSpec", message: "spec.x: no".to_owned() }));
    let before = FlinkHaClusterStatus { gateway_image: Some("old".to_owned()), ..FlinkHaClusterStatus::default() };
    let status = {
        let (resource, observed) = (fixture::resource(), observed("a", change("", "a")));
        let desired = Desired::kept(&resource, &before);
        status(&resource, &desired, &before, &observed, &refused, Timestamp::UNIX_EPOCH).status
    };
    assert_eq!(
        reasons(&status)[2..],
        [
            ("Progressing", "False", "Refused"),
            ("Degraded", "True", "InvalidSpec"),
            ("Reconciling", "False", "Stalled"),
            ("Stalled", "True", "InvalidSpec"),
        ]
    );
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

/// What is said in `Degraded` at these seconds, when the same is observed each time.
fn degraded_at(observed: &Observed, before: FlinkHaClusterStatus, seconds: &[i64]) -> Vec<(String, String)> {
    let mut before = before;
    let told = seconds.iter().map(|second| {
        before = of(observed, &before, *second);
        let condition = &before.conditions[3];
        (condition.reason.clone(), condition.message.clone())
    });
    told.collect()
}

fn waits_of(observed: &Observed, before: &FlinkHaClusterStatus, second: i64) -> Option<u64> {
    let (resource, now) = (fixture::resource(), Timestamp::from_second(second).unwrap_or_default());
    let (desired, outcome) = (
        desired(&resource, before, observed, now),
        Ok(Applied { gateway_image: "flinkha:1".to_owned(), objects: None, turn: None }),
    );
    let told = status(&resource, &desired, before, observed, &outcome, now);
    told.look_again.map(|after| after.as_secs())
}

#[test]
fn nobody_who_leads_is_told_of_after_30_seconds_and_looked_for_then() {
    let ready = of(&observed("a", change("", "a")), &FlinkHaClusterStatus::default(), 0);
    let lost = observed("b", change("a", ""));
    let first = of(&lost, &ready, 10);
    assert_eq!(waits_of(&lost, &first, 12), Some(29));
    let told = degraded_at(&lost, ready, &[10, 39, 40]);
    assert_eq!(told[..2].iter().map(|told| told.0.as_str()).collect::<Vec<_>>(), ["AsExpected", "AsExpected"]);
    assert_eq!(told[2].0, "NoLeader");
    let expected = "no JobManager leads since 1970-01-01T00:00:10Z: b was elected in term 3; its JobManager is taking over; \
                    a could lead, b could lead, c is not ready";
    assert_eq!(told[2].1, expected);
}

#[test]
fn a_standby_that_does_not_come_back_is_told_of_except_where_none_is_asked_for() {
    let alone = |replicas: i32| {
        let mut observed = observed("a", change("", "a"));
        observed.job_manager_pods = vec![pod("a", "True")];
        let (mut resource, mut before) = (fixture::resource(), FlinkHaClusterStatus::default());
        resource.spec.job_manager.replicas = replicas;
        for second in [0, 60] {
            let now = Timestamp::from_second(second).unwrap_or_default();
            let desired = desired(&resource, &before, &observed, now);
            let applied = Ok(Applied { gateway_image: "flinkha:1".to_owned(), objects: None, turn: None });
            before = status(&resource, &desired, &before, &observed, &applied, now).status;
        }
        before.conditions[3].reason.clone()
    };
    assert_eq!((alone(3).as_str(), alone(1).as_str()), ("NoStandby", "AsExpected"));
}

#[test]
fn a_service_that_reaches_nobody_is_told_of() {
    let mut observed = observed("a", change("", "a"));
    let slice = |name: &str, endpoints: Value| {
        let slice = json!({ "metadata": { "name": name }, "endpoints": endpoints });
        Arc::new(serde_json::from_value(slice).expect("an EndpointSlice"))
    };
    let granted: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap_or_default();
    let at = |seconds: i64| granted.as_second() + seconds;
    let ready = of(&observed, &FlinkHaClusterStatus::default(), at(0));
    for (endpoints, reason) in [
        (json!(null), "RestWithoutAddress"),
        (json!([]), "RestWithoutAddress"),
        (json!([{ "addresses": ["10.0.0.1"] }]), "AsExpected"),
    ] {
        observed.rest = vec![slice("demo-rest", endpoints)];
        let told = degraded_at(&observed, ready.clone(), &[at(29), at(31)]);
        assert_eq!((told[0].0.as_str(), told[1].0.as_str()), ("AsExpected", reason));
    }
    // Where one family is enough, the pods may have one only.
    observed.rest.push(slice("demo-rest-ipv6", json!([])));
    assert_eq!(degraded_at(&observed, ready.clone(), &[at(31)])[0].0, "AsExpected");
    let mut resource = fixture::resource();
    resource.spec.rest.ip_family_policy = Some(IpFamilyPolicy::RequireDualStack);
    let desired = desired(&resource, &ready, &observed, granted);
    let applied = Ok(Applied { gateway_image: "flinkha:1".to_owned(), objects: None, turn: None });
    let later = Timestamp::from_second(at(31)).unwrap_or_default();
    let told = status(&resource, &desired, &ready, &observed, &applied, later).status;
    assert!(told.conditions.iter().any(|condition| condition.reason == "RestWithoutAddress"
        && condition.message.contains("EndpointSlice demo-rest-ipv6 has no address")));
}

#[test]
fn a_roll_out_that_does_not_end_is_told_of_with_what_kubernetes_says() {
    let mut late = observed("a", change("", "a"));
    let condition =
        json!({ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late" });
    let deployment = json!({
        "metadata": { "name": "demo-jobmanager", "generation": 2 },
        "status": { "observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "conditions": [condition] },
    });
    late.job_manager_deployment = serde_json::from_value(deployment).ok().map(Arc::new);
    let told = degraded_at(&late, FlinkHaClusterStatus::default(), &[0, 599, 600]);
    assert_eq!((told[1].0.as_str(), told[2].0.as_str()), ("AsExpected", "RollOutLate"));
    assert!(told[2].1.ends_with("Deployment demo-jobmanager: ProgressDeadlineExceeded: late"), "{}", told[2].1);
}

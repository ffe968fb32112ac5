//! The screen of a cluster, made of objects as the API server returns them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::candidates::PlacedPod;
use super::cluster::{ClusterReport, ClusterSources};
use super::cluster_text::screen;
use super::text::json as text_of;

const JOB: &str = "0e4519cff01b3cb1d46ceefbba31d9ae";

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object as the API server returns it")
}

fn now() -> Timestamp {
    "2026-01-01T03:00:00Z".parse().expect("a time")
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let at = "2026-01-01T02:57:00Z";
    json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at })
}

fn resource() -> Value {
    json!({
        "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster",
        "metadata": {
            "name": "demo", "namespace": "flink", "generation": 2,
            "annotations": { "flinkha.dev/operator": "flinkha-system/flinkha-operator" },
        },
        "spec": {
            "image": "flink:2.3.0", "highAvailability": { "storageDir": "file:///flink/ha" }, "jobManager": { "replicas": 3 },
        },
        "status": {
            "observedGeneration": 2,
            "taskManager": { "replicas": 2, "readyReplicas": 2, "ready": "2/2" },
            "conditions": [
                condition("LeaderElected", "True", "LeaderElected", "demo-jobmanager-b leads in term 7"),
                condition("Ready", "True", "Ready", "everything works"),
                condition("Progressing", "False", "Complete", "everything is as the resource asks for"),
                condition("Degraded", "False", "AsExpected", "no problem is known"),
                condition("Reconciling", "False", "RolledOut", "everything is as the resource asks for"),
                condition("Stalled", "False", "RolledOut", "everything is as the resource asks for"),
            ],
        },
    })
}

fn lease() -> Value {
    let change = json!({
        "term": 7, "from": "demo-jobmanager-a", "to": "demo-jobmanager-b", "why": "JobManagerDied", "leaderlessMillis": 24,
        "at": "2026-01-01T02:55:00.123Z",
    });
    let members = json!([{ "podUid": "uid-a", "address": "10.0.0.1:6181" }]);
    let peers = json!({ "address": "10.0.0.2:6181", "promiseMillis": 4000, "members": members });
    json!({
        "metadata": {
            "name": "demo", "namespace": "flink",
            "annotations": {
                "flinkha.dev/term": "7.uid-b.p.12-345",
                "flinkha.dev/last-change": change.to_string(),
                "flinkha.dev/peers": peers.to_string(),
            },
        },
        "spec": {
            "holderIdentity": "demo-jobmanager-b", "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T02:55:00.000000Z", "renewTime": "2026-01-01T02:59:56.000000Z",
        },
    })
}

fn ledger() -> Value {
    let ended =
        json!({ "id": JOB.replace('0', "1"), "name": "batch", "state": "Finished", "ended": "2026-01-01T01:00:00Z" });
    let running = json!({ "id": JOB, "name": "sequence", "state": "Running", "started": "2026-01-01T00:30:00Z" });
    let largest = json!({ "name": format!("demo-{JOB}-config-map"), "bytes": 12_288 });
    let orphans = json!({ "files": 2, "bytes": 2048, "removed": 0, "foreign": 0, "protected": 0 });
    let ha_data = json!({ "state": "Collectable", "largest": largest, "orphans": orphans });
    json!({
        "metadata": { "name": "demo-ledger", "namespace": "flink" },
        "data": {
            "jobs": json!([ended, running]).to_string(), "haData": ha_data.to_string(),
            "checkpoints": json!({ JOB: { "id": 17, "completed": "2026-01-01T02:59:30Z" } }).to_string(),
            "failovers": json!([
                { "term": 7, "from": "demo-jobmanager-a", "to": "demo-jobmanager-b", "reason": "JobManagerDied", "runningMillis": 910,
                  "leaderlessMillis": 24, "at": "2026-01-01T02:55:00.123Z", "restored": [{ "job": JOB, "checkpoint": 15 }] },
                { "term": 6, "from": "demo-jobmanager-b", "to": "demo-jobmanager-a", "reason": "Switchover",
                  "leaderlessMillis": 8, "at": "2026-01-01T02:00:00.123Z" },
            ])
            .to_string(),
        },
    })
}

fn pod(name: &str, uid: &str, node: &str, status: Value) -> Value {
    json!({
        "metadata": {
            "name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "app.kubernetes.io/component": "jobmanager", "app.kubernetes.io/instance": "demo" },
        },
        "spec": { "nodeName": node, "serviceAccountName": "demo-jobmanager" },
        "status": status,
    })
}

fn pods() -> Vec<PlacedPod> {
    let ready = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    let unscheduled = json!({
        "phase": "Pending",
        "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available" },
        ],
    });
    let mut pods = [
        pod("demo-jobmanager-a", "uid-a", "node-1", ready.clone()),
        pod("demo-jobmanager-b", "uid-b", "node-2", ready),
        pod("demo-jobmanager-c", "uid-c", "", unscheduled),
    ];
    pods[2]["spec"].as_object_mut().expect("an object").remove("nodeName");
    pods.iter().map(|pod| PlacedPod::read(pod).expect("a pod")).collect()
}

fn operator() -> Value {
    json!({
        "metadata": { "name": "flinkha-operator", "namespace": "flinkha-system" },
        "spec": { "holderIdentity": "flinkha-operator-0", "renewTime": "2026-01-01T02:59:59.000000Z" },
    })
}

fn sources() -> ClusterSources {
    ClusterSources {
        resource: read(resource()),
        lease: Ok(Some(read(lease()))),
        ledger: Ok(Some(read(ledger()))),
        pods: Ok(pods()),
        operator: Ok(Some(read(operator()))),
    }
}

fn shown(sources: &ClusterSources) -> String {
    screen(&ClusterReport::of(sources, now()), now(), false)
}

#[test]
fn a_cluster_is_on_one_screen() {
    let expected = "\
Cluster:        flink/demo, session cluster, flink:2.3.0, provider Kubernetes
Ready:          yes
Leader:         demo-jobmanager-b in term 7 since 2026-01-01T02:55:00Z (5m ago), Lease renewed 4s ago
Last failover:  2026-01-01T02:55:00Z (5m ago): demo-jobmanager-a led until its JVM ended (JobManagerDied); \
after 24 ms without a leader demo-jobmanager-b led, in term 7; all jobs ran again after 910 ms
Afterwards:     job sequence (0e4519cff01b3cb1d46ceefbba31d9ae) went on from checkpoint 15
Before:         2026-01-01T02:00:00Z (1h ago): demo-jobmanager-b led until a switchover was asked for (Switchover, planned); \
after 8 ms without a leader demo-jobmanager-a led, in term 6
TaskManagers:   2/2 ready
HA data:        Collectable; largest ConfigMap 12.0 KiB (1 % of its limit); orphans: 2 files, 2.0 KiB
Operator:       flinkha-operator-0 holds Lease flinkha-system/flinkha-operator, renewed 2026-01-01T02:59:59Z (1s ago)

JOBMANAGER          ROLE      READY   PROMISES   RESTARTS   AGE   NODE     WHY
demo-jobmanager-b   leader    yes     -          0          3h    node-2
demo-jobmanager-a   standby   yes     yes        0          3h    node-1
demo-jobmanager-c   standby   no      no         0          3h    -        Unschedulable: 0/2 nodes are available

JOB        ID                                 STATE      SINCE   CHECKPOINT   COMPLETED
sequence   0e4519cff01b3cb1d46ceefbba31d9ae   Running    2h30m   17           30s ago
batch      1e4519cff11b3cb1d46ceefbba31d9ae   Finished   2h
";
    assert_eq!(shown(&sources()), expected);
}

#[test]
fn of_the_last_failover_the_first_jobs_are_shown_and_that_nothing_is_recorded_yet() {
    let with = |failovers: Option<Value>| {
        let mut ledger = ledger();
        match failovers {
            Some(failovers) => ledger["data"]["failovers"] = failovers.to_string().into(),
            None => drop(ledger["data"].as_object_mut().expect("keys").remove("failovers")),
        }
        ClusterSources { ledger: Ok(Some(read(ledger))), ..sources() }
    };
    let restored: Vec<Value> =
        (0..5).map(|number| json!({ "job": JOB.replace("0e", &format!("{number}e")), "checkpoint": number })).collect();
    let many = json!([{
        "term": 7, "from": "demo-jobmanager-a", "to": "demo-jobmanager-b", "reason": "JobManagerDied",
        "at": "2026-01-01T02:55:00.123Z", "runningMillis": 910, "restored": restored,
    }]);
    let text = shown(&with(Some(many)));
    assert!(text.contains("\nAfterwards:     job sequence (") && text.contains("; and 2 more\n"), "{text}");
    let later = json!([{
        "term": 7, "from": "demo-jobmanager-a", "to": "demo-jobmanager-b", "at": "2026-01-01T02:55:00.123Z",
        "restored": [{ "job": JOB, "checkpoint": 18 }],
    }]);
    let text = shown(&with(Some(later)));
    assert!(text.contains("Running    2h30m   18\n"), "later than what is noted: {text}");
    let none = with(None);
    let at = |time: &str| {
        let now = time.parse().expect("a time");
        screen(&ClusterReport::of(&none, now), now, false)
    };
    let soon = "\nAfterwards:     from which checkpoints jobs go on is recorded some seconds after all of them run\n";
    assert!(at("2026-01-01T02:55:04Z").contains(soon), "{}", at("2026-01-01T02:55:04Z"));
    assert!(!at("2026-01-01T03:10:00Z").contains("\nAfterwards:"), "nobody has seen it");
}

#[test]
fn what_is_wrong_stands_at_the_end_with_the_way_out() {
    let mut ill = resource();
    let away = "no JobManager is elected; see the log of demo-jobmanager-c";
    ill["status"]["conditions"] = json!([
        condition("LeaderElected", "False", "NoLeader", away),
        condition("Ready", "False", "NoLeader", away),
        condition("Progressing", "True", "PodsStarting", "1/3 JobManagers are ready"),
        condition("Paused", "True", "ReconcileDisabled", "to go on: kubectl annotate fhc demo flinkha.dev/reconcile-"),
    ]);
    let mut free = lease();
    free["spec"]["holderIdentity"] = json!("");
    let mut sources = ClusterSources { resource: read(ill), lease: Ok(Some(read(free))), ..sources() };
    let text = shown(&sources);
    assert!(text.contains("\nLeader:         none\n"), "{text}");
    let expected = "
In progress:    1/3 JobManagers are ready

LeaderElected, Ready: NoLeader since 2026-01-01T02:57:00Z (3m ago)
  no JobManager is elected; see the log of demo-jobmanager-c
  see docs/operations.md#reasons-of-leaderelected

Paused: ReconcileDisabled since 2026-01-01T02:57:00Z (3m ago)
  to go on: kubectl annotate fhc demo flinkha.dev/reconcile-
  see docs/operations.md#reasons-of-paused
";
    assert!(text.ends_with(expected), "{text}");

    sources.operator = Ok(None);
    let text = shown(&sources);
    assert!(text.contains("\nOperator:       nobody holds Lease flinkha-system/flinkha-operator\n"), "{text}");
    assert!(text.contains("\nOperator: OperatorGone\n  no operator has renewed Lease"), "{text}");
}

#[test]
fn what_may_not_be_read_is_not_known_and_the_rest_is_shown() {
    let forbidden = || "forbidden (403)".to_owned();
    let sources = ClusterSources {
        lease: Err(forbidden()),
        ledger: Err(forbidden()),
        pods: Err(forbidden()),
        operator: Err(forbidden()),
        ..sources()
    };
    let text = shown(&sources);
    assert!(text.contains("\nLeader:         none\n") && text.contains("\nReady:          yes\n"), "{text}");
    for what in ["ledger", "lease", "operator", "pods"] {
        assert!(text.contains(&format!("\nNot known:      {what}: forbidden (403)")), "{text}");
    }
    let mut resource = resource();
    resource["status"]["leader"] = json!({ "pod": "demo-jobmanager-b", "term": 7 });
    let text = shown(&ClusterSources { resource: read(resource), ..sources });
    assert!(text.contains("\nLeader:         demo-jobmanager-b in term 7\n"), "by the status: {text}");
}

#[test]
fn an_application_is_shown_with_its_upgrade_and_on_zookeeper_the_ledger_says_who_leads() {
    let mut application = resource();
    application["spec"]["job"] = json!({ "jarURI": "local:///app.jar" });
    application["spec"]["highAvailability"]["provider"] = json!("ZooKeeper");
    application["status"]["application"] = json!({
        "phase": "Running", "since": "2026-01-01T02:00:00Z", "jobId": JOB, "jobState": "RUNNING",
        "lastSavepoint": { "path": "s3://bucket/savepoint-1", "id": "nonce-1" },
        "upgrades": [{
            "at": "2026-01-01T02:00:00Z", "generation": 2, "mode": "last-state", "result": "RolledBack", "why": "too slow",
        }],
    });
    let mut ledger = ledger();
    ledger["metadata"]["annotations"] = json!({
        "flinkha.dev/leader": json!({ "pod": "demo-jobmanager-a", "since": "2026-01-01T02:00:00Z" }).to_string(),
        "flinkha.dev/term": "9.uid-a.p.1-2",
    });
    let sources =
        ClusterSources { resource: read(application), ledger: Ok(Some(read(ledger))), lease: Ok(None), ..sources() };
    let text = shown(&sources);
    for line in [
        "Cluster:        flink/demo, application cluster, flink:2.3.0, provider ZooKeeper",
        "Leader:         demo-jobmanager-a in term 9 since 2026-01-01T02:00:00Z (1h ago), is taking over",
        "Application:    Running since 2026-01-01T02:00:00Z (1h ago), job 0e4519cff01b3cb1d46ceefbba31d9ae, Flink says RUNNING",
        "Last upgrade:   RolledBack last-state at 2026-01-01T02:00:00Z (1h ago): too slow",
        "Last savepoint: s3://bucket/savepoint-1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("demo-jobmanager-b   standby   yes     -  "), "nobody promises: {text}");
}

/// Whoever may write a pod's message, the name of a job or a condition acts on no terminal.
#[test]
fn hostile_objects_act_on_no_terminal() {
    let hostile = "x\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\u{202e}y\nz";
    let mut resource = resource();
    resource["metadata"]["annotations"]["flinkha.dev/switchover"] = json!(hostile);
    resource["spec"]["image"] = json!(hostile);
    resource["status"]["conditions"] =
        json!([condition("Degraded", "True", hostile, hostile), condition(hostile, hostile, hostile, hostile)]);
    let mut lease = lease();
    lease["spec"]["holderIdentity"] = json!(hostile);
    let mut ledger = ledger();
    let jobs = json!([{ "id": JOB, "name": hostile, "state": hostile, "started": hostile }]);
    ledger["data"] = json!({
        "jobs": jobs.to_string(), "haData": json!({ "state": hostile, "message": hostile }).to_string(),
    });
    let status = json!({ "phase": hostile, "conditions": [{ "type": "PodScheduled", "status": "False", "reason": hostile, "message": hostile }] });
    let pod = PlacedPod::read(&pod(hostile, hostile, hostile, status)).expect("a pod");
    let sources = ClusterSources {
        resource: read(resource),
        lease: Ok(Some(read(lease))),
        ledger: Ok(Some(read(ledger))),
        pods: Ok(vec![pod]),
        operator: Err(hostile.to_owned()),
    };
    let report = ClusterReport::of(&sources, now());
    for text in [screen(&report, now(), false), text_of(&report)] {
        let acts = |c: &char| c.is_control() && *c != '\n' || *c == '\u{202e}';
        assert!(!text.chars().any(|c| acts(&c)), "{text:?}");
        assert!(!text.lines().any(|line| line.trim() == "z"), "a line of its own: {text}");
    }
    let coloured = screen(&report, now(), true);
    let sequences: Vec<&str> = coloured.split('\u{1b}').skip(1).filter_map(|rest| rest.split('m').next()).collect();
    assert!(sequences.iter().all(|code| ["[0", "[2", "[31", "[32", "[33"].contains(code)), "{sequences:?}");
}

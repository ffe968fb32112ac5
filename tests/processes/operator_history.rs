//! What the operator tells of what has happened: the last changes of leader, the last checkpoints, events that are
//! repeated. [`operator_api`](crate::operator_api) asks.

use crate::support::eventually;
use crate::support::operator::{Installation, NAMESPACE};
use crate::support::seconds;
use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

/// An event that was published twice is one event with a series, and events are in the order of their names, in which
/// `kubectl describe` shows them.
pub async fn is_counted(installation: &Installation, reason: &str) {
    let events: Api<Event> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    let counted = async || {
        let all = events.list(&ListParams::default()).await.ok()?.items;
        let of_reason: Vec<&Event> = all.iter().filter(|event| event.reason.as_deref() == Some(reason)).collect();
        assert!(of_reason.len() <= 1, "{of_reason:?}");
        let count = of_reason.first()?.series.as_ref()?.count;
        let times: Vec<_> = all.iter().filter_map(|event| event.event_time.as_ref().map(|time| time.0)).collect();
        assert!(times.is_sorted(), "{times:?}");
        (count == 2).then_some(())
    };
    eventually("the event to be counted", seconds(20), counted).await;
}

/// The Lease tells of the change to term 2. What gateways have recorded of it and of those before, and the last
/// checkpoint of a job, is in the status too, and in the table that `kubectl get` shows.
pub async fn tells_of_changes_while_it_was_away(installation: &Installation) {
    let job = "0e4519cff01b3cb1d46ceefbba31d9ae";
    let recorded = json!([
        { "term": 2, "from": "demo-jobmanager-a", "to": "demo-jobmanager-b", "reason": "JobManagerDied", "at": "2026-01-02T03:04:05Z",
          "leaderlessMillis": 25, "runningMillis": 910, "restored": [{ "job": job, "checkpoint": 17 }] },
        { "term": 1, "from": "demo-jobmanager-x", "to": "demo-jobmanager-a", "reason": "Switchover", "at": "2026-01-02T03:00:05.9Z",
          "leaderlessMillis": 8 },
    ]);
    let data = json!({
        "jobs": json!([{ "id": job, "state": "Running" }]).to_string(), "failovers": recorded.to_string(),
        "checkpoints": json!({ job: { "id": 19, "completed": "2026-01-02T03:05:00Z", "path": "file:/c/chk-19" } }).to_string(),
    });
    let ledgers = installation.api::<ConfigMap>(NAMESPACE);
    let patch = Patch::Merge(json!({ "data": data }));
    ledgers.patch("demo-ledger", &PatchParams::default(), &patch).await.unwrap();
    let listed = |resource: &Value| resource["status"]["failovers"].as_array().is_some_and(|all| all.len() == 2);
    let resource = installation.until::<FlinkHaCluster>("the changes", (NAMESPACE, "demo"), listed).await;
    let expected = json!([
        { "at": "2026-01-02T03:04:05Z", "from": "demo-jobmanager-a", "to": "demo-jobmanager-b", "term": 2,
          "reason": "JobManagerDied", "planned": false, "leaderlessMillis": 25, "runningMillis": 910,
          "restored": [{ "job": job, "checkpoint": 17 }] },
        { "at": "2026-01-02T03:00:05Z", "from": "demo-jobmanager-x", "to": "demo-jobmanager-a", "term": 1,
          "reason": "Switchover", "planned": true, "leaderlessMillis": 8 },
    ]);
    assert_eq!(resource["status"]["failovers"], expected);
    let last = json!({ "id": 19, "completed": "2026-01-02T03:05:00Z", "path": "file:/c/chk-19" });
    assert_eq!(resource["status"]["jobs"][0]["lastCheckpoint"], last);
    let path = format!("/apis/flinkha.dev/v1alpha1/namespaces/{NAMESPACE}/flinkhaclusters");
    let request = http::Request::get(path).header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table: Value = installation.admin.request(request.body(Vec::new()).unwrap()).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap();
    let column = columns.iter().position(|column| column["name"] == "Checkpoint").expect("a column");
    let shown = table["rows"][0]["cells"][column].as_str().unwrap();
    assert!(shown.ends_with('d') || shown.ends_with('y'), "its age: {shown}");
}

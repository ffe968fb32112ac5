//! Savepoints that the operator takes by itself: what it asks the leader for, and what it says while it waits. The
//! operator against a real kube-apiserver; the leader is played by the test.

use crate::presence::{DEMO, is_gone, says, store};
use crate::support::operator::{Installation, NAMESPACE, cluster};
use crate::support::seconds;
use flinkha::api::FlinkHaCluster;
use flinkha::api::names::{LEFT_ANNOTATION, SAVEPOINT_ANNOTATION};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

/// An application whose tasks run, by what its leader says.
struct Running {
    installation: Installation,
    progress: Value,
}

impl Running {
    async fn start(savepoints: Value) -> Self {
        let installation = Installation::start(NAMESPACE).await;
        installation.apply(&cluster(json!({
            "flinkConfiguration": { "execution.checkpointing.savepoint-dir": "file:///flink/savepoints" },
            "haData": { "onDelete": "Delete" },
            "job": { "jarURI": "local:///app.jar", "savepoints": savepoints },
        })));
        let phase = |phase: &'static str| move |resource: &Value| resource["status"]["application"]["phase"] == phase;
        let resource = installation.until::<FlinkHaCluster>("the start", DEMO, phase("Starting")).await;
        installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
        let application = &resource["status"]["application"];
        let up = format!("{:.0}", jiff::Timestamp::now());
        let progress = json!({
            "job": application["jobId"], "version": application["version"], "start": application["starts"],
            "state": "RUNNING", "up": up,
        });
        let running = Self { installation, progress };
        let jobs = json!([{ "id": running.progress["job"], "state": "Running", "started": up }]);
        running.ledger(&[("application", &running.progress), ("jobs", &jobs)]).await;
        running.installation.until::<FlinkHaCluster>("the job", DEMO, phase("Running")).await;
        running
    }

    async fn ledger(&self, entries: &[(&str, &Value)]) {
        let data: serde_json::Map<String, Value> =
            entries.iter().map(|(key, value)| ((*key).to_owned(), value.to_string().into())).collect();
        let patch = Patch::Merge(json!({ "data": data }));
        let config_maps = self.installation.api::<ConfigMap>(NAMESPACE);
        config_maps.patch("demo-ledger", &PatchParams::default(), &patch).await.unwrap();
    }

    /// The request on the Lease whose id begins so.
    async fn asked(&self, begin: &str) -> Value {
        let request = |lease: &Value| -> Option<Value> {
            let text = lease["metadata"]["annotations"][SAVEPOINT_ANNOTATION].as_str()?;
            let request: Value = serde_json::from_str(text).ok()?;
            request["id"].as_str()?.starts_with(begin).then_some(request)
        };
        let lease = self.installation.until::<Lease>(begin, DEMO, |lease| request(lease).is_some()).await;
        request(&lease).unwrap()
    }

    async fn answers(&mut self, request: &Value, answer: Value) {
        let at = format!("{:.0}", jiff::Timestamp::now());
        let mut savepoint = json!({ "id": request["id"], "at": at, "attempt": 1, "by": "uid.1-1" });
        flinkha::cluster::merge::merge(&mut savepoint, answer);
        self.progress["savepoint"] = savepoint;
        self.ledger(&[("application", &self.progress)]).await;
    }

    async fn delete(&self) {
        let resources = self.installation.api::<FlinkHaCluster>(NAMESPACE);
        resources.delete("demo", &DeleteParams::default()).await.unwrap();
    }

    /// Does what the garbage collector does, once the operator deletes the JobManagers.
    async fn collected(&self) {
        let deleting = |deployment: &Value| deployment["metadata"]["deletionTimestamp"].is_string();
        let name = (NAMESPACE, "demo-jobmanager");
        self.installation.until::<Deployment>("the JobManagers to be deleted", name, deleting).await;
        let deployments = self.installation.api::<Deployment>(NAMESPACE);
        let collected = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        deployments.patch("demo-jobmanager", &PatchParams::default(), &collected).await.unwrap();
    }

    /// Type and note of the event of this reason.
    async fn event(&self, reason: &str) -> (String, String) {
        let events = self.installation.api::<Event>(NAMESPACE).list(&ListParams::default()).await.unwrap();
        let told = events.items.iter().find(|event| event.data["reason"] == reason).expect(reason);
        let text = |key: &str| told.data[key].as_str().unwrap().to_owned();
        (text("type"), text("note"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_periodic_savepoint_that_fails_is_told_and_a_deletion_waits_for_the_last_one() {
    let mut running = Running::start(json!({ "interval": "10s", "retain": { "count": 3 }, "onDelete": true })).await;
    let asked = running.asked("periodic-").await;
    assert_eq!((&asked["stop"], &asked["retain"]["count"]), (&json!(false), &json!(3)));
    running.answers(&asked, json!({ "error": "the directory is full" })).await;
    let told = |resource: &Value| says(resource, "PeriodicSavepointFailed", &["the directory is full", "tries again"]);
    let resource = running.installation.until::<FlinkHaCluster>("the cause", DEMO, told).await;
    assert_eq!(resource["status"]["application"]["phase"], "Running");

    running.delete().await;
    let asked = running.asked("delete-").await;
    assert_eq!(asked["stop"], true);
    let told = |resource: &Value| {
        says(resource, "SavepointOnDeleteWaits", &["no JobManager has taken", r#"{"savepoints":{"onDelete":false}}"#])
    };
    running.installation.until::<FlinkHaCluster>("the cause and the way out", DEMO, told).await;
    let job_managers = running.installation.until::<Deployment>("it", (NAMESPACE, "demo-jobmanager"), |_| true).await;
    assert_eq!(job_managers["metadata"]["deletionTimestamp"], Value::Null, "the leader is to take a savepoint");

    let path = "file:/flink/savepoints/flink.demo/savepoint-00aa00-0123456789ab";
    let job = running.progress["job"].clone();
    let at = format!("{:.0}", jiff::Timestamp::now());
    let jobs = json!([{ "id": job, "state": "Finished", "started": at, "ended": at, "collected": at }]);
    let savepoints = json!([{ "id": asked["id"], "job": job, "path": path, "at": at }]);
    running.ledger(&[("savepoints", &savepoints), ("jobs", &jobs)]).await;
    running.answers(&asked, json!({ "path": path, "stops": job })).await;
    running.collected().await;
    is_gone(&running.installation, seconds(60)).await;
    let (kind, note) = running.event("Deleted").await;
    assert!(kind == "Normal" && note.contains(path), "{kind}: {note}");
    assert!(running.event("SavepointTaken").await.1.contains(path));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_gets_no_savepoint_goes_on_at_its_deadline_and_leaves_the_state() {
    let running = Running::start(json!({ "onDelete": true, "onDeleteDeadline": "10s" })).await;
    let job = running.progress["job"].as_str().unwrap();
    store(&running.installation, job).await;
    running.delete().await;
    running.asked("delete-").await;
    running.collected().await;
    is_gone(&running.installation, seconds(60)).await;
    let config_maps = running.installation.api::<ConfigMap>(NAMESPACE);
    let of_flink = ListParams::default().labels("type=flink-native-kubernetes");
    assert_eq!(config_maps.list(&of_flink).await.unwrap().items.len(), 2, "spec.haData.onDelete: Delete had its way");
    let (kind, note) = running.event("Deleted").await;
    assert!(kind == "Warning" && note.contains("within 10s") && note.contains("HA data stays"), "{kind}: {note}");
    let ledger = running.installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    assert!(ledger["metadata"]["annotations"][LEFT_ANNOTATION].to_string().contains("HA data stays"), "{ledger}");
}

//! What a cluster owns comes back with its contents when somebody deletes, empties or edits it, takes its labels or its
//! owner away, or restores it from a backup: object, injury, seconds. A real operator with the chart's rights, a real
//! kube-apiserver, and the parts of the leading gateway that write objects, with the rights of the JobManagers'
//! account. Without JVMs, kubelets and controllers.
//!
//! With `FORMER_PROGRAM` and `FORMER_CHART` the table is of that operator, without a gateway, and nothing is asserted.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::identity::token;
use crate::support::ledger;
use crate::support::operator::{Installation, NAMESPACE, OPERATOR, cluster};
use crate::support::{eventually, say, seconds};
use flinkha::api::FlinkHaCluster;
use flinkha::api::names::{self, ACCOUNT_ANNOTATION, NO_KEY_ANNOTATION, TERM_ANNOTATION};
use flinkha::flink::job_id::JobId;
use flinkha::flink::job_state::End;
use flinkha::flink::result::Outcome;
use flinkha::gateway::election::endpoint::Publisher;
use flinkha::gateway::gc::ledger::Ledger;
use flinkha::gateway::tenure::Tenures;
use flinkha::lease::elector::{LockView, Time};
use flinkha::lease::term::{Incarnation, Term};
use flinkha::ledger::jobs;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

/// What is not back by then is not repaired.
const LIMIT: Duration = seconds(5);
const PATIENCE: Duration = seconds(8);
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const INSTANCE: &str = "app.kubernetes.io/instance";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An object, and the merge patches by which somebody empties and edits it.
struct Owned {
    kind: &'static str,
    name: &'static str,
    api: Api<DynamicObject>,
    emptied: Value,
    edited: Value,
}

impl Owned {
    async fn find(&self) -> Option<Value> {
        let found = self.api.get_opt(self.name).await.expect("the API server answers")?;
        Some(serde_json::to_value(found).expect("an object"))
    }

    async fn patch(&self, patch: &Value) {
        let patched = self.api.patch(self.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.unwrap_or_else(|error| panic!("{} {}: {patch}: {error}", self.kind, self.name));
    }

    async fn delete(&self) {
        self.api.delete(self.name, &DeleteParams::default()).await.expect("failed to delete");
    }

    /// Deletes it and creates it as it was in a backup, before the resource of now existed; its contents are older.
    async fn restore(&self, before: &Value) {
        let mut copy = before.clone();
        for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
            copy["metadata"][field] = Value::Null;
        }
        if self.name != "demo-ledger" {
            copy["metadata"]["ownerReferences"] = former_owner();
        }
        copy["spec"]["clusterIP"] = Value::Null;
        copy["spec"]["clusterIPs"] = Value::Null;
        flinkha::cluster::merge::merge(&mut copy, self.emptied.clone());
        self.delete().await;
        let copy: DynamicObject = serde_json::from_value(copy).expect("an object");
        match self.api.create(&PostParams::default(), &copy).await {
            Ok(_) => {}
            // The operator was faster: a tool that restores replaces it then, or leaves it.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("{} {}: {error}", self.kind, self.name),
        }
    }
}

/// Owner references to a resource of that name that is gone.
fn former_owner() -> Value {
    json!([{
        "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster", "name": "demo",
        "uid": "00000000-0000-0000-0000-00000000dead", "controller": true, "blockOwnerDeletion": true,
    }])
}

/// What must be there again. What the API server chooses for a new object may differ.
fn essence(object: &Value) -> Value {
    let (metadata, mut spec) = (&object["metadata"], object["spec"].clone());
    for field in ["clusterIP", "clusterIPs"] {
        spec[field] = Value::Null;
    }
    if object["kind"] == "Lease" {
        spec = Value::Null;
    }
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let owners: Vec<&Value> = owners.map(|owner| &owner["uid"]).collect();
    let contents = ["rules", "subjects", "roleRef", "data", "endpoints", "ports"].map(|field| object[field].clone());
    let labels = [MANAGED_BY, INSTANCE, SERVICE_NAME].map(|label| metadata["labels"][label].clone());
    json!({
        "labels": labels, "owners": owners, "contents": contents, "spec": spec,
        "term": metadata["annotations"][TERM_ANNOTATION],
    })
}

fn objects(installation: &Installation) -> Vec<Owned> {
    fn owned<K: kube::Resource<DynamicType = ()>>(
        installation: &Installation,
        name: &'static str,
        emptied: Value,
        edited: Value,
    ) -> Owned {
        let kind = match K::kind(&()).as_ref() {
            "ConfigMap" => "ConfigMap",
            "Deployment" => "Deployment",
            "EndpointSlice" => "EndpointSlice",
            "Lease" => "Lease",
            "PodDisruptionBudget" => "PodDisruptionBudget",
            "Role" => "Role",
            "RoleBinding" => "RoleBinding",
            "Service" => "Service",
            other => panic!("an object of kind {other}"),
        };
        Owned { kind, name, api: installation.api::<K>(NAMESPACE), emptied, edited }
    }
    let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }]);
    let user = json!([{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody" }]);
    let port = json!([{ "name": "rest", "port": 9999, "targetPort": 9999, "protocol": "TCP" }]);
    let mut all = vec![
        owned::<Service>(installation, "demo-rest", json!({}), json!({ "spec": { "ports": port } })),
        owned::<Service>(
            installation,
            "demo-jobmanagers",
            json!({ "spec": { "selector": null } }),
            json!({ "spec": { "selector": { "app": "other" } } }),
        ),
        owned::<ConfigMap>(
            installation,
            "demo-flink-config",
            json!({ "data": null }),
            json!({ "data": { "config.yaml": "a: b" } }),
        ),
        owned::<PodDisruptionBudget>(
            installation,
            "demo-jobmanager",
            json!({ "spec": { "maxUnavailable": null, "selector": null } }),
            json!({ "spec": { "maxUnavailable": "50%" } }),
        ),
        owned::<EndpointSlice>(
            installation,
            "demo-rest",
            json!({ "endpoints": [], "ports": [] }),
            json!({ "endpoints": [{ "addresses": ["10.9.9.9"] }] }),
        ),
        owned::<ConfigMap>(installation, "demo-ledger", json!({ "data": null }), json!({ "data": { "jobs": "[]" } })),
        owned::<Lease>(installation, "demo", json!({}), json!({})),
    ];
    for name in ["demo-jobmanager", "demo-taskmanager"] {
        all.push(owned::<Role>(installation, name, json!({ "rules": null }), json!({ "rules": rules })));
        all.push(owned::<RoleBinding>(installation, name, json!({ "subjects": null }), json!({ "subjects": user })));
        let edited = json!({ "spec": { "replicas": 7 } });
        all.push(owned::<Deployment>(installation, name, json!({ "spec": { "replicas": 0 } }), edited));
    }
    all
}

/// Leads, as far as objects are concerned.
struct Leader {
    ledger: Ledger,
    term: Term,
    _shown: watch::Sender<LockView>,
    _running: JoinSet<()>,
}

impl Leader {
    async fn start(installation: &Installation) -> Self {
        let token = token(&installation.admin, NAMESPACE, "demo-jobmanager", None).await;
        let client = installation.plane.servers[0].client(&token).await;
        let jvm = Incarnation { pid: i32::MAX, started: 1 };
        let term = Term { number: 7, pod_uid: "uid".to_owned(), process: "process".to_owned(), jvm };
        let (shown, seen) = watch::channel(LockView::Leader { term: term.clone(), until: Time(u64::MAX) });
        let tenures = Arc::new(Tenures::new(seen));
        let ledger = ledger::in_config_maps(&client, NAMESPACE, &tenures);
        let publisher = Publisher {
            client,
            namespace: NAMESPACE.to_owned(),
            cluster: "demo".to_owned(),
            pod: "demo-jobmanager-a".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        let mut running = JoinSet::new();
        running.spawn_local(ledger.clone().keep());
        let led = term.clone();
        running.spawn_local(async move { publisher.publish(&tenures, &led).await });
        Self { ledger, term, _shown: shown, _running: running }
    }

    /// Writes down an ended job and the owner's note.
    async fn write(&self) {
        let outcome = Outcome {
            name: "words".to_owned(),
            state: End::Finished,
            application: None,
            cause: None,
            started: 0,
            ended: 0,
        };
        let bury = |jobs: &mut Vec<jobs::Job>| {
            jobs::bury(jobs, JobId::from_number(1), &outcome, "2026-01-01T00:00:00Z");
            true
        };
        self.ledger.change_jobs(&self.term, bury).await.expect("failed to write the ledger");
        let note = |ha_data: &mut jobs::HaData| ha_data.owner = Some("us".to_owned());
        self.ledger.change_ha_data(&self.term, note).await.expect("failed to write the ledger");
    }
}

#[tokio::test]
async fn what_a_cluster_owns_comes_back_with_its_contents() {
    LocalSet::new().run_until(table()).await;
}

async fn table() {
    let former = std::env::var_os("FORMER_PROGRAM").zip(std::env::var_os("FORMER_CHART"));
    let installation = match &former {
        Some((program, chart)) => Installation::start_version(Path::new(program), Path::new(chart), &[]).await,
        None => Installation::start(NAMESPACE).await,
    };
    installation.apply(&cluster(json!({})));
    installation.until::<Deployment>("the last object", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    let leader = if former.is_none() { Some(Leader::start(&installation).await) } else { None };
    if let Some(leader) = &leader {
        leader.write().await;
        let published = |slice: &Value| slice["endpoints"][0]["addresses"][0] == "10.0.0.1";
        installation.until::<EndpointSlice>("the address", (NAMESPACE, "demo-rest"), published).await;
    }
    let mut missed = Vec::new();
    println!("{:40} {:28} {:>7}", "object", "injury", "seconds");
    for owned in objects(&installation) {
        for injury in
            ["deleted", "emptied", "edited", "without labels", "without owner", "of a former resource", "restored"]
        {
            // The ledger has no owner, because it may outlive the resource. Nothing of the gateways' leads here.
            let of_owner = ["without owner", "of a former resource"].contains(&injury);
            let patch = match injury {
                "emptied" => owned.emptied.clone(),
                "edited" => owned.edited.clone(),
                "without labels" => json!({ "metadata": { "labels": null } }),
                "without owner" => json!({ "metadata": { "ownerReferences": null } }),
                "of a former resource" => json!({ "metadata": { "ownerReferences": former_owner() } }),
                _ => json!({}),
            };
            let is_patch = !["deleted", "restored"].contains(&injury);
            if is_patch && patch == json!({}) || of_owner && owned.name == "demo-ledger" {
                continue;
            }
            let before = owned.find().await.unwrap_or_else(|| panic!("{} {} is gone", owned.kind, owned.name));
            match injury {
                "deleted" => owned.delete().await,
                "restored" => owned.restore(&before).await,
                _ => owned.patch(&patch).await,
            }
            let begin = Instant::now();
            let mut found = owned.find().await;
            while found.as_ref().map(essence) != Some(essence(&before)) && begin.elapsed() < PATIENCE {
                tokio::time::sleep(Duration::from_millis(20)).await;
                found = owned.find().await;
            }
            let took = begin.elapsed();
            let object = format!("{} {}", owned.kind, owned.name);
            println!("{object:40} {injury:28} {:7.2}", took.as_secs_f64());
            if took > LIMIT {
                say(format!("{object}, {injury}: {}", found.as_ref().map(essence).unwrap_or_default()));
                missed.push(format!("{object} {injury}"));
                // The next injury finds it as it was.
                owned.patch_back(&before).await;
            }
        }
    }
    println!("test result: {} not repaired: {missed:?}", missed.len());
    if let Some(leader) = leader {
        assert!(missed.is_empty(), "{missed:?}");
        let jobs = leader.ledger.jobs().await.expect("the ledger");
        assert!(jobs.iter().any(|job| job.has_ended()), "the tombstone is there");
        installation.quiet(seconds(3), seconds(30)).await;
        // A gateway has none while its Role is being made again.
        let requests = installation.plane.servers[0].audit().requests().into_iter();
        let refused: Vec<_> = requests.filter(|one| one.code == 403 && one.user == OPERATOR).collect();
        assert!(refused.is_empty(), "rights do not suffice: {refused:?}");
    }
}

impl Owned {
    async fn patch_back(&self, before: &Value) {
        let mut whole = before.clone();
        for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
            whole["metadata"][field] = Value::Null;
        }
        self.delete().await;
        let whole: DynamicObject = serde_json::from_value(whole).expect("an object");
        let _ = self.api.create(&PostParams::default(), &whole).await;
        tokio::time::sleep(seconds(2)).await;
    }
}

/// The API server no longer takes the tokens of the pods.
#[tokio::test(flavor = "multi_thread")]
async fn pods_whose_service_account_was_made_again_are_replaced_once() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    installation.until::<Deployment>("the last object", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    pod(&installation, "demo-jobmanager-a").await;
    let named =
        |deployment: &Value| deployment["spec"]["template"]["metadata"]["annotations"][ACCOUNT_ANNOTATION].clone();
    let place = (NAMESPACE, "demo-jobmanager");
    let before = installation.until::<Deployment>("the Deployment", place, |_| true).await;
    assert_eq!(named(&before), Value::Null);
    let account = installation.until::<ServiceAccount>("the account", place, |_| true).await;
    // Times of creation are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let accounts = installation.api::<ServiceAccount>(NAMESPACE);
    accounts.delete("demo-jobmanager", &DeleteParams::default()).await.unwrap();
    let is_new = |found: &Value| found["metadata"]["uid"] != account["metadata"]["uid"];
    let uid = installation.until::<ServiceAccount>("another account", place, is_new).await["metadata"]["uid"].clone();
    let after = installation.until::<Deployment>("other pods", place, |found| named(found) == uid).await;
    assert_eq!(after["spec"]["template"]["spec"], before["spec"]["template"]["spec"], "nothing else changes");
    let task_managers = (NAMESPACE, "demo-taskmanager");
    let others = installation.until::<Deployment>("the other Deployment", task_managers, |_| true).await;
    assert_eq!(named(&others), Value::Null, "their account is as it was");

    // The new pod is younger than its account.
    installation
        .api::<Pod>(NAMESPACE)
        .delete("demo-jobmanager-a", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    pod(&installation, "demo-jobmanager-b").await;
    installation.quiet(seconds(3), seconds(30)).await;
    let last = installation.until::<Deployment>("the Deployment", place, |_| true).await;
    assert_eq!(last["metadata"]["generation"], after["metadata"]["generation"], "once");
}

async fn pod(installation: &Installation, name: &str) {
    let labels = json!({ MANAGED_BY: "flinkha", INSTANCE: "demo", "app.kubernetes.io/component": "jobmanager" });
    let containers = json!([{ "name": "flink-main-container", "image": "flink:2.3.0" }]);
    let spec = json!({ "containers": containers, "serviceAccountName": "demo-jobmanager" });
    let pod = json!({ "metadata": { "name": name, "labels": labels }, "spec": spec });
    let pods: Api<Pod> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

/// The operator may not read Secrets: the leader's gateway finds no key, and says so in the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_is_made_again_and_is_another_one() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    installation.until::<Deployment>("the last object", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    let (place, secrets) = ((NAMESPACE, "demo-peers"), installation.api::<Secret>(NAMESPACE));
    let before = installation.until::<Secret>("the key", place, |_| true).await;
    assert_eq!(before["immutable"], Value::Null, "kubelets would deliver no other key to a pod that has seen one");
    let note = |since: Value| json!({ "metadata": { "annotations": { NO_KEY_ANNOTATION: since } } });
    let ledgers = installation.api::<ConfigMap>(NAMESPACE);
    let annotate = async |since: Value| {
        let patch = Patch::Merge(note(since));
        ledgers.patch(&names::ledger("demo"), &PatchParams::default(), &patch).await.unwrap();
    };
    // A key that is there stays, whatever a gateway sees of it.
    annotate(json!("2026-01-01T00:00:00Z")).await;
    installation.quiet(seconds(3), seconds(30)).await;
    let same = installation.until::<Secret>("the key", place, |_| true).await;
    assert_eq!(same["data"], before["data"]);
    annotate(Value::Null).await;
    secrets.delete("demo-peers", &DeleteParams::default()).await.unwrap();
    let begin = Instant::now();
    annotate(json!("2026-01-01T00:00:01Z")).await;
    let after = installation.until::<Secret>("another key", place, |_| true).await;
    say(format!("the key was made again after {:.2} s", begin.elapsed().as_secs_f64()));
    assert_ne!(after["data"], before["data"]);
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    eventually("an operator that is content", seconds(10), async || {
        let resource = serde_json::to_value(resources.get("demo").await.ok()?).ok()?;
        let conditions = resource["status"]["conditions"].as_array()?.clone();
        let failed = conditions.iter().any(|condition| condition["reason"] == "ReconcileFailed");
        (!failed).then_some(())
    })
    .await;
}

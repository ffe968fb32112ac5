//! Savepoints that nobody has to ask for, with real JVMs: periodic ones, of which the old ones go, and the last one of
//! a deletion. The test carries out what the operator decides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::application::{Deployed, spec};
use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider};
use crate::support::left::files;
use crate::support::zookeeper::set_rights;
use crate::support::{eventually, say, seconds};
use flinkha::api::application::{Application, Savepoint};
use flinkha::api::savepoints::{Retain, Savepoints};
use flinkha::api::status::FlinkHaClusterStatus;
use flinkha::api::v1alpha1::Scalar;
use flinkha::api::{FlinkHaCluster, FlinkHaClusterSpec, names};
use flinkha::cluster::application::last_savepoint::{EndOfWait, LastSavepoint, last_savepoint};
use flinkha::cluster::application::{Desired, job_id, version};
use flinkha::cluster::observed::Observed;
use flinkha::ledger::application::{Run, SavepointRequest};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

const SEQUENCE: [&str; 6] = ["--output", "OUTPUT", "--rate", "100", "--checkpoint-interval-millis", "500"];

/// The operator of one resource.
struct Operator {
    resource: FlinkHaCluster,
    status: FlinkHaClusterStatus,
    asked: Option<SavepointRequest>,
    /// All periodic savepoints that the ledger has named, with their paths.
    periodic: BTreeMap<String, String>,
}

impl Operator {
    fn new(mut spec: FlinkHaClusterSpec) -> Self {
        let retain = Some(Retain { count: 1, age: None });
        let savepoints =
            Savepoints { interval: Some("3s".to_owned()), retain, on_delete: true, ..Savepoints::default() };
        spec.job.iter_mut().for_each(|job| job.savepoints = savepoints.clone());
        let mut resource = FlinkHaCluster::new(NAME, spec);
        resource.metadata.namespace = Some(NAMESPACE.to_owned());
        resource.metadata.uid = Some("uid".to_owned());
        Self { resource, status: FlinkHaClusterStatus::default(), asked: None, periodic: BTreeMap::new() }
    }

    async fn observes(&mut self, cluster: &Cluster) -> Observed {
        let ledger = cluster.config_map(&names::ledger(NAME)).await.expect("the ledger");
        let ledger = serde_json::from_value(json!(ledger)).expect("a ledger");
        let deployment = serde_json::from_value(json!({ "metadata": { "name": "demo-jobmanager" } }));
        let observed = Observed {
            ledger: Some(std::sync::Arc::new(ledger)),
            job_manager_deployment: Some(std::sync::Arc::new(deployment.expect("a Deployment"))),
            ..Observed::default()
        };
        for one in observed.savepoints().iter().filter(|one| one.is_periodic()) {
            let before = self.periodic.insert(one.id.clone(), one.path.clone());
            assert!(before.is_none_or(|before| before == one.path), "{} was taken twice", one.id);
        }
        observed
    }

    async fn ask(&mut self, cluster: &Cluster, request: Option<SavepointRequest>) {
        if request != self.asked {
            cluster.ask_for_savepoint(request.as_ref()).await;
            self.asked = request;
        }
    }

    async fn step(&mut self, cluster: &Cluster) -> &Application {
        let observed = self.observes(cluster).await;
        let desired = Desired::of(&self.resource, &self.status, &observed, Timestamp::now()).expect("a decision");
        self.status.application = desired.application().cloned();
        self.ask(cluster, desired.decision.and_then(|decision| decision.request)).await;
        self.status.application.as_ref().expect("an application")
    }

    async fn until<T>(&mut self, cluster: &Cluster, what: &str, mut probe: impl FnMut(&Application) -> Option<T>) -> T {
        eventually(what, seconds(90), async || probe(self.step(cluster).await)).await
    }

    /// Waits until so many periodic savepoints were complete.
    async fn until_taken(&mut self, cluster: &Cluster, number: usize) {
        eventually(&format!("{number} savepoints"), seconds(90), async || {
            self.step(cluster).await;
            (self.periodic.len() >= number).then_some(())
        })
        .await;
    }

    /// Somebody deletes the resource; returns how the wait for the last savepoint ended.
    async fn deletes(&mut self, cluster: &Cluster) -> EndOfWait {
        self.resource.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        eventually("the end of the wait", seconds(120), async || {
            let observed = self.observes(cluster).await;
            match last_savepoint(&self.resource, &self.status, &observed, Timestamp::now()) {
                LastSavepoint::Go(gone) => Some(gone),
                LastSavepoint::Wait { application, request, .. } => {
                    self.status.application = Some(*application);
                    self.ask(cluster, request).await;
                    None
                }
            }
        })
        .await
    }
}

/// Directories of complete savepoints.
fn complete(directory: &Path) -> Vec<PathBuf> {
    let metadata = files(directory).into_iter().filter(|file| file.ends_with("_metadata"));
    metadata.filter_map(|file| Some(file.parent()?.to_owned())).collect()
}

fn local(path: &str) -> PathBuf {
    PathBuf::from(path.trim_start_matches("file:"))
}

#[tokio::test(flavor = "multi_thread")]
async fn periodic_savepoints_survive_a_leader_the_old_ones_go_and_a_deletion_leaves_the_last() {
    let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
    let directory = cluster.path().join("savepoints");
    let mut spec = spec(&cluster, "KeyedSequence", &SEQUENCE);
    let uri = Scalar::Text(format!("file://{}", directory.display()));
    spec.flink_configuration.insert("execution.checkpointing.savepoint-dir".to_owned(), uri);
    let mut operator = Operator::new(spec.clone());
    operator.step(&cluster).await;
    let application = Deployed { run: Run::new(job_id("uid", 1), &version(&spec), 1), spec };
    if cluster.quorum.is_some() {
        set_rights(&cluster.client, &application.cluster()).await;
    }
    cluster.application = Some(application);
    // It looks like one of this resource, and nobody has recorded it.
    let own = directory.join(names::high_availability_cluster_id(NAMESPACE, NAME));
    let unknown = own.join("periodic-1/7/savepoint-00aa00-0123456789ab");
    std::fs::create_dir_all(&unknown).expect("a directory");
    std::fs::write(unknown.join("_metadata"), "x").expect("a file");
    let mut cluster = cluster.up(2, 1).await;
    cluster.wait_until_up().await;

    operator.resource.spec.job.iter_mut().for_each(|job| job.savepoint_trigger_nonce = Some(1));
    let asked_for = operator.until(&cluster, "a savepoint that was asked for", |it| it.last_savepoint.clone()).await;
    operator.until_taken(&cluster, 1).await;
    // The leader dies while it is asked for the next one.
    let known = operator.periodic.clone();
    let is_new = |id: &String| id.starts_with("periodic-") && !known.contains_key(id);
    operator.until(&cluster, "a request", |it| it.savepoint_request.clone().filter(is_new)).await;
    let leader = eventually("a leader", seconds(30), async || cluster.leader().await).await;
    cluster.job_managers[leader].jvm.kill();
    cluster.job_managers[leader].jvm.restart();
    operator.until_taken(&cluster, 3).await;
    let kept = operator.until(&cluster, "the old ones to go", |it| {
        let periodic: Vec<&Savepoint> = it.savepoints.iter().filter(|one| one.id.starts_with("periodic-")).collect();
        let there = complete(&own);
        let is_done = periodic.len() == 1 && there.len() == 3 && there.contains(&local(&periodic[0].path));
        is_done.then(|| local(&periodic[0].path))
    });
    let kept = kept.await;
    say(format!("{} periodic savepoints, of which {} is kept", operator.periodic.len(), kept.display()));
    assert!(unknown.join("_metadata").exists(), "a savepoint that is not recorded was removed");
    assert!(local(&asked_for.path).join("_metadata").exists(), "a savepoint that was asked for was removed");
    assert!(operator.periodic.values().filter(|path| local(path).exists()).count() >= 1);

    cluster.wait_until_ready().await;
    let gone = operator.deletes(&cluster).await;
    say(format!("deleted: {gone:?}"));
    let path = gone.path.clone().expect("a savepoint");
    assert_eq!((gone.missing.clone(), complete(&local(&path)).len()), (None, 1));
    let former = cluster.job();
    assert!(cluster.tombstone(&former).await.is_some(), "the job was stopped");
    cluster.verify("any");
    cluster.go_on_from(&path, job_id("another", 1)).await;
    assert!(local(&path).join("_metadata").exists() && kept.join("_metadata").exists());
}

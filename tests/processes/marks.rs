//! One storage directory, and clusters that were copied with their ledgers: into another Kubernetes cluster, or by
//! restoring one backup twice. With a real kube-apiserver, of which each namespace stands for a Kubernetes cluster with
//! a certificate of its own, and without JVMs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::identity::create_all;
use crate::support::ledger;
use crate::support::planes::Plane;
use crate::support::{eventually, say, seconds};
use flinkha::api::names::{self, TERM_ANNOTATION};
use flinkha::gateway::gc::collector::Collector;
use flinkha::gateway::gc::ownership::{DirectoryMark, Ownership};
use flinkha::gateway::gc::sweeper::{Settings, Sweeper};
use flinkha::gateway::tenure::Tenures;
use flinkha::lease::elector::{LockView, Time};
use flinkha::lease::term::{Incarnation, Term};
use flinkha::ledger::jobs::{HA_DATA_KEY, HaData};
use flinkha::world::storage::Storage;
use flinkha::world::storage::reach::FlinkConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

/// The directory of all clusters, below `high-availability.storageDir`.
const DIRECTORY: &str = "flink.demo";

/// A cluster with its leading gateway.
struct Cluster {
    config_maps: Api<ConfigMap>,
    _shown: watch::Sender<LockView>,
    /// Dropped with the cluster.
    _running: JoinSet<()>,
}

impl Cluster {
    /// In a Kubernetes cluster with this certificate, with a ledger that says this. Its gateway signs, collects and
    /// removes all orphans.
    async fn start(
        client: &kube::Client,
        namespace: &str,
        certificate: &str,
        ha_data: Option<&HaData>,
        storage_dir: &Path,
    ) -> Self {
        let jvm = Incarnation { pid: i32::MAX, started: 1 };
        let term =
            Term { number: 7, pod_uid: format!("uid-{namespace}"), process: format!("process-{namespace}"), jvm };
        let said = ha_data.map(|said| serde_json::json!({ HA_DATA_KEY: serde_json::to_string(said).unwrap() }));
        let cluster = names::cluster_config_map("demo");
        let labels = "labels: {app: demo, type: flink-native-kubernetes}";
        let objects = [
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"),
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: kube-root-ca.crt, namespace: {namespace}}}, data: {{ca.crt: {certificate}}}}}"
            ),
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {}, namespace: {namespace}}}, data: {}}}",
                names::ledger("demo"),
                said.unwrap_or_else(|| serde_json::json!({}))
            ),
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {cluster}, namespace: {namespace}, {labels}, annotations: {{{TERM_ANNOTATION}: {term}}}}}}}"
            ),
        ];
        create_all(client, &objects.join("\n---\n")).await;
        let (shown, seen) = watch::channel(LockView::Leader { term, until: Time(u64::MAX) });
        let tenures = Arc::new(Tenures::new(seen));
        let ledger = ledger::in_config_maps(client, namespace, &tenures);
        let mark = DirectoryMark::new(ledger.clone());
        let storage = Storage::new(&storage_dir.display().to_string(), DIRECTORY, &FlinkConfiguration::new()).unwrap();
        let ownership = Ownership::new(mark.clone(), Ok(storage.clone()));
        let collector = Collector { ledger: ledger.clone(), ownership, run: None };
        let settings = Settings { delete: true, age: Duration::ZERO, period: Duration::from_millis(200) };
        // Nobody asks for another sweep.
        let requests = mpsc::channel(1).1;
        let sweeper = Sweeper { ledger, mark, storage: Some(storage), settings, requests };
        let mut running = JoinSet::new();
        running.spawn_local(collector.run());
        running.spawn_local(sweeper.run());
        Self { config_maps: Api::namespaced(client.clone(), namespace), _shown: shown, _running: running }
    }

    async fn ha_data(&self) -> Option<HaData> {
        let ledger = self.config_maps.get(&names::ledger("demo")).await.unwrap();
        serde_json::from_str(&ledger.data?.remove(HA_DATA_KEY)?).ok()
    }

    async fn until(&self, what: &str, state: &str) -> HaData {
        let told =
            eventually(what, seconds(40), async || self.ha_data().await.filter(|told| told.state == state)).await;
        say(format!("{what}: {}", told.message));
        told
    }
}

/// A file that no pointer of any cluster here names: an orphan for all of them.
fn lay_down(storage_dir: &Path) -> PathBuf {
    let file = storage_dir.join(DIRECTORY).join("submittedExecutionPlanfeedbeefcafe");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "a plan").unwrap();
    std::fs::File::options()
        .append(true)
        .open(&file)
        .unwrap()
        .set_modified(std::time::SystemTime::now() - seconds(3600))
        .unwrap();
    file
}

/// What the Job of a deleted resource runs; what it said.
async fn purge(storage_dir: &Path, owner: &str, more: &[&str]) -> String {
    let storage_dir = storage_dir.display().to_string();
    let flags = ["purge", "--storage-dir", &storage_dir, "--ha-cluster-id", DIRECTORY, "--owner", owner];
    let mut command = Command::new(env!("CARGO_BIN_EXE_flinkha"));
    command.args(flags).args(more);
    // Gateways go on meanwhile.
    let run = tokio::task::spawn_blocking(move || command.output().expect("a run of the purge")).await.unwrap();
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    say(said.trim());
    said
}

#[tokio::test]
async fn a_copied_cluster_removes_nothing_of_the_original() {
    LocalSet::new().run_until(copy_and_restore()).await;
}

async fn copy_and_restore() {
    let plane = Plane::get().await;
    let client = plane.admin(0).await;
    let directory = tempfile::tempdir().unwrap();
    let storage_dir = directory.path();

    let original = Cluster::start(&client, "original", "one", None, storage_dir).await;
    let told = original.until("the original signs at once", "Collectable").await;
    let owner = told.owner.clone().expect("the owner");
    let mark = storage_dir.join(DIRECTORY).join(".flinkha").join(&owner);
    let signed = std::fs::read_to_string(&mark).expect("the original's mark");
    let orphan = lay_down(storage_dir);
    eventually("its orphan gone", seconds(20), async || (!orphan.exists()).then_some(())).await;
    // It ends for now, so that what is laid down is nobody's orphan but the copies'.
    drop(original);
    let live = lay_down(storage_dir);

    // The ledger of today, and one of an earlier version.
    for (namespace, ledger) in
        [("copied", told.clone()), ("copied-old", HaData { certificates: Vec::new(), ..told.clone() })]
    {
        let copy = Cluster::start(&client, namespace, "another", Some(&ledger), storage_dir).await;
        let shared = copy.until("the copy in another Kubernetes cluster", "Shared").await;
        assert!(
            shared.message.contains(&mark.display().to_string()) && shared.message.contains("copy"),
            "{}",
            shared.message
        );
        tokio::time::sleep(seconds(2)).await;
        assert!(live.exists(), "a file of the original was removed by {namespace}");
        assert_eq!(std::fs::read_to_string(&mark).unwrap(), signed, "the original's mark was written over");
    }
    let foreign = flinkha::ha_data::marks::certificates_of("another").join(",");
    let refused = purge(storage_dir, &owner, &["--certificates", &foreign, "--signers", "process-original"]).await;
    assert!(refused.contains("another Kubernetes cluster") && live.exists(), "{refused}");

    // One backup, restored twice.
    let first = Cluster::start(&client, "first", "one", Some(&told), storage_dir).await;
    first.until("the first restored cluster waits", "Settling").await;
    let second = Cluster::start(&client, "second", "one", Some(&told), storage_dir).await;
    for cluster in [&first, &second] {
        let shared = cluster.until("restored twice", "Shared").await;
        assert!(shared.message.contains("restored from the same backup"), "{}", shared.message);
    }
    let own = told.certificates.join(",");
    let refused =
        purge(storage_dir, &owner, &["--certificates", &own, "--signers", "process-first,process-second"]).await;
    assert!(refused.contains("its files stay") && live.exists(), "{refused}");
    tokio::time::sleep(seconds(12)).await;
    assert!(live.exists(), "a file was removed that the other cluster may need");

    // Both are gone, and the last one is deleted with its files.
    drop((first, second));
    let last = serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(&mark).unwrap()).unwrap();
    let purged =
        purge(storage_dir, &owner, &["--certificates", &own, "--signers", last["process"].as_str().unwrap()]).await;
    assert!(purged.contains("removed 1 files") && !live.exists() && !mark.exists(), "{purged}");
}

//! Every command of `kubectl flinkha` against real clusters of both providers, and those that only read against
//! Flink's own HA. What they print is checked.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use flinkha::api::application::Phase;
use flinkha::api::names::FLINK_CONTAINER;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::kit::application::resource;
use crate::kit::cluster::Cluster;
use crate::kit::machine::kubeconfig;
use crate::kit::namespace::Namespace;
use crate::kit::native;
use crate::kit::node::Shot;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;
use crate::zookeeper::{on_quorum, with_quorum};

const PROGRAM: &str = env!("CARGO_BIN_EXE_flinkha");
const JOB: &str = "KeyedSequence";

/// The plugin, for one namespace.
struct Plugin {
    namespace: String,
}

impl Plugin {
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("kubectl").args(["--namespace", &self.namespace]).args(words).env("KUBECONFIG", kubeconfig());
        block_in_place(|| command.output()).expect("the plugin starts")
    }

    fn prints(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}: {text}{said}");
        assert!(!text.contains('\u{1b}'), "colours outside of a terminal: {text:?}");
        text.into_owned()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.prints(&[words, &["-o", "json"]].concat())).expect("JSON")
    }

    /// The sentence that it says when it ends with this code.
    fn fails(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}{said}", String::from_utf8_lossy(&output.stdout));
        said.trim_end().lines().last().unwrap_or_default().to_owned()
    }
}

/// A small application of two JobManagers.
fn small(namespace: &Namespace, name: &str, output: &str) -> Value {
    let mut resource = resource(namespace, JOB, &["--output", output]);
    resource["metadata"]["name"] = name.into();
    resource["spec"]["jobManager"]["replicas"] = 2.into();
    resource["spec"]["taskManager"]["replicas"] = 1.into();
    resource["spec"]["flinkConfiguration"]["s3.secret-key"] = "hunter2-of-the-report".into();
    resource["spec"]["flinkConfiguration"]["execution.checkpointing.savepoint-dir"] = "file:///flink/savepoints".into();
    resource
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_plugin_works_with_both_providers_and_reads_flinks_own_ha() {
    let _share = machine::share().await;
    let begin = Instant::now();
    let namespace = with_quorum("kind-plugin");
    let plugin = Plugin { namespace: namespace.0.clone() };
    let of_quorum =
        ours::apply(Namespace(namespace.0.clone()), &on_quorum(small(&namespace, "quorum", "/flink/output/quorum")))
            .await;
    let of_lease =
        ours::apply(Namespace(namespace.0.clone()), &small(&namespace, "lease", "/flink/output/lease")).await;
    let native = native::start_as(Namespace(namespace.0.clone()), "own", "own-jobmanager", native::DEFAULT, [1, 1], "");
    let (native, (), ()) = tokio::join!(native, of_quorum.wait_until_ready(), of_lease.wait_until_ready());
    for cluster in [&of_lease, &of_quorum] {
        let job = cluster.wait_for_phase(Phase::Running).await.job_id;
        cluster.wait_for_checkpoints(&job, 1).await;
    }
    say(format!("three clusters are up after {:.0} s", begin.elapsed().as_secs_f32()));

    let all = plugin.prints(&["status"]);
    for name in ["lease", "quorum"] {
        assert!(all.lines().any(|line| line.contains(name) && line.contains("yes")), "{all}");
    }
    for cluster in [&of_lease, &of_quorum] {
        reads(&plugin, cluster).await;
        sweeps(&plugin, cluster).await;
        report(&plugin, cluster);
        killed_leader(&plugin, cluster).await;
    }
    own_ha(&plugin, &native).await;
    changes(&plugin, &of_lease).await;
    assert!(plugin.fails(3, &["switchover", "quorum"]).contains("no switchover"));
    changes_of_application(&plugin, &of_quorum).await;
    of_lease.wait_until_ready().await;
    say(format!("every command after {:.0} s", begin.elapsed().as_secs_f32()));
    namespace.delete();
}

/// Commands that only read: what they say is what the cluster is.
async fn reads(plugin: &Plugin, cluster: &Cluster) {
    let name = cluster.name.as_str();
    let job = cluster.application().await.job_id;
    // On a busy machine a cluster may fail over by itself.
    let ready = async || {
        let (leader, status) = (cluster.leader().await?.name_any(), plugin.json(&["status", name]));
        let is_so = status["leader"]["pod"] == leader.as_str() && status["ready"]["status"] == "True";
        is_so.then_some(leader)
    };
    let leader = eventually("a cluster that is ready", seconds(180), ready).await;
    let history = plugin.prints(&["history", name]);
    assert!(history.lines().count() > 1, "{history}");
    let logs = plugin.prints(&["logs", name, "--leader", "--tail", "50"]);
    assert!(
        logs.contains(&format!("{leader}/gateway")) && logs.contains(&format!("{leader}/flink-main-container")),
        "{logs}"
    );

    let overview: Value =
        serde_json::from_str(&plugin.prints(&["rest", name, "/jobs/overview"])).expect("JSON of Flink");
    assert!(
        overview["jobs"].as_array().is_some_and(|jobs| jobs.iter().any(|one| one["jid"] == json!(job))),
        "{overview}"
    );
    let said = plugin.fails(1, &["rest", name, "/jobs/00000000000000000000000000000001"]);
    assert!(said.starts_with("error: Flink answers 404 Not Found: "), "{said}");
    assert!(plugin.fails(2, &["rest", name, "/jobs", "-X", "POST"]).contains("only GET is sent"));

    let inspected = plugin.json(&["inspect", name]);
    assert_eq!(inspected["files"], "checked", "{inspected}");
    assert_eq!(inspected["marks"].as_array().map(Vec::len), Some(1), "{inspected}");
    if inspected["plans"].as_array().is_some_and(|plans| !plans.is_empty()) {
        assert!(
            inspected["plans"].as_array().into_iter().flatten().all(|plan| plan["stored"]["bytes"].is_u64()),
            "{inspected}"
        );
    }
    doctor(plugin, name);
}

fn doctor(plugin: &Plugin, name: &str) {
    let found = plugin.json(&["doctor", name]);
    let state = |check: &str| {
        let finding = found.as_array().into_iter().flatten().find(|finding| finding["check"] == check);
        finding.map(|finding| finding["state"].clone()).unwrap_or_default()
    };
    let pointers = if name == "quorum" { "quorum" } else { "API server from the pod" };
    for check in
        ["CustomResourceDefinition", "operator", "operator's rights", "gateways' rights", "your rights", "leader"]
    {
        assert_eq!(state(check), "ok", "{check}: {found:#}");
    }
    for check in ["candidates", "disruption budget", "images", "peers", "versions"] {
        assert_eq!(state(check), "ok", "{check}: {found:#}");
    }
    // On a busy machine they are slow.
    for check in ["storage", pointers] {
        assert!(state(check) == "ok" || state(check) == "warning", "{check}: {found:#}");
    }
    assert!(plugin.prints(&["doctor", name]).contains("problems: 0, "));
}

const ORPHAN: &str = "submittedExecutionPlan0123456789ab";

/// A file that nothing needs is told by a dry run and removed only by `--yes`; young files stay.
async fn sweeps(plugin: &Plugin, cluster: &Cluster) {
    let name = cluster.name.as_str();
    let directory = format!("ha/{}.{name}", cluster.namespace.0);
    let orphan = format!("{directory}/{ORPHAN}");
    cluster.namespace.age(&orphan, "2 days ago");
    let dry = plugin.json(&["gc", name]);
    let listed =
        |swept: &Value| swept["files"].as_array().is_some_and(|files| files.iter().any(|file| file["path"] == ORPHAN));
    assert!(listed(&dry) && dry["isDryRun"] == true && dry["orphans"]["removed"] == 0, "{dry}");
    let kept = cluster.namespace.files(&directory);
    assert!(kept.iter().any(|file| file == ORPHAN), "{kept:?}");
    let text = plugin.prints(&["gc", name, "--yes"]);
    assert!(text.ends_with("1 files were removed.\n"), "{text}");
    let left = cluster.namespace.files(&directory);
    // Flink removes the pointer to a checkpoint whenever another one is complete.
    let others = |files: &[String]| -> Vec<String> {
        let stays = |file: &&String| *file != ORPHAN && !file.starts_with("completedCheckpoint");
        files.iter().filter(stays).cloned().collect()
    };
    assert!(!left.iter().any(|file| file == ORPHAN), "{left:?}");
    assert_eq!(others(&left), others(&kept));
}

/// The archive holds what was read, and no secret.
fn report(plugin: &Plugin, cluster: &Cluster) {
    let directory = tempfile::tempdir().expect("a directory");
    let path: PathBuf = directory.path().join("report.zip");
    let words = ["report", &cluster.name, "-o", path.to_str().expect("a path")];
    let said = plugin.prints(&words);
    assert!(said.contains(" files, without known credentials"), "{said}");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).expect("the archive")).expect("an archive");
    let mut names = Vec::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).expect("a file");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("text");
        let name = file.name().expect("a name").into_owned();
        assert!(!text.contains("hunter2"), "{name} holds a secret");
        names.push(name);
    }
    for wanted in
        ["resource.yaml", "ledger.yaml", "pods.yaml", "events.yaml", "status.txt", "inspect.txt", "doctor.txt"]
    {
        assert!(names.iter().any(|name| name == wanted), "{wanted}: {names:?}");
    }
    assert!(names.iter().filter(|name| name.ends_with("/gateway.log")).count() == 2, "{names:?}");
    assert!(plugin.fails(3, &words).contains("exists; name another file"));
}

/// Either of two commands answers who led, why that changed, how long nobody led, and from which checkpoint the job
/// went on.
async fn killed_leader(plugin: &Plugin, cluster: &Cluster) {
    let (name, job) = (cluster.name.as_str(), cluster.application().await.job_id);
    let leader = cluster.leader().await.expect("a leader");
    let from = leader.name_any();
    Shot::aim(&leader, FLINK_CONTAINER, "java", "KILL").await.send().await;
    let recorded = async || {
        tokio::time::sleep(seconds(1)).await;
        let change = plugin.json(&["status", name])["failovers"].get(0)?.clone();
        (change["from"] == from && change["restored"].is_array()).then_some(change)
    };
    let change = eventually("the change of leader", seconds(90), recorded).await;
    let rest = cluster.leading_rest().await;
    let restored = rest.checkpoints(&job).await.expect("the checkpoints").restored.expect("a checkpoint");
    let to = cluster.leader().await.expect("a leader").name_any();
    let answers = [
        format!("{from} led until its JVM ended (JobManagerDied); "),
        format!("; after {} ms without a leader {to} led, in term ", change["leaderlessMillis"]),
        format!("({job}) went on from checkpoint {restored}\n"),
    ];
    for command in ["status", "history"] {
        let text = plugin.prints(&[command, name]);
        say(format!("kubectl flinkha {command} {name}\n{text}"));
        assert!(answers.iter().all(|answer| text.contains(answer)), "{answers:?}");
    }
    cluster.wait_until_ready().await;
}

/// Flink's own HA is read, and nothing of it is changed or examined.
async fn own_ha(plugin: &Plugin, native: &Cluster) {
    let before = native.config_map(&native.cluster_config_map()).await.expect("the cluster ConfigMap");
    let status = plugin.prints(&["status", "own"]);
    assert!(status.starts_with("No FlinkHaCluster has this name: Flink's own Kubernetes HA.\n"), "{status}");
    let inspected = plugin.json(&["inspect", "own"]);
    assert!(inspected["leaders"]["dispatcher"].is_string() && inspected["files"] == "not checked", "{inspected}");
    for words in [&["doctor", "own"][..], &["gc", "own", "--yes"], &["rest", "own", "/jobs"], &["restart", "own"]] {
        let said = plugin.fails(1, words);
        assert!(said.starts_with("error: FlinkHaCluster own does not exist"), "{said}");
    }
    let after = native.config_map(&native.cluster_config_map()).await.expect("the cluster ConfigMap");
    assert_eq!(before.metadata.uid, after.metadata.uid);
    assert!(!after.annotations().keys().any(|key| key.starts_with("flinkha.dev/")), "{:?}", after.annotations());
}

/// Commands that change a cluster on a Lease.
async fn changes(plugin: &Plugin, cluster: &Cluster) {
    let from = cluster.leader().await.expect("a leader").name_any();
    let moved = plugin.prints(&["switchover", &cluster.name]);
    assert!(
        moved.starts_with(&format!("leadership moved from {from} to ")) && moved.contains(" ms without a leader"),
        "{moved}"
    );
    let paused = plugin.prints(&["pause", &cluster.name]);
    assert!(paused.contains("is paused"), "{paused}");
    eventually("the condition Paused", seconds(30), async || {
        plugin.prints(&["status", &cluster.name]).contains("ReconcileDisabled").then_some(())
    })
    .await;
    plugin.prints(&["unpause", &cluster.name]);
    let before: Vec<String> = cluster.pods("jobmanager").await.iter().map(ResourceExt::name_any).collect();
    assert!(plugin.prints(&["restart", &cluster.name]).contains("restarts all pods"));
    let others = async || {
        let pods = cluster.pods("jobmanager").await;
        (pods.len() == 2 && pods.iter().all(|pod| !before.contains(&pod.name_any()))).then_some(())
    };
    eventually("other JobManagers", Duration::from_secs(180), others).await;
}

/// Commands that change an application.
async fn changes_of_application(plugin: &Plugin, cluster: &Cluster) {
    let path = plugin.prints(&["savepoint", &cluster.name]);
    assert!(path.contains("/flink/savepoints/") && path.contains("/savepoint-"), "{path}");
    plugin.prints(&["suspend", &cluster.name]);
    cluster.wait_for_phase(Phase::Suspended).await;
    assert!(plugin.fails(3, &["gc", &cluster.name]).contains("no sweep: "));
    plugin.prints(&["resume", &cluster.name]);
    cluster.wait_for_phase(Phase::Running).await;
}

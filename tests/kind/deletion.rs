//! Deleting the resource: what is retained comes back, and what is to go goes, files included.

use flinkha::api::names;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::kit::cluster::Cluster;
use crate::kit::machine::kubectl;
use crate::kit::namespace::Namespace;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::rest::Job;
use crate::support::say;
use crate::support::seconds;

const NAMESPACE: &str = "kind-deletion";
const OUTPUT: &str = "output/retained";

fn small(on_delete: &str) -> Value {
    let mut resource = ours::example();
    resource["spec"]["jobManager"]["replicas"] = 2.into();
    resource["spec"]["taskManager"]["replicas"] = 1.into();
    resource["spec"]["haData"] = json!({ "onDelete": on_delete });
    resource
}

async fn apply(on_delete: &str) -> Cluster {
    let cluster = ours::apply(Namespace(NAMESPACE.to_owned()), &small(on_delete)).await;
    cluster.wait_until_ready().await;
    cluster
}

/// Deletes the resource as a user does, and returns when it is gone. `foreground` is what GitOps tools ask for: the
/// garbage collector deletes all that the resource owns at the same time.
fn delete(cluster: &Cluster, cascade: &str) {
    let begin = std::time::Instant::now();
    let cascade = format!("--cascade={cascade}");
    cluster.namespace.kubectl(&["delete", "flinkhacluster", &cluster.name, "--timeout", "240s", &cascade]);
    say(format!("deleted in {:.1} s", begin.elapsed().as_secs_f32()));
}

async fn notes(cluster: &Cluster) -> Vec<String> {
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let deleted = ListParams::default().fields("reason=Deleted");
    events.list(&deleted).await.expect("events").items.into_iter().filter_map(|event| event.note).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_job_resumes_and_after_delete_nothing_is_left() {
    let _share = machine::share().await;
    drop(Namespace::fresh(NAMESPACE));
    let cluster = apply("Retain").await;
    let job = cluster.run("KeyedSequence", &["--output", &format!("/flink/{OUTPUT}")], 2).await;
    let told = eventually("the job in the status, with its name", seconds(30), async || {
        let jobs = cluster.resource().await.status?.jobs;
        jobs.into_iter().find(|told| told.id == job && !told.name.is_empty())
    })
    .await;
    assert_eq!((told.state.as_str(), told.ended), ("Running", None));
    let before =
        cluster.leading_rest().await.checkpoints(&job).await.expect("checkpoints").latest.expect("a checkpoint");
    delete(&cluster, "foreground");
    let kept: Vec<String> = cluster
        .config_maps()
        .list(&ListParams::default())
        .await
        .expect("ConfigMaps")
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert!(kept.contains(&names::ledger(&cluster.name)) && kept.contains(&cluster.cluster_config_map()), "{kept:?}");

    // Another Lease, other pods, the same job.
    let cluster = apply("Delete").await;
    let rest = cluster.leading_rest().await;
    eventually("the retained job on all tasks", seconds(60), async || rest.job(&job).await.ok().filter(Job::runs))
        .await;
    let checkpoints = eventually("a new checkpoint", seconds(60), async || {
        rest.checkpoints(&job).await.ok().filter(|now| now.latest.is_some_and(|latest| latest > before))
    })
    .await;
    assert!(checkpoints.restored.is_some_and(|restored| restored >= before), "{checkpoints:?} after {before}");
    say(format!("resumed from checkpoint {:?}", checkpoints.restored));

    // Now, while the job runs: a JobManager that ends may leave a checkpoint that only one of its sinks has committed.
    cluster.namespace.verify(OUTPUT, "any");

    delete(&cluster, "background");
    // What has an owner goes after it.
    eventually("no ConfigMap of the cluster", seconds(60), async || {
        let left = cluster.config_maps().list(&ListParams::default()).await.ok()?;
        left.iter().all(|one| one.name_any() == "kube-root-ca.crt").then_some(())
    })
    .await;
    assert_eq!(cluster.namespace.files("ha"), Vec::<String>::new());
    let notes = notes(&cluster).await;
    assert!(notes.iter().any(|note| note.contains("removed") && note.contains("files")), "{notes:?}");
    say(format!("{notes:?}"));

    // A namespace takes everything along and does not wait for a pod that it no longer takes.
    let cluster = apply("Delete").await;
    let begin = std::time::Instant::now();
    kubectl(&["delete", "namespace", NAMESPACE, "--timeout", "300s"]);
    say(format!("namespace of {} deleted in {:.1} s", cluster.name, begin.elapsed().as_secs_f32()));
}

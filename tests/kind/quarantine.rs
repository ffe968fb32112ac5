//! Files of three jobs of a session are gone when the leader is: a plan, a checkpoint's metadata and a jar. The fourth
//! job goes on, the three are set aside, named on the resource, and come back with their files. A mount that is empty
//! sets nothing aside.

use flinkha::api::names;
use flinkha::ledger::jobs::{self, Job, RecordedState};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::kit::cluster::Cluster;
use crate::kit::namespace::Namespace;
use crate::kit::node;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

const NAMESPACE: &str = "kind-quarantine";

async fn start() -> Cluster {
    let mut resource = ours::example();
    resource["spec"]["jobManager"]["replicas"] = 2.into();
    resource["spec"]["taskManager"]["replicas"] = 1.into();
    resource["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"] = 8.into();
    let cluster = ours::apply(Namespace::fresh(NAMESPACE), &resource).await;
    cluster.wait_until_ready().await;
    cluster
}

async fn recorded(cluster: &Cluster) -> Vec<Job> {
    let data = cluster.config_map(&names::ledger(&cluster.name)).await.and_then(|ledger| ledger.data);
    let data = data.unwrap_or_default();
    jobs::read(data.get(jobs::JOBS_KEY).map(String::as_str)).expect("a ledger that can be read")
}

/// On any node, where the volume is.
fn shell(command: &str) -> String {
    node::run(&node::any(), &["sh", "-ec", command])
}

/// Ends the leader's pod at once, as the loss of its node does.
async fn end_leader(cluster: &Cluster) {
    let leader = cluster.leader().await.expect("a leader").name_any();
    cluster.pods_api().delete(&leader, &DeleteParams::default().grace_period(0)).await.expect("a deleted pod");
}

async fn all_run(cluster: &Cluster, wanted: &[&str]) -> Option<()> {
    let leader = cluster.leader().await?.name_any();
    let found = cluster.rest_with_timeout(&leader, seconds(2)).jobs().await.ok()?;
    wanted.iter().all(|id| found.iter().any(|job| job.id == **id && job.runs())).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_without_their_files_are_set_aside_and_come_back_and_an_empty_mount_sets_nothing_aside() {
    let _share = machine::share().await;
    let cluster = start().await;
    let living = cluster.run("KeyedSequence", &["--output", "/flink/output/living"], 2).await;
    let mut broken = Vec::new();
    for lost in ["plan", "checkpoint", "jar"] {
        let output = format!("/flink/output/{lost}");
        let arguments = ["--output", &output, "--rate", "10", "--checkpoint-interval-millis", "20000"];
        broken.push(cluster.submit("KeyedSequence", &arguments).await);
    }
    let [plan, checkpoint, jar] = [&broken[0], &broken[1], &broken[2]];
    let noted = async || {
        let all = recorded(&cluster).await;
        let of = |id: &str| all.iter().find(|job| job.id == id).cloned();
        let plan = of(plan)?.plans.last()?.clone();
        Some((plan, of(jar)?.jars?.first()?.clone()))
    };
    let (plan_file, jar_file) = eventually("plan and jar in the ledger", seconds(60), noted).await;
    // The next one is far enough away then.
    cluster.wait_for_more_checkpoints(checkpoint, 1).await;
    let ha = format!(
        "{}/ha/{}",
        cluster.namespace.directory(),
        names::high_availability_cluster_id(NAMESPACE, &cluster.name)
    );
    let metadata = shell(&format!("cd {ha} && grep -l {checkpoint} completedCheckpoint*"));
    let files = [plan_file.as_str(), metadata.trim(), jar_file.as_str()];
    say(format!("gone: {files:?}"));
    shell(&format!("mkdir {ha}/../../lost"));
    for (index, file) in files.iter().enumerate() {
        shell(&format!("mv {ha}/{file} {ha}/../../lost/{index}"));
    }
    end_leader(&cluster).await;

    let begin = std::time::Instant::now();
    let aside = async || {
        let all = recorded(&cluster).await;
        let is_aside = |(id, file): (&String, &&str)| {
            let job = all.iter().find(|job| job.id == id.as_str());
            job.is_some_and(|job| job.state == RecordedState::Quarantined && job.missing == [(*file).to_owned()])
        };
        broken.iter().zip(&files).all(is_aside).then_some(())
    };
    eventually("three jobs to be set aside", seconds(240), aside).await;
    say(format!("set aside after {:.0} s", begin.elapsed().as_secs_f32()));
    eventually("the fourth job", seconds(120), async || all_run(&cluster, &[&living]).await).await;
    say(format!("the fourth job runs after {:.0} s", begin.elapsed().as_secs_f32()));
    let told = async || {
        let conditions = cluster.resource().await.status?.conditions;
        let found = conditions.into_iter().find(|one| one.type_ == "JobsQuarantined" && one.status == "True")?;
        files.iter().all(|file| found.message.contains(file)).then_some(found.message)
    };
    say(eventually("the condition with all three files", seconds(60), told).await);
    cluster.wait_for_more_checkpoints(&living, 2).await;
    cluster.namespace.verify("output/living", "any");

    for (index, file) in files.iter().enumerate() {
        shell(&format!("mv {ha}/../../lost/{index} {ha}/{file}"));
    }
    let all: Vec<&str> = broken.iter().chain([&living]).map(String::as_str).collect();
    eventually("all four jobs", seconds(240), async || all_run(&cluster, &all).await).await;
    let restored = cluster.leading_rest().await.checkpoints(checkpoint).await.expect("its checkpoints").restored;
    assert!(restored.is_some(), "it goes on from its checkpoint");

    // Pods that have not crashed yet: the kubelet lets others wait ever longer.
    cluster.wait_until_ready().await;
    for pod in cluster.pods(names::JOB_MANAGER).await {
        cluster.replace(&pod.name_any()).await;
    }
    eventually("all four jobs", seconds(120), async || all_run(&cluster, &all).await).await;
    shell(&format!("cd {ha}/../.. && mv ha kept && mkdir --mode 777 ha"));
    end_leader(&cluster).await;
    let begin = std::time::Instant::now();
    while begin.elapsed() < seconds(45) {
        let all = recorded(&cluster).await;
        assert!(all.iter().all(|job| job.state != RecordedState::Quarantined), "{all:?}");
        tokio::time::sleep(seconds(1)).await;
    }
    // With what was written meanwhile: the former leader may have completed a checkpoint, whose metadata would be gone.
    let directory = cluster.namespace.directory();
    shell(&format!("cd {directory} && cp -a ha/. kept/ && rm -rf ha && mv kept ha"));
    eventually("all four jobs after an empty mount", seconds(240), async || all_run(&cluster, &all).await).await;
    cluster.wait_for_more_checkpoints(&living, 2).await;
    cluster.namespace.verify("output/living", "any");
    cluster.namespace.delete();
}

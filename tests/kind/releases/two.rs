//! Two releases of the chart in one namespace, whose operators share another namespace by labels.

use flinkha::api::names::OPERATOR_ANNOTATION;
use kube::ResourceExt;

use super::former::small_session;
use super::step::{Watched, print};
use crate::kit::cluster::Cluster;
use crate::kit::failover::kill_leader;
use crate::kit::machine::kubectl;
use crate::kit::namespace::Namespace;
use crate::kit::operator::{self, Release};
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

const TEAMS: [&str; 2] = ["team-a", "team-b"];
/// Objects of a release, in its namespace and outside of all.
const KINDS: &str = "deployments,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,\
     validatingadmissionpolicies,validatingadmissionpolicybindings";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "replaces the operator for all namespaces: make test-upgrade"]
async fn two_releases_share_a_namespace_and_one_goes_without_the_other() {
    machine::want_all();
    let _share = machine::share().await;
    let namespace = Namespace::fresh("kind-two-releases");
    kubectl(&["delete", "flinkhaclusters", "--all", "--all-namespaces", "--timeout", "300s"]);
    operator::uninstall();
    let [first, second] =
        TEAMS.map(|team| Release::install(team, &["--set-string", &format!("labelSelector=team={team}")]));
    let [a, b] = [2, 1].map(|job_managers| (Namespace(namespace.0.clone()), job_managers));
    let [a, b] = [start(a, TEAMS[0]).await, start(b, TEAMS[1]).await];
    let [a, b] = [run_job(a).await, run_job(b).await];
    for (one, team) in [(&a, TEAMS[0]), (&b, TEAMS[1])] {
        assert_eq!(operator_of(&one.cluster).await, of(team));
        operator::test(team);
        let conditions = one.cluster.resource().await.status.expect("a status").conditions;
        assert!(!conditions.iter().any(|condition| condition.type_ == "Contested"), "{conditions:?}");
    }

    let steps = [a.step("uninstallation of team-a").await, b.step("uninstallation of team-a").await];
    let (of_first, of_second) = (objects(TEAMS[0]), objects(TEAMS[1]));
    assert_eq!(of_first.len(), of_second.len(), "{of_first:?} {of_second:?}");
    drop(first);
    assert_eq!(objects(TEAMS[0]), Vec::<String>::new());
    assert_eq!(objects(TEAMS[1]), of_second, "the other release is as it was");
    operator::test(TEAMS[1]);
    let mut rows = Vec::new();
    for step in &steps {
        step.assert_nothing_moved().await;
        rows.push(step.row().await);
    }

    // The operator that is left works for its cluster, and that of the other one needs none.
    let steps = [a.step("work of team-b alone").await, b.step("work of team-b alone").await];
    let mut wider = small_session(&b.cluster.name, 1);
    wider["spec"]["taskManager"]["replicas"] = 2.into();
    wider["metadata"]["labels"]["team"] = TEAMS[1].into();
    let wider = ours::apply(Namespace(namespace.0.clone()), &wider).await;
    kill_leader(&a.cluster, &a.job).await;
    wider.wait_until_ready().await;
    a.cluster.wait_until_ready().await;
    steps[0].assert_one_container_restarted().await;
    for step in &steps {
        rows.push(step.row().await);
    }
    assert_eq!(operator_of(&a.cluster).await, of(TEAMS[0]), "nobody takes what it does not select");

    let step = a.step("hand-over to team-b").await;
    namespace.kubectl(&["label", "--overwrite", "flinkhacluster", &a.cluster.name, &format!("team={}", TEAMS[1])]);
    let taken = async || (operator_of(&a.cluster).await == of(TEAMS[1])).then_some(());
    eventually("team-b takes over what has its label now", seconds(90), taken).await;
    step.assert_nothing_moved().await;
    rows.push(step.row().await);
    print(&rows);

    [&a, &b].into_iter().for_each(Watched::verify);
    namespace.delete();
    drop(second);
    operator::helm_upgrade();
}

async fn start((namespace, job_managers): (Namespace, u32), team: &str) -> Cluster {
    let mut resource = small_session(&format!("session-{team}"), job_managers);
    resource["metadata"]["labels"]["team"] = team.into();
    ours::apply(namespace, &resource).await
}

async fn run_job(cluster: Cluster) -> Watched {
    cluster.wait_until_ready().await;
    let output = format!("/flink/output/{}", cluster.name);
    let job = cluster.run("KeyedSequence", &["--output", &output, "--rate", "100"], 3).await;
    Watched::new(cluster, job).await
}

/// As a resource names the operator of a release.
fn of(release: &str) -> String {
    format!("{}/{release}-operator", operator::NAMESPACE)
}

async fn operator_of(cluster: &Cluster) -> String {
    cluster.resource().await.annotations().get(OPERATOR_ANNOTATION).cloned().unwrap_or_default()
}

/// Kind, name and UID of all objects of a release.
fn objects(release: &str) -> Vec<String> {
    let label = format!("app.kubernetes.io/instance={release}");
    let format = "--output=jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
    let arguments = ["--namespace", operator::NAMESPACE, "get", KINDS, "--selector", &label, format];
    let mut objects: Vec<String> = kubectl(&arguments).lines().map(str::to_owned).collect();
    objects.sort();
    say(format!("{} objects of {release}", objects.len()));
    objects
}

//! The chart's admission policy: JobManagers write only what their own cluster has, whatever their Role allows. On a
//! real kube-apiserver; failovers with real JVMs.

use flinkha::api::{FlinkHaCluster, names};
use flinkha::flink::job_state::End;
use flinkha::ledger::jobs::JOBS_KEY;
use http::{Method, StatusCode};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, NAME, Provider};
use crate::support::control_plane::needs_admission_policies;
use crate::support::failover::fail_over;
use crate::support::identity::{create_all, token};
use crate::support::operator::{Installation, NAMESPACE, chart, cluster};
use crate::support::provider::needs_a_lease;
use crate::support::{eventually, say, seconds};

const POLICY: &str = "flinkha-system.flinkha.own-objects";
/// What the policy says, and RBAC does not.
const REFUSAL: &str = "write no object but its Lease";
const JOB: &str = "0123456789abcdef0123456789abcdef";
const DEFINITION: &str = "flinkhaclusters.flinkha.dev";

const CONFIG_MAPS: &str = "/api/v1/namespaces/flink/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/flink/leases";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/flink/endpointslices";

const RBAC: &str = "rbac.authorization.k8s.io";

/// All rights on what the policy is about, for accounts of the namespace, as somebody may have bound them.
fn all_rights(accounts: &[&str]) -> String {
    rights("all-rights", &["/configmaps", "coordination.k8s.io/leases", "discovery.k8s.io/endpointslices"], accounts)
}

/// All rights on these resources (`group/resource`).
fn rights(name: &str, resources: &[&str], accounts: &[&str]) -> String {
    let rule = |resource: &&str| {
        let (group, resource) = resource.split_once('/').expect("a group and a resource");
        json!({ "apiGroups": [group], "resources": [resource], "verbs": ["*"] })
    };
    let rules: Vec<Value> = resources.iter().map(rule).collect();
    let metadata = json!({ "name": name, "namespace": NAMESPACE });
    let role = json!({ "apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": metadata, "rules": rules });
    format!("{role}\n---\n{}\n", binding(name, "Role", name, accounts))
}

fn binding(name: &str, kind: &str, role: &str, accounts: &[&str]) -> Value {
    let subject = |name| json!({ "kind": "ServiceAccount", "name": name, "namespace": NAMESPACE });
    let metadata = json!({ "name": name, "namespace": NAMESPACE });
    let mut binding = json!({ "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": metadata });
    binding["roleRef"] = json!({ "apiGroup": RBAC, "kind": kind, "name": role });
    binding["subjects"] = accounts.iter().map(subject).collect();
    binding
}

/// Sends a write; the status and what the API server says.
async fn send(client: &Client, method: Method, path: &str, body: &Value) -> (StatusCode, String) {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("Content-Type", kind);
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    match client.request_text(request.body(body).unwrap()).await {
        Ok(text) => (StatusCode::OK, text),
        Err(kube::Error::Api(status)) => (StatusCode::from_u16(status.code).unwrap(), status.message.clone()),
        Err(error) => panic!("{path}: {error}"),
    }
}

/// An object of the kind that is found at this path.
fn object(path: &str, name: &str) -> Value {
    let metadata = json!({ "name": name, "labels": { "tenant": "test" } });
    match path {
        SLICES => json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": [] }),
        _ => json!({ "metadata": metadata }),
    }
}

/// Every way to write an object. Others have made it for all but the first.
async fn every_write(
    admin: &Client,
    client: &Client,
    path: &str,
    name: &str,
) -> Vec<(&'static str, StatusCode, String)> {
    let one = format!("{path}/{name}");
    let annotated = json!({ "metadata": { "annotations": { "a": "b" } } });
    let labelled = format!("{path}?fieldSelector=metadata.name%3D{name}");
    let mut answers = Vec::new();
    let _ = send(admin, Method::DELETE, &one, &Value::Null).await;
    for (what, method, at, body) in [
        ("create", Method::POST, path, object(path, name)),
        ("update", Method::PUT, one.as_str(), object(path, name)),
        ("patch", Method::PATCH, one.as_str(), annotated),
        ("delete", Method::DELETE, one.as_str(), Value::Null),
        ("deletecollection", Method::DELETE, labelled.as_str(), Value::Null),
    ] {
        let mut body = body;
        if what != "create" {
            let _ = send(admin, Method::POST, path, &object(path, name)).await;
            let (_, found) = send(admin, Method::GET, &one, &Value::Null).await;
            let found: Value = serde_json::from_str(&found).expect("an object that was just made");
            if what == "update" {
                body["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
            }
        }
        let (code, message) = send(client, method, at, &body).await;
        answers.push((what, code, message));
    }
    let _ = send(admin, Method::DELETE, &one, &Value::Null).await;
    answers
}

async fn refused(admin: &Client, client: &Client, path: &str, name: &str) {
    for (what, code, message) in every_write(admin, client, path, name).await {
        assert!(code == StatusCode::FORBIDDEN && message.contains(REFUSAL), "{what} {path}/{name}: {code} {message}");
    }
}

async fn allowed(admin: &Client, client: &Client, path: &str, name: &str) {
    for (what, code, message) in every_write(admin, client, path, name).await {
        assert!(code.is_success(), "{what} {path}/{name}: {code} {message}");
    }
}

/// The policy is enforced some time after it was made.
async fn enforced(client: &Client) {
    eventually("the policy to be enforced", seconds(60), async || {
        let (code, message) = send(client, Method::POST, CONFIG_MAPS, &object(CONFIG_MAPS, "probe")).await;
        (code == StatusCode::FORBIDDEN && message.contains(REFUSAL)).then_some(())
    })
    .await;
}

struct Tenants {
    installation: Installation,
    /// The JobManagers of the cluster `a`.
    of_a: Client,
    /// Their token.
    token: String,
}

/// Clusters whose names begin with each other's, and the JobManagers of one, with all rights that anybody may have
/// given them. The operator has ended, so that objects are only written by the test.
async fn tenants(clusters: &[&str]) -> Tenants {
    let mut installation = Installation::start(NAMESPACE).await;
    for name in clusters {
        let mut resource = cluster(json!({}));
        resource["metadata"]["name"] = (*name).into();
        installation.apply(&resource);
    }
    for name in clusters {
        let account = names::job_manager(name);
        installation.until::<ServiceAccount>("the account", (NAMESPACE, &account), |_| true).await;
        installation.until::<RoleBinding>("its rights", (NAMESPACE, &account), |_| true).await;
    }
    installation.operator.terminate();
    installation.operator.wait(seconds(30)).await.expect("an operator that ends when it is told to");
    let accounts: Vec<String> = clusters.iter().map(|name| names::job_manager(name)).collect();
    let (of_b, others): (Vec<&str>, Vec<&str>) =
        accounts.iter().map(String::as_str).partition(|one| *one == "b-jobmanager");
    create_all(&installation.admin, &all_rights(&others)).await;
    // The policy knows this one by the operator's Role alone.
    create_all(&installation.admin, &rights("of-b", &["/configmaps"], &of_b)).await;
    let token = token(&installation.admin, NAMESPACE, "a-jobmanager", None).await;
    let of_a = installation.plane.servers[0].client(&token).await;
    enforced(&of_a).await;
    Tenants { installation, of_a, token }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_manager_writes_its_own_objects_and_no_others_whatever_they_are_called() {
    if !needs_admission_policies("the objects that a JobManager may write are limited by a policy") {
        return;
    }
    let hex = format!("a-{JOB}");
    let Tenants { installation, of_a, .. } = tenants(&["a", "a-b", &hex, "b"]).await;
    let admin = &installation.admin;
    let job = names::job_config_map("a", JOB);
    for (path, name) in [
        (CONFIG_MAPS, names::cluster_config_map("a")),
        (CONFIG_MAPS, job.clone()),
        (CONFIG_MAPS, names::ledger("a")),
        (LEASES, names::lease("a")),
        (SLICES, names::rest("a")),
    ] {
        allowed(admin, &of_a, path, &name).await;
    }
    let mut foreign = vec![
        (CONFIG_MAPS, names::flink_config("a")),
        (CONFIG_MAPS, "a".to_owned()),
        (CONFIG_MAPS, "mine".to_owned()),
        (CONFIG_MAPS, format!("x{job}")),
        (CONFIG_MAPS, format!("{job}-x")),
        (CONFIG_MAPS, names::job_config_map("a", &JOB[1..])),
        (CONFIG_MAPS, names::job_config_map("a", &format!("{JOB}0"))),
        (CONFIG_MAPS, names::job_config_map("a", "g123456789abcdef0123456789abcdef")),
        (LEASES, names::rest("a")),
        (LEASES, "a-1".to_owned()),
        (SLICES, "a".to_owned()),
        (SLICES, names::job_managers("a")),
    ];
    for other in ["a-b", &hex, "b"] {
        foreign.extend([
            (CONFIG_MAPS, names::cluster_config_map(other)),
            (CONFIG_MAPS, names::job_config_map(other, JOB)),
            (CONFIG_MAPS, names::ledger(other)),
            (LEASES, names::lease(other)),
            (SLICES, names::rest(other)),
        ]);
    }
    for (path, name) in &foreign {
        refused(admin, &of_a, path, name).await;
    }
    say(format!("5 own names and {} foreign ones, each written in 5 ways", foreign.len()));
    let generated = json!({ "metadata": { "generateName": "a-ledger" } });
    let (code, message) = send(&of_a, Method::POST, CONFIG_MAPS, &generated).await;
    assert!(code == StatusCode::FORBIDDEN && message.contains(REFUSAL), "{code} {message}");

    // The other clusters' JobManagers, for which the same names are their own.
    for other in ["a-b", &hex] {
        let account = names::job_manager(other);
        let client = installation.plane.servers[0].client(&token(admin, NAMESPACE, &account, None).await).await;
        allowed(admin, &client, CONFIG_MAPS, &names::job_config_map(other, JOB)).await;
        allowed(admin, &client, CONFIG_MAPS, &names::ledger(other)).await;
        refused(admin, &client, CONFIG_MAPS, &names::ledger("a")).await;
    }
    let of_b = installation.plane.servers[0].client(&token(admin, NAMESPACE, "b-jobmanager", None).await).await;
    allowed(admin, &of_b, CONFIG_MAPS, &names::ledger("b")).await;
    refused(admin, &of_b, CONFIG_MAPS, &names::ledger("a")).await;

    // An account that is called like a JobManager's, of somebody who has no cluster of this name, and one that may do
    // everything.
    create_all(admin, &rights("of-another", &["/configmaps", "coordination.k8s.io/leases"], &["other-jobmanager"]))
        .await;
    create_all(admin, &binding("everything", "ClusterRole", "cluster-admin", &["an-admin-jobmanager"]).to_string())
        .await;
    for name in ["other-jobmanager", "an-admin-jobmanager"] {
        let metadata = json!({ "name": name, "namespace": NAMESPACE });
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
        create_all(admin, &account.to_string()).await;
        let client = installation.plane.servers[0].client(&token(admin, NAMESPACE, name, None).await).await;
        eventually("rights that are in force", seconds(30), async || {
            let (code, _) = send(&client, Method::GET, CONFIG_MAPS, &Value::Null).await;
            code.is_success().then_some(())
        })
        .await;
        allowed(admin, &client, CONFIG_MAPS, "mine").await;
    }

    // While the resource is deleted, which waits for the operator.
    installation.api::<FlinkHaCluster>(NAMESPACE).delete("a", &DeleteParams::default()).await.unwrap();
    allowed(admin, &of_a, CONFIG_MAPS, &job).await;
    refused(admin, &of_a, CONFIG_MAPS, &names::ledger("b")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_definition_the_policy_holds_and_keeps_nobody_from_what_is_theirs() {
    if !needs_admission_policies("the objects that a JobManager may write are limited by a policy") {
        return;
    }
    let Tenants { mut installation, of_a, token } = tenants(&["a", "b"]).await;
    let admin = installation.admin.clone();
    let definitions: Api<CustomResourceDefinition> = Api::all(admin.clone());
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    let released = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    for name in ["a", "b"] {
        resources.patch(name, &PatchParams::default(), &released).await.unwrap();
    }
    definitions.delete(DEFINITION, &DeleteParams::default()).await.unwrap();
    let is_gone = async || definitions.get_opt(DEFINITION).await.unwrap().is_none().then_some(());
    eventually("the definition to be gone", seconds(30), is_gone).await;
    // A server that has known the definition, and one that starts without it.
    let index = installation.plane.add_server().await;
    let started_without = installation.plane.servers[index].client(&token).await;
    for client in [&of_a, &started_without] {
        enforced(client).await;
        // What a gateway renews, Flink's pointer to a checkpoint, and the leader's address.
        for (path, name) in
            [(LEASES, names::lease("a")), (CONFIG_MAPS, names::job_config_map("a", JOB)), (SLICES, names::rest("a"))]
        {
            allowed(&admin, client, path, &name).await;
        }
        refused(&admin, client, CONFIG_MAPS, &names::ledger("b")).await;
    }
    // Kubernetes' own elections.
    let anybody = installation.plane.admin(index).await;
    let elections = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let (code, message) = send(&anybody, Method::POST, elections, &object(elections, "election")).await;
    assert!(code.is_success(), "{code} {message}");
}

/// The API server evaluates a policy with parameters for each of them, at each write of anybody: with a hundred
/// clusters in a namespace it took longer for a Lease than for all else.
#[tokio::test(flavor = "multi_thread")]
async fn policies_have_no_parameters() {
    if !needs_admission_policies("a policy looks at each write") {
        return;
    }
    let installation = Installation::start(NAMESPACE).await;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(installation.admin.clone());
    let policies = policies.list(&Default::default()).await.unwrap();
    assert!(policies.iter().any(|policy| policy.metadata.name.as_deref() == Some(POLICY)));
    for policy in policies {
        assert!(policy.spec.unwrap_or_default().param_kind.is_none(), "{:?}", policy.metadata.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failovers_go_on_under_the_policy_and_gateways_keep_within_it() {
    if !needs_a_lease("what Flink and the gateway write to the API server") {
        return;
    }
    if !needs_admission_policies("the objects that a JobManager may write are limited by a policy") {
        return;
    }
    let mut running = Cluster::prepare(Provider::ours(), 1).await;
    // JVM and gateway are one account here, as in a pod.
    running.gateway_account = "demo-jobmanager";
    let admin = running.client.clone();
    create_all(&admin, &all_rights(&["demo-jobmanager"])).await;
    create_all(&admin, &chart(&["--show-only", "templates/admission-policy.yaml"])).await;
    let attacker = running.plane.servers[0].client(&token(&admin, NAMESPACE, "demo-jobmanager", None).await).await;
    enforced(&attacker).await;

    let mut running = running.up(2, 1).await;
    let job = running.run_sequence(0, 100).await;
    fail_over(&mut running, &job, async |leader| leader.jvm.kill()).await;
    running.mend().await;
    fail_over(&mut running, &job, async |leader| {
        assert!(leader.hand_over().status.success());
        leader.jvm.terminate();
    })
    .await;
    running.mend().await;
    running.cancel(&job).await;
    eventually("the job's end in the ledger", seconds(60), async || {
        let ledger = running.config_map(&names::ledger(NAME)).await?.data?;
        ledger.get(JOBS_KEY)?.contains(End::Canceled.as_str()).then_some(())
    })
    .await;
    refused(&admin, &attacker, CONFIG_MAPS, "other-cluster-config-map").await;
    let user = format!("system:serviceaccount:{NAMESPACE}:{NAME}-jobmanager");
    let requests = running.plane.servers[0].audit().requests();
    let writes: Vec<_> = requests.iter().filter(|request| request.user == user && request.is_write()).collect();
    let foreign = |name: &str| ["", "probe", "other-cluster-config-map"].contains(&name);
    let refused: Vec<_> =
        writes.iter().filter(|one| one.code == 403 && one.pod.is_some() && !foreign(&one.name)).collect();
    say(format!("{} writes of JobManagers, {} of them refused", writes.len(), refused.len()));
    assert!(writes.len() > 20 && refused.is_empty(), "{refused:?}");
}

//! A deleted cluster whose data cannot be removed.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use super::world::{JOB_MANAGER, Seen, World, pending, ready, taken};

/// A cluster whose files the purge is to remove.
async fn collectable(world: &World) {
    world.apply(json!({ "haData": { "onDelete": "Delete" } })).await;
    world.until::<k8s_openapi::api::apps::v1::Deployment>("demo-taskmanager", |_| true).await;
    world.ledger("haData", &json!({ "state": "Collectable", "owner": "us" })).await;
}

async fn quota(world: &World) -> Api<ResourceQuota> {
    let none = json!({ "count/jobs.batch": "0" });
    let quota = json!({ "metadata": { "name": "no-jobs" }, "spec": { "hard": none } });
    let quotas: Api<ResourceQuota> = Api::namespaced(world.installation.admin.clone(), &world.namespace);
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    world.patch_status::<ResourceQuota>("no-jobs", json!({ "hard": none, "used": none })).await;
    quotas
}

pub async fn a_quota_refuses_the_purge(world: World) -> Seen {
    collectable(&world).await;
    let quotas = quota(&world).await;
    world.delete().await;
    let seen = world.told("PurgeRefused", &["Job demo-purge", "quota"]).await;
    quotas.delete("no-jobs", &DeleteParams::default()).await.unwrap();
    world.lifted(seen, "PurgeRefused").await
}

/// A policy of the Kubernetes cluster, for the namespace of this case alone.
pub async fn policy(world: &World, groups: &[&str], resources: &[&str], expression: &str, message: &str) {
    let rule = json!({
        "apiGroups": groups, "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": resources,
    });
    let labels = json!({ "kubernetes.io/metadata.name": world.namespace });
    let policy = json!({
        "metadata": { "name": world.namespace },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [rule], "namespaceSelector": { "matchLabels": labels } },
            "validations": [{ "expression": expression, "message": message }],
        },
    });
    let binding = json!({
        "metadata": { "name": world.namespace },
        "spec": { "policyName": world.namespace, "validationActions": ["Deny"] },
    });
    let client = &world.installation.admin;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    // The API server takes up policies in the background.
    tokio::time::sleep(crate::support::seconds(5)).await;
}

pub async fn policy_lifted(world: &World) {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(world.installation.admin.clone());
    bindings.delete(&world.namespace, &DeleteParams::default()).await.unwrap();
}

pub async fn a_policy_refuses_the_purge(world: World) -> Seen {
    collectable(&world).await;
    policy(&world, &["batch"], &["jobs"], "false", "no Jobs in this namespace").await;
    world.delete().await;
    let seen = world.told("PurgeRefused", &["Job demo-purge", "no Jobs in this namespace"]).await;
    policy_lifted(&world).await;
    world.lifted(seen, "PurgeRefused").await
}

pub async fn the_purge_cannot_start(world: World) -> Seen {
    collectable(&world).await;
    world.delete().await;
    let job = world.until::<Job>("demo-purge", |_| true).await;
    let controller: Value = json!([{
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": "demo-purge",
        "uid": job["metadata"]["uid"],
        "controller": true,
    }]);
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    let account = job["spec"]["template"]["spec"]["serviceAccountName"].clone();
    let waiting = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\"" } });
    let change = json!({
        "metadata": { "labels": labels, "ownerReferences": controller },
        "spec": { "serviceAccountName": account },
    });
    world.pod_with("demo-purge-a", change, pending(waiting)).await;
    let seen = world.told("PurgeWaits", &["demo-purge", "Back-off pulling image"]).await;
    world.patch_status::<Pod>("demo-purge-a", ready()).await;
    seen
}

pub async fn a_job_manager_lives_on(world: World) -> Seen {
    collectable(&world).await;
    // Somebody has taken its labels away.
    world.pod_with(JOB_MANAGER, json!({ "metadata": { "labels": null } }), ready()).await;
    world.lease(JOB_MANAGER, taken(JOB_MANAGER), 600).await;
    world.delete().await;
    world.told("DeletionWaits", &[JOB_MANAGER, "kubectl delete pod"]).await
}

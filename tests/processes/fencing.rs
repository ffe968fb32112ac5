//! Who wrote what, by the API server's audit log: every write of HA data is fenced by the term that it belongs to.

use std::collections::{BTreeSet, HashMap};

use crate::support::audit::Request;
use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider, cluster_config_map};
use crate::support::failover::fail_over;
use crate::support::provider::needs_a_lease;
use crate::support::terms::{GATEWAY, JVM, held_twice, older_after_newer};
use crate::support::{eventually, gateway, say, seconds};
use flinkha::api::names::{self, TERM_ANNOTATION};
use flinkha::lease::term::Term;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// The term in an object that was sent, as the API server received it.
fn stamp(request: &Request) -> Option<Term> {
    request.annotation(TERM_ANNOTATION).and_then(|text| text.parse().ok())
}

fn of<'a>(requests: &'a [Request], user: &'a str, verb: &'a str) -> impl Iterator<Item = &'a Request> {
    requests.iter().filter(move |one| one.user == user && one.verb == verb && one.succeeded())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_of_ha_data_carries_the_jvms_own_identity_and_the_term_of_its_gateway() {
    if !needs_a_lease("fencing of every write by the term of the Lease") {
        return;
    }
    let mut cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
    cluster.cancel(&job).await;
    cluster.wait_for_state(&job, "CANCELED", seconds(30)).await;
    let audit = cluster.plane.servers[0].audit();
    let job_config_map = names::job_config_map(NAME, &job);
    let deleted = async || {
        audit.of(NAMESPACE, "configmaps").into_iter().find(|one| one.verb == "delete" && one.name == job_config_map)
    };
    eventually("the DELETE of the job's ConfigMap", seconds(30), deleted).await;

    let all = audit.of(NAMESPACE, "configmaps");
    let is_ha = |name: &str| name == cluster_config_map() || name == job_config_map;
    let requests: Vec<Request> = all.into_iter().filter(|one| is_ha(&one.name)).collect();
    let uids: HashMap<&str, &str> =
        cluster.job_managers.iter().map(|one| (one.pod.as_str(), one.uid.as_str())).collect();

    let puts: Vec<&Request> = of(&requests, JVM, "update").collect();
    for put in &puts {
        let term = stamp(put).unwrap_or_else(|| panic!("a PUT without a term: {put:?}"));
        let pod = put.pod.as_deref().expect("the JVM's token is bound to its pod");
        assert_eq!(Some(&term.pod_uid.as_str()), uids.get(pod), "a PUT of {pod} in a term of another pod");
        assert!(
            put.body["metadata"]["resourceVersion"]
                .as_str()
                .is_some_and(|version| version.parse::<u64>().is_ok_and(|one| one > 0))
        );
    }
    let creations: Vec<&Request> = of(&requests, JVM, "create").collect();
    for creation in &creations {
        assert!(stamp(creation).is_some(), "{creation:?}");
        assert!(creation.body["data"].as_object().is_none_or(serde_json::Map::is_empty), "{creation:?}");
    }
    let deletions: Vec<&Request> = of(&requests, JVM, "delete").collect();
    for deletion in &deletions {
        let preconditions = &deletion.body["preconditions"];
        assert!(preconditions["uid"].is_string() && preconditions["resourceVersion"].is_string(), "{deletion:?}");
    }
    assert!(puts.len() > 10 && !creations.is_empty() && !deletions.is_empty(), "too little was seen to judge");
    assert!(uids.keys().all(|&pod| puts.iter().any(|put| put.pod.as_deref() == Some(pod))), "both JobManagers wrote");
    say(format!("{} PUTs, {} POSTs, {} DELETEs by JVMs", puts.len(), creations.len(), deletions.len()));

    assert_eq!(older_after_newer(&requests.iter().collect::<Vec<_>>()), 0, "an older term wrote after a newer one");
    assert!(held_twice(&audit.of(NAMESPACE, "leases")).is_empty());
    let terms = |name: &str| {
        requests
            .iter()
            .filter(|one| one.name == name)
            .filter_map(stamp)
            .map(|term| term.number)
            .collect::<BTreeSet<_>>()
    };
    assert!(
        terms(&cluster_config_map()).len() > 1 && terms(&job_config_map).len() > 1,
        "too few terms were seen to judge"
    );
    let strangers =
        requests.iter().filter(|one| one.is_write() && ![JVM, GATEWAY, "admin"].contains(&one.user.as_str()));
    assert_eq!(strangers.count(), 0);
    let of_gateway = requests.iter().filter(|one| one.user == GATEWAY && one.is_write() && one.succeeded());
    assert!(of_gateway.clone().count() >= 2, "each term was stamped");
    // The gateway writes stamps and the lock, and takes away the former leader's addresses; never other HA data.
    let data = of_gateway.filter_map(|one| one.body.get("data")?.as_object());
    let changes: Vec<(&String, &Value)> = data.flatten().collect();
    assert!(
        changes.iter().all(|(key, value)| key.starts_with("org.apache.flink.k8s.leader.") && value.is_null()),
        "{changes:?}"
    );
    assert!(
        changes.iter().any(|(key, _)| key.ends_with(&job)),
        "the former leader's address of the job stays: {changes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_api_server_reaches_flink_unchanged() {
    if !needs_a_lease("requests of Flink to the API server: there are none") {
        return;
    }
    let cluster = Cluster::start(Provider::ours(), 1, 1).await;
    let job_manager = &cluster.job_managers[0];
    let token = crate::support::identity::token(
        &cluster.client,
        NAMESPACE,
        "demo-jobmanager",
        Some((&job_manager.pod, &job_manager.uid)),
    )
    .await;
    let through = reqwest::Client::builder().no_proxy().timeout(seconds(5)).build().unwrap();
    let direct = cluster.plane.servers[0].client(&token).await;

    let paths = [
        ("GET", "/api/v1/namespaces/flink/secrets", 403),
        ("GET", "/api/v1/namespaces/flink/configmaps/nothing", 404),
        ("GET", "/apis/no.such.group/v1/things", 403),
        ("GET", "/api/v1/namespaces/flink/configmaps?limit=text", 400),
    ];
    for (method, path, code) in paths {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer =
            through.request(method, format!("{}{path}", gateway::jvm_url(job_manager.address))).bearer_auth(&token);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), code, "{path}");
        let seen: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let Err(kube::Error::Api(told)) = direct.request::<Value>(request).await else { panic!("{path} succeeded") };
        assert_eq!(seen["message"], json!(told.message), "{path}");
        assert_eq!(seen["reason"], json!(told.reason), "{path}");
    }

    exhaust_quota(&cluster).await;
    let refused = cluster.submit("KeyedSequence", &["--output", &cluster.output().display().to_string()]).await;
    let refused = refused.expect_err("a job without its ConfigMap").to_string();
    assert!(refused.contains("exceeded quota: no-more"), "the API server's own words are missing: {refused}");
}

/// No further ConfigMap may be created in the namespace. Nobody counts here but we: so the count is written too.
async fn exhaust_quota(cluster: &Cluster) {
    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let limits = json!({"hard": {"count/configmaps": "1"}});
    let quota = json!({"metadata": {"name": "no-more"}, "spec": limits});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    let status = json!({"status": {"hard": {"count/configmaps": "1"}, "used": {"count/configmaps": "1"}}});
    quotas.patch_status("no-more", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

//! What the operator makes of jobs that are stored already: a resource that wants its HA data elsewhere, and one that
//! is created again. Against a real kube-apiserver.

use crate::support::operator::{Installation, NAMESPACE, cluster, condition};
use crate::support::{eventually, seconds};
use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_stored_jobs_is_not_left_behind() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    let ledgers = installation.api::<ConfigMap>(NAMESPACE);
    let job = "0123456789abcdef0123456789abcdef";
    let write = async |jobs: Value| {
        let ha_data = json!({ "state": "Collectable", "place": { "storageDir": "file:///flink/ha" } });
        let patch = json!({ "data": { "jobs": jobs.to_string(), "haData": ha_data.to_string() } });
        ledgers.patch("demo-ledger", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    write(json!([{ "id": job, "state": "Running" }])).await;
    let told = |resource: &Value| resource["status"]["jobs"][0]["id"] == job;
    installation.until::<FlinkHaCluster>("the job in the status", (NAMESPACE, "demo"), told).await;
    let uses = |directory: &'static str| move |deployment: &Value| deployment.to_string().contains(directory);
    installation.until::<Deployment>("the JobManagers", (NAMESPACE, "demo-jobmanager"), uses("file:///flink/ha")).await;

    installation.apply(&cluster(json!({ "highAvailability": { "storageDir": "file:///flink/other" } })));
    let refused = |resource: &Value| condition(resource, "Degraded")["reason"] == "JobsStoredElsewhere";
    let resource = installation.until::<FlinkHaCluster>("a refusal", (NAMESPACE, "demo"), refused).await;
    let message = condition(&resource, "Degraded")["message"].as_str().unwrap();
    for expected in ["spec.highAvailability.storageDir", "file:///flink/ha", "file:///flink/other", job, "set it back"]
    {
        assert!(message.contains(expected), "{expected} not in {message}");
    }
    let deployment = installation.api::<Deployment>(NAMESPACE).get("demo-jobmanager").await.unwrap();
    assert!(!json!(deployment).to_string().contains("file:///flink/other"), "the JobManagers run on as they were");

    write(json!([{ "id": job, "state": "Finished", "ended": "2026-01-01T00:00:00Z" }])).await;
    installation
        .until::<Deployment>(
            "the change, without a stored job",
            (NAMESPACE, "demo-jobmanager"),
            uses("file:///flink/other"),
        )
        .await;
    let accepted = |resource: &Value| condition(resource, "Degraded")["reason"] != "JobsStoredElsewhere";
    installation.until::<FlinkHaCluster>("no refusal", (NAMESPACE, "demo"), accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_flink_that_would_not_see_stored_jobs_replaces_no_pod() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({ "image": "flink:1.20.5" })));
    installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    let ledgers = installation.api::<ConfigMap>(NAMESPACE);
    let job = "0123456789abcdef0123456789abcdef";
    let write = async |jobs: Value| {
        let ha_data = json!({ "state": "Collectable", "flinkVersion": "1.20.5" });
        let patch = json!({ "data": { "jobs": jobs.to_string(), "haData": ha_data.to_string() } });
        ledgers.patch("demo-ledger", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    write(json!([{ "id": job, "state": "Running" }])).await;
    let told = |resource: &Value| resource["status"]["jobs"][0]["id"] == job;
    installation.until::<FlinkHaCluster>("the job in the status", (NAMESPACE, "demo"), told).await;

    let next = json!({ "image": "flink:2.3.0", "flinkVersion": "2.3.0", "taskManager": { "maxUnavailable": "25%" } });
    installation.apply(&cluster(next));
    let refused = |resource: &Value| condition(resource, "Degraded")["reason"] == "JobsOfAnotherFlink";
    let resource = installation.until::<FlinkHaCluster>("a refusal", (NAMESPACE, "demo"), refused).await;
    let message = condition(&resource, "Degraded")["message"].as_str().unwrap();
    for expected in ["spec.flinkVersion declares Flink 2.3.0", "Flink 1.20.5", job, "set spec.image back"] {
        assert!(message.contains(expected), "{expected} not in {message}");
    }
    for name in ["demo-jobmanager", "demo-taskmanager"] {
        let deployment = installation.api::<Deployment>(NAMESPACE).get(name).await.unwrap();
        assert!(!json!(deployment).to_string().contains("flink:2.3.0"), "{name} is replaced");
    }

    write(json!([{ "id": job, "state": "Finished", "ended": "2026-01-01T00:00:00Z" }])).await;
    let has = |text: &'static str| move |object: &Value| object.to_string().contains(text);
    for name in ["demo-jobmanager", "demo-taskmanager"] {
        installation.until::<Deployment>("the change", (NAMESPACE, name), has("flink:2.3.0")).await;
    }
    let budget = (NAMESPACE, "demo-taskmanager");
    let made = installation.until::<PodDisruptionBudget>("the budget", budget, has("25%")).await;
    assert_eq!(made["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    installation.apply(&cluster(json!({ "image": "flink:2.3.0", "flinkVersion": "2.3.0" })));
    let budgets = installation.api::<PodDisruptionBudget>(NAMESPACE);
    let gone = async || budgets.get_opt("demo-taskmanager").await.unwrap().is_none().then_some(());
    eventually("no budget any more", seconds(60), gone).await;
    assert!(budgets.get_opt("demo-jobmanager").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_goes_on_where_the_ledger_says_and_does_not_begin_while_that_cannot_be_read() {
    let installation = Installation::start(NAMESPACE).await;
    let config_maps: Api<ConfigMap> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    let create = async |config_map: Value| {
        config_maps.create(&PostParams::default(), &serde_json::from_value(config_map).unwrap()).await.unwrap();
    };
    let job = "0123456789abcdef0123456789abcdef";
    let progress = json!({ "job": job, "version": "another", "start": 3 }).to_string();
    let jobs = json!([{ "id": job, "state": "Running" }]).to_string();
    let application = |name: &str| {
        let mut application = cluster(json!({ "job": { "jarURI": "local:///app.jar", "args": ["other"] } }));
        application["metadata"]["name"] = name.into();
        application
    };
    let gateway = |deployment: &Value| {
        let arguments =
            deployment["spec"]["template"]["spec"]["initContainers"][0]["args"].as_array().cloned().unwrap_or_default();
        move |flag: &str| {
            let at = arguments.iter().position(|argument| argument == flag)?;
            arguments[at + 1].as_str().map(str::to_owned)
        }
    };
    // Without our labels no watch tells of it.
    create(json!({ "metadata": { "name": "demo-ledger" }, "data": { "application": progress, "jobs": jobs } })).await;
    installation.apply(&application("demo"));
    let deployment =
        installation.until::<Deployment>("the JobManagers", (NAMESPACE, "demo-jobmanager"), |_| true).await;
    let flag = gateway(&deployment);
    assert_eq!((flag("--application").as_deref(), flag("--application-start").as_deref()), (Some(job), Some("4")));
    assert_ne!(flag("--application-version").as_deref(), Some("another"));
    installation
        .until::<ConfigMap>("its label", (NAMESPACE, "demo-ledger"), |ledger| {
            ledger["metadata"]["labels"]["app.kubernetes.io/instance"] == "demo"
        })
        .await;

    // Without a ledger the cluster ConfigMap tells whose the data is.
    let annotations = json!({ "flinkha.dev/application": format!("{job}/v1"), "flinkha.dev/application-start": "7" });
    let data = json!({ format!("executionPlan-{job}"): "pointer" });
    create(json!({ "metadata": { "name": "lost-cluster-config-map", "annotations": annotations }, "data": data }))
        .await;
    installation.apply(&application("lost"));
    let deployment =
        installation.until::<Deployment>("the JobManagers", (NAMESPACE, "lost-jobmanager"), |_| true).await;
    let flag = gateway(&deployment);
    assert_eq!((flag("--application").as_deref(), flag("--application-start").as_deref()), (Some(job), Some("8")));

    // What cannot be read is not absent.
    let labels = json!({ "app.kubernetes.io/managed-by": "flinkha", "app.kubernetes.io/instance": "torn" });
    create(json!({ "metadata": { "name": "torn-ledger", "labels": labels }, "data": { "application": "{", "jobs": jobs } })).await;
    installation.apply(&application("torn"));
    let resource = installation
        .until::<FlinkHaCluster>("the cause", (NAMESPACE, "torn"), |resource| {
            condition(resource, "Degraded")["reason"] == "LedgerUnreadable"
        })
        .await;
    let message = condition(&resource, "Degraded")["message"].as_str().unwrap();
    assert!(message.starts_with("the key 'application' of ConfigMap torn-ledger cannot be read"), "{message}");
    assert_eq!(resource["status"]["application"], Value::Null);
    let deployments = installation.api::<Deployment>(NAMESPACE);
    assert!(deployments.get_opt("torn-jobmanager").await.unwrap().is_none(), "nothing begins");
    let mended = json!({ "data": { "application": progress } });
    config_maps.patch("torn-ledger", &PatchParams::default(), &Patch::Merge(mended)).await.unwrap();
    let deployment =
        installation.until::<Deployment>("the JobManagers", (NAMESPACE, "torn-jobmanager"), |_| true).await;
    assert_eq!(gateway(&deployment)("--application").as_deref(), Some(job));
}

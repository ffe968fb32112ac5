//! Processes of a pod that ask its gateway on loopback as the JVM does. No JVM runs here: what leads is a process of
//! this test program that asks for Flink's lock as Flink does, under the name of Flink's main class.

use std::net::Ipv4Addr;
use std::time::Duration;

use flinkha::api::names;
use flinkha::flink::ha_data::LABEL_TYPE;
use flinkha::flink::lock::{self, LOCK_ANNOTATION};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::{Value, json};

use super::{Got, Target};
use crate::support::gateway::{self, Build, Pod, Settings, Timings, jvm_url};
use crate::support::host::{Directory, address};
use crate::support::identity::{create_all, create_pod, token};
use crate::support::process::{Process, Program};
use crate::support::{eventually, seconds};

/// By this name the program is started as a JVM.
pub const MAIN_CLASS: &str = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint";
const LABELS: [(&str, &str); 3] = [("app", "demo"), ("type", LABEL_TYPE), ("configmap-type", "high-availability")];

/// A JobManager's pod that leads.
struct Leader {
    config_maps: Api<ConfigMap>,
    namespace: String,
    address: Ipv4Addr,
    token: String,
    jvm: Process,
    directory: Directory,
    _gateway: Process,
}

impl Leader {
    async fn start(target: &Target, namespace: &str) -> Self {
        let admin = &target.installation.admin;
        let objects =
            include_str!("../../support/objects.yaml").replace("namespace: flink", &format!("namespace: {namespace}"));
        create_all(admin, &objects.replace("{name: flink}", &format!("{{name: {namespace}}}"))).await;
        let uid = create_pod(admin, namespace, "demo-jobmanager-a").await;
        let (directory, address) = (Directory::new("security-loopback"), address());
        let pod =
            Pod { name: "demo-jobmanager-a", uid: &uid, address, directory: directory.sub("a"), flags: Vec::new() };
        let build = match target.version.former {
            true => Build::Former(target.version.program.clone()),
            false => Build::Tested,
        };
        let storage = format!("file://{}", directory.sub("storage").display());
        let settings = Settings {
            build: &build,
            timings: &Timings::DEFAULT,
            storage: &storage,
            configuration: &Default::default(),
            quorum: None,
        };
        let server = &target.installation.plane.servers[0];
        let of_gateway = server.kubeconfig(&token(admin, namespace, "demo-gateway", None).await);
        let gateway = gateway::start((namespace, "demo"), &pod, &settings, &of_gateway);
        let token = token(admin, namespace, "demo-jobmanager", Some(("demo-jobmanager-a", &uid))).await;
        let jvm = pose_as_jvm(&directory, "jvm", namespace, address, &token);
        let config_maps = Api::namespaced(admin.clone(), namespace);
        let leader =
            Self { config_maps, namespace: namespace.to_owned(), address, token, jvm, directory, _gateway: gateway };
        eventually("a leader", seconds(60), async || (leader.holder().await? == "jvm").then_some(())).await;
        leader
    }

    async fn stored(&self) -> Option<Value> {
        let found = self.config_maps.get_opt(&names::cluster_config_map("demo")).await.ok()??;
        serde_json::to_value(found).ok()
    }

    async fn holder(&self) -> Option<String> {
        lock::holder(lock::of_object(&self.stored().await?)?)
    }

    /// A request by `curl`, a process of its own; the status.
    async fn curl(&self, method: &str, kind: &str, body: &Value) -> u16 {
        let url = format!("{}/{}", collection(self.address, &self.namespace), names::cluster_config_map("demo"));
        let mut command = std::process::Command::new("curl");
        command.args(["--silent", "--max-time", "15", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        command.args(["--header", &format!("authorization: Bearer {}", self.token), "--header", kind]);
        command.args(["--request", method, "--data", &body.to_string(), &url]);
        let output = tokio::task::spawn_blocking(move || command.output().expect("curl")).await.unwrap();
        String::from_utf8_lossy(&output.stdout).parse().unwrap()
    }
}

fn collection(address: Ipv4Addr, namespace: &str) -> String {
    format!("{}/api/v1/namespaces/{namespace}/configmaps", jvm_url(address))
}

/// Starts this program as what looks like Flink's JVM. `holder` is its name in the lock.
fn pose_as_jvm(directory: &Directory, holder: &str, namespace: &str, address: Ipv4Addr, token: &str) -> Process {
    let this = std::env::current_exe().expect("this program").display().to_string();
    let arguments = ["-c", r#"exec -a java "$0" "$@""#, &this, MAIN_CLASS];
    let environment = [("HOLDER", holder), ("COLLECTION", &collection(address, namespace)), ("TOKEN", token)];
    Process::start(Program {
        path: "bash".into(),
        arguments: arguments.map(Into::into).into(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        log: directory.path().join(format!("{holder}.log")),
    })
}

/// What [`pose_as_jvm`] runs: asks for the lock, takes it when it is free, renews it, and prints the status of each
/// write.
pub async fn jvm() {
    // An error means that it is installed already; no TLS is spoken here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let variable = |name: &str| std::env::var(name).expect(name);
    let (holder, collection, token) = (variable("HOLDER"), variable("COLLECTION"), variable("TOKEN"));
    let name = names::cluster_config_map("demo");
    let client = reqwest::Client::builder().no_proxy().timeout(seconds(20)).build().expect("a client");
    let annotations = |time| json!({ LOCK_ANNOTATION: lock::held(&holder, time) });
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Ok(answer) = client.get(format!("{collection}/{name}")).bearer_auth(&token).send().await else { continue };
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap_or_default());
        let seen: Value = serde_json::from_str(&text).unwrap_or_default();
        let now = jiff::Timestamp::now();
        let write = match (status, lock::of_object(&seen).and_then(lock::holder)) {
            (404, _) => {
                let labels: Value = LABELS.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
                let metadata = json!({ "name": name, "labels": labels, "annotations": annotations(now) });
                client.post(&collection).json(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata }))
            }
            (200, found) if found.as_deref().is_none_or(|found| found.is_empty() || found == holder) => {
                let version = &seen["metadata"]["resourceVersion"];
                let patch = json!({ "metadata": { "resourceVersion": version, "annotations": annotations(now) } });
                let patch = client.patch(format!("{collection}/{name}")).body(patch.to_string());
                patch.header("content-type", "application/merge-patch+json")
            }
            _ => continue,
        };
        if let Ok(answer) = write.bearer_auth(&token).send().await {
            println!("{}", answer.status().as_u16());
        }
    }
}

/// Writes, replaces and deletes what the leader keeps, as a process beside its JVM.
pub async fn writes_ha_data_beside_the_jvm(target: Target) -> Got {
    let leader = Leader::start(&target, "security-loopback").await;
    let mut altered = leader.stored().await.unwrap();
    (altered["apiVersion"], altered["kind"]) = (json!("v1"), json!("ConfigMap"));
    altered["data"] = json!({ "evil": "yes" });
    let patch =
        json!({ "metadata": { "annotations": { LOCK_ANNOTATION: lock::held("evil", jiff::Timestamp::now()) } } });
    let merge = "content-type: application/merge-patch+json";
    let codes = [
        leader.curl("PUT", "content-type: application/json", &altered).await,
        leader.curl("PATCH", merge, &patch).await,
        leader.curl("DELETE", "content-type: application/json", &json!({})).await,
    ];
    let stored = leader.stored().await.unwrap_or_default();
    let changed =
        stored["data"]["evil"] == "yes" || lock::of_object(&stored).and_then(lock::holder).as_deref() != Some("jvm");
    Got::of(changed || codes.contains(&200), &format!("PUT, PATCH, DELETE: {codes:?}"))
}

/// Ends the JVM, as any process of its user may, and takes its place under Flink's main class.
pub async fn takes_the_place_of_the_jvm(target: Target) -> Got {
    let mut leader = Leader::start(&target, "security-pretender").await;
    leader.jvm.kill();
    let _pretender = pose_as_jvm(&leader.directory, "evil", &leader.namespace, leader.address, &leader.token);
    let taken = async || (leader.holder().await? == "evil").then_some(());
    let taken = tokio::time::timeout(seconds(30), eventually("the lock", seconds(60), taken)).await.is_ok();
    Got::of(taken, if taken { "it leads in Flink's place" } else { "the lock stays free" })
}

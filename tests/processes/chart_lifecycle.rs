//! The chart's life as Helm makes it, on a real kube-apiserver: installed as the former version, upgraded, rolled back,
//! uninstalled, installed again. The definition and the clusters outlive all of it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use flinkha::api::FlinkHaCluster;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::host::Directory;
use crate::support::identity::token;
use crate::support::machine;
use crate::support::operator::{CHART, Installation, NAMESPACE, OPERATOR_NAMESPACE, PROGRAM, cluster};
use crate::support::planes::Plane;
use crate::support::{script, seconds};

const DEFINITION: &str = "customresourcedefinition/flinkhaclusters.flinkha.dev";
const JOB: &str = "job/flinkha-operator-crds";

/// Helm and kubectl of a user with all rights.
struct Administrator {
    directory: Directory,
    kubeconfig: PathBuf,
}

impl Administrator {
    fn command(&self, program: &PathBuf, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).env("HOME", self.directory.path());
        command
    }

    fn helm(&self, arguments: &[&str]) -> Child {
        let program = PathBuf::from(script("rig/tools", &["clients"])).join("helm");
        let mut command = self.command(&program, arguments);
        command.args(["--namespace", OPERATOR_NAMESPACE]).stderr(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap_or_else(|error| panic!("failed to run {}: {error}", program.display()))
    }

    /// What kubectl prints; its error, if it fails.
    fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let program = PathBuf::from(script("rig/assets", &[])).join("kubectl");
        let output = self.command(&program, arguments).output().expect("failed to run kubectl");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("kubectl prints text");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn get(&self, namespace: &str, object: &str) -> Option<Value> {
        let printed = self.kubectl(&["get", object, "--namespace", namespace, "--output", "json"]);
        printed.ok().map(|text| serde_json::from_str(&text).expect("an object in JSON"))
    }

    /// UIDs of the definition and of the cluster: whether they are still the same objects.
    fn uids(&self) -> [Value; 2] {
        let definition = self.get(NAMESPACE, DEFINITION).expect("the definition");
        let cluster = self.get(NAMESPACE, "flinkhacluster/demo").expect("the cluster");
        [definition, cluster].map(|object| object["metadata"]["uid"].clone())
    }

    fn declares(&self, field: &str) -> bool {
        let definition = self.get(NAMESPACE, DEFINITION).expect("the definition");
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"]["properties"][field].is_object()
    }
}

fn succeeds(child: Child) -> String {
    let output = child.wait_with_output().expect("the end of helm");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "helm failed: {error}");
    out.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_definition_and_clusters_outlive_upgrade_roll_back_and_uninstallation() {
    let _share = machine::share().await;
    let plane = Plane::get().await;
    let admin = plane.admin(0).await;
    let directory = Directory::new("chart");
    let write = |name: &str, token: &str| {
        let kubeconfig = serde_yaml::to_string(&plane.servers[0].kubeconfig(token)).expect("a kubeconfig in YAML");
        directory.write(name, kubeconfig)
    };
    let kubeconfig = write("admin.kubeconfig", "admin");
    let manifest = directory.write("demo.json", cluster(json!({})).to_string());
    let job_rights = |token: &str| write("job.kubeconfig", token);

    let user = Administrator { directory: Directory::new("user"), kubeconfig };
    let former = script("rig/former", &["chart"]);
    succeeds(user.helm(&["install", "flinkha", &former, "--create-namespace"]));
    user.kubectl(&["create", "namespace", NAMESPACE]).expect("a namespace");
    let manifest = manifest.display().to_string();
    eventually("a served definition", seconds(30), async || user.kubectl(&["apply", "--filename", &manifest]).ok())
        .await;
    let before = user.uids();
    assert!(!user.declares("restartNonce"), "the former definition has not what this test adds");

    // There are no controllers here: the test runs the Job's program with the Job's rights, and tells its end.
    let upgrade = user.helm(&["upgrade", "flinkha", CHART, "--reset-then-reuse-values"]);
    let job = eventually("the Job", seconds(60), async || user.get(OPERATOR_NAMESPACE, JOB)).await;
    let pod = &job["spec"]["template"]["spec"];
    let account = pod["serviceAccountName"].as_str().expect("a ServiceAccount");
    let kubeconfig = job_rights(&token(&admin, OPERATOR_NAMESPACE, account, None).await);
    let arguments = pod["containers"][0]["args"].as_array().expect("arguments").clone();
    let arguments = arguments.iter().filter_map(Value::as_str);
    let output = Command::new(PROGRAM).args(arguments).env("KUBECONFIG", kubeconfig).output().expect("the program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let before_it_ended = user.get(OPERATOR_NAMESPACE, "deployment/flinkha-operator").expect("the operator");
    let at = "2026-01-01T00:00:00Z";
    let met = |kind: &str| json!({ "type": kind, "status": "True", "lastProbeTime": at, "lastTransitionTime": at });
    let ended = json!({ "status": {
        "startTime": at, "completionTime": at, "succeeded": 1, "conditions": [met("SuccessCriteriaMet"), met("Complete")],
    } });
    let patch = ["patch", JOB, "--namespace", OPERATOR_NAMESPACE, "--subresource=status", "--type=merge", "--patch"];
    user.kubectl(&[patch.as_slice(), &[&ended.to_string()]].concat()).expect("a Job that has ended");
    succeeds(upgrade);
    assert!(user.declares("restartNonce"));
    assert_eq!(user.uids(), before);
    let environment = |deployment: &Value| deployment["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let upgraded = user.get(OPERATOR_NAMESPACE, "deployment/flinkha-operator").expect("the operator");
    assert_ne!(environment(&before_it_ended), environment(&upgraded), "the operator is upgraded after the definition");
    for gone in [JOB, "serviceaccount/flinkha-operator-crds", "clusterrole/flinkha-operator-crds"] {
        eventually(&format!("the end of {gone}"), seconds(30), async || {
            user.get(OPERATOR_NAMESPACE, gone).is_none().then_some(())
        })
        .await;
    }

    succeeds(user.helm(&["rollback", "flinkha", "1"]));
    assert!(user.declares("restartNonce"), "the definition stays at the later version");
    assert_eq!(user.uids(), before);

    succeeds(user.helm(&["uninstall", "flinkha"]));
    assert_eq!(user.get(OPERATOR_NAMESPACE, "deployment/flinkha-operator"), None);
    assert_eq!(user.uids(), before);

    succeeds(user.helm(&["install", "another", CHART]));
    assert_eq!(user.uids(), before);
}

/// What a GitOps tool does all the time.
#[tokio::test(flavor = "multi_thread")]
async fn an_example_that_is_applied_again_changes_nothing() {
    let installation = Installation::start(NAMESPACE).await;
    for example in ["session", "application", "zookeeper"] {
        let text = std::fs::read_to_string(format!("{}/examples/{example}.yaml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let documents = serde_yaml::Deserializer::from_str(&text);
        let objects = documents.map(|document| <Value as serde::Deserialize>::deserialize(document).unwrap());
        let mut resource = objects.filter(|object| object["kind"] == "FlinkHaCluster").last().unwrap();
        resource["metadata"]["namespace"] = NAMESPACE.into();
        let name = resource["metadata"]["name"].as_str().unwrap().to_owned();
        for kind in [vec!["apply"], vec!["apply", "--server-side", "--force-conflicts"]] {
            let apply = async || {
                let output = installation.kubectl(&kind, &resource);
                assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
                let object = installation.api::<FlinkHaCluster>(NAMESPACE).get(&name).await.unwrap();
                (object.metadata.generation, object.data["spec"].clone())
            };
            let (first, again) = (apply().await, apply().await);
            assert_eq!(first, again, "{example}: {kind:?}");
        }
        let differences = installation.kubectl(&["diff"], &resource);
        let printed = String::from_utf8_lossy(&differences.stdout);
        assert!(differences.status.success(), "{example}: {printed}");
    }
}

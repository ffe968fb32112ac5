//! The operator as a process, installed as a user installs it: the chart, rendered by helm, with the chart's rights and
//! no others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::audit::Summary;
use super::control_plane::{has_admission_policies, kubernetes_version};
use super::eventually;
use super::host::Directory;
use super::host::address;
use super::identity::create_all;
use super::identity::token;
use super::machine;
use super::machine::Share;
use super::planes::Plane;
use super::process::Process;
use super::process::Program;
use super::script;
use super::seconds;

pub const OPERATOR_NAMESPACE: &str = "flinkha-system";
pub const OPERATOR: &str = "system:serviceaccount:flinkha-system:flinkha-operator";

/// The program and the chart of this working tree.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_flinkha");
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/flinkha");

/// Where the tests' resources are.
pub const NAMESPACE: &str = "flink";

/// The resource `demo`, with these fields of its spec.
pub fn cluster(spec: Value) -> Value {
    let mut cluster = json!({
        "apiVersion": "flinkha.dev/v1alpha1",
        "kind": "FlinkHaCluster",
        "metadata": { "name": "demo", "namespace": NAMESPACE },
        "spec": { "image": "flink:2.3.0", "highAvailability": { "storageDir": "file:///flink/ha" } },
    });
    flinkha::cluster::merge::merge(&mut cluster["spec"], spec);
    cluster
}

/// A condition of a resource; `null` when it has none of this type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// A control plane with the operator at work. There are no controllers: no pods come of Deployments, and nothing is
/// collected.
pub struct Installation {
    pub admin: kube::Client,
    pub operator: Process,
    /// Dropped when no process uses it any more.
    pub plane: Plane,
    pub probe_url: String,
    directory: Directory,
    _share: Share,
}

impl Installation {
    /// Starts a control plane, installs the chart, and runs the operator with the token of its ServiceAccount.
    pub async fn start(namespace: &str) -> Self {
        Self::start_with(namespace, "").await
    }

    /// The same for another version of the operator: its program, and the directory of its chart.
    pub async fn start_version(program: &Path, chart: &Path, flags: &[&str]) -> Self {
        Self::start_as(NAMESPACE, "", flags, program, chart).await
    }

    /// The same for an operator that looks after these namespaces only, with commas between them, or after all if
    /// there are none.
    pub async fn start_with(namespace: &str, watched: &str) -> Self {
        Self::start_as(namespace, watched, &[], Path::new(PROGRAM), Path::new(CHART)).await
    }

    /// The same with further flags of the operator.
    pub async fn start_with_flags(namespace: &str, flags: &[&str]) -> Self {
        Self::start_as(namespace, "", flags, Path::new(PROGRAM), Path::new(CHART)).await
    }

    async fn start_as(namespace: &str, watched: &str, flags: &[&str], program: &Path, chart: &Path) -> Self {
        let share = machine::share().await;
        Self::start_on(Plane::get().await, share, (namespace, watched), flags, (program, chart)).await
    }

    /// For a load: a control plane that is cheap to count requests of.
    pub async fn start_for_load(program: &Path) -> Self {
        let share = machine::share().await;
        Self::start_on(Plane::brief().await, share, (NAMESPACE, ""), &[], (program, Path::new(CHART))).await
    }

    async fn start_on(
        plane: Plane,
        share: Share,
        (namespace, watched): (&str, &str),
        flags: &[&str],
        (program, chart): (&Path, &Path),
    ) -> Self {
        let admin = plane.admin(0).await;
        let directory = Directory::new("operator");
        let watches: Vec<&str> = watched.split(',').filter(|name| !name.is_empty()).collect();
        let namespaces: BTreeSet<&str> = watches.iter().copied().chain([OPERATOR_NAMESPACE, namespace]).collect();
        for name in namespaces {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            create_all(&admin, &namespace.to_string()).await;
        }
        let list = format!("watchNamespaces={{{watched}}}");
        let values: &[&str] = if watches.is_empty() { &[] } else { &["--set", &list] };
        let values = [&["--include-crds"], values].concat();
        create_all(&admin, &chart_of(chart, ("flinkha", OPERATOR_NAMESPACE), &values)).await;
        let token = token(&admin, OPERATOR_NAMESPACE, "flinkha-operator", None).await;
        let write = |name: &str, token: &str| {
            let kubeconfig = plane.servers[0].kubeconfig(token);
            directory.write(name, serde_yaml::to_string(&kubeconfig).expect("a kubeconfig in YAML"))
        };
        write("admin.kubeconfig", "admin");
        let kubeconfig = write("operator.kubeconfig", &token);
        let place = ["--pod-name", "operator-0", "--pod-namespace", OPERATOR_NAMESPACE, "--watch-namespace", watched];
        let flags: Vec<&str> = place.iter().chain(flags).copied().collect();
        let log = directory.path().join("operator.log");
        let (operator, probe_url) = run(program, &kubeconfig, &flags, log);
        Self { plane, admin, operator, probe_url, directory, _share: share }
    }

    /// Starts a further operator as this ServiceAccount, in a pod of this name, with further flags. Returns its process
    /// and where it serves its probes.
    pub async fn start_another(&self, namespace: &str, account: &str, pod: &str, flags: &[&str]) -> (Process, String) {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), namespace);
        let containers = json!([{ "name": "operator", "image": "flinkha" }]);
        let object = json!({
            "metadata": { "name": pod },
            "spec": { "containers": containers, "serviceAccountName": account },
        });
        let object = serde_json::from_value(object).expect("a pod");
        let created = pods.create(&PostParams::default(), &object).await.expect("failed to create a pod");
        let uid = created.metadata.uid.expect("the API server gives a UID");
        let token = token(&self.admin, namespace, account, Some((pod, &uid))).await;
        let kubeconfig = serde_yaml::to_string(&self.plane.servers[0].kubeconfig(&token));
        let kubeconfig = self.directory.write(&format!("{pod}.kubeconfig"), kubeconfig.expect("a kubeconfig in YAML"));
        let place = ["--pod-name", pod, "--pod-namespace", namespace];
        let flags: Vec<&str> = place.iter().chain(flags).copied().collect();
        run(Path::new(PROGRAM), &kubeconfig, &flags, self.directory.path().join(format!("{pod}.log")))
    }

    /// The operator's requests, except lists and watches, and those of its own election.
    pub fn operator_requests(&self) -> Vec<Summary> {
        let all = self.plane.servers[0].audit().summaries().into_iter();
        let counts = |one: &Summary| {
            one.user == OPERATOR && !["list", "watch"].contains(&one.verb.as_str()) && one.name != "flinkha-operator"
        };
        all.filter(counts).collect()
    }

    /// Waits until the operator has made no request for this `rest`. The audit log is read once in a third of it.
    pub async fn quiet(&self, rest: Duration, limit: Duration) {
        let (mut last, mut rests) = (usize::MAX, Instant::now());
        eventually("an operator without work", limit, async || {
            tokio::time::sleep(rest / 3).await;
            let now = self.operator_requests().len();
            if now != std::mem::replace(&mut last, now) {
                rests = Instant::now();
            }
            (rests.elapsed() > rest).then_some(())
        })
        .await;
    }

    /// Runs kubectl as a user with all rights.
    pub fn kubectl(&self, arguments: &[&str], input: &Value) -> Output {
        let kubectl = PathBuf::from(script("rig/assets", &[])).join("kubectl");
        let manifest = self.directory.write("input.json", input.to_string());
        let mut command = Command::new(&kubectl);
        command
            .arg("--kubeconfig")
            .arg(self.directory.path().join("admin.kubeconfig"))
            .args(arguments)
            .arg("--filename")
            .arg(manifest);
        command.env("HOME", self.directory.path());
        command.output().unwrap_or_else(|error| panic!("failed to run {}: {error}", kubectl.display()))
    }

    /// `kubectl apply`, which must succeed.
    pub fn apply(&self, object: &Value) {
        let output = self.kubectl(&["apply"], object);
        assert!(output.status.success(), "kubectl apply failed: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// `kubectl apply`, which must be refused: what it says.
    pub fn refusal(&self, object: &Value) -> String {
        let output = self.kubectl(&["apply"], object);
        assert!(!output.status.success(), "kubectl apply accepted {object}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn api<K: kube::Resource<DynamicType = ()>>(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.admin.clone(), namespace, &ApiResource::erase::<K>(&()))
    }

    /// An object as JSON, once it satisfies the probe.
    pub async fn until<K: kube::Resource<DynamicType = ()>>(
        &self,
        what: &str,
        (namespace, name): (&str, &str),
        mut probe: impl FnMut(&Value) -> bool,
    ) -> Value {
        let api = self.api::<K>(namespace);
        let what = format!("{what}; see {}", self.operator);
        let found = eventually(&what, seconds(60), async || {
            let object = api.get_opt(name).await.expect("the API server answers")?;
            let object = serde_json::to_value(object).expect("an object");
            probe(&object).then_some(object)
        });
        found.await
    }
}

/// Starts an operator; its process, and where it serves its probes.
fn run(program: &Path, kubeconfig: &Path, flags: &[&str], log: PathBuf) -> (Process, String) {
    let probes = format!("{}:8080", address());
    let arguments = ["operator", "--gateway-image", "flinkha:test", "--probe-address", &probes];
    let operator = Process::start(Program {
        path: program.into(),
        arguments: arguments.iter().chain(flags).map(Into::into).collect(),
        environment: vec![
            ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
            ("RUST_LOG".to_owned(), "info,flinkha=debug".to_owned()),
        ],
        log,
    });
    (operator, format!("http://{probes}"))
}

/// What a process answers to `/readyz`; empty while it does not answer.
pub async fn readyz(probe_url: &str) -> String {
    let Ok(answer) = reqwest::get(format!("{probe_url}/readyz")).await else { return String::new() };
    answer.text().await.unwrap_or_default()
}

/// The chart's objects.
pub fn chart(arguments: &[&str]) -> String {
    chart_of(Path::new(CHART), ("flinkha", OPERATOR_NAMESPACE), arguments)
}

/// The objects of a release of the chart.
pub fn release(name: &str, namespace: &str, arguments: &[&str]) -> String {
    chart_of(Path::new(CHART), (name, namespace), arguments)
}

fn chart_of(chart: &Path, (name, namespace): (&str, &str), arguments: &[&str]) -> String {
    let helm = PathBuf::from(script("rig/tools", &["clients"])).join("helm");
    let mut command = Command::new(&helm);
    command.args(["template", name]).arg(chart).args(["--namespace", namespace, "--skip-tests"]).args(arguments);
    // What helm asks the API server when it installs.
    command.args(["--kube-version", kubernetes_version()]);
    if has_admission_policies() {
        command.args(["--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"]);
    }
    let output = command.output().unwrap_or_else(|error| panic!("failed to run {}: {error}", helm.display()));
    assert!(output.status.success(), "helm template failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("helm prints text")
}

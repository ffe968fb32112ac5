//! `kubectl flinkha` as people run it: the program under the name of a plugin, against a real API server, beside a real
//! operator, real JobManagers, and Flink's own Kubernetes HA.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use crate::gateway_questions::gateways_answer;
use crate::presence::all_scaled_to_zero;
use crate::support::cluster::{Cluster, NAME, Provider};
use crate::support::control_plane::ControlPlane;
use crate::support::host::Directory;
use crate::support::identity::{create_all, token};
use crate::support::operator::{Installation, NAMESPACE, PROGRAM, cluster, condition};
use crate::support::provider::needs_a_lease;
use crate::support::{eventually, say, seconds};
use flinkha::api::{FlinkHaCluster, names};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Client, CustomResourceExt};
use serde_json::{Value, json};
use tokio::task::{block_in_place, spawn_blocking};

/// The plugin with a kubeconfig.
struct Plugin {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Plugin {
    /// Of the user with all rights.
    fn new(plane: &ControlPlane, directory: &Directory) -> Self {
        Self::with_token(plane, directory, "admin", "admin")
    }

    fn with_token(plane: &ControlPlane, directory: &Directory, user: &str, token: &str) -> Self {
        let home = directory.sub(user);
        let (program, kubeconfig) = (home.join("kubectl-flinkha"), home.join("kubeconfig"));
        symlink(PROGRAM, &program).expect("a link to the program");
        let text = serde_yaml::to_string(&plane.servers[0].kubeconfig(token)).expect("a kubeconfig in YAML");
        std::fs::write(&kubeconfig, text).expect("a kubeconfig");
        Self { program, kubeconfig, home }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", &self.home).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = self.command();
        block_in_place(|| command.args(words).output()).expect("the plugin starts")
    }

    /// What it prints when it succeeds.
    fn prints(&self, words: &[&str]) -> String {
        printed(words, &self.run(words))
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.prints(words)).expect("JSON")
    }

    /// The sentence that it says when it ends with this code.
    fn fails(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        let sentence = said.trim_end().lines().last().unwrap_or_default().to_owned();
        assert!(sentence.starts_with("error: "), "{said}");
        sentence
    }
}

fn printed(words: &[&str], output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    assert!(!text.contains('\u{1b}'), "colours outside of a terminal: {text:?}");
    text
}

/// A line of a text that begins like this.
fn line<'a>(text: &'a str, beginning: &str) -> &'a str {
    let found = text.lines().find(|line| line.starts_with(beginning));
    found.unwrap_or_else(|| panic!("no line begins with {beginning:?}:\n{text}"))
}

fn application() -> Value {
    let mut application = cluster(json!({ "job": { "jarURI": "local:///app.jar" } }));
    application["metadata"]["name"] = json!("app");
    application
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_and_change_clusters_beside_a_real_operator() {
    let installation = Installation::start(NAMESPACE).await;
    let directory = Directory::new("plugin");
    let plugin = Plugin::new(&installation.plane, &directory);
    // The API server has only just learnt of the definition.
    let answer = async || Some(plugin.run(&["status", "-A"])).filter(|output| output.status.success());
    let empty = eventually("a list of resources", seconds(30), answer).await;
    assert_eq!(printed(&["status", "-A"], &empty), "no FlinkHaCluster was found\n");
    installation.apply(&cluster(json!({})));
    installation.apply(&application());
    for name in ["demo", "app"] {
        installation
            .until::<FlinkHaCluster>("a status", (NAMESPACE, name), |found| !condition(found, "Ready").is_null())
            .await;
    }

    // However many there are: the list of resources and that of Leases.
    let audit = installation.plane.servers[0].audit();
    let requests = || audit.summaries().into_iter().filter(|one| one.user == "admin").count();
    let before = requests();
    let all = plugin.prints(&["status", "-A"]);
    let made =
        eventually("its requests", seconds(5), async || Some(requests() - before).filter(|made| *made > 1)).await;
    assert_eq!(made, 2, "a request for each cluster");
    assert!(
        line(&all, "NAMESPACE").contains("LEADER") && line(&all, "2 clusters:").ends_with("0 ready, 2 with problems")
    );
    assert!(line(&all, "flink       demo").contains("no "), "{all}");
    let begin = Instant::now();
    plugin.prints(&["--help"]);
    say(format!("the plugin starts and ends in {:.1} ms", begin.elapsed().as_secs_f64() * 1000.0));

    let demo = plugin.prints(&["status", "demo", "-n", NAMESPACE]);
    assert_eq!(line(&demo, "Leader:"), "Leader:         none");
    assert!(
        line(&demo, "Operator:").contains("operator-0 holds Lease flinkha-system/flinkha-operator, renewed"),
        "{demo}"
    );
    assert!(demo.contains("see docs/operations.md#reasons-of-"), "{demo}");
    let report = plugin.json(&["status", "demo", "-n", NAMESPACE, "-o", "json"]);
    assert_eq!((&report["ready"]["status"], &report["provider"]), (&json!("False"), &json!("Kubernetes")));
    let yaml: Value = serde_yaml::from_str(&plugin.prints(&["status", "-n", NAMESPACE, "-o", "yaml"])).expect("YAML");
    assert_eq!(yaml["clusters"][1]["name"], "demo");

    doctor(&plugin);
    changes(&installation, &plugin).await;
    changes_of_others(&installation, &plugin).await;
    refusals(&plugin);
    rights(&installation, &directory).await;
}

/// Nobody leads here, the operator works, and what needs a kubelet is not checked.
fn doctor(plugin: &Plugin) {
    let words = ["doctor", "demo", "-n", NAMESPACE];
    assert!(plugin.fails(5, &words).ends_with(" of demo were found"));
    let output = plugin.run(&[&words[..], &["-o", "json"]].concat());
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let state = |check: &str| {
        let finding = found.as_array().into_iter().flatten().find(|finding| finding["check"] == check);
        finding.map(|finding| finding["state"].clone()).unwrap_or_default()
    };
    for (check, expected) in [
        ("Kubernetes", "ok"),
        ("CustomResourceDefinition", "ok"),
        ("your rights", "ok"),
        ("gateways' rights", "ok"),
        ("API server from here", "ok"),
        ("your clock", "ok"),
        ("leader", "problem"),
        ("candidates", "problem"),
        ("storage", "not checked"),
        ("peers", "not checked"),
    ] {
        assert_eq!(state(check), expected, "{check}: {found:#}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.zip");
    let said = plugin.prints(&["report", "demo", "-n", NAMESPACE, "-o", path.to_str().expect("a path")]);
    assert!(said.contains("a.zip: ") && path.exists(), "{said}");
    let manifest = plugin.prints(&["install", "--replicas", "2"]);
    assert!(manifest.contains("kind: CustomResourceDefinition") && manifest.contains("  replicas: 2\n"), "{manifest}");
}

/// Fields and annotations, and what the operator makes of them.
async fn changes(installation: &Installation, plugin: &Plugin) {
    let demo = async |what: &str, probe: fn(&Value) -> bool| {
        installation.until::<FlinkHaCluster>(what, (NAMESPACE, "demo"), probe).await
    };
    let said = plugin.prints(&["pause", "demo", "-n", NAMESPACE]);
    assert!(said.starts_with("flink/demo is paused: "), "{said}");
    demo("a pause", |found| condition(found, "Paused")["status"] == "True").await;
    let paused = plugin.prints(&["status", "demo", "-n", NAMESPACE]);
    assert!(line(&paused, "Paused: ReconcileDisabled").contains("since"), "{paused}");
    let said = plugin.prints(&["restart", "demo", "-n", NAMESPACE]);
    assert!(said.contains("but the resource is paused, so this waits"), "{said}");
    assert!(
        plugin
            .fails(3, &["switchover", "demo", "-n", NAMESPACE])
            .contains("no switchover: the operator changes nothing")
    );
    assert!(plugin.prints(&["pause", "demo", "-n", NAMESPACE]).contains("is paused already"));
    plugin.prints(&["unpause", "demo", "-n", NAMESPACE]);
    let restarted = demo("the end of the pause", |found| condition(found, "Paused").is_null()).await;
    assert_eq!(restarted["spec"]["restartNonce"], 1);

    let app = async |what: &str, probe: fn(&Value) -> bool| {
        installation.until::<FlinkHaCluster>(what, (NAMESPACE, "app"), probe).await
    };
    plugin.prints(&["suspend", "app", "-n", NAMESPACE]);
    all_scaled_to_zero(installation, "app").await;
    app("a suspended application", |found| found["status"]["application"]["phase"] == "Suspended").await;
    let suspended = plugin.prints(&["status", "app", "-n", NAMESPACE]);
    assert!(line(&suspended, "Application:").contains("Suspended since"), "{suspended}");
    assert!(plugin.fails(3, &["restart", "app", "-n", NAMESPACE]).contains("has no pods to restart"));
    assert!(plugin.fails(3, &["savepoint", "app", "-n", NAMESPACE]).contains("is suspended, so no job runs"));
    plugin.prints(&["resume", "app", "-n", NAMESPACE]);
    app("a resumed application", |found| found["status"]["application"]["phase"] == "Starting").await;
    let history = plugin.json(&["history", "demo", "-n", NAMESPACE, "-o", "json"]);
    let events: Vec<&str> = history.as_array().into_iter().flatten().filter_map(|one| one["what"].as_str()).collect();
    assert!(events.contains(&"Paused") && events.contains(&"Resumed"), "{history}");
}

/// Somebody else changes the resource all the time.
async fn changes_of_others(installation: &Installation, plugin: &Plugin) {
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    let others = tokio::spawn(async move {
        for number in 0.. {
            let patch = json!({ "metadata": { "annotations": { "of-others": number.to_string() } } });
            resources.patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await.expect("another change");
            tokio::time::sleep(seconds(1) / 50).await;
        }
    });
    for _ in 0..8 {
        plugin.prints(&["pause", "demo", "-n", NAMESPACE]);
        plugin.prints(&["unpause", "demo", "-n", NAMESPACE]);
    }
    others.abort();
}

/// Bad input, and what cannot be done: one sentence each.
fn refusals(plugin: &Plugin) {
    let of = |words: &[&'static str]| [words, &["-n", NAMESPACE]].concat();
    for (code, words, expected) in [
        (2, of(&["status", "../x"]), "error: invalid value '../x' for '[NAME]': a name has"),
        (2, of(&["switchover"]), "error: the following required arguments were not provided: <NAME>"),
        (2, of(&["switchover", "demo", "--timeout", "soon"]), "error: invalid value 'soon' for '--timeout <TIMEOUT>'"),
        (1, of(&["status", "absent"]), "error: FlinkHaCluster absent does not exist in namespace flink"),
        (1, of(&["inspect", "absent"]), "error: namespace flink has neither a FlinkHaCluster absent nor HA ConfigMaps"),
        (3, of(&["switchover", "demo"]), "error: no switchover: no JobManager leads now; the leader does not change"),
        (3, of(&["suspend", "demo"]), "error: flink/demo is a session cluster; only an application"),
        (3, of(&["savepoint", "app"]), "error: flink/app has no directory for savepoints"),
        (1, of(&["status", "demo", "--context", "none"]), "error: failed to find the API server"),
        (1, of(&["doctor", "absent"]), "error: FlinkHaCluster absent does not exist in namespace flink"),
        (1, of(&["gc", "absent", "--yes"]), "error: FlinkHaCluster absent does not exist in namespace flink"),
        (3, of(&["gc", "demo"]), "error: no sweep: no JobManager leads now, so there is none to ask"),
        (3, of(&["rest", "demo", "/jobs"]), "error: no JobManager leads now, so there is none to ask"),
        (2, of(&["rest", "demo", "jobs"]), "error: invalid value 'jobs' for '<PATH>': a path begins with /"),
        (1, of(&["report", "absent", "-o", "/tmp/absent.zip"]), "error: FlinkHaCluster absent does not exist"),
        (1, of(&["report", "demo", "-o", "/none/a.zip"]), "error: failed to write /none/a.zip: "),
        (3, of(&["report", "demo", "-o", "/etc/passwd"]), "error: /etc/passwd exists; name another file"),
        (2, of(&["install", "--image", "a b"]), "error: invalid value 'a b' for '--image <IMAGE>'"),
    ] {
        let said = plugin.fails(code, &words);
        assert!(said.starts_with(expected), "{words:?}: {said}");
    }
}

/// Whoever may only read resources sees what their status says, and what is not known.
async fn rights(installation: &Installation, directory: &Directory) {
    let objects = json!([
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "reader", "namespace": NAMESPACE } },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "reader", "namespace": NAMESPACE },
            "rules": [{ "apiGroups": ["flinkha.dev"], "resources": ["flinkhaclusters"], "verbs": ["get", "list"] }],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "reader", "namespace": NAMESPACE },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
            "subjects": [{ "kind": "ServiceAccount", "name": "reader", "namespace": NAMESPACE }],
        },
    ]);
    for object in objects.as_array().into_iter().flatten() {
        create_all(&installation.admin, &object.to_string()).await;
    }
    let token = token(&installation.admin, NAMESPACE, "reader", None).await;
    let reader = Plugin::with_token(&installation.plane, directory, "reader", &token);
    let text = reader.prints(&["status", "demo", "-n", NAMESPACE]);
    assert!(
        line(&text, "Not known:      lease: leases.coordination.k8s.io \"demo\" is forbidden").contains("(403)"),
        "{text}"
    );
    let text = reader.prints(&["status", "-n", NAMESPACE]);
    assert!(line(&text, "not known: leases: ").ends_with("leaders are as the operator saw them last"), "{text}");
    let said = reader.fails(1, &["pause", "demo", "-n", NAMESPACE]);
    assert!(said.starts_with("error: failed to change FlinkHaCluster demo: flinkhaclusters.flinkha.dev"), "{said}");
}

/// A resource for JobManagers that run without an operator, and what kubelets would write of their pods.
async fn describe(cluster: &Cluster) -> Api<DynamicObject> {
    let definition = serde_json::to_string(&FlinkHaCluster::crd()).expect("a definition");
    create_all(&cluster.client, &definition).await;
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), NAMESPACE, &ApiResource::erase::<FlinkHaCluster>(&()));
    let resource: DynamicObject =
        serde_json::from_value(crate::support::operator::cluster(json!({}))).expect("a resource");
    let create = async || api.create(&PostParams::default(), &resource).await.ok();
    eventually("a resource of the new definition", seconds(30), create).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    for one in &cluster.job_managers {
        let labels = json!({
            names::MANAGED_BY_LABEL: names::MANAGED_BY,
            names::CLUSTER_LABEL: NAME,
            names::COMPONENT_LABEL: names::JOB_MANAGER,
        });
        let labels = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        pods.patch(&one.pod, &PatchParams::default(), &labels).await.expect("labels");
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let status = Patch::Merge(json!({ "status": { "phase": "Running", "conditions": ready } }));
        pods.patch_status(&one.pod, &PatchParams::default(), &status).await.expect("a status");
    }
    api
}

/// What an operator does with a request for a switchover.
async fn pass_on(client: &Client, resources: &Api<DynamicObject>) {
    let asked = async || {
        let resource = resources.get(NAME).await.ok()?;
        resource.metadata.annotations?.get(names::SWITCHOVER_ANNOTATION).cloned()
    };
    let to = eventually("a request for a switchover", seconds(30), asked).await;
    let annotation = |value: Option<&str>| {
        Patch::Merge(json!({ "metadata": { "annotations": { names::SWITCHOVER_ANNOTATION: value } } }))
    };
    let parameters = PatchParams::default();
    resources.patch(NAME, &parameters, &annotation(None)).await.expect("the request is taken");
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    leases.patch(NAME, &parameters, &annotation(Some(&to))).await.expect("the leader is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_cluster_is_shown_and_its_leader_moved() {
    if !needs_a_lease("a planned switchover: Flink cannot be told whom to elect") {
        return;
    }
    let cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    cluster.wait_for_members().await;
    let resources = describe(&cluster).await;
    let directory = Directory::new("plugin");
    let plugin = Plugin::new(&cluster.plane, &directory);

    let record = cluster.lease().await;
    let of = |words: &[&'static str]| [words, &["-n", NAMESPACE]].concat();
    let text = plugin.prints(&of(&["status", NAME]));
    let term = record.term.as_ref().map_or(0, |term| term.number);
    assert!(line(&text, "Leader:").contains(&format!("{} in term {term} since", record.holder)), "{text}");
    let standby = cluster.job_managers.iter().find(|one| one.pod != record.holder).expect("a standby");
    let columns: Vec<&str> = line(&text, &standby.pod).split_whitespace().collect();
    assert_eq!(columns[1..4], ["standby", "yes", "yes"], "{text}");
    eventually("the job in the ledger", seconds(30), async || {
        plugin.prints(&of(&["status", NAME])).contains(&job).then_some(())
    })
    .await;
    checkpoints(&plugin, &job, &of(&["inspect", NAME, "-o", "json"]));
    gateways_answer(&cluster, &record.holder, &job);

    let words = ["switchover", NAME, "-n", NAMESPACE, "--to", &standby.pod];
    let moving = {
        let (mut command, words) = (plugin.command(), words.map(str::to_owned));
        spawn_blocking(move || command.args(words).output().expect("the plugin starts"))
    };
    pass_on(&cluster.client, &resources).await;
    let moved = printed(&["switchover"], &moving.await.expect("the plugin ends"));
    say(moved.trim_end());
    let change = cluster.lease().await.change.expect("the Lease tells of the last change");
    let expected = format!(
        "leadership moved from {} to {}: {} ms without a leader (Switchover)\n",
        record.holder, standby.pod, change.leaderless_millis
    );
    assert_eq!(moved, expected);
    let history = plugin.prints(&of(&["history", NAME]));
    let told = format!(
        "{} led until a switchover was asked for (Switchover, planned); after {} ms without a leader {} led",
        record.holder, change.leaderless_millis, standby.pod
    );
    assert!(history.contains(&told), "{history}");
    assert!(plugin.fails(3, &words).ends_with("leads already; the leader does not change"));
}

/// Every pointer of the job is read, and names a file of this size.
fn checkpoints(plugin: &Plugin, job: &str, words: &[&str]) {
    let report = plugin.json(words);
    assert!(report["term"].as_u64().is_some_and(|term| term > 0), "{report}");
    // Without a kubelet nothing runs in a container.
    assert!(report["files"].as_str().is_some_and(|files| files.starts_with("not checked: gateway ")), "{report}");
    let stored = report["jobs"].as_array().into_iter().flatten().find(|one| one["id"] == job).expect("the job");
    let checkpoints = stored["checkpoints"].as_array().expect("checkpoints");
    let plans = report["plans"].as_array().expect("plans");
    assert!(
        !checkpoints.is_empty() && plans.iter().any(|plan| plan["key"].as_str().is_some_and(|key| key.ends_with(job)))
    );
    assert!(checkpoints.last().is_some_and(|latest| latest["written"].is_string()), "{report}");
    for pointer in plans.iter().chain(checkpoints) {
        assert!(pointer["unreadable"].is_null() && pointer["isMarked"] == false, "{pointer}");
        let path = pointer["file"].as_str().and_then(|uri| uri.strip_prefix("file:")).expect("a file");
        // The job goes on, so a checkpoint may be gone meanwhile.
        if let Ok(file) = std::fs::metadata(Path::new(path)) {
            assert_eq!(pointer["size"], file.len(), "{pointer}");
        }
    }
    let plan = plans.iter().filter_map(|plan| plan["file"].as_str()?.strip_prefix("file:"));
    assert!(plan.map(Path::new).all(Path::exists), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flinks_own_ha_is_shown_too() {
    if !needs_a_lease("Flink's own HA data in ConfigMaps") {
        return;
    }
    let cluster = Cluster::start(Provider::native(), 1, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    let directory = Directory::new("plugin");
    let plugin = Plugin::new(&cluster.plane, &directory);
    let of = |words: &[&'static str]| [words, &["-n", NAMESPACE]].concat();
    let text = plugin.prints(&of(&["status", NAME]));
    assert!(text.starts_with("No FlinkHaCluster has this name: Flink's own Kubernetes HA.\n"), "{text}");
    assert!(
        text.contains(": written by Flink alone (no term), ") && text.contains("\nLeader of dispatcher: "),
        "{text}"
    );
    assert!(line(&text, "Leader lock: ").contains("ago)"), "{text}");
    let report = plugin.json(&of(&["inspect", NAME, "-o", "json"]));
    assert_eq!((&report["term"], &report["jobs"][0]["id"]), (&Value::Null, &json!(job)), "{report}");
    assert!(
        report["jobs"][0]["checkpoints"][0]["file"].as_str().is_some_and(|file| file.contains("/completedCheckpoint"))
    );
    let said = plugin.fails(1, &of(&["status"]));
    assert!(said.contains("the API server serves no FlinkHaClusters; install the CustomResourceDefinition"), "{said}");
}

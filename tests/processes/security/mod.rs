//! Attacks, as somebody who may be somewhere and wants more: user code in a pod of the cluster, a tenant in another
//! namespace, a pod on the network. Each is a bounded script against processes of the test's own: the operator and
//! gateways of this working tree, and of the former version if there is one.
//!
//! The table is printed, and written to `target/bench/security.json`. An attack that gets through fails the test,
//! unless it is one of [`UNDEFENDED`], which `docs/security.md` names; one of those that does not get through fails it
//! too.
//! What needs kubelets and JVMs: `tests/kind/security.rs`.

mod accounts;
pub mod loopback;
mod pod;
mod port;
mod storage;
mod wall;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::support::identity::create_all;
use crate::support::operator::{CHART, Installation, PROGRAM};
use crate::support::{report, say};

/// Attacks that get through, and the words by which `docs/security.md` says so.
const UNDEFENDED: [(&str, &str); 1] =
    [("takes_the_place_of_the_jvm", "a Java process that user code starts with Flink's main class")];

/// The operator's own election is not what is looked at.
const ALONE: [&str; 2] = ["--leader-election", "false"];

/// What an attack has got.
#[derive(Clone, Debug)]
pub struct Got {
    /// `None`: this version has nothing of the kind.
    through: Option<bool>,
    what: String,
}

impl Got {
    pub fn of(through: bool, what: &str) -> Self {
        Self { through: Some(through), what: what.to_owned() }
    }

    pub fn through(what: &str) -> Self {
        Self::of(true, what)
    }

    pub fn nothing(what: &str) -> Self {
        Self::of(false, what)
    }

    pub fn not_run(why: &str) -> Self {
        Self { through: None, what: why.to_owned() }
    }

    /// It has got through if it prints what it was looking for.
    pub fn if_shown(printed: String, wanted: &str) -> Self {
        Self::of(printed.contains(wanted), &printed)
    }

    pub fn with(mut self, more: &str) -> Self {
        if !more.is_empty() {
            self.what = format!("{} ({more})", self.what);
        }
        self
    }
}

/// A version of the product.
pub struct Version {
    pub program: PathBuf,
    /// Of the program in its image.
    pub mode: u32,
    pub former: bool,
}

/// What is attacked.
#[derive(Clone)]
pub struct Target {
    pub version: Arc<Version>,
    pub installation: Arc<Installation>,
}

impl Target {
    async fn start(version: Version, chart: &Path) -> Self {
        let installation = match version.former {
            true => Installation::start_version(&version.program, chart, &ALONE).await,
            false => Installation::start_with_flags("flink", &ALONE).await,
        };
        Self { version: Arc::new(version), installation: Arc::new(installation) }
    }

    pub async fn namespace(&self, name: &str) {
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        create_all(&self.installation.admin, &object.to_string()).await;
    }

    pub async fn apply(&self, namespace: &str, name: &str, spec: Value) {
        self.try_apply(namespace, name, &spec).await.unwrap_or_else(|refused| panic!("{name}: {refused}"));
    }

    /// # Errors
    /// What the API server says.
    pub async fn try_apply(&self, namespace: &str, name: &str, spec: &Value) -> Result<(), String> {
        let mut resource = crate::support::operator::cluster(spec.clone());
        (resource["metadata"]["name"], resource["metadata"]["namespace"]) = (name.into(), namespace.into());
        let output = self.installation.kubectl(&["apply"], &resource);
        let said = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    /// All words of the command lines in a Deployment's pods.
    pub async fn words_of(&self, namespace: &str, deployment: &str) -> Vec<String> {
        let found = self.installation.until::<Deployment>("the Deployment", (namespace, deployment), |_| true).await;
        let pod = &found["spec"]["template"]["spec"];
        let containers = [&pod["initContainers"], &pod["containers"]].into_iter().filter_map(Value::as_array).flatten();
        let lists = containers.flat_map(|one| {
            [&one["command"], &one["args"], &one["lifecycle"]["preStop"]["exec"]["command"]].map(Value::as_array)
        });
        lists.flatten().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    }

    /// The same for all pods of a cluster with these fields of its spec.
    pub async fn command_lines(&self, spec: Value) -> Vec<String> {
        let namespace = "security-words";
        self.namespace(namespace).await;
        self.apply(namespace, "demo", spec).await;
        let job_managers = self.words_of(namespace, "demo-jobmanager").await;
        [job_managers, self.words_of(namespace, "demo-taskmanager").await].concat()
    }
}

struct Attack {
    name: &'static str,
    who: &'static str,
    run: Run,
}

type Run = Box<dyn Fn(Target) -> Pin<Box<dyn Future<Output = Got>>>>;

/// Attacks by their functions, whose names say what is tried.
macro_rules! attacks {
    ($($who:literal: $($room:ident::$name:ident)*;)*) => {
        vec![$($(Attack {
            name: stringify!($name),
            who: $who,
            run: Box::new(|target| Box::pin($room::$name(target))),
        },)*)*]
    };
}

fn attacks() -> Vec<Attack> {
    attacks! {
        "user code in a JobManager": wall::reads_the_peers_key wall::reads_the_gateways_token
            wall::reads_the_gateways_environment wall::reads_the_gateways_memory
            wall::attaches_a_debugger_to_the_gateway wall::opens_the_gateways_files
            wall::reads_the_key_while_a_gateway_starts wall::reads_the_key_while_the_hook_runs
            wall::hands_over_through_the_hooks_socket wall::reads_secrets_on_command_lines
            loopback::writes_ha_data_beside_the_jvm loopback::takes_the_place_of_the_jvm
            accounts::uses_a_job_managers_token accounts::deletes_another_clusters_ha_data;
        "user code in a TaskManager": wall::reads_the_quorums_password wall::reads_the_sidecars_memory
            storage::leads_the_purge_out_of_the_directory storage::leads_the_fetch_to_the_sidecars_secrets
            storage::leads_the_kept_jar_to_the_sidecars_secrets storage::stops_the_purge_with_a_pipe
            accounts::uses_a_task_managers_token;
        "a pod on the network": port::hands_over_through_the_port port::forges_a_promise port::replays_promises
            port::floods_the_port port::sends_requests_with_two_meanings;
        "who may create a FlinkHaCluster": accounts::takes_over_objects_of_another_owner
            accounts::smuggles_text_through_fields storage::leads_the_fetch_to_another_server;
        "a tenant with `edit`": accounts::reaches_into_another_namespace;
    }
}

/// The mode that a script gives the program in the image, after these words.
fn mode(script: &Path, words: &str) -> u32 {
    let text = std::fs::read_to_string(script).unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let mode = text.split_once(words).map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
    u32::from_str_radix(mode.unwrap_or_default(), 8).unwrap_or_else(|_| panic!("no mode in {}", script.display()))
}

pub async fn run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let former = match (std::env::var_os("FORMER_PROGRAM"), std::env::var_os("FORMER_CHART")) {
        (Some(program), Some(chart)) => {
            say("the former version");
            let chart = PathBuf::from(chart);
            let mode = mode(&chart.join("../../rig/image"), "install -m ");
            all(Target::start(Version { program: program.into(), mode, former: true }, &chart).await).await
        }
        _ => Vec::new(),
    };
    say("this version");
    let version = Version { program: PROGRAM.into(), mode: mode(&root.join("rig/image"), "--mode="), former: false };
    let rows = all(Target::start(version, Path::new(CHART)).await).await;
    let security = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    println!("\n{:32} {:48} {:12} now", "who", "tries", "35cb981");
    let (mut table, mut failed) = (Vec::new(), Vec::new());
    for (attack, got) in &rows {
        let before = former.iter().find(|(one, _)| one.name == attack.name).map(|(_, got)| got);
        let column = |got: Option<&Got>| match got.map(|got| got.through) {
            None => "not run",
            Some(None) => "not there",
            Some(Some(true)) => "GOT IN",
            Some(Some(false)) => "refused",
        };
        let undefended = UNDEFENDED.iter().find(|(name, _)| *name == attack.name);
        println!(
            "{:32} {:48} {:12} {}: {}",
            attack.who,
            attack.name,
            column(before),
            column(Some(got)),
            short(&got.what)
        );
        if got.through != Some(undefended.is_some()) {
            failed.push(format!("{}: {got:?}", attack.name));
        }
        if let Some((name, words)) = undefended
            && !security.split_whitespace().collect::<Vec<_>>().join(" ").contains(words)
        {
            failed.push(format!("{name} gets through, and docs/security.md does not say: {words}"));
        }
        table.push(json!({
            "who": attack.who,
            "attack": attack.name,
            "former": column(before),
            "formerGot": before.map(|got| &got.what),
            "now": column(Some(got)),
            "got": got.what,
        }));
    }
    report::write_rows("security", "attack", table);
    failed.iter().for_each(|line| println!("{line}"));
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {} attacks; {} got in before, {} now; {} failed",
        rows.len(),
        former.iter().filter(|(_, got)| got.through == Some(true)).count(),
        rows.iter().filter(|(_, got)| got.through == Some(true)).count(),
        failed.len()
    );
    assert!(failed.is_empty());
}

fn short(text: &str) -> String {
    text.chars().take(120).collect()
}

/// One after another: some of them look at all processes of the machine.
async fn all(target: Target) -> Vec<(Attack, Got)> {
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut rows = Vec::new();
    for attack in attacks().into_iter().filter(|attack| attack.name.contains(&only)) {
        let begin = std::time::Instant::now();
        let local = LocalSet::new();
        let task = local.spawn_local((attack.run)(target.clone()));
        let got = local.run_until(task).await;
        // An attack that could not be carried out proves nothing.
        let got = got.unwrap_or_else(|error| Got { through: None, what: format!("not carried out: {error}") });
        say(format!("{} after {:.1} s: {got:?}", attack.name, begin.elapsed().as_secs_f32()));
        rows.push((attack, got));
    }
    rows
}

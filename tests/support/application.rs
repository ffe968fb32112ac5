//! A cluster that runs one application: the pods' arguments are the product's own; kubelet and operator are played by
//! the test.

use flinkha::api::names::{self, SAVEPOINT_ANNOTATION};
use flinkha::api::{FlinkHaCluster, FlinkHaClusterSpec};
use flinkha::cluster::application::{job_id, version};
use flinkha::cluster::validate::validate;
use flinkha::flink::job_id::JobId;
use flinkha::ledger::application::{Progress, Run, SavepointRequest};
use flinkha::ledger::jobs;
use flinkha::ledger::refusal::Refusal;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::cluster::Cluster;
use super::cluster::NAME;
use super::cluster::NAMESPACE;
use super::cluster::Provider;
use super::eventually;
use super::flink::jobs_jar;
use super::seconds;
use super::zookeeper::set_rights;

/// What the pods of an application are made from.
#[derive(Clone)]
pub struct Deployed {
    pub spec: FlinkHaClusterSpec,
    pub run: Run,
}

impl Deployed {
    /// As the resource of a user has it: first run, first start.
    pub fn first(cluster: &Cluster, class: &str, arguments: &[&str]) -> Self {
        let spec = spec(cluster, class, arguments);
        let run = Run::new(job_id("uid", 1), &version(&spec), 1);
        Self { spec, run }
    }

    /// As the operator builds its objects.
    pub fn cluster(&self) -> flinkha::cluster::Cluster {
        sound(self.spec.clone()).deployed(self.spec.clone(), Some(self.run.clone()))
    }
}

/// The cluster of a resource with this spec.
pub fn sound(spec: FlinkHaClusterSpec) -> flinkha::cluster::Cluster {
    let mut resource = FlinkHaCluster::new(NAME, spec);
    resource.metadata.namespace = Some(NAMESPACE.to_owned());
    resource.metadata.uid = Some("uid".to_owned());
    validate(&resource).expect("a sound resource")
}

/// In arguments, OUTPUT stands for the directory of the job's output.
pub fn spec(cluster: &Cluster, class: &str, arguments: &[&str]) -> FlinkHaClusterSpec {
    let output = cluster.output().display().to_string();
    let arguments: Vec<&str> = arguments.iter().map(|&one| if one == "OUTPUT" { &output } else { one }).collect();
    let jar = format!("local://{}", jobs_jar(&cluster.version).display());
    let job = json!({ "jarURI": jar, "entryClass": format!("dev.flinkha.jobs.{class}"), "args": arguments });
    let spec = json!({ "image": "none", "highAvailability": { "storageDir": cluster.storage_uri() }, "job": job });
    serde_json::from_value(spec).expect("a spec")
}

/// Flink's settings that the operator makes for applications.
pub fn configuration() -> [(&'static str, String); 3] {
    [
        ("execution.shutdown-on-application-finish", "false".to_owned()),
        ("execution.submit-failed-job-on-application-error", "false".to_owned()),
        ("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION".to_owned()),
    ]
}

pub fn gateway_flags(application: &Deployed) -> Vec<String> {
    application.run.gateway_options().into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

impl Cluster {
    /// Starts with this application; returns when all its tasks have run, by what its gateway says.
    pub async fn start_application(job_managers: usize, task_managers: usize, class: &str, arguments: &[&str]) -> Self {
        let cluster = Self::prepare(Provider::ours(), 1).await;
        cluster.up_as_application(job_managers, task_managers, class, arguments).await
    }

    /// The same in a cluster that was prepared.
    pub async fn up_as_application(
        mut self,
        job_managers: usize,
        task_managers: usize,
        class: &str,
        arguments: &[&str],
    ) -> Self {
        let cluster = &mut self;
        let application = Deployed::first(cluster, class, arguments);
        if cluster.quorum.is_some() {
            set_rights(&cluster.client, &application.cluster()).await;
        }
        cluster.application = Some(application);
        let cluster = self.up(job_managers, task_managers).await;
        cluster.wait_until_up().await;
        cluster
    }

    pub fn job(&self) -> String {
        self.application.as_ref().expect("an application").run.job_id.to_string()
    }

    pub fn run_mut(&mut self) -> &mut Run {
        &mut self.application.as_mut().expect("an application").run
    }

    pub async fn progress(&self) -> Progress {
        let data = self.config_map(&names::ledger(NAME)).await.and_then(|one| one.data).unwrap_or_default();
        let text = data.get(flinkha::ledger::application::LEDGER_KEY);
        text.map(|text| serde_json::from_str(text).expect("JSON")).unwrap_or_default()
    }

    pub async fn wait_until_up(&self) {
        let run = self.application.as_ref().expect("an application").run.clone();
        let up = async || {
            let progress = self.progress().await;
            let is_ours =
                progress.job == Some(run.job_id) && progress.version == run.version && progress.start == run.start;
            (is_ours && progress.up.is_some()).then_some(())
        };
        eventually("all tasks of the application have run", seconds(120), up).await;
    }

    /// What the operator does to ask for a savepoint, or for none: on the Lease, or where there is none on the ledger.
    pub async fn ask_for_savepoint<'a>(&self, request: impl Into<Option<&'a SavepointRequest>>) {
        let text = request.into().map(|request| json!(request).to_string());
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { SAVEPOINT_ANNOTATION: text } } }));
        let parameters = PatchParams::default();
        if self.quorum.is_some() {
            self.config_maps().patch(&names::ledger(NAME), &parameters, &patch).await.expect("the ledger");
        } else {
            let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
            leases.patch(&names::lease(NAME), &parameters, &patch).await.expect("the Lease");
        }
    }

    /// Somebody removes what the ledger says of jobs and of the application.
    pub async fn forget_in_ledger(&self) {
        let patch =
            Patch::Merge(json!({ "data": { flinkha::ledger::application::LEDGER_KEY: null, jobs::JOBS_KEY: null } }));
        self.config_maps().patch(&names::ledger(NAME), &PatchParams::default(), &patch).await.expect("the ledger");
    }

    /// Why a gateway does not let its JobManager lead.
    pub async fn refusal(&self) -> Option<Refusal> {
        Refusal::of(&self.config_map(&names::ledger(NAME)).await?.metadata)
    }

    pub async fn tombstone(&self, job: &str) -> Option<jobs::Job> {
        let data = self.config_map(&names::ledger(NAME)).await?.data?;
        let jobs = jobs::read(data.get(jobs::JOBS_KEY).map(String::as_str)).expect("a ledger that can be read");
        jobs.into_iter().find(|one| one.id == job && one.has_ended())
    }

    /// What the operator does for another version: all JobManagers go, then others come.
    pub async fn redeploy(&mut self, job_managers: usize, change: impl FnOnce(&mut Deployed)) {
        for job_manager in &mut self.job_managers {
            job_manager.jvm.terminate();
        }
        for job_manager in std::mem::take(&mut self.job_managers) {
            let mut job_manager = job_manager;
            eventually("the JVM has ended", seconds(20), async || (!job_manager.jvm.is_running()).then_some(())).await;
        }
        // All pods go, and others come: a TaskManager that has the former version's jar takes no task of another.
        let task_managers = std::mem::take(&mut self.task_managers).len();
        // Nobody writes now.
        let application = self.application.as_mut().expect("an application");
        let before = application.run.job_id;
        change(application);
        let Deployed { spec, run } = application;
        run.replaces = if run.job_id == before { Vec::new() } else { vec![before] };
        run.version = version(spec);
        run.start += 1;
        for _ in 0..job_managers {
            self.add_job_manager().await;
        }
        for _ in 0..task_managers {
            self.add_task_manager().await;
        }
    }

    /// What the operator does for another run from a savepoint: it goes on exactly once.
    pub async fn go_on_from(&mut self, savepoint: &str, run: JobId) {
        let of_run = |application: &mut Deployed| {
            (application.run.job_id, application.run.restored_from) = (run, Some(savepoint.to_owned()));
        };
        self.redeploy(2, of_run).await;
        self.wait_until_ready().await;
        self.wait_until_up().await;
        self.wait_for_checkpoints(&self.job(), 3).await;
        self.verify("any");
    }
}

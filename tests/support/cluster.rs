//! A Flink cluster of processes: JobManagers (each with our gateway, or with Flink's own Kubernetes HA), TaskManagers,
//! a control plane.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flinkha::api::names;
use flinkha::cluster::build::application::arguments;
use flinkha::lease::record::Record;
use flinkha::ledger::election;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::answered;
use super::application::Deployed;
use super::eventually;
use super::flink;
use super::flink::Distribution;
use super::flink::Place;
use super::flink::kubernetes_environment;
use super::gateway;
use super::gateway::Build;
use super::gateway::Pod;
use super::host::Directory;
use super::host::address;
use super::identity::create_all;
use super::identity::create_pod;
use super::identity::token;
use super::machine;
use super::machine::Share;
use super::planes::Plane;
use super::pods;
use super::process::Process;
pub use super::provider::Provider;
use super::rest::Rest;
use super::s3::S3;
use super::say;
use super::seconds;
use super::tls::Tls;
use super::zookeeper;
use super::zookeeper::Quorum;

/// JVMs start, and answer, on a machine that is busy with other things too. What is measured has limits of its own.
pub const PATIENCE: Duration = seconds(180);
pub const NAMESPACE: &str = "flink";
pub const NAME: &str = "demo";
/// Flink's annotation with the leader record, on the cluster ConfigMap.
pub const LOCK_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

pub struct JobManager {
    pub pod: String,
    pub uid: String,
    pub address: Ipv4Addr,
    pub jvm: Process,
    pub gateway: Option<Process>,
    pub directory: PathBuf,
    /// Which kube-apiserver it talks to, by index.
    pub server: usize,
    tls: Option<Arc<Tls>>,
}

impl JobManager {
    pub fn rest(&self) -> Rest {
        self.rest_with_timeout(seconds(10))
    }

    pub fn rest_with_timeout(&self, timeout: Duration) -> Rest {
        match &self.tls {
            Some(tls) => tls.rest(self.address, &self.directory, timeout),
            None => Rest::with_timeout(self.address, timeout),
        }
    }

    pub fn flink_log(&self) -> String {
        std::fs::read_to_string(self.directory.join("flink.log")).unwrap_or_default()
    }

    pub fn gateway_log(&self) -> String {
        self.gateway.as_ref().map(Process::log).unwrap_or_default()
    }

    pub fn gateway(&mut self) -> &mut Process {
        self.gateway.as_mut().expect("a cluster of ours")
    }

    /// Status and text of one of the gateway's probes.
    pub async fn probe(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().timeout(seconds(2)).build()?;
        let answer = client.get(format!("{}{path}", gateway::probe_url(self.address))).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// The preStop hook, as the kubelet runs it in the gateway's container.
    pub fn hand_over(&self) -> std::process::Output {
        let mut hook = std::process::Command::new(env!("CARGO_BIN_EXE_flinkha"));
        hook.args(["hand-over", "--socket"]).arg(gateway::hand_over_socket(&self.directory));
        hook.output().expect("failed to run the preStop hook")
    }
}

pub struct Cluster {
    pub job_managers: Vec<JobManager>,
    pub task_managers: Vec<Process>,
    pub client: kube::Client,
    pub provider: Provider,
    /// What gateways run that are started from now on.
    pub build: Build,
    /// Where the leader is elected, if not by the control plane.
    pub quorum: Option<Quorum>,
    pub version: String,
    /// The version that the resource declares, to gateways that are started from now on.
    pub declared_version: Option<&'static str>,
    distribution: Distribution,
    directory: Directory,
    /// Where HA data is kept, if not in files.
    pub s3: Option<S3>,
    /// Certificates for Flink's own traffic, if it is encrypted.
    pub tls: Option<Arc<Tls>>,
    /// The ServiceAccount of gateways that are started from now on.
    pub gateway_account: &'static str,
    /// What it runs, unless it is a session cluster.
    pub application: Option<Deployed>,
    started: usize,
    /// The sidecars of TaskManagers.
    ways: Vec<Process>,
    /// Dropped when no process uses it any more.
    pub plane: Plane,
    _share: Share,
}

impl Cluster {
    /// Of Flink `$FLINK_VERSION`, or 2.3.0. Returns when one JobManager leads, all TaskManagers are registered there,
    /// and all other JobManagers stand by.
    pub async fn start(provider: Provider, job_managers: usize, task_managers: usize) -> Self {
        Self::start_with(provider, job_managers, task_managers, 1).await
    }

    /// The same with several kube-apiservers on one etcd: JobManagers talk to them in turn, TaskManagers to the first.
    pub async fn start_with(provider: Provider, job_managers: usize, task_managers: usize, servers: usize) -> Self {
        let cluster = Self::prepare(provider, servers).await;
        cluster.up(job_managers, task_managers).await
    }

    /// A control plane without a JVM yet.
    pub async fn prepare(provider: Provider, servers: usize) -> Self {
        let version = flink::version();
        let share = machine::share().await;
        let distribution = Distribution::of(&version, provider.is_zookeeper());
        let mut plane = Plane::get().await;
        for _ in 1..servers {
            plane.add_server().await;
        }
        let quorum = if provider.is_zookeeper() { Some(Quorum::start().await) } else { None };
        let client = plane.admin(0).await;
        create_all(&client, include_str!("objects.yaml")).await;
        if provider.is_zookeeper() {
            zookeeper::without_a_lease(&client).await;
        }
        Self {
            job_managers: Vec::new(),
            task_managers: Vec::new(),
            plane,
            client,
            provider,
            build: Build::Tested,
            quorum,
            version,
            declared_version: None,
            distribution,
            directory: Directory::new("cluster"),
            s3: None,
            tls: None,
            gateway_account: "demo-gateway",
            application: None,
            started: 0,
            ways: Vec::new(),
            _share: share,
        }
    }

    /// Whatever is started from now on is of this version of Flink.
    pub fn change_version(&mut self, version: &str) {
        version.clone_into(&mut self.version);
        self.distribution = Distribution::of(version, self.provider.is_zookeeper());
    }

    pub async fn up(mut self, job_managers: usize, task_managers: usize) -> Self {
        let begin = std::time::Instant::now();
        for _ in 0..job_managers {
            self.add_job_manager().await;
        }
        for _ in 0..task_managers {
            self.add_task_manager().await;
        }
        self.wait_until_ready().await;
        let took = begin.elapsed().as_secs_f32();
        say(format!(
            "Flink {}: {job_managers} JobManagers and {task_managers} TaskManagers up in {took:.1} s",
            self.version
        ));
        self
    }

    pub async fn wait_until_ready(&mut self) {
        eventually("a leader with all TaskManagers", PATIENCE, async || {
            self.assert_all_run();
            let overview = self.job_managers[self.leader().await?].rest().overview().await.ok()?;
            (overview["taskmanagers"].as_u64() == Some(self.task_managers.len() as u64)).then_some(())
        })
        .await;
        for job_manager in &self.job_managers {
            eventually(&format!("{} answers", job_manager.pod), PATIENCE, async || {
                job_manager.rest().overview().await.ok()
            })
            .await;
            if job_manager.gateway.is_some() {
                let ready = async || job_manager.probe("/readyz").await.ok().filter(|(code, _)| *code == 200);
                eventually(&format!("{} can take over", job_manager.pod), PATIENCE, ready).await;
            }
        }
    }

    fn assert_all_run(&mut self) {
        let of_job_managers =
            self.job_managers.iter_mut().flat_map(|one| std::iter::once(&mut one.jvm).chain(one.gateway.as_mut()));
        for process in of_job_managers.chain(&mut self.task_managers) {
            let status = process.exit_status();
            assert!(status.is_none(), "{process} ended with {status:?}:\n{}", process.log());
        }
    }

    /// What a kubelet would do: whatever stands still goes on, whatever has ended, or is ended by its gateway yet, is
    /// started again. Returns when all is well.
    pub async fn mend(&mut self) {
        self.of_job_managers().for_each(Process::cont);
        let begin = std::time::Instant::now();
        while !self.is_ready().await {
            assert!(begin.elapsed() < PATIENCE, "not all is well again");
            self.of_job_managers()
                .filter_map(|process| (!process.is_running()).then_some(process))
                .for_each(Process::restart);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a kubelet does all the time: whatever has ended is started again.
    pub fn restart_ended(&mut self) -> usize {
        let of_job_managers =
            self.job_managers.iter_mut().flat_map(|one| std::iter::once(&mut one.jvm).chain(one.gateway.as_mut()));
        let ended = of_job_managers
            .chain(&mut self.task_managers)
            .filter_map(|process| (!process.is_running()).then_some(process));
        ended.map(Process::restart).count()
    }

    fn of_job_managers(&mut self) -> impl Iterator<Item = &mut Process> {
        self.job_managers.iter_mut().flat_map(|one| std::iter::once(&mut one.jvm).chain(one.gateway.as_mut()))
    }

    async fn is_ready(&self) -> bool {
        let Some(leader) = self.leader().await else { return false };
        let Ok(overview) = self.job_managers[leader].rest().overview().await else { return false };
        let mut ready = overview["taskmanagers"].as_u64() == Some(self.task_managers.len() as u64);
        for one in &self.job_managers {
            ready &= one.rest().overview().await.is_ok();
            ready &= one.gateway.is_none() || one.probe("/readyz").await.is_ok_and(|(code, _)| code == 200);
        }
        ready
    }

    /// Returns when all standbys stand in the Lease.
    pub async fn wait_for_members(&self) {
        let members = self.job_managers.len() - 1;
        eventually("all standbys listed", PATIENCE, async || {
            (self.lease().await.peers.members.len() == members).then_some(())
        })
        .await;
    }

    /// A new JobManager pod; does not wait for it.
    pub async fn add_job_manager(&mut self) {
        self.started += 1;
        let pod = format!("{NAME}-jobmanager-{}", self.started);
        let uid = create_pod(&self.client, NAMESPACE, &pod).await;
        let address = address();
        let directory = self.directory.sub(&pod);
        let bound = Some((pod.as_str(), uid.as_str()));
        let jvm_token = token(&self.client, NAMESPACE, "demo-jobmanager", bound).await;
        let index = self.job_managers.len() % self.plane.servers.len();
        let server = &self.plane.servers[index];
        let gateway = match self.provider.timings() {
            Some(timings) => {
                let kubeconfig = server.kubeconfig(&token(&self.client, NAMESPACE, self.gateway_account, None).await);
                let of_application = self.application.as_ref().map(super::application::gateway_flags);
                let of_tls = self.tls.as_ref().map(|tls| tls.gateway_flags(&directory));
                let of_s3 = self.s3.iter().flat_map(S3::flags);
                let declared =
                    self.declared_version.into_iter().flat_map(|one| ["--flink-version", one].map(str::to_owned));
                let flags =
                    [of_application, of_tls].into_iter().flatten().flatten().chain(of_s3).chain(declared).collect();
                let of_tls = self.tls.iter().flat_map(|tls| tls.settings(&directory));
                let place = Pod { name: &pod, uid: &uid, address, directory: directory.clone(), flags };
                let settings = gateway::Settings {
                    build: &self.build,
                    timings,
                    storage: &self.storage_uri(),
                    configuration: &self.gateway_configuration().into_iter().chain(of_tls).collect(),
                    quorum: self.quorum.as_ref(),
                };
                Some(gateway::start((NAMESPACE, NAME), &place, &settings, &kubeconfig))
            }
            None => None,
        };
        let mut configuration = self.configuration();
        configuration.extend(self.tls.iter().flat_map(|tls| tls.prepare(&directory)));
        let environment = match (&gateway, &self.quorum) {
            (Some(_), None) => kubernetes_environment(&gateway::jvm_url(address), None, &jvm_token, NAMESPACE),
            (None, None) => kubernetes_environment(&server.url(), Some(&server.certificate()), &jvm_token, NAMESPACE),
            // No API server, and no word of one.
            (Some(_), Some(_)) => {
                configuration.insert("high-availability.zookeeper.quorum".to_owned(), gateway::jvm_address(address));
                Vec::new()
            }
            (None, Some(_)) => Vec::new(),
        };
        let place = Place {
            name: &pod,
            address,
            directory: directory.clone(),
            environment: [environment, self.plugins()].concat(),
        };
        let application = self.application.as_ref().map(|one| arguments(&one.cluster())).unwrap_or_default();
        let jvm = self.distribution.job_manager(&place, &configuration, &application);
        let tls = self.tls.clone();
        self.job_managers.push(JobManager { pod, uid, address, jvm, gateway, directory, server: index, tls });
    }

    /// What a Deployment does when a pod is gone: another pod. Returns when it can take over.
    pub async fn replace_job_manager(&mut self, gone: usize) {
        drop(self.job_managers.remove(gone));
        self.add_job_manager().await;
        self.wait_until_ready().await;
    }

    /// A new TaskManager pod; does not wait for it.
    pub async fn add_task_manager(&mut self) {
        self.started += 1;
        let name = format!("{NAME}-taskmanager-{}", self.started);
        let token = token(&self.client, NAMESPACE, "demo-taskmanager", None).await;
        let server = &self.plane.servers[0];
        let environment = match &self.quorum {
            None => {
                let master = pods::master(server.url());
                kubernetes_environment(&master, Some(&server.certificate()), &token, NAMESPACE)
            }
            Some(_) => Vec::new(),
        };
        let environment = [environment, self.plugins()].concat();
        let place = Place { name: &name, address: address(), directory: self.directory.sub(&name), environment };
        let mut configuration = self.task_managers_configuration();
        configuration.extend(self.tls.iter().flat_map(|tls| tls.prepare(&place.directory)));
        if let Some(quorum) = self.quorum.as_ref().filter(|quorum| quorum.is_secure()) {
            let (way, process) = quorum.pass_through(&place.directory);
            configuration.insert("high-availability.zookeeper.quorum".to_owned(), way);
            self.ways.push(process);
        }
        self.task_managers.push(self.distribution.task_manager(&place, &configuration));
    }

    /// `high-availability.storageDir`.
    pub fn storage(&self) -> PathBuf {
        self.s3.as_ref().map_or_else(|| self.directory.path().join("storage"), |s3| s3.bucket().join("ha"))
    }

    pub fn storage_uri(&self) -> String {
        self.s3.as_ref().map_or_else(|| format!("file://{}", self.storage().display()), |s3| format!("{}/ha", s3.uri()))
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub async fn config_map(&self, name: &str) -> Option<ConfigMap> {
        let config_maps = self.config_maps();
        answered("a ConfigMap", async || config_maps.get_opt(name).await).await
    }

    /// The Lease, as the gateways read it; or what the ledger says in its place.
    pub async fn lease(&self) -> Record {
        if self.quorum.is_some() {
            let ledger = self.config_map(&names::ledger(NAME)).await.expect("the ledger");
            return election::lease_of(&ledger.metadata).as_ref().map(Record::of).unwrap_or_default();
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        Record::of(&answered("the Lease", async || leases.get(&names::lease(NAME)).await).await)
    }

    /// The JobManager whose address Flink has published, which is the last thing that a new leader does.
    pub async fn leader(&self) -> Option<usize> {
        let published = match &self.quorum {
            None => dispatcher(&self.config_map(&cluster_config_map()).await?)?,
            Some(quorum) => zookeeper::dispatcher(&quorum.client().await?).await?,
        };
        let address = flink::address_of(&published)?;
        self.job_managers.iter().position(|one| flink::rpc_address(one.address) == address)
    }

    pub fn output(&self) -> PathBuf {
        self.directory.path().join("output")
    }

    pub async fn leader_rest(&self) -> Rest {
        self.job_managers[eventually("a leader", seconds(30), async || self.leader().await).await].rest()
    }
}

pub fn cluster_config_map() -> String {
    names::cluster_config_map(&names::kubernetes_cluster_id(NAME))
}

/// `<session>,<address>` of the leading dispatcher.
pub fn dispatcher(config_map: &ConfigMap) -> Option<String> {
    config_map.data.as_ref()?.get("org.apache.flink.k8s.leader.dispatcher").cloned()
}

/// Who holds Flink's lock, by the record in the ConfigMap; a name that changes with every JVM.
pub fn lock_holder(config_map: &ConfigMap) -> Option<String> {
    let record = config_map.metadata.annotations.as_ref()?.get(LOCK_ANNOTATION)?;
    let record: serde_json::Value = serde_json::from_str(record).ok()?;
    Some(record["holderIdentity"].as_str()?.to_owned()).filter(|holder| !holder.is_empty())
}

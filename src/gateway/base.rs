//! Builds once what the gateway needs with either provider: ports, channels, the storage, the ledger, and the tasks
//! beside the election.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::{Client, Config};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};

use super::answers::{Respondent, WAITING};
use super::application::ApplicationTasks;
use super::arguments::{Arguments, Orphans};
use super::certificate_recorder::CertificateRecorder;
use super::checkpoint_recorder::CheckpointRecorder;
use super::election::endpoint::Publisher;
use super::election::peers::PeerExchange;
use super::events::Events;
use super::failover_recorder::FailoverRecorder;
use super::gc::collector::Collector;
use super::gc::flink_version::VersionGuard;
use super::gc::job_recorder::JobRecorder;
use super::gc::ledger::Ledger;
use super::gc::ownership::{DirectoryMark, Ownership};
use super::gc::pointer_store::PointerStore;
use super::gc::quarantine::Quarantine;
use super::gc::secret_recorder::SecretRecorder;
use super::gc::sweeper::{self, Sweeper};
use super::health::Health;
use super::serving::ServingWatch;
use super::signals::Signals;
use super::tasks::Tasks;
use super::tenure::Tenures;
use super::tls_report::TlsReport;
use super::{hand_over, log_filter, probes, tls_arguments, unready};
use crate::api::names;
use crate::flink::tls::rest_is_encrypted;
use crate::lease::elector::{Event, LockView};
use crate::ledger::application::Run;
use crate::telemetry::logs::LogFilter;
use crate::world::flink_rest::Rest;
use crate::world::storage::Storage;
use crate::world::storage::reach::{FlinkConfiguration, NotCollectable};
use crate::world::{api_server, random, server};

/// The parts that do not depend on who elects.
pub struct Base {
    pub arguments: Arguments,
    pub config: Config,
    pub client: Client,
    /// Random per process.
    pub process: String,
    pub jvm_port: TcpListener,
    pub tenures: Arc<Tenures>,
    pub signals: Arc<Signals>,
    pub election: ElectionChannels,
    /// Flink's settings.
    configuration: FlinkConfiguration,
    storage: Result<Storage, NotCollectable>,
    probe_port: TcpListener,
    health: watch::Receiver<Health>,
    /// Socket of the preStop hook.
    hook: Option<UnixListener>,
    log_filter: LogFilter,
}

/// The election's ends of its channels.
pub struct ElectionChannels {
    /// Sender of the events that `heard` receives.
    pub events: Events,
    pub heard: mpsc::UnboundedReceiver<Event>,
    /// The view of the lock for the JVM. All tasks that work while the JVM leads follow it.
    pub shown: watch::Sender<LockView>,
    pub health: watch::Sender<Health>,
}

impl Base {
    /// Opens the ports and determines the API server's address. It sends no request.
    ///
    /// # Errors
    /// When a port cannot be opened, the API server's address is unknown, or Flink's settings cannot be read.
    pub async fn open(arguments: Arguments, log_filter: LogFilter) -> anyhow::Result<Self> {
        let hook = arguments.hand_over_socket.as_deref().map(hand_over::listen).transpose()?;
        let config = Config::infer().await.context("failed to find the API server")?;
        let client = api_server::client(&config)?;
        let process = random::nonce()?;
        let (cluster, pod, quorum) = (&arguments.cluster, &arguments.pod_name, &arguments.zookeeper.quorum);
        tracing::info!(cluster, pod, process, quorum, "the gateway starts");

        let (events, heard) = Events::channel();
        let (shown_in, shown) = watch::channel(LockView::Undecided);
        let (health_in, health) =
            watch::channel(Health { unready: Some("the gateway has just started"), ..Health::default() });
        let jvm_port = TcpListener::bind(arguments.jvm_address)
            .await
            .with_context(|| format!("failed to open {}", arguments.jvm_address))?;
        let probes = arguments.probes();
        let probe_port = server::listen(probes).with_context(|| format!("failed to open {probes}"))?;
        let configuration = arguments.place.configuration()?;
        let storage = arguments.place.storage(&configuration);
        Ok(Self {
            arguments,
            config,
            client,
            process,
            jvm_port,
            tenures: Arc::new(Tenures::new(shown)),
            signals: Arc::default(),
            election: ElectionChannels { events, heard, shown: shown_in, health: health_in },
            configuration,
            storage,
            probe_port,
            health,
            hook,
            log_filter,
        })
    }

    /// Returns the storage, if this gateway can reach it.
    pub fn reached(&self) -> Option<Storage> {
        self.storage.as_ref().ok().cloned()
    }

    /// Returns the run of the cluster's application; `None` for a session cluster.
    pub fn run(&self) -> Option<Run> {
        let arguments = &self.arguments;
        let (job_id, version) = (arguments.application?, arguments.application_version.as_deref()?);
        let replaces = arguments.application_replaces.clone();
        Some(Run { replaces, ..Run::new(job_id, version, arguments.application_start) })
    }

    /// Returns the time for which this gateway does not campaign after it has learned that its pod terminates.
    pub fn stand_back(&self) -> Duration {
        hand_over::patience(self.arguments.termination_grace_period)
    }

    pub fn ledger(&self, pointers: PointerStore) -> Ledger {
        Ledger {
            client: self.client.clone(),
            namespace: self.arguments.namespace.clone(),
            cluster: self.arguments.cluster.clone(),
            pointers,
            tenures: Arc::clone(&self.tenures),
            signals: Arc::clone(&self.signals),
            copy: Arc::default(),
        }
    }

    /// Returns what keeps a JVM of another version of Flink from leading where it would lose jobs.
    pub fn versions(&self, ledger: &Ledger) -> Arc<VersionGuard> {
        let (arguments, is_session) = (&self.arguments, self.arguments.application.is_none());
        VersionGuard::new(ledger.clone(), &arguments.pod_uid, arguments.flink_version.clone(), is_session)
    }

    /// Returns what sets jobs aside that Flink could not recover.
    pub fn quarantine(&self, ledger: &Ledger) -> Arc<Quarantine> {
        Quarantine::new(ledger.clone(), self.reached(), self.arguments.application.is_none())
    }

    pub fn publisher(&self) -> Publisher {
        Publisher {
            client: self.client.clone(),
            namespace: self.arguments.namespace.clone(),
            cluster: self.arguments.cluster.clone(),
            pod: self.arguments.pod_name.clone(),
            addresses: self.arguments.published(),
        }
    }

    /// Returns the JVM's REST endpoint, as Flink's settings say that it speaks.
    fn rest(&self) -> Rest {
        let rest = Rest::new(&self.arguments.jvm_rest);
        if !rest_is_encrypted(|key| self.configuration.get(key).map(String::as_str)) {
            return rest;
        }
        let tls = &self.arguments.tls;
        rest.with_tls(tls.rest.as_ref().map(|_| tls.stores_of(tls_arguments::REST)))
    }

    /// Returns the tasks for either provider, and the parts that the provider's own tasks need. `peers`: the endpoint
    /// of promises between gateways.
    pub fn into_tasks(
        self,
        mark: &DirectoryMark,
        versions: Arc<VersionGuard>,
        peers: Option<Arc<PeerExchange>>,
    ) -> (Tasks, TcpListener, ElectionChannels) {
        let (ledger, run, reached) = (mark.ledger.clone(), self.run(), self.reached());
        let rest = self.rest();
        let mut tasks = Tasks::default();
        let served = (ledger.pointers.clone(), Arc::clone(&self.signals));
        tasks.add("unready", unready::report(self.health.clone(), ledger.clone(), self.arguments.pod_uid.clone()));
        tasks.add("log_term", log_filter::follow_term(self.health.clone(), Arc::clone(&self.log_filter.term)));
        tasks.add("probes", probes::serve(self.probe_port, self.health, served, peers));
        let (questions, asked) = mpsc::channel(WAITING);
        let (sweeps, requests) = mpsc::channel(1);
        if let Some(hook) = self.hook {
            tasks.add("hand_over", hand_over::serve(hook, self.election.events.clone(), questions));
            let (ledger, mark, storage) = (ledger.clone(), mark.clone(), self.storage.clone());
            tasks.add("answers", Respondent { ledger, mark, storage, sweeps }.run(asked));
        }
        if let Some(file) = self.arguments.place.beside_configuration(names::GATEWAY_LOG_FILE) {
            tasks.add("log_filter", log_filter::follow(file, self.log_filter));
        }
        if let Some(run) = &run {
            let application = ApplicationTasks::new(&ledger, reached.as_ref(), &rest, run, self.configuration);
            tasks.add("application", application.run());
        }
        let arguments = self.arguments;
        let settings = sweeper::Settings {
            delete: arguments.orphans == Orphans::Delete,
            age: arguments.orphan_age,
            period: arguments.sweep_period,
        };
        let sweeper =
            Sweeper { ledger: ledger.clone(), mark: mark.clone(), storage: reached.clone(), settings, requests };
        tasks.add("gc::sweeper", sweeper.run());
        if arguments.tls.parts().next().is_some() {
            let names = arguments.place.beside_configuration(names::TLS_SECRETS_FILE);
            let recorder = CertificateRecorder { ledger: ledger.clone(), tls: arguments.tls.clone(), names };
            tasks.add("certificate_recorder", recorder.run());
        }
        let report =
            TlsReport { ledger: ledger.clone(), rest: rest.clone(), secrets: arguments.tls, pod: arguments.pod_name };
        tasks.add("tls_report", report.run());
        let failovers = FailoverRecorder { ledger: ledger.clone(), rest: rest.clone() };
        tasks.add("failover_recorder", failovers.run());
        let checkpoints = CheckpointRecorder { ledger: ledger.clone(), rest: rest.clone() };
        tasks.add("checkpoint_recorder", checkpoints.run());
        tasks.add("serving", ServingWatch { ledger: ledger.clone(), rest: rest.clone() }.run());
        let job_recorder = JobRecorder { ledger: ledger.clone(), storage: reached, rest };
        tasks.add("gc::flink_version", versions.note_leading());
        tasks.add("gc::ledger_repair", ledger.clone().keep());
        tasks.add("gc::job_recorder", job_recorder.run());
        if let Some(directory) = arguments.place.flink_configuration_from.clone() {
            let recorder = SecretRecorder { ledger: ledger.clone(), directory, key: arguments.peer_key.clone() };
            tasks.add("gc::secret_recorder", recorder.run());
        }
        let place = arguments.place.noted(&arguments.zookeeper);
        let collector = Collector { ledger, ownership: Ownership::new(mark.clone(), self.storage).at(place), run };
        tasks.add("gc::collector", collector.run());
        (tasks, self.jvm_port, self.election)
    }
}

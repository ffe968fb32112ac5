//! The sidecar of a JobManager: the API server, or the ZooKeeper server, as its JVM sees it, and the election behind
//! that.
//!
//! [`proxy`] answers the JVM, [`election`] drives the Lease, [`gc`] keeps the ledger and removes what ended jobs leave,
//! [`application`] looks after a cluster that runs one job, [`quorum`] stands in for [`proxy`] and [`election`] where
//! Flink elects by ZooKeeper. This file only wires them; what they all need is in [`shared`].

pub mod application;
pub mod arguments;
pub mod election;
pub mod gc;
pub mod hand_over;
pub mod metrics;
pub mod probes;
pub mod proxy;
pub mod purge;
pub mod quorum;
pub mod shared;
pub mod storage_arguments;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use futures::future::OptionFuture;
use kube::Config;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::api::names;
use crate::gateway::arguments::{Arguments, Orphans};
use crate::gateway::proxy::request::Names;
use crate::gateway::shared::{Clock, Shared};
use crate::lease::elector::{Elector, Identity, LockView, Settings};
use crate::ledger::application::Run;
use crate::world::{api_server, server};

/// Runs the gateway until it is told to end.
///
/// # Errors
/// When a port cannot be opened or the API server's address is unknown.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(
        arguments.jvm_address.ip().is_loopback(),
        "--jvm-address must be on loopback: the JVM's credentials pass through it"
    );
    keep_to_itself();
    let hook = arguments.hand_over_socket.as_deref().map(hand_over::listen).transpose()?;
    if arguments.zookeeper.quorum.is_some() {
        return quorum::run(arguments, hook).await;
    }
    let config = Config::infer().await.context("failed to find the API server")?;
    let client = api_server::client(&config)?;
    let names = Names { namespace: arguments.namespace.clone(), cluster_id: arguments.cluster_id.clone() };
    let address =
        arguments.peer_address.unwrap_or(SocketAddr::new(arguments.pod_ip, arguments.probe_address.port())).to_string();
    let identity = Identity {
        pod: arguments.pod_name.clone(),
        pod_uid: arguments.pod_uid.clone(),
        process: crate::world::random::nonce()?,
        address,
    };
    let settings = Settings {
        duration: arguments.lease_duration,
        renew_deadline: arguments.renew_deadline,
        retry_period: arguments.retry_period,
        promise: Settings::default().promise.min(arguments.renew_deadline),
        ask_period: Settings::default().ask_period.min(arguments.renew_deadline / 4),
        jvm_timeout: arguments.jvm_timeout,
        hand_over: hand_over::patience(arguments.termination_grace_period),
        ..Settings::default()
    };
    tracing::info!(cluster = arguments.cluster, pod = identity.pod, process = identity.process, "the gateway starts");

    let (events_in, events) = mpsc::unbounded_channel();
    let (shown_in, shown) = watch::channel(LockView::Undecided);
    let (health_in, health) =
        watch::channel(probes::Health { unready: Some("the gateway has just started"), ..Default::default() });
    let shared = Arc::new(Shared::new(names.clone(), Clock::new(), events_in, shown));
    let jvm_port = TcpListener::bind(arguments.jvm_address)
        .await
        .with_context(|| format!("failed to open {}", arguments.jvm_address))?;
    let probe_port = server::listen(arguments.probe_address)
        .with_context(|| format!("failed to open {}", arguments.probe_address))?;
    let cluster = format!("{}/{}", arguments.namespace, arguments.cluster);
    let peers = Arc::new(election::peers::Peers::new(
        Arc::clone(&shared),
        cluster,
        arguments.pod_uid.clone(),
        arguments.peer_key.clone(),
    ));
    let configuration = arguments.place.configuration()?;
    let storage = arguments.place.storage(&configuration);
    let reached = storage.as_ref().ok().cloned();
    let ledger = gc::ledger::Ledger {
        shared: Arc::clone(&shared),
        client: client.clone(),
        cluster: arguments.cluster.clone(),
        pointers: gc::pointer_store::Pointers::ConfigMaps,
    };
    let strangers = proxy::strangers::Strangers::new(ledger.clone(), arguments.pod_name.clone());
    let (upstream, stand_in) = (proxy::upstream::Upstream::new(&config)?, arguments.stand_in);
    let proxy = Arc::new(proxy::server::Proxy { shared: Arc::clone(&shared), upstream, strangers, stand_in });
    let rest = crate::world::flink_rest::Rest::new(&arguments.jvm_rest);
    let run = run_of(&arguments);
    let beside =
        run.as_ref().map(|run| application::Application::new(&ledger, reached.as_ref(), &rest, run, configuration));
    let job_recorder =
        gc::job_recorder::JobRecorder { ledger: ledger.clone(), storage: reached.clone(), rest: rest.clone() };
    let settings_of_sweep = gc::sweeper::Settings {
        delete: arguments.orphans == Orphans::Delete,
        age: arguments.orphan_age,
        period: arguments.sweep_period,
    };
    let sweeper =
        gc::sweeper::Sweeper { ledger: ledger.clone(), storage: reached.clone(), settings: settings_of_sweep };
    let place = arguments.place.noted(&arguments.zookeeper);
    let collector = gc::collector::Collector {
        ledger: ledger.clone(),
        ownership: gc::ownership::Ownership::new(storage).at(place),
        run: run.clone(),
    };
    let drift_repair = proxy::drift_repair::DriftRepair { shared: Arc::clone(&shared), client: client.clone() };
    let driver = election::driver::Driver {
        elector: Elector::new(identity, settings.clone()),
        settings,
        config,
        shared: Arc::clone(&shared),
        events,
        shown: shown_in,
        health: health_in,
        stamper: election::stamper::Stamper {
            client: client.clone(),
            names,
            ledger_name: names::ledger(&arguments.cluster),
            last_leader: None,
        },
        refused: Arc::default(),
        look: None,
        storage: reached,
        run,
        endpoint: election::endpoint::Publisher {
            client: client.clone(),
            namespace: arguments.namespace.clone(),
            name: names::rest(&arguments.cluster),
            pod: arguments.pod_name.clone(),
            address: arguments.pod_ip.to_string(),
        },
        peers: Arc::clone(&peers),
        ledger_name: names::ledger(&arguments.cluster),
        ledger,
        lease_name: names::lease(&arguments.cluster),
        namespace: arguments.namespace.clone(),
        lease_client: client,
        watched: BTreeSet::new(),
        second_jvm: None,
        holder: None,
        leads_since: None,
    };
    tokio::select! {
        () = proxy.serve(jvm_port) => anyhow::bail!("the JVM's port ended"),
        () = probes::serve(probe_port, health.clone(), Arc::clone(&shared), Some(peers)) => anyhow::bail!("the probes' port ended"),
        Some(()) = OptionFuture::from(hook.map(|hook| hand_over::serve(hook, Arc::clone(&shared)))) => anyhow::bail!("the preStop hook's socket ended"),
        () = driver.run() => anyhow::bail!("the election ended"),
        () = collector.run() => anyhow::bail!("the collector ended"),
        () = job_recorder.run() => anyhow::bail!("the bookkeeper ended"),
        () = sweeper.run() => anyhow::bail!("the sweeper ended"),
        () = drift_repair.run() => anyhow::bail!("the keeper ended"),
        Some(()) = OptionFuture::from(beside.map(application::Application::run)) => anyhow::bail!("the application is not followed any more"),
        result = told_to_end() => result,
    }
}

/// The run that the cluster's application is in; none for a session cluster.
fn run_of(arguments: &Arguments) -> Option<Run> {
    let (job_id, version) = (arguments.application?, arguments.application_version.as_deref()?);
    let replaces = arguments.application_replaces.clone();
    Some(Run { replaces, ..Run::new(job_id, version, arguments.application_start) })
}

/// Containers of a pod share their processes, and Flink runs as the same user: without this, a job could reach what
/// only the gateway mounts (its key, the socket of the preStop hook) through `/proc/<pid>/root`, and read its
/// environment.
fn keep_to_itself() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "failed to close this process to others of its user");
    }
}

/// A native sidecar is told to end after its JVM has ended, and the Lease was given back then. If the gateway alone is
/// restarted, its JVM goes on leading: so there is nothing to give back in either case.
async fn told_to_end() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tracing::info!("the gateway ends");
    Ok(())
}

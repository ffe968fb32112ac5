//! The sidecar of a JobManager whose Flink elects by ZooKeeper: the connection of its JVM to the quorum ([`proxy`]),
//! and the election there ([`leadership`]). Ledger, collector and sweeper are those of the other provider.

pub mod admission;
pub mod foreign;
pub mod gate;
pub mod leadership;
pub mod proxy;
pub mod savepoint_requests;
pub mod shutdown;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::OptionFuture;
use kube::Config;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use zookeeper_client::Client;

use super::application::Application;
use super::arguments::Orphans;
use super::election::endpoint;
use super::gc::pointer_store::{Pointers, Znodes};
use super::gc::{collector, job_recorder, ledger, ownership, sweeper};
use super::proxy::request::Names;
use super::shared::{Clock, Shared};
use super::{hand_over, probes, run_of, told_to_end};
use crate::api::names;
use crate::api::zookeeper::Scheme;
use crate::flink::znodes::Paths;
use crate::lease::elector::LockView;
use crate::world::flink_rest::Rest;
use crate::world::quorum::auth::Identity;
use crate::world::quorum::{Quorum, tunnel};
use crate::world::{api_server, server};

/// Where the quorum is. Flags of `flinkha gateway`, `flinkha purge` and `flinkha pass-through`.
#[derive(Clone, Debug, clap::Args)]
pub struct Access {
    /// Servers of the ZooKeeper quorum, `host:port` with commas between.
    #[arg(long = "zookeeper-quorum")]
    pub quorum: Option<String>,
    /// Flink's high-availability.zookeeper.path.root.
    #[arg(long = "zookeeper-root", default_value = "/flink")]
    pub root: String,
    /// Directory with ca.crt, and perhaps tls.crt and tls.key: the quorum is reached by TLS.
    #[arg(long = "zookeeper-tls")]
    pub tls: Option<PathBuf>,
    /// What we create is for its creator only, as with Flink's `client.acl: creator`.
    #[arg(long = "zookeeper-creator-only")]
    pub creator_only: bool,
    /// How the quorum is told who comes, if that is known.
    #[arg(long = "zookeeper-scheme", value_enum, default_value_t)]
    pub scheme: Scheme,
    #[arg(long = "zookeeper-username", env = "ZOOKEEPER_USERNAME")]
    pub username: Option<String>,
    #[arg(long = "zookeeper-password", env = "ZOOKEEPER_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
}

impl Access {
    /// # Errors
    /// When a certificate cannot be read.
    pub fn quorum(&self) -> anyhow::Result<Quorum> {
        let quorum = Quorum::new(self.quorum.as_deref().context("--zookeeper-quorum is missing")?);
        let quorum = match &self.tls {
            Some(directory) => quorum.with_tls(directory)?,
            None => quorum,
        };
        Ok(match (&self.username, &self.password) {
            (Some(username), Some(password)) => quorum.with_identity(Identity {
                scheme: self.scheme,
                username: username.clone(),
                password: password.clone(),
            }),
            _ => quorum,
        })
    }

    pub fn acls(&self) -> zookeeper_client::Acls<'static> {
        if self.creator_only { zookeeper_client::Acls::creator_all() } else { zookeeper_client::Acls::anyone_all() }
    }
}

/// Our own client's session. It has no ephemeral znodes: that it expires costs a new connection.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a way to the quorum for our own client; returns its address.
///
/// # Errors
/// When no port can be opened.
pub async fn tunnel_on_loopback(quorum: &Quorum) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("failed to open a port for our own ZooKeeper client")?;
    let address = listener.local_addr()?;
    tokio::spawn(tunnel(listener, quorum.clone()));
    Ok(address)
}

/// A client of its own session, by the way that [`tunnel_on_loopback`] has opened to this quorum.
///
/// # Errors
/// When no server gives a session in time: what the servers themselves did, which says more than that nothing came of
/// it.
pub async fn connect(way: SocketAddr, quorum: &Quorum) -> anyhow::Result<Client> {
    let connected = Client::connector().with_session_timeout(SESSION_TIMEOUT).connect(&way.to_string()).await;
    connected.map_err(|error| match (quorum.trouble(), error) {
        (Some(trouble), _) => anyhow::anyhow!(trouble),
        (None, zookeeper_client::Error::AuthFailed) => {
            anyhow::anyhow!(
                "the servers let only those in who tell who they are, by another scheme than is done here: see authentication.scheme"
            )
        }
        (None, error) => error.into(),
    })
}

/// Flags of `flinkha pass-through`.
#[derive(Clone, Debug, clap::Args)]
pub struct PassThrough {
    #[command(flatten)]
    pub access: Access,
    /// Where Flink finds its server.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, names::JVM_PORT)))]
    pub jvm_address: SocketAddr,
}

/// `flinkha pass-through`: the way of a TaskManager to a quorum that is reached by TLS or wants to know who comes.
///
/// # Errors
/// When the port cannot be opened or a certificate cannot be read.
pub async fn pass_through(PassThrough { access, jvm_address: address }: PassThrough) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("failed to open {address}"))?;
    tokio::select! {
        () = tunnel(listener, access.quorum()?) => anyhow::bail!("the pass-through ended"),
        result = told_to_end() => result,
    }
}

/// Runs the gateway until it is told to end.
///
/// # Errors
/// When a port cannot be opened, or the API server's address is unknown.
pub async fn run(arguments: super::Arguments, hook: Option<UnixListener>) -> anyhow::Result<()> {
    let access = arguments.zookeeper.clone();
    let quorum = access.quorum()?;
    let config = Config::infer().await.context("failed to find the API server")?;
    let client = api_server::client(&config)?;
    tracing::info!(cluster = arguments.cluster, pod = arguments.pod_name, quorum = access.quorum, "the gateway starts");

    let (events_in, events) = mpsc::unbounded_channel();
    let (shown_in, shown) = watch::channel(LockView::Undecided);
    let (health_in, health) =
        watch::channel(probes::Health { unready: Some("the gateway has just started"), ..Default::default() });
    let (client_in, own_client) = watch::channel(None);
    let names = Names { namespace: arguments.namespace.clone(), cluster_id: arguments.cluster_id.clone() };
    let shared = Arc::new(Shared::new(names, Clock::new(), events_in, shown));
    let jvm_port = TcpListener::bind(arguments.jvm_address)
        .await
        .with_context(|| format!("failed to open {}", arguments.jvm_address))?;
    let probe_port = server::listen(arguments.probe_address)
        .with_context(|| format!("failed to open {}", arguments.probe_address))?;
    let configuration = arguments.place.configuration()?;
    let storage = arguments.place.storage(&configuration);
    let reached = storage.as_ref().ok().cloned();
    let paths = Paths::new(&access.root, &arguments.place.ha_cluster_id);
    let znodes = Znodes::new(paths, own_client, access.acls());
    let pointers = Pointers::Znodes(znodes.clone());
    let run = run_of(&arguments);
    let gate = Arc::new(gate::Gate::new(run.is_some()));
    let proxy = Arc::new(proxy::QuorumProxy::new(
        quorum.clone(),
        Arc::clone(&shared),
        znodes.clone(),
        reached.clone(),
        Arc::clone(&gate),
    ));
    let ledger = ledger::Ledger {
        shared: Arc::clone(&shared),
        client: client.clone(),
        cluster: arguments.cluster.clone(),
        pointers,
    };
    let rest = Rest::new(&arguments.jvm_rest);
    let job_recorder =
        job_recorder::JobRecorder { ledger: ledger.clone(), storage: reached.clone(), rest: rest.clone() };
    let settings = sweeper::Settings {
        delete: arguments.orphans == Orphans::Delete,
        age: arguments.orphan_age,
        period: arguments.sweep_period,
    };
    let sweeper = sweeper::Sweeper { ledger: ledger.clone(), storage: reached.clone(), settings };
    let place = arguments.place.noted(&access);
    let collector = collector::Collector {
        ledger: ledger.clone(),
        ownership: ownership::Ownership::new(storage).at(place),
        run: run.clone(),
    };
    let endpoint = endpoint::Publisher {
        client: client.clone(),
        namespace: arguments.namespace.clone(),
        name: names::rest(&arguments.cluster),
        pod: arguments.pod_name.clone(),
        address: arguments.pod_ip.to_string(),
    };
    let identity = leadership::Identity {
        pod: arguments.pod_name.clone(),
        pod_uid: arguments.pod_uid.clone(),
        process: crate::world::random::nonce()?,
        hand_over: hand_over::patience(arguments.termination_grace_period),
    };
    let beside = run.as_ref().map(|run| {
        let application = Application::new(&ledger, reached.as_ref(), &rest, run, configuration);
        let admission = admission::Admission {
            ledger: ledger.clone(),
            znodes: znodes.clone(),
            storage: reached.clone(),
            run: run.clone(),
            identity: identity.clone(),
            gate: Arc::clone(&gate),
            stands: false,
        };
        let asked = savepoint_requests::follow(ledger.clone());
        async { tokio::join!(application.run(), admission.run(), asked) }
    });
    let guard = foreign::guard(ledger.clone(), znodes.clone(), Arc::clone(&gate));
    let examiner = run.clone().map(|run| admission::Examiner { storage: reached, run, gate });
    let outlets = leadership::Outlets { shown: shown_in, health: health_in, client: client_in };
    let way = tunnel_on_loopback(&quorum).await?;
    let (ledger_of_all, znodes_of_all) = (ledger.clone(), znodes.clone());
    let observer = leadership::LatchObserver::new(
        identity,
        Arc::clone(&proxy),
        znodes,
        ledger,
        endpoint,
        outlets,
        (way, quorum.clone()),
    );
    // Ends when the gate is open.
    tokio::spawn(guard);
    let ended: anyhow::Result<()> = tokio::select! {
        () = proxy.serve(jvm_port) => anyhow::bail!("the JVM's port ended"),
        () = probes::serve(probe_port, health.clone(), Arc::clone(&shared), None) => anyhow::bail!("the probes' port ended"),
        Some(()) = OptionFuture::from(hook.map(|hook| hand_over::serve(hook, Arc::clone(&shared)))) => anyhow::bail!("the preStop hook's socket ended"),
        () = observer.with(examiner).run(events) => anyhow::bail!("the watch of the election ended"),
        () = collector.run() => anyhow::bail!("the collector ended"),
        () = job_recorder.run() => anyhow::bail!("the bookkeeper ended"),
        () = sweeper.run() => anyhow::bail!("the sweeper ended"),
        Some(_) = OptionFuture::from(beside) => anyhow::bail!("the application is not followed any more"),
        result = told_to_end() => result,
    };
    ended?;
    if let Some(run) = run {
        shutdown::part(&ledger_of_all, &znodes_of_all, &run).await;
    }
    Ok(())
}

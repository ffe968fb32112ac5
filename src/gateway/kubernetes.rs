//! Runs the gateway with the Kubernetes provider: it acts as its JVM's API server ([`proxy`](super::proxy)) and drives
//! the Lease ([`election`](super::election)).

use std::net::SocketAddr;
use std::sync::Arc;

use super::arguments::Arguments;
use super::base::Base;
use super::election::driver::Driver;
use super::election::grant::Grant;
use super::election::peer_keys::PeerKeys;
use super::election::peers::PeerExchange;
use super::election::stamper::Stamper;
use super::election::take_over::TakeOver;
use super::events::Clock;
use super::gc::ownership::DirectoryMark;
use super::gc::pointer_store::{ConfigMaps, PointerStore, Snapshots};
use super::proxy::drift_repair::DriftRepair;
use super::proxy::fence::Fence;
use super::proxy::jvm_lock::JvmLock;
use super::proxy::request::Names;
use super::proxy::server::Proxy;
use super::proxy::strangers::Strangers;
use super::proxy::upstream::Upstream;
use crate::api::names;
use crate::lease::elector::{Elector, Identity, Settings};

/// Runs the gateway until the process receives a signal to end.
///
/// # Errors
/// When the API server's address is invalid, or when a task ends.
pub async fn run(base: Base) -> anyhow::Result<()> {
    let arguments = base.arguments.clone();
    let (client, config) = (base.client.clone(), base.config.clone());
    let names = Names { namespace: arguments.namespace.clone(), cluster_id: arguments.cluster_id.clone() };
    let (clock, snapshots) = (Clock::new(), Arc::<Snapshots>::default());
    let lock = Arc::new(JvmLock::new(names.clone(), base.election.shown.subscribe(), Arc::clone(&snapshots)));
    let config_maps = ConfigMaps {
        client: client.clone(),
        namespace: arguments.namespace.clone(),
        cluster_id: arguments.cluster_id.clone(),
        cluster: arguments.cluster.clone(),
        tenures: Arc::clone(&base.tenures),
        snapshots,
    };
    let ledger = base.ledger(PointerStore::ConfigMaps(config_maps.clone()));
    let (mark, versions) = (DirectoryMark::new(ledger.clone()), base.versions(&ledger));
    let quarantine = base.quarantine(&ledger);
    let events = base.election.events.clone();
    let cluster = format!("{}/{}", arguments.namespace, arguments.cluster);
    let keys = Arc::new(PeerKeys::new(arguments.peer_key.clone()));
    let pod_uid = arguments.pod_uid.clone();
    let peers = Arc::new(PeerExchange::new(
        (events.clone(), clock),
        cluster,
        pod_uid,
        Arc::clone(&keys),
        Arc::clone(&base.signals),
    ));
    let proxy = Arc::new(Proxy {
        fence: Fence {
            lock: Arc::clone(&lock),
            events,
            signals: Arc::clone(&base.signals),
            upstream: Upstream::new(&config, base.signals.counters.upstream_requests.clone())?,
        },
        clock,
        strangers: Strangers::new(ledger.clone(), arguments.pod_name.clone()),
        stand_in: arguments.stand_in,
    });
    let drift_repair =
        DriftRepair { tenures: Arc::clone(&base.tenures), lock: Arc::clone(&lock), client: client.clone() };
    let (storage, endpoint) = (base.reached(), base.publisher());
    let take_over = base.run().map(|run| TakeOver {
        ledger: ledger.clone(),
        mark: mark.clone(),
        config_maps,
        storage: storage.clone(),
        run,
        versions: Arc::clone(&versions),
    });
    let settings = Settings {
        retry_period: arguments.retry_period,
        jvm_timeout: arguments.jvm_timeout,
        hand_over: base.stand_back(),
        ..Settings::of(arguments.lease_duration, arguments.renew_deadline)
    };
    let identity = identity(&arguments, base.process.clone());
    let stamper = Stamper {
        client: client.clone(),
        names,
        ledger_name: names::ledger(&arguments.cluster),
        last_leader: None,
        versions: Arc::clone(&versions),
    };
    let key_told = keys.tell(ledger.clone());
    let grant = Grant {
        stamper,
        stamp_deadline: settings.stamp_deadline,
        ledger,
        lock,
        storage,
        take_over,
        refused: Arc::default(),
        versions: Arc::clone(&versions),
        quarantine: Arc::clone(&quarantine),
    };
    let (mut tasks, jvm_port, election) = base.into_tasks(&mark, versions, Some(Arc::clone(&peers)));
    let driver = Driver {
        elector: Elector::new(identity, settings.clone()),
        settings,
        config,
        clock,
        tell: election.events,
        events: election.heard,
        shown: election.shown,
        health: election.health,
        grant,
        look: None,
        endpoint,
        peers,
        ledger_name: names::ledger(&arguments.cluster),
        lease_name: names::lease(&arguments.cluster),
        namespace: arguments.namespace,
        lease_client: client,
        watched: Default::default(),
        second_jvm: None,
        examined: None,
        holder: None,
        leads_since: None,
    };
    tasks.add("gc::quarantine", quarantine.run());
    tasks.add("proxy::server", proxy.serve(jvm_port));
    tasks.add("proxy::drift_repair", drift_repair.run());
    tasks.add("election::peer_keys", key_told);
    tasks.add("election::driver", driver.run());
    tasks.run().await
}

fn identity(arguments: &Arguments, process: String) -> Identity {
    let address = arguments.peer_address.unwrap_or(SocketAddr::new(arguments.pod_ip, arguments.probes().port()));
    Identity {
        pod: arguments.pod_name.clone(),
        pod_uid: arguments.pod_uid.clone(),
        process,
        address: address.to_string(),
    }
}

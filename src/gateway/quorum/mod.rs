//! Runs the gateway of a JobManager whose Flink elects by ZooKeeper: it forwards its JVM's connection to the quorum
//! ([`proxy`]) and follows the election there ([`leadership`]). Ledger, collector and sweeper are those of the other
//! provider.

pub mod access;
pub mod foreign;
pub mod gate;
pub mod leadership;
pub mod observer;
pub mod proxy;
pub mod quarantine;
pub mod requests;
pub mod savepoint_requests;
pub mod shutdown;

use std::sync::Arc;

use tokio::sync::watch;

pub use self::access::{PassThrough, connect, pass_through, tunnel_on_loopback};
use super::base::Base;
use super::election::peer_keys::PeerKeys;
use super::gc::ownership::DirectoryMark;
use super::gc::pointer_store::{PointerStore, Znodes};
use crate::flink::znodes::Paths;

/// Runs the gateway until the process receives a signal to end.
///
/// # Errors
/// When a certificate cannot be read or a port cannot be opened, or when a task ends.
pub async fn run(base: Base) -> anyhow::Result<()> {
    let access = base.arguments.zookeeper.clone();
    let quorum = access.quorum()?;
    let (client_in, own_client) = watch::channel(None);
    let paths = Paths::new(&access.root, &base.arguments.place.ha_cluster_id);
    let znodes = Znodes::new(paths, own_client, access.acls());
    let ledger = base.ledger(PointerStore::Znodes(znodes.clone()));
    let (mark, versions) = (DirectoryMark::new(ledger.clone()), base.versions(&ledger));
    let (run, storage, endpoint) = (base.run(), base.reached(), base.publisher());
    let gate = Arc::new(gate::Gate::new(run.is_some()));
    let (quarantine, way) = (base.quarantine(&ledger), (tunnel_on_loopback(&quorum).await?, quorum.clone()));
    let proxy = Arc::new(proxy::QuorumProxy::new(
        quorum,
        Arc::clone(&base.signals),
        znodes.clone(),
        storage.clone(),
        Arc::clone(&gate),
        Arc::clone(&versions),
        quarantine::Setter { quarantine: Arc::clone(&quarantine), znodes: znodes.clone(), way: way.clone() },
    ));
    let identity = requests::GatewayIdentity {
        pod: base.arguments.pod_name.clone(),
        pod_uid: base.arguments.pod_uid.clone(),
        process: base.process.clone(),
    };
    let hand_over = base.stand_back();
    // The recorder of Secrets signs its digests with this key.
    let keys = Arc::new(PeerKeys::new(base.arguments.peer_key.clone()));
    let (mut tasks, jvm_port, election) = base.into_tasks(&mark, Arc::clone(&versions), None);
    if run.is_some() {
        tasks.add("quorum::savepoint_requests", savepoint_requests::follow(ledger.clone()));
    }
    let guard = foreign::guard(ledger.clone(), znodes.clone(), Arc::clone(&gate));
    let observer = observer::Observer {
        proxy: Arc::clone(&proxy),
        znodes: znodes.clone(),
        ledger: ledger.clone(),
        way,
        client: client_in,
        outage: observer::Outage::default(),
    };
    let driver = leadership::Driver {
        hands: requests::Hands {
            identity,
            ledger: ledger.clone(),
            mark,
            znodes: znodes.clone(),
            storage,
            run: run.clone(),
            versions,
        },
        proxy: Arc::clone(&proxy),
        gate,
        endpoint,
        outlets: leadership::Outlets { shown: election.shown, health: election.health },
        hand_over,
    };
    tasks.add("gc::quarantine", quarantine.run());
    tasks.add("election::peer_keys", keys.tell(ledger.clone()));
    tasks.add("quorum::proxy", proxy.serve(jvm_port));
    tasks.add("quorum::leadership", driver.run(observer, election.heard));
    // Ends when the gate is open.
    tokio::spawn(guard);
    tasks.run().await?;
    if let Some(run) = run {
        shutdown::part(&ledger, &znodes, &run).await;
    }
    Ok(())
}

//! The election's shell: feeds the pure [`Elector`] with events and carries out its actions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::endpoint;
use super::peers::Peers;
use super::stamper::{Holder, Look, Stamper};
use crate::api::names::PROBE_ANNOTATION;
use crate::gateway::application::handover;
use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::result_repair;
use crate::gateway::probes::Health;
use crate::gateway::proxy::snapshots::put_back_cluster;
use crate::gateway::shared::Shared;
use crate::lease::elector::{Action, Elector, Event, LockView, Read, Settings, Stamping, Write};
use crate::lease::term::{Incarnation, Term};
use crate::ledger::application::Run;
use crate::ledger::refusal::Refusal;
use crate::world::process;
use crate::world::storage::Storage;
use crate::world::{api_server, lease};

/// Looking up what is to be stamped saves a few milliseconds; waiting longer for it would not.
const LOOK_TIMEOUT: Duration = Duration::from_millis(100);

/// Between looks whether what is stored is still another's.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// How long a planned switchover waits for jobs that are just ending, and how often it looks.
const ENDING_JOBS_TIMEOUT: Duration = Duration::from_secs(30);
const ENDING_JOBS_INTERVAL: Duration = Duration::from_millis(200);

/// A planned switchover waits until the leader has led for so long: a Flink that loses its leadership while it recovers
/// jobs ends its process ("Could not suspend the job manager", seen with 2.3.0).
const LEAST_TENURE: Duration = Duration::from_secs(3);

/// Everything the election's actions need.
pub struct Driver {
    pub elector: Elector,
    pub settings: Settings,
    pub config: Config,
    pub shared: Arc<Shared>,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub shown: watch::Sender<LockView>,
    pub health: watch::Sender<Health>,
    pub stamper: Stamper,
    /// What is stored was another's when it was looked at last.
    pub refused: Arc<AtomicBool>,
    /// What is to be stamped, looked up while the Lease is written.
    pub look: Option<JoinHandle<Option<Look>>>,
    /// `None` when the gateway cannot reach it.
    pub storage: Option<Storage>,
    /// The application that the cluster runs, if it is not a session cluster.
    pub run: Option<Run>,
    pub endpoint: endpoint::Publisher,
    pub peers: Arc<Peers>,
    pub ledger_name: String,
    pub ledger: Ledger,
    pub lease_name: String,
    pub namespace: String,
    /// A client of its own, made anew after each time-out: a dead connection must not delay the next attempt.
    pub lease_client: Client,
    /// JVMs whose ends are awaited.
    pub watched: BTreeSet<Incarnation>,
    /// The last JVM beside ours that was told of.
    pub second_jvm: Option<Incarnation>,
    pub holder: Option<String>,
    pub leads_since: Option<Instant>,
}

impl Driver {
    /// Runs until the process ends.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let seen = move |event: Event, savepoint: Option<&str>, alive: Option<&str>| {
            if let Some(process) = alive {
                shared.witness(process);
            }
            shared.ask_savepoint(savepoint.and_then(|text| serde_json::from_str(text).ok()));
            shared.tell(event);
        };
        tokio::spawn(lease::watch(self.leases(), self.lease_name.clone(), seen));
        let mut ticks = tokio::time::interval(self.settings.retry_period / 8);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let event = tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => event,
                    None => return,
                },
                _ = ticks.tick() => Event::Tick,
            };
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        match &event {
            Event::Tick
            | Event::JvmHeard { .. }
            | Event::LeaseSeen { .. }
            | Event::LeaseRead { .. }
            | Event::LeaseWritten { .. } => {
                tracing::trace!(?event);
            }
            _ => tracing::debug!(?event),
        }
        if let Event::LeaseSeen { record, .. } | Event::LeaseRead { outcome: Read::Found { record, .. }, .. } = &event
            && let Some(change) = record.change.as_ref().filter(|change| !change.lock.is_empty())
        {
            self.stamper.last_leader = Some(change.lock.clone());
        }
        match event {
            Event::JvmHeard { jvm } => self.await_end_of(jvm),
            Event::JvmFound { .. } => self.tell_of_second_jvm(),
            Event::JvmDied { jvm } => {
                self.watched.remove(&jvm);
            }
            Event::JvmTookLock { .. } => {
                self.leads_since = Some(Instant::now());
                self.ledger.lift_refusal();
            }
            _ => {}
        }
        if matches!(
            event,
            Event::LeaseRead { outcome: Read::Failed, .. } | Event::LeaseWritten { outcome: Write::Unknown, .. }
        ) {
            self.renew_client();
        }
        if let (Event::JvmDied { jvm }, LockView::Leader { term, .. }) = (&event, &*self.shown.borrow())
            && term.jvm == *jvm
        {
            let (shared, term) = (Arc::clone(&self.shared), term.clone());
            let config_maps = Api::namespaced(self.stamper.client.clone(), &self.namespace);
            tokio::spawn(async move { put_back_cluster(&shared, &config_maps, &term).await });
        }
        let now = self.shared.clock.now();
        let handed_over = self.elector.is_terminating();
        let actions = self.elector.step(now, event);
        if handed_over && !self.elector.is_terminating() {
            tracing::warn!(
                "told to hand over, but the pod has not ended within its grace period: this JobManager stands for election again"
            );
        }
        let shown = self.elector.shown();
        // What was remembered belongs to a term; outside of one only its data are shown to a standby.
        self.shown.send_if_modified(|before| {
            let changed = *before != shown;
            *before = shown;
            changed
        });
        self.report(now);
        for action in actions {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        let shared = Arc::clone(&self.shared);
        match action {
            Action::ReadLease => {
                let (leases, name, limit) = (self.leases(), self.lease_name.clone(), self.settings.retry_period);
                tokio::spawn(async move {
                    let started = shared.clock.now();
                    let outcome = lease::read(&leases, &name, limit).await;
                    shared.tell(Event::LeaseRead { started, outcome });
                });
            }
            Action::WriteLease { attempt, version, record } => {
                let (leases, name, limit) = (self.leases(), self.lease_name.clone(), self.settings.retry_period);
                let acquired = self.holder.as_deref() != Some(&record.holder);
                if acquired && !record.holder.is_empty() {
                    let stamper = self.stamper.clone();
                    self.look = Some(tokio::spawn(async move { stamper.look().await }));
                }
                let takes = acquired && !record.holder.is_empty();
                let doubt = (takes && self.refused.load(Ordering::Relaxed))
                    .then(|| (self.stamper.clone(), self.ledger.clone()));
                let refused = Arc::clone(&self.refused);
                tokio::spawn(async move {
                    // A Lease that is taken only to be given back would make terms climb.
                    if let Some((stamper, ledger)) = doubt {
                        if is_refused(&stamper, &ledger).await {
                            tokio::time::sleep(REFUSAL_PAUSE).await;
                            return shared.tell(Event::LeaseWritten { attempt, outcome: Write::Unknown });
                        }
                        refused.store(false, Ordering::Relaxed);
                    }
                    let outcome = lease::write(&leases, &name, &version, &record, acquired, limit).await;
                    shared.tell(Event::LeaseWritten { attempt, outcome });
                });
            }
            Action::Stamp { term, keep_holder } => {
                shared.store(None);
                shared.snapshots.forget_all();
                let (stamper, patience, storage) =
                    (self.stamper.clone(), self.settings.stamp_deadline, self.storage.clone());
                let look = self.look.take();
                let (ledger, run, refused) = (self.ledger.clone(), self.run.clone(), Arc::clone(&self.refused));
                let holder =
                    if keep_holder { Holder::Kept(self.elector.lock().map(str::to_owned)) } else { Holder::Nobody };
                tokio::spawn(async move {
                    let look = match look {
                        Some(look) => {
                            tokio::time::timeout(LOOK_TIMEOUT, look).await.ok().and_then(Result::ok).flatten()
                        }
                        None => None,
                    };
                    // Beside the stamping, so that it takes no time. Without an answer the job recorder reads it soon.
                    let ended = tokio::time::timeout(patience, ledger.note_ended());
                    let (stamped, _) = tokio::join!(stamper.stamp(&term, &holder, patience, look), ended);
                    let (mut outcome, mut cluster) = (stamped.outcome, stamped.cluster);
                    if let Some(refusal) = stamped.refusal {
                        refused.store(true, Ordering::Relaxed);
                        note_refusal(&ledger, &refusal).await;
                    }
                    if let (Stamping::Done, Some(stamped), false) = (&outcome, &cluster, keep_holder) {
                        cluster = prepare(&ledger, storage.as_ref(), run.as_ref(), &term, stamped.clone()).await;
                        outcome = if cluster.is_some() { Stamping::Done } else { Stamping::Failed };
                    }
                    if outcome == Stamping::Done {
                        shared.store(cluster);
                    }
                    shared.tell(Event::Stamped { term, outcome });
                });
            }
            Action::FindJvm { jvm } => {
                self.await_end_of(jvm);
                tokio::spawn(async move {
                    shared.tell(if process::is_alive(jvm).await {
                        Event::JvmFound { jvm }
                    } else {
                        Event::JvmDied { jvm }
                    });
                });
            }
            Action::EndJvm { jvm, why } => {
                tracing::warn!(%jvm, why, "ending the JobManager's process");
                tokio::spawn(process::end(jvm));
            }
            Action::Publish { term } => {
                tracing::info!(term = term.number, "publishing this pod as the leader");
                let publisher = self.endpoint.clone();
                tokio::spawn(async move { publisher.publish(&shared, &term).await });
            }
            Action::AwaitJobs { term } => {
                let (storage, recovered) = (self.storage.clone(), self.leads_since.map(|since| since + LEAST_TENURE));
                tokio::spawn(async move {
                    if let Some(recovered) = recovered {
                        tokio::time::sleep_until(recovered).await;
                    }
                    await_jobs(storage).await;
                    shared.tell(Event::JobsSettled { term });
                });
            }
            Action::AskPromises { term, duration, members } => {
                for member in members {
                    let (peers, term) = (Arc::clone(&self.peers), term.clone());
                    tokio::spawn(async move { peers.ask(term, duration, member).await });
                }
            }
            Action::AnswerPromise { ask, answer } => self.peers.answer(ask, answer),
            Action::Join { holder, member } => {
                let peers = Arc::clone(&self.peers);
                tokio::spawn(async move { peers.join(holder, member).await });
            }
            Action::Ping { holder } => {
                let peers = Arc::clone(&self.peers);
                tokio::spawn(async move { peers.ping(&holder).await });
            }
            Action::ProbeWrite => {
                let ledgers = Api::namespaced(self.lease_client.clone(), &self.namespace);
                let (ledger, limit) = (self.ledger_name.clone(), self.settings.retry_period);
                tokio::spawn(async move {
                    shared.tell(Event::Probed { written: probe_write(&ledgers, &ledger, limit).await })
                });
            }
        }
    }

    /// Waits for the end of a JVM that is not watched yet.
    fn await_end_of(&mut self, jvm: Incarnation) {
        if !self.watched.insert(jvm) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            process::end_of(jvm).await;
            tracing::info!(%jvm, "the JobManager's process has ended");
            shared.tell(Event::JvmDied { jvm });
        });
    }

    /// Our JVM was looked at because another one asked, and it is alive.
    fn tell_of_second_jvm(&mut self) {
        let second = self.elector.beside();
        if second.is_some() && second != self.second_jvm {
            let second = second.map(|jvm| jvm.to_string());
            tracing::warn!(
                second,
                "another Flink JVM of this pod asks for the lock while the first one lives: it stands by, and counts when that has ended"
            );
        }
        self.second_jvm = second.or(self.second_jvm);
    }

    fn report(&mut self, now: crate::lease::elector::Time) {
        let holder = self.elector.holder().to_owned();
        if self.holder.as_deref() != Some(&holder) {
            tracing::info!(holder, term = self.elector.term_number(), "the Lease changed hands");
            self.holder = Some(holder);
        }
        let leads = matches!(*self.shown.borrow(), LockView::Leader { .. });
        let health = Health { unready: self.elector.unready(now), leads, term: self.elector.term_number() };
        self.health.send_if_modified(|before| {
            let changed = *before != health;
            *before = health;
            changed
        });
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.lease_client.clone(), &self.namespace)
    }

    fn renew_client(&mut self) {
        match api_server::client(&self.config) {
            Ok(client) => self.lease_client = client,
            Err(error) => tracing::error!(%error, "failed to make a client"),
        }
    }
}

/// Whether what is stored is still another's; says so in the ledger.
async fn is_refused(stamper: &Stamper, ledger: &Ledger) -> bool {
    match stamper.refusal().await {
        Ok(None) => false,
        Ok(Some(refusal)) => {
            note_refusal(ledger, &refusal).await;
            true
        }
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "failed to look whether the HA data is still another's; looking again"
            );
            true
        }
    }
}

async fn note_refusal(ledger: &Ledger, refusal: &Refusal) {
    tracing::warn!(reason = refusal.reason, "not leading: {}", refusal.message);
    if let Err(error) = ledger.note_refusal(Some(refusal)).await {
        tracing::warn!(error = format!("{error:#}"), "failed to write a refusal into the ledger");
    }
}

/// What is done between the stamping and the grant. `None` when nobody is to lead.
async fn prepare(
    ledger: &Ledger,
    storage: Option<&Storage>,
    run: Option<&Run>,
    term: &Term,
    cluster: Value,
) -> Option<Value> {
    if let Some(storage) = storage {
        result_repair::mend_before_grant(storage, &result_repair::Stored::in_config_map(&cluster)).await;
    }
    match run {
        Some(run) => handover::take_over_before_grant(ledger, storage, run, term, cluster).await,
        None => Some(cluster),
    }
}

/// Waits while a job is just ending: its result is stored, and what it leaves is being cleaned up. A storage that
/// cannot be read is not waited for.
async fn await_jobs(storage: Option<Storage>) {
    let Some(storage) = storage else { return };
    let settled = async {
        while storage.entries().await.is_ok_and(|entries| entries.iter().any(|entry| entry.dirty)) {
            tokio::time::sleep(ENDING_JOBS_INTERVAL).await;
        }
    };
    if tokio::time::timeout(ENDING_JOBS_TIMEOUT, settled).await.is_err() {
        tracing::warn!("a job has been ending for long; the planned switchover goes on");
    }
}

/// Can this candidate write what the API server stores? Reads may be answered where writes are not.
async fn probe_write(ledgers: &Api<ConfigMap>, name: &str, limit: Duration) -> bool {
    let patch =
        Patch::Merge(json!({ "metadata": { "annotations": { PROBE_ANNOTATION: Timestamp::now().to_string() } } }));
    matches!(tokio::time::timeout(limit, ledgers.patch(name, &PatchParams::default(), &patch)).await, Ok(Ok(_)))
}

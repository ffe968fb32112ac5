//! Drives the election: feeds the pure [`Elector`] with events and carries out its actions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::endpoint;
use super::grant::{Grant, PendingLook};
use super::peers::PeerExchange;
use super::stamper::Holder;
use crate::api::names::PROBE_ANNOTATION;
use crate::gateway::events::{Clock, Events};
use crate::gateway::health::Health;
use crate::gateway::proxy::drift_repair::put_back_cluster;
use crate::lease::elector::{Action, Elector, Event, LockView, Read, Settings, Write};
use crate::lease::term::Incarnation;
use crate::world::process;
use crate::world::storage::Storage;
use crate::world::{api_server, lease};

/// Interval of checks whether stored HA data still keeps this JobManager from leading.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// Limit for a planned switchover to wait for jobs that are ending, and the interval of its checks.
const ENDING_JOBS_TIMEOUT: Duration = Duration::from_secs(30);
const ENDING_JOBS_INTERVAL: Duration = Duration::from_millis(200);

/// Shortest tenure before a planned switchover. A Flink that loses its leadership while it recovers jobs ends its
/// process ("Could not suspend the job manager", seen with 2.3.0).
const LEAST_TENURE: Duration = Duration::from_secs(3);

/// Everything that the election's actions need.
pub struct Driver {
    pub elector: Elector,
    pub settings: Settings,
    pub config: Config,
    /// Sender for events of the driver's own tasks.
    pub tell: Events,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub clock: Clock,
    pub shown: watch::Sender<LockView>,
    pub health: watch::Sender<Health>,
    pub grant: Grant,
    /// The lookup of the objects to stamp, which runs while the Lease is written.
    pub look: Option<PendingLook>,
    pub endpoint: endpoint::Publisher,
    pub peers: Arc<PeerExchange>,
    pub ledger_name: String,
    pub lease_name: String,
    pub namespace: String,
    /// A client of its own, replaced after each time-out: a dead connection must not delay the next attempt.
    pub lease_client: Client,
    /// JVMs whose end a task awaits.
    pub watched: BTreeSet<Incarnation>,
    /// The last second JVM that the log mentioned.
    pub second_jvm: Option<Incarnation>,
    /// The last JVM whose version of Flink was examined.
    pub examined: Option<Incarnation>,
    pub holder: Option<String>,
    pub leads_since: Option<Instant>,
}

impl Driver {
    /// Runs until the process ends.
    pub async fn run(mut self) {
        let (events, tenures, signals) =
            (self.tell.clone(), Arc::clone(&self.grant.ledger.tenures), Arc::clone(&self.grant.ledger.signals));
        let seen = move |event: Event, savepoint: Option<&str>, alive: Option<&str>| {
            if let Some(process) = alive {
                tenures.witness(process);
            }
            signals.ask_savepoint(savepoint.and_then(|text| serde_json::from_str(text).ok()));
            events.tell(event);
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
            self.grant.stamper.last_leader = Some(change.lock.clone());
            self.grant.ledger.signals.note_change(change);
        }
        match event {
            Event::JvmHeard { jvm } => {
                self.await_end_of(jvm);
                self.examine(jvm);
            }
            Event::JvmFound { .. } => self.tell_of_second_jvm(),
            Event::JvmDied { jvm } => {
                let was_watched = self.watched.remove(&jvm);
                if was_watched {
                    self.grant.ledger.signals.counters.jvm_exited(jvm);
                }
            }
            Event::JvmTookLock { .. } => {
                self.leads_since = Some(Instant::now());
                self.grant.ledger.lift_refusal();
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
            let (lock, term) = (Arc::clone(&self.grant.lock), term.clone());
            let config_maps = Api::namespaced(self.grant.stamper.client.clone(), &self.namespace);
            tokio::spawn(async move { put_back_cluster(&lock, &config_maps, &term).await });
        }
        let before = matches!(event, Event::JvmTookLock { .. }).then(|| self.elector.change().cloned());
        let now = self.clock.now();
        let handed_over = self.elector.is_terminating();
        let led = matches!(*self.shown.borrow(), LockView::Leader { .. });
        let actions = self.elector.step(now, event);
        if handed_over && !self.elector.is_terminating() {
            tracing::warn!(
                "told to hand over, but the pod has not ended within its grace period: this JobManager stands for election again"
            );
        }
        if let (Some(before), Some(change)) = (before, self.elector.change())
            && before.as_ref() != Some(change)
        {
            self.grant.ledger.signals.counters.leads(change);
        }
        let shown = self.elector.shown();
        if led && !matches!(shown, LockView::Leader { .. }) {
            let why = self.elector.gives_up().unwrap_or("it could not prove that it holds the Lease");
            tracing::warn!(why, holder = self.elector.holder(), "this JobManager leads no longer");
        }
        // What the lock remembers belongs to a term. Without a term only its data serves a standby.
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
        let events = self.tell.clone();
        match action {
            Action::ReadLease => {
                let (leases, name, limit) = (self.leases(), self.lease_name.clone(), self.settings.retry_period);
                let clock = self.clock;
                tokio::spawn(async move {
                    let started = clock.now();
                    let outcome = lease::read(&leases, &name, limit).await;
                    events.tell(Event::LeaseRead { started, outcome });
                });
            }
            Action::WriteLease { attempt, version, record } => {
                let (leases, name, limit) = (self.leases(), self.lease_name.clone(), self.settings.retry_period);
                let acquired = self.holder.as_deref() != Some(&record.holder);
                let takes = acquired && !record.holder.is_empty();
                if takes {
                    self.look = Some(self.grant.look());
                }
                let jvm = record.term.as_ref().map(|term| term.jvm);
                let grant = takes.then(|| self.grant.clone());
                let signals = Arc::clone(&self.grant.ledger.signals);
                tokio::spawn(async move {
                    if let (Some(grant), Some(jvm)) = (grant, jvm)
                        && grant.is_refused(jvm).await
                    {
                        tokio::time::sleep(REFUSAL_PAUSE).await;
                        return events.tell(Event::LeaseWritten { attempt, outcome: Write::Unknown });
                    }
                    let (begin, at) = (Instant::now(), Timestamp::now());
                    let outcome = lease::write(&leases, &name, &version, &record, acquired, limit).await;
                    let stored = matches!(outcome, Write::Done { .. }) && !record.holder.is_empty();
                    signals.counters.lease_written(begin.elapsed(), stored.then_some(at));
                    events.tell(Event::LeaseWritten { attempt, outcome });
                });
            }
            Action::Stamp { term, keep_holder } => {
                let holder =
                    if keep_holder { Holder::Kept(self.elector.lock().map(str::to_owned)) } else { Holder::Nobody };
                let granted = self.grant.begin(term.clone(), holder, self.look.take());
                tokio::spawn(async move {
                    let outcome = granted.await;
                    events.tell(Event::Stamped { term, outcome });
                });
            }
            Action::FindJvm { jvm } => {
                self.await_end_of(jvm);
                tokio::spawn(async move {
                    events.tell(if process::is_alive(jvm).await {
                        Event::JvmFound { jvm }
                    } else {
                        Event::JvmDied { jvm }
                    });
                });
            }
            Action::EndJvm { jvm, why } => {
                tracing::warn!(%jvm, why, "ending the JobManager's process");
                self.grant.ledger.signals.counters.jvm_ended(jvm, why);
                tokio::spawn(process::end(jvm));
            }
            Action::Publish { term } => {
                tracing::info!(term = term.number, "publishing this pod as the leader");
                let (publisher, tenures) = (self.endpoint.clone(), Arc::clone(&self.grant.ledger.tenures));
                tokio::spawn(async move { publisher.publish(&tenures, &term).await });
            }
            Action::AwaitJobs { term } => {
                let (storage, recovered) =
                    (self.grant.storage.clone(), self.leads_since.map(|since| since + LEAST_TENURE));
                tokio::spawn(async move {
                    if let Some(recovered) = recovered {
                        tokio::time::sleep_until(recovered).await;
                    }
                    await_jobs(storage).await;
                    events.tell(Event::JobsSettled { term });
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
                    events.tell(Event::Probed { written: probe_write(&ledgers, &ledger, limit).await })
                });
            }
        }
    }

    /// Waits for the end of a JVM, unless a task already does.
    fn await_end_of(&mut self, jvm: Incarnation) {
        if !self.watched.insert(jvm) {
            return;
        }
        let events = self.tell.clone();
        tokio::spawn(async move {
            process::end_of(jvm).await;
            tracing::info!(%jvm, "the JobManager's process has ended");
            events.tell(Event::JvmDied { jvm });
        });
    }

    /// Examines the version of a JVM that asks for the first time.
    fn examine(&mut self, jvm: Incarnation) {
        if self.examined.replace(jvm) != Some(jvm) {
            tokio::spawn(self.grant.clone().examine(jvm));
        }
    }

    /// Logs a second JVM: another one asked for the lock while ours is alive.
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
            let is_elsewhere = !holder.is_empty() && !self.elector.leads();
            self.grant.ledger.signals.recovery.note_leader(
                self.elector.term_number(),
                is_elsewhere,
                Instant::now().into_std(),
            );
            self.holder = Some(holder);
        }
        self.grant.ledger.signals.counters.note_promises(self.elector.promises(now).unwrap_or_default());
        let leads = matches!(*self.shown.borrow(), LockView::Leader { .. });
        let of_leader = || self.grant.ledger.signals.unready().filter(|_| leads);
        let unready = self.elector.unready(now).or_else(|| self.grant.versions.unready()).or_else(of_leader);
        let health = Health { unready, leads, term: self.elector.term_number() };
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

/// Waits while a job is ending: its result is stored, and Flink is still cleaning up. It does not wait for a storage
/// that cannot be read.
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

/// Does the API server store a write of this candidate? It may answer reads when it stores no writes.
async fn probe_write(ledgers: &Api<ConfigMap>, name: &str, limit: Duration) -> bool {
    let patch =
        Patch::Merge(json!({ "metadata": { "annotations": { PROBE_ANNOTATION: Timestamp::now().to_string() } } }));
    matches!(tokio::time::timeout(limit, ledgers.patch(name, &PatchParams::default(), &patch)).await, Ok(Ok(_)))
}

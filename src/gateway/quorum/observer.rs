//! Observes Flink's election by the gateway's own session with the quorum, and reports on the ledger when the quorum
//! does not work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use zookeeper_client::{AddWatchMode, Client, EventType, SessionState, WatchedEvent};

use super::proxy::QuorumProxy;
use crate::flink::job_id::JobId;
use crate::flink::znodes::{CHECKPOINTS, JOBS, LEADER, PLANS};
use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::pointer_store::Znodes;
use crate::quorum::{Event, View};
use crate::world::quorum::Quorum;
use crate::world::quorum::znodes::{candidates, publisher};

/// Interval of retries, and of checks while nothing happens.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// Limit for one view of the election.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Limit for a write of the ledger; it is repeated, and the observation continues without it.
const LEDGER_WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// A quorum that does not work for longer is reported on the ledger.
const OUTAGE_REPORT_DELAY: Duration = Duration::from_secs(10);

/// Observes the election.
pub struct Observer {
    pub proxy: Arc<QuorumProxy>,
    pub znodes: Znodes,
    pub ledger: Ledger,
    /// Access to the quorum.
    pub way: (SocketAddr, Quorum),
    /// Publishes the client of our session.
    pub client: watch::Sender<Option<Client>>,
    pub outage: Outage,
}

/// The report on the ledger about the quorum.
#[derive(Default)]
pub struct Outage {
    /// Since when the quorum has not worked, without interruption.
    since: Option<Instant>,
    /// The report that this gateway wrote last.
    noted: Option<Option<String>>,
}

impl Observer {
    /// Runs until the process ends.
    pub async fn run(mut self, events: mpsc::UnboundedSender<Event>) {
        // An error means that the process ends.
        let tell = |event: Event| drop(events.send(event));
        loop {
            match super::connect(self.way.0, &self.way.1).await {
                Ok(client) => {
                    self.client.send_replace(Some(client.clone()));
                    tell(Event::Connected { session: client.session_id().0 });
                    if let Err(error) = self.watch(&client, &tell).await {
                        tracing::warn!(error = format!("{error:#}"), "the watch of the election was interrupted");
                        self.note(Some(format!("{error:#}"))).await;
                    }
                    tell(Event::Disconnected);
                    self.client.send_replace(None);
                }
                Err(error) => {
                    let why = error.to_string();
                    tracing::warn!(why, "no ZooKeeper server gives us a session; trying again");
                    self.note(Some(why)).await;
                }
            }
            sleep(OBSERVE_INTERVAL).await;
        }
    }

    /// Observes until the session ends.
    async fn watch(&mut self, client: &Client, tell: &impl Fn(Event)) -> anyhow::Result<()> {
        self.znodes.prepare().await?;
        let mut changes = client.watch(&self.znodes.paths.cluster, AddWatchMode::PersistentRecursive).await?;
        loop {
            // What happens from here on is seen by the next look.
            let looked = self.look(client).await;
            let trouble = match looked {
                Ok(view) => {
                    tell(Event::Viewed(view));
                    None
                }
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "failed to look at the election; trying again");
                    Some(format!("{error:#}"))
                }
            };
            self.note(trouble).await;
            loop {
                tokio::select! {
                    event = changes.changed() => {
                        if event.event_type == EventType::Session && event.session_state.is_terminated() {
                            anyhow::bail!("the session has ended: {}", event.session_state);
                        }
                        if self.concerns_the_election(&event) {
                            break;
                        }
                    }
                    () = sleep(OBSERVE_INTERVAL) => break,
                }
            }
        }
    }

    async fn look(&self, client: &Client) -> anyhow::Result<View> {
        let read = async {
            let candidates = candidates(client, &self.znodes.paths).await?;
            let publisher = publisher(client, &self.znodes.paths).await?;
            Ok::<_, zookeeper_client::Error>((candidates, publisher))
        };
        let (candidates, publisher) = timeout(OBSERVE_TIMEOUT, read).await.context("no ZooKeeper server answers")??;
        Ok(View { candidates, publisher, silence: self.proxy.silence() })
    }

    /// Notifies others of jobs that come and go.
    fn concerns_the_election(&self, event: &WatchedEvent) -> bool {
        if event.event_type == EventType::Session {
            let is_back = event.session_state == SessionState::SyncConnected;
            if is_back {
                // What happened meanwhile is not told of.
                self.ledger.signals.jobs_changed.notify_one();
                self.ledger.signals.job_ended.notify_one();
            }
            return is_back;
        }
        let below = event.path.strip_prefix(&self.znodes.paths.cluster).unwrap_or_default().trim_start_matches('/');
        let (kind, rest) = below.split_once('/').unwrap_or((below, ""));
        let of_job = PLANS.contains(&kind) || kind == JOBS;
        self.note_checkpoint(kind, rest, event.event_type);
        if of_job && !rest.contains('/') && !rest.is_empty() {
            self.ledger.signals.jobs_changed.notify_one();
            if event.event_type == EventType::NodeDeleted {
                self.ledger.signals.job_ended.notify_one();
            }
        }
        kind == LEADER
    }

    /// Notes a pointer to a checkpoint, `jobs/<job>/checkpoints/<number>` below the cluster's znode, and the end of its
    /// job.
    fn note_checkpoint(&self, kind: &str, rest: &str, event: EventType) {
        let counters = &self.ledger.signals.counters;
        let parts: Vec<&str> = rest.split('/').collect();
        match (kind, event, parts.as_slice()) {
            (JOBS, EventType::NodeCreated, [job, CHECKPOINTS, number]) => {
                if let (Some(job), Ok(number)) = (JobId::of(job), number.parse()) {
                    counters.note_checkpoint(job, number, Instant::now());
                }
            }
            (JOBS, EventType::NodeDeleted, [job]) => {
                JobId::of(job).into_iter().for_each(|job| counters.forget_checkpoints_of(job));
            }
            _ => {}
        }
    }

    /// Reports on the ledger that the quorum has not worked for some time, or that it works again.
    async fn note(&mut self, trouble: Option<String>) {
        if !self.outage.is_news(trouble.as_deref()) {
            return;
        }
        let remedy = trouble
            .map(|why| format!("{why}; look at quorum, rootPath and authentication, and at the ZooKeeper servers"));
        match timeout(LEDGER_WRITE_TIMEOUT, self.ledger.note_quorum(remedy.as_deref())).await {
            Ok(Ok(())) => self.outage.noted = Some(remedy),
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "failed to note the state of the quorum"),
            Err(_) => tracing::warn!("failed to note the state of the quorum: the API server does not answer"),
        }
    }
}

impl Outage {
    fn is_news(&mut self, trouble: Option<&str>) -> bool {
        let lasting = trouble.is_some() && self.since.get_or_insert_with(Instant::now).elapsed() > OUTAGE_REPORT_DELAY;
        if trouble.is_none() {
            self.since = None;
        }
        // Messages may differ each time; the first says enough.
        match (&self.noted, trouble) {
            (None | Some(Some(_)), None) => true,
            (None | Some(None), Some(_)) => lasting,
            _ => false,
        }
    }
}

//! Flink's election in ZooKeeper, watched: who holds the lowest latch node leads, and ours is known by the session of
//! our JVM.
//!
//! The gateway decides nothing here. It writes down what it sees (ledger, EndpointSlice), lets the collector work while
//! its JVM leads, and ends a JVM that has lost its leadership without having noticed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use zookeeper_client::{AddWatchMode, Client, EventType, SessionState, WatchedEvent};

use super::admission::Examiner;
use super::proxy::QuorumProxy;
use crate::flink::znodes::{JOBS, LEADER, PLANS, Paths};
use crate::gateway::election::endpoint::Publisher;
use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::pointer_store::Znodes;
use crate::gateway::health::Health;
use crate::lease::elector::{Event, LockView, Time};
use crate::lease::term::{Incarnation, Term};
use crate::ledger::election::Notes;
use crate::world::process;
use crate::world::quorum::Quorum;
use crate::world::quorum::znodes::{Candidate, candidates, publisher};

/// Between tries of whatever has failed, and between looks when nothing happens.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// A write of the ledger that takes longer is tried again; the election goes on without it.
const LEDGER_WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// A JVM whose pod terminates ends its session itself, within a second. One that does not is ended from here.
const SESSION_END_TIMEOUT: Duration = Duration::from_secs(3);
/// A quorum that is away for longer is told of.
const OUTAGE_REPORT_DELAY: Duration = Duration::from_secs(10);

/// Who this gateway is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub pod: String,
    pub pod_uid: String,
    /// Random per process.
    pub process: String,
    /// What was told of its end longer ago than this was told by mistake.
    pub hand_over: Duration,
}

/// Where others learn what was found.
pub struct Outlets {
    pub shown: watch::Sender<LockView>,
    pub health: watch::Sender<Health>,
    pub client: watch::Sender<Option<Client>>,
}

/// Our JVM's time as the holder of the lowest latch.
struct Tenure {
    latch: Candidate,
    jvm: Incarnation,
    /// Once it stands in the ledger.
    term: Option<Term>,
    /// It is known which jobs have ended, and whether what is stored is its own.
    examined: bool,
    /// The JVM leads, and the ledger says so in this term.
    granted: bool,
    /// How long nobody led before it did.
    leaderless: Option<Duration>,
}

/// Watches.
pub struct LatchObserver {
    identity: Identity,
    proxy: Arc<QuorumProxy>,
    znodes: Znodes,
    ledger: Ledger,
    endpoint: Publisher,
    outlets: Outlets,
    way: (SocketAddr, Quorum),
    /// Of an application.
    examiner: Option<Examiner>,
    tenure: Option<Tenure>,
    /// The session that leads, as last seen, and since when there has been none or another.
    leader: Option<i64>,
    changed: Instant,
    /// When the pod was told last that it terminates.
    terminating: Option<Instant>,
    /// Since when the quorum does not do what it should, without a break.
    trouble: Option<Instant>,
    /// What the ledger says of it, as far as this gateway knows.
    told: Option<Option<String>>,
}

/// What one look at the election shows.
struct View {
    candidates: Vec<Candidate>,
    /// Session that has published the dispatcher's address.
    publisher: Option<i64>,
}

impl View {
    async fn of(client: &Client, paths: &Paths) -> Result<Self, zookeeper_client::Error> {
        Ok(Self { candidates: candidates(client, paths).await?, publisher: publisher(client, paths).await? })
    }
}

impl LatchObserver {
    pub fn new(
        identity: Identity,
        proxy: Arc<QuorumProxy>,
        znodes: Znodes,
        ledger: Ledger,
        endpoint: Publisher,
        outlets: Outlets,
        way: (SocketAddr, Quorum),
    ) -> Self {
        let (tenure, leader, changed, terminating, trouble, told) = (None, None, Instant::now(), None, None, None);
        Self {
            identity,
            proxy,
            znodes,
            ledger,
            endpoint,
            outlets,
            way,
            examiner: None,
            tenure,
            leader,
            changed,
            terminating,
            trouble,
            told,
        }
    }

    /// The same for the JVM of an application.
    pub fn with(self, examiner: Option<Examiner>) -> Self {
        Self { examiner, ..self }
    }

    /// Runs until the process ends.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        loop {
            match super::connect(self.way.0, &self.way.1).await {
                Ok(client) => {
                    self.outlets.client.send_replace(Some(client.clone()));
                    if let Err(error) = self.watch(&client, &mut events).await {
                        tracing::warn!(error = format!("{error:#}"), "the watch of the election was interrupted");
                        self.tell(Some(format!("{error:#}"))).await;
                    }
                    self.outlets.client.send_replace(None);
                }
                Err(error) => {
                    let why = error.to_string();
                    tracing::warn!(why, "no ZooKeeper server gives us a session; trying again");
                    self.tell(Some(why)).await;
                }
            }
            self.report(None);
            // Others may lead meanwhile.
            self.proxy.let_store(None);
            if let Some(tenure) = &mut self.tenure {
                tenure.examined = false;
            }
            sleep(OBSERVE_INTERVAL).await;
        }
    }

    /// Until the session ends.
    async fn watch(&mut self, client: &Client, events: &mut mpsc::UnboundedReceiver<Event>) -> anyhow::Result<()> {
        self.znodes.prepare().await?;
        let mut changes = client.watch(&self.znodes.paths.cluster, AddWatchMode::PersistentRecursive).await?;
        let mut known = self.proxy.known();
        loop {
            // What happens from here on is seen by the next look.
            let ended = known.borrow_and_update().ended;
            if let Some(jvm) = ended {
                self.on_end_of(jvm).await;
            }
            let looked = self.look(client).await;
            if let Err(error) = &looked {
                tracing::debug!(error = format!("{error:#}"), "failed to look at the election; trying again");
            }
            self.tell(looked.err().map(|error| format!("{error:#}"))).await;
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
                    _ = known.changed() => break,
                    () = self.ledger.signals.overtaken.notified() => {
                        self.take_another_term();
                        break;
                    },
                    Some(event) = events.recv() => if matches!(event, Event::PodTerminating) {
                        self.on_termination();
                        break;
                    },
                    () = sleep(OBSERVE_INTERVAL) => break,
                }
            }
        }
    }

    /// Writes into the ledger that the quorum does not do what it should, once that has lasted, or that it does again.
    async fn tell(&mut self, trouble: Option<String>) {
        let lasting =
            trouble.is_some() && self.trouble.get_or_insert_with(Instant::now).elapsed() > OUTAGE_REPORT_DELAY;
        if trouble.is_none() {
            self.trouble = None;
        }
        // Messages may differ each time; the first tells enough.
        let news = match (&self.told, &trouble) {
            (None | Some(Some(_)), None) => true,
            (None | Some(None), Some(_)) => lasting,
            _ => false,
        };
        if !news {
            return;
        }
        let remedy = trouble
            .map(|why| format!("{why}; look at quorum, rootPath and authentication, and at the ZooKeeper servers"));
        match timeout(LEDGER_WRITE_TIMEOUT, self.ledger.note_quorum(remedy.as_deref())).await {
            Ok(Ok(())) => self.told = Some(remedy),
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "failed to tell of the quorum"),
            Err(_) => tracing::warn!("failed to tell of the quorum: the API server does not answer"),
        }
    }

    /// Signal others of jobs that come and go.
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
        if of_job && !rest.contains('/') && !rest.is_empty() {
            self.ledger.signals.jobs_changed.notify_one();
            if event.event_type == EventType::NodeDeleted {
                self.ledger.signals.job_ended.notify_one();
            }
        }
        kind == LEADER
    }

    async fn look(&mut self, client: &Client) -> anyhow::Result<()> {
        let view = timeout(LEDGER_WRITE_TIMEOUT, View::of(client, &self.znodes.paths))
            .await
            .context("no ZooKeeper server answers")??;
        let leader = view.candidates.first().cloned();
        let session = leader.as_ref().map(|leader| leader.session);
        if session != self.leader {
            // From the first moment without the old one.
            if self.leader.is_some() {
                self.changed = Instant::now();
            }
            tracing::info!(session = session.map(|id| format!("{id:#x}")), "the latch changed hands");
            self.leader = session;
        }
        let ours = leader.filter(|leader| self.held(leader.session).is_some());
        if self.tenure.as_ref().map(|tenure| &tenure.latch) != ours.as_ref() {
            self.end_tenure("JobManagerResigned").await;
            self.tenure = ours.and_then(|latch| {
                let jvm = self.held(latch.session)?;
                Some(Tenure { latch, jvm, term: None, examined: false, granted: false, leaderless: None })
            });
            self.znodes.lead_by(self.tenure.as_ref().map(|tenure| tenure.latch.path.clone()));
        }
        // The quorum is well; what fails from here on is the API server's, and tried again by the next look.
        if let Err(error) = self.advance(&view).await {
            tracing::warn!(error = format!("{error:#}"), "failed to write down who leads; trying again");
        }
        self.report(Some(&view));
        Ok(())
    }

    /// The process that holds this session, if it is our JVM and lives: a dead one leads no more, although its latch
    /// may still be there.
    fn held(&self, session: i64) -> Option<Incarnation> {
        self.proxy.known().borrow().holder(session)
    }

    /// Takes the next step of a tenure: a term, then the grant.
    async fn advance(&mut self, view: &View) -> anyhow::Result<()> {
        let Some(tenure) = &mut self.tenure else { return Ok(()) };
        if tenure.term.is_none() {
            let (identity, now) = (&self.identity, Timestamp::now());
            let term = Term {
                number: 0,
                pod_uid: identity.pod_uid.clone(),
                process: identity.process.clone(),
                jvm: tenure.jvm,
            };
            let notes = timeout(
                LEDGER_WRITE_TIMEOUT,
                self.ledger.note_election(|notes| Some(notes.taken(&identity.pod, term.clone(), now))),
            );
            tenure.term = notes.await.context("the API server does not answer")??.term;
        }
        if let (Some(term), false) = (&tenure.term, tenure.examined) {
            timeout(LEDGER_WRITE_TIMEOUT, self.ledger.note_ended())
                .await
                .context("the API server does not answer")??;
            let may_store = match &self.examiner {
                Some(examiner) => timeout(LEDGER_WRITE_TIMEOUT, examiner.examine(&self.ledger, &self.znodes, term))
                    .await
                    .context("the storage directory does not answer")??,
                None => true,
            };
            self.proxy.let_store(may_store.then_some(tenure.latch.session));
            tenure.examined = true;
        }
        if let (Some(term), false, true) = (&tenure.term, tenure.granted, view.publisher == Some(tenure.latch.session))
        {
            let (leaderless, now) = (*tenure.leaderless.get_or_insert(self.changed.elapsed()), Timestamp::now());
            tenure.granted = true;
            let term = term.clone();
            tracing::info!(term = term.number, milliseconds = leaderless.as_millis(), "our JVM leads");
            self.ledger.lift_refusal();
            self.outlets.shown.send_replace(LockView::Leader { term: term.clone(), until: Time(u64::MAX) });
            let (publisher, tenures, published) =
                (self.endpoint.clone(), Arc::clone(&self.ledger.tenures), term.clone());
            tokio::spawn(async move { publisher.publish(&tenures, &published).await });
            let millis = u64::try_from(leaderless.as_millis()).unwrap_or(u64::MAX);
            let ledger = self.ledger.clone();
            tokio::spawn(async move {
                for _ in 0..30 {
                    let grant =
                        |notes: &Notes| (notes.term.as_ref() == Some(&term)).then(|| notes.granted(millis, now));
                    match timeout(LEDGER_WRITE_TIMEOUT, ledger.note_election(grant)).await {
                        Ok(Ok(notes)) => {
                            if notes.term.is_some_and(|now| now.number > term.number) {
                                ledger.signals.overtaken.notify_one();
                            }
                            return;
                        }
                        Ok(Err(error)) => {
                            tracing::warn!(
                                error = format!("{error:#}"),
                                "failed to write down the change of leader; trying again"
                            )
                        }
                        Err(_) => tracing::warn!(
                            "failed to write down the change of leader: the API server does not answer; trying again"
                        ),
                    }
                    sleep(OBSERVE_INTERVAL).await;
                }
            });
        }
        Ok(())
    }

    /// A gateway whose JVM led before may write down late that it does, and be wrong by then. Ours is the latch; so the
    /// next look takes a higher term.
    fn take_another_term(&mut self) {
        if let Some(tenure) = &mut self.tenure {
            tracing::warn!(
                latch = tenure.latch.path,
                "another gateway wrote a higher term into the ledger, but ours is the latch"
            );
            (tenure.term, tenure.examined, tenure.granted) = (None, false, false);
        }
    }

    /// Our JVM does not lead any more.
    async fn end_tenure(&mut self, why: &str) {
        let Some(tenure) = self.tenure.take() else { return };
        self.outlets.shown.send_replace(LockView::Standby { acknowledged: true });
        self.znodes.lead_by(None);
        self.proxy.let_store(None);
        if self.proxy.silence() > self.frozen(tenure.latch.session) {
            tokio::spawn(async move {
                if process::is_alive(tenure.jvm).await {
                    // It would go on as a leader when it wakes up, and its heartbeats make TaskManagers drop the new
                    // leader's job.
                    tracing::warn!(jvm = %tenure.jvm, "the JobManager is frozen and its session has expired: ending its process");
                    process::end(tenure.jvm).await;
                }
            });
        }
        let Some(term) = tenure.term else { return };
        let terminates = self.terminating.is_some_and(|since| since.elapsed() < self.identity.hand_over);
        let why = if terminates { "PodTerminating" } else { why };
        let released = |notes: &Notes| (notes.term.as_ref() == Some(&term)).then(|| notes.released(why));
        match timeout(LEDGER_WRITE_TIMEOUT, self.ledger.note_election(released)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "failed to write down the end of the leadership")
            }
            Err(_) => tracing::warn!("failed to write down the end of the leadership: the API server does not answer"),
        }
    }

    /// A JVM that has lost this session and has been silent for so long does not know of it. A living one sends
    /// something in each third of the session's time-out, and tries to connect again when nobody answers.
    fn frozen(&self, session: i64) -> Duration {
        let held =
            self.proxy.known().borrow().sessions.get(&session).map(|held| held.session.timeout_millis.unsigned_abs());
        held.map_or(Duration::MAX, |millis| Duration::from_millis(millis.into()) / 2)
    }

    async fn on_end_of(&mut self, jvm: Incarnation) {
        if self.tenure.as_ref().is_some_and(|tenure| tenure.jvm == jvm) {
            self.end_tenure("JobManagerDied").await;
        }
    }

    /// The JVM is told to end at the same time. If it does not hear, its session is ended without it.
    fn on_termination(&mut self) {
        self.terminating = Some(Instant::now());
        let proxy = Arc::clone(&self.proxy);
        tokio::spawn(async move {
            sleep(SESSION_END_TIMEOUT).await;
            proxy.end_sessions(|_| true).await;
        });
    }

    /// What the probes say. `None` without a session of our own.
    fn report(&self, view: Option<&View>) {
        let known = self.proxy.known().borrow().clone();
        let is_candidate =
            |view: &View| view.candidates.iter().any(|candidate| known.sessions.contains_key(&candidate.session));
        let unready = match view {
            None => Some("no ZooKeeper server answers"),
            Some(_) if known.jvm.is_none() => Some("the JobManager has no ZooKeeper session"),
            Some(view) if !is_candidate(view) => Some("the JobManager does not stand for election"),
            Some(_) => None,
        };
        let term = self.tenure.as_ref().and_then(|tenure| tenure.term.as_ref());
        let leads = self.tenure.as_ref().is_some_and(|tenure| tenure.granted);
        self.outlets.health.send_replace(Health { unready, leads, term: term.map_or(0, |term| term.number) });
    }
}

//! Drives the election in ZooKeeper: passes events to the pure [`Leadership`] and carries out its actions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::gate::Gate;
use super::observer::Observer;
use super::proxy::QuorumProxy;
use super::requests::Hands;
use crate::gateway::application::handover;
use crate::gateway::election::endpoint::Publisher;
use crate::gateway::health::Health;
use crate::lease::elector::{self, LockView, Time};
use crate::lease::term::Term;
use crate::quorum::{Action, Event, Leadership, Request, RequestOutcome, Settings};
use crate::world::process;

/// Unit of the election's pauses.
const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// Channels to the tasks that follow the election.
pub struct Outlets {
    pub shown: watch::Sender<LockView>,
    pub health: watch::Sender<Health>,
}

/// What the actions need.
pub struct Driver {
    pub hands: Hands,
    pub proxy: Arc<QuorumProxy>,
    pub gate: Arc<Gate>,
    pub endpoint: Publisher,
    pub outlets: Outlets,
    /// A report that the pod terminates counts as a mistake after this time.
    pub hand_over: Duration,
}

/// [`Driver`] with the election's state.
struct Running {
    driver: Driver,
    leadership: Leadership,
    began: Instant,
    /// Why the last request failed.
    error: Option<anyhow::Error>,
}

/// Results of the driver's own tasks.
enum News {
    Event(Event),
    /// Result of the request in flight.
    Answer(anyhow::Result<RequestOutcome>),
}

impl Driver {
    /// Runs until the process ends. `heard`: events of the pod from the rest of the gateway.
    pub async fn run(self, observer: Observer, mut heard: mpsc::UnboundedReceiver<elector::Event>) {
        let (events, mut from_tasks) = mpsc::unbounded_channel();
        let (answers, mut answered) = mpsc::unbounded_channel();
        let mut known = self.proxy.known();
        let (gate, signals) = (Arc::clone(&self.gate), Arc::clone(&self.hands.ledger.signals));
        let began = Instant::now();
        let leadership = Leadership::new(Settings::new(self.hand_over), Time::default());
        let waiting = {
            let events = events.clone();
            async move { gate.follow_waiting(|jvm| drop(events.send(Event::Waiting(jvm)))).await }
        };
        let mut running = Running { driver: self, leadership, began, error: None };
        let decide = async {
            let mut ticks = interval(TICK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                let news = tokio::select! {
                    Some(event) = from_tasks.recv() => News::Event(event),
                    Some(answer) = answered.recv() => News::Answer(answer),
                    Ok(()) = known.changed() => News::Event(Event::Sessions(known.borrow_and_update().sessions())),
                    () = signals.overtaken.notified() => News::Event(Event::Overtaken),
                    Some(event) = heard.recv() => match event {
                        elector::Event::PodTerminating => News::Event(Event::Terminating),
                        _ => continue,
                    },
                    _ = ticks.tick() => News::Event(Event::Tick),
                };
                running.step(news, &answers);
            }
        };
        tokio::join!(observer.run(events), waiting, decide);
    }
}

impl Running {
    fn step(&mut self, news: News, answers: &mpsc::UnboundedSender<anyhow::Result<RequestOutcome>>) {
        let event = match news {
            News::Event(event) => event,
            News::Answer(Ok(outcome)) => Event::Done(outcome),
            News::Answer(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "a step of the election failed; trying again");
                self.error = Some(error);
                Event::Done(RequestOutcome::Failed)
            }
        };
        match &event {
            Event::Tick | Event::Viewed(_) => tracing::trace!(?event),
            _ => tracing::debug!(?event),
        }
        if event == Event::Overtaken {
            tracing::warn!(
                "another gateway wrote a higher term into the ledger; if ours is the latch, we take another"
            );
        }
        let before = self.leadership.leader();
        let actions = self.leadership.step(Time(self.began.elapsed().as_millis() as u64), event);
        let leader = self.leadership.leader();
        if leader != before {
            tracing::info!(session = leader.map(|id| format!("{id:#x}")), "the latch changed hands");
        }
        for action in &actions {
            if let Action::NoteEnding { term } = action {
                self.driver.hands.ledger.tenures.note_ending(term);
            }
        }
        // Before anything that rests on it.
        self.show();
        for action in actions {
            self.carry_out(action, answers);
        }
    }

    fn show(&self) {
        let (leadership, outlets) = (&self.leadership, &self.driver.outlets);
        self.driver.hands.znodes.lead_by(leadership.latch().map(str::to_owned));
        self.driver.gate.let_store(leadership.may_store());
        let shown = leadership.shown();
        outlets.shown.send_if_modified(|before| {
            let changed = *before != shown;
            *before = shown;
            changed
        });
        let of_leader = || self.driver.hands.ledger.signals.unready().filter(|_| leadership.leads());
        let unready = leadership.unready().or_else(of_leader);
        let health = Health { unready, leads: leadership.leads(), term: leadership.term_number() };
        outlets.health.send_if_modified(|before| {
            let changed = *before != health;
            *before = health;
            changed
        });
    }

    fn carry_out(&mut self, action: Action, answers: &mpsc::UnboundedSender<anyhow::Result<RequestOutcome>>) {
        match action {
            Action::Ask(request) => {
                if let Request::TakeOver { .. } | Request::CleanUp { .. } | Request::Stand = request {
                    tracing::info!(?request, "for the leader's place");
                }
                let (hands, answers) = (self.driver.hands.clone(), answers.clone());
                tokio::spawn(async move {
                    let answer = hands.carry_out(&request).await;
                    // An error means that the process ends.
                    let _ = answers.send(answer);
                });
            }
            Action::Lead { term, leaderless } => self.lead(term, leaderless),
            // Before the grant was shown.
            Action::NoteEnding { .. } => {}
            Action::Admit { jvm } => self.driver.gate.admit(jvm),
            Action::ShutOut { jvm } => self.driver.gate.close(jvm),
            Action::EndJvm { jvm, why } => {
                let signals = Arc::clone(&self.driver.hands.ledger.signals);
                tokio::spawn(async move {
                    if process::is_alive(jvm).await {
                        signals.counters.jvm_ended(jvm, why);
                        tracing::warn!(%jvm, why, "ending the JobManager's process");
                        process::end(jvm).await;
                    }
                });
            }
            Action::EndSessions => {
                let proxy = Arc::clone(&self.driver.proxy);
                tokio::spawn(async move { proxy.end_sessions(|_| true).await });
            }
            Action::ExplainFailure => {
                if let Some(error) = self.error.take() {
                    let ledger = self.driver.hands.ledger.clone();
                    tokio::spawn(async move { handover::tell(&ledger, &error).await });
                }
            }
        }
    }

    /// Announces that our JVM leads.
    fn lead(&self, term: Term, leaderless: Duration) {
        tracing::info!(term = term.number, milliseconds = leaderless.as_millis(), "our JVM leads");
        let ledger = &self.driver.hands.ledger;
        ledger.lift_refusal();
        let (publisher, tenures) = (self.driver.endpoint.clone(), Arc::clone(&ledger.tenures));
        tokio::spawn(async move { publisher.publish(&tenures, &term).await });
    }
}

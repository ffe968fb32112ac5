//! Elects the one operator that works, by a Lease of its own and the same state machine as for JobManagers. The
//! operator's own process stands for the JVM: it is alive while it can say so, and it leads as soon as it is offered
//! the lead. No Flink cluster depends on this election; two operators at once would only repeat each other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::lease::elector::{Action, Elector, Event, Identity, LockView, Read, Settings, Stamping, Time};
use crate::lease::term::Incarnation;
use crate::world::lease;

const NAME: &str = "flinkha-operator";
/// This process, in the place of a JVM.
const SELF: Incarnation = Incarnation { pid: 1, started: 1 };
/// Limit for the release of the Lease, which must not delay the end of the process.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes part in the election of the operator.
pub struct OperatorCandidate {
    leases: Api<Lease>,
    elector: Elector,
    settings: Settings,
    begin: Instant,
    tell: mpsc::UnboundedSender<Event>,
    told: mpsc::UnboundedReceiver<Event>,
}

impl OperatorCandidate {
    /// Creates a candidate. `process`: random per process.
    pub fn new(client: Client, namespace: &str, pod: &str, process: String) -> Self {
        let settings = Settings::default();
        // No part of a term contains a dot.
        let identity =
            Identity { pod: pod.to_owned(), pod_uid: pod.replace('.', "-"), process, address: String::new() };
        let (tell, told) = mpsc::unbounded_channel();
        let leases = Api::namespaced(client, namespace);
        Self { leases, elector: Elector::new(identity, settings.clone()), settings, begin: Instant::now(), tell, told }
    }

    /// Waits until this operator is elected. It waits through outages of the API server.
    pub async fn elected(&mut self) {
        self.run_until(|shown| matches!(shown, LockView::Leader { .. })).await;
    }

    /// Renews until that has failed for too long, or until another operator is elected. The process must end then.
    pub async fn lost(&mut self) {
        self.run_until(|shown| matches!(shown, LockView::Standby { .. })).await;
    }

    /// Releases the Lease, so that a successor need not wait until it expires.
    pub async fn release(&mut self) {
        if self.elector.shown() != (LockView::Standby { acknowledged: true }) {
            let _ = self.tell.send(Event::PodTerminating);
            let _ = tokio::time::timeout(RELEASE_TIMEOUT, async {
                while self.elector.leads() {
                    self.next().await;
                }
            })
            .await;
        }
    }

    async fn run_until(&mut self, done: impl Fn(&LockView) -> bool) {
        let (leases, tell) = (self.leases.clone(), self.tell.clone());
        let watch = lease::watch(leases, NAME.to_owned(), move |event, _, _| drop(tell.send(event)));
        let mut watch = std::pin::pin!(watch);
        while !done(&self.elector.shown()) {
            tokio::select! {
                () = &mut watch => return,
                () = self.next() => {}
            }
        }
    }

    /// Handles one event, or the passage of time.
    async fn next(&mut self) {
        let wait = tokio::time::timeout(self.settings.retry_period / 8, self.told.recv()).await;
        let mut events = VecDeque::from([wait.ok().flatten().unwrap_or(Event::Tick), Event::JvmHeard { jvm: SELF }]);
        while let Some(event) = events.pop_front() {
            for action in self.elector.step(Time(self.begin.elapsed().as_millis() as u64), event) {
                self.carry_out(action, &mut events);
            }
            match self.elector.shown() {
                LockView::Free { term, .. } => {
                    events.push_back(Event::JvmTookLock { term, at: Timestamp::now().to_string(), lock: String::new() })
                }
                LockView::Standby { acknowledged: false } => events.push_back(Event::JvmTold { jvm: SELF }),
                _ => {}
            }
        }
    }

    fn carry_out(&self, action: Action, events: &mut VecDeque<Event>) {
        let (leases, tell, limit, begin) =
            (self.leases.clone(), self.tell.clone(), self.settings.retry_period, self.begin);
        match action {
            Action::ReadLease => {
                tokio::spawn(async move {
                    let started = Time(begin.elapsed().as_millis() as u64);
                    let outcome = lease::read(&leases, NAME, limit).await;
                    if outcome == Read::Absent {
                        create(&leases).await;
                    }
                    let _ = tell.send(Event::LeaseRead { started, outcome });
                });
            }
            Action::WriteLease { attempt, version, record } => {
                let acquired = !self.elector.leads();
                tokio::spawn(async move {
                    let outcome = lease::write(&leases, NAME, &version, &record, acquired, limit).await;
                    let _ = tell.send(Event::LeaseWritten { attempt, outcome });
                });
            }
            // Nothing is fenced: an operator may write everything twice.
            Action::Stamp { term, .. } => events.push_back(Event::Stamped { term, outcome: Stamping::Done }),
            Action::FindJvm { jvm } if jvm != SELF => events.push_back(Event::JvmDied { jvm }),
            // A process of this pod that ran earlier under the same name.
            Action::FindJvm { jvm } => events.push_back(Event::JvmFound { jvm }),
            Action::EndJvm { .. }
            | Action::Publish { .. }
            | Action::AwaitJobs { .. }
            | Action::AskPromises { .. }
            | Action::AnswerPromise { .. }
            | Action::Join { .. }
            | Action::Ping { .. }
            | Action::ProbeWrite => {}
        }
    }
}

async fn create(leases: &Api<Lease>) {
    let lease =
        Lease { metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }, ..Lease::default() };
    match leases.create(&PostParams::default(), &lease).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => {
            tracing::warn!(
                error = crate::world::error_text::brief(&error),
                "failed to create the operators' Lease; trying again"
            )
        }
    }
}

//! Elects the one operator that works, by a Lease of its release and the same state machine as for JobManagers. The
//! operator's own process stands for the JVM: it is alive while it can say so, and it leads as soon as it is offered
//! the lead. No Flink cluster depends on this election.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::activity::Activity;
use super::leadership::WriteRight;
use crate::cluster::operators::{self, DEFAULT_LEASE, Former, LONGEST_PAUSE};
use crate::lease::elector::{Action, Elector, Event, Identity, LockView, Read, Settings, Stamping, Time};
use crate::lease::record::Record;
use crate::lease::term::Incarnation;
use crate::lease::unchanged::Unchanged;
use crate::world::clock::since_boot;
use crate::world::error_text::brief;
use crate::world::lease;

/// This process, in the place of a JVM, until it stands still for too long.
const FIRST: Incarnation = Incarnation { pid: 1, started: 1 };
/// Limit for the release of the Lease, which must not delay the end of the process.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes part in the election of the operator, again and again.
pub struct OperatorCandidate {
    leases: Api<Lease>,
    /// Name of the Lease.
    name: String,
    pod: String,
    elector: Elector,
    settings: Settings,
    /// This process, in the place of a JVM. After it has stood still it is another one: its term is over.
    itself: Incarnation,
    /// The tenure, while there is one.
    tenure: Option<WriteRight>,
    said: Activity,
    tell: mpsc::UnboundedSender<Event>,
    told: mpsc::UnboundedReceiver<Event>,
}

impl OperatorCandidate {
    /// Creates a candidate for the Lease of this name. `process`: random per process.
    pub fn new(client: Client, (namespace, name): (&str, &str), pod: &str, process: String, said: Activity) -> Self {
        let settings = Settings::default();
        // No part of a term contains a dot.
        let identity =
            Identity { pod: pod.to_owned(), pod_uid: pod.replace('.', "-"), process, address: String::new() };
        let (tell, told) = mpsc::unbounded_channel();
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            pod: pod.to_owned(),
            elector: Elector::new(identity, settings.clone()),
            settings,
            itself: FIRST,
            tenure: None,
            said,
            tell,
            told,
        }
    }

    /// Waits until this operator is elected, and returns its right to write. It waits through outages of the API
    /// server, and while an operator of this release works under the Lease of former versions.
    pub async fn elected(&mut self) -> WriteRight {
        self.await_former().await;
        self.run_until(|candidate| candidate.tenure.is_some()).await;
        self.said.works(&format!("elected: this pod holds Lease {}", self.name));
        self.tenure.clone().unwrap_or_else(|| WriteRight::begin(Duration::ZERO))
    }

    /// Renews until that has failed for too long, or until another operator is elected. The right to write has ended
    /// then.
    pub async fn lost(&mut self) {
        self.run_until(|candidate| candidate.tenure.is_none()).await;
    }

    /// Releases the Lease, so that a successor need not wait until it expires.
    pub async fn release(&mut self) {
        // Nothing is written any more, whatever still runs.
        if let Some(tenure) = &self.tenure {
            tenure.end();
        }
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

    /// Waits while a pod of this release may work under the Lease of former versions: it does not know the new Lease.
    async fn await_former(&self) {
        if self.name == DEFAULT_LEASE {
            return;
        }
        let deployment = operators::deployment_of(&self.pod).unwrap_or(&self.name);
        let mut unchanged = Unchanged::new(LONGEST_PAUSE);
        let mut noted = false;
        loop {
            let asked = since_boot();
            match tokio::time::timeout(self.settings.retry_period, self.leases.get_opt(DEFAULT_LEASE)).await {
                Ok(Ok(found)) => {
                    let version = found.as_ref().and_then(|lease| lease.metadata.resource_version.as_deref());
                    let stood = unchanged.read(asked, since_boot(), version);
                    let record = found.as_ref().filter(|lease| !is_long_released(lease)).map(Record::of);
                    match operators::former(record.as_ref(), stood, deployment) {
                        Former::Free => return,
                        Former::Held(pod) => {
                            self.said.waits(&format!(
                                "waiting for pod {pod} of a former version of this release, which works under Lease \
                                 {DEFAULT_LEASE}"
                            ));
                            noted = true;
                        }
                    }
                }
                // Somebody has written the rights by hand, and knows the flag that names the Lease.
                Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                    tracing::warn!(
                        lease = DEFAULT_LEASE,
                        "may not read the Lease of former versions: an operator of a former version may still work"
                    );
                    return;
                }
                Ok(Err(error)) => tracing::warn!(error = brief(&error), "failed to read the Lease of former versions"),
                Err(_) => tracing::warn!("no answer to a read of the Lease of former versions"),
            }
            let pause = if noted { self.settings.retry_period } else { self.settings.retry_period / 2 };
            tokio::time::sleep(pause).await;
        }
    }

    async fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let (leases, tell) = (self.leases.clone(), self.tell.clone());
        let watch = lease::watch(leases, self.name.clone(), move |event, _, _| drop(tell.send(event)));
        let mut watch = std::pin::pin!(watch);
        loop {
            self.follow();
            if done(self) {
                return;
            }
            tokio::select! {
                () = &mut watch => return,
                () = self.next() => {}
            }
        }
    }

    /// Follows the election with the right to write. While it is uncertain whether a Lease that was not renewed in time
    /// is still ours, the right has run out, and a renewal extends it.
    fn follow(&mut self) {
        match (self.elector.shown(), &self.tenure) {
            (LockView::Leader { until, .. }, Some(tenure)) => tenure.extend(Duration::from_millis(until.0)),
            (LockView::Leader { until, .. }, None) => {
                self.tenure = Some(WriteRight::begin(Duration::from_millis(until.0)));
            }
            (LockView::Undecided, _) => {}
            (LockView::Standby { .. } | LockView::Free { .. }, tenure) => {
                if let Some(tenure) = tenure {
                    tenure.end();
                }
                self.tenure = None;
                self.said.stands_by(self.elector.holder(), &self.pod, &self.name);
            }
        }
    }

    /// Handles one event, or the passage of time.
    async fn next(&mut self) {
        let wait = tokio::time::timeout(self.settings.retry_period / 8, self.told.recv()).await;
        // A process that stood still is alive: it says so before anything is decided.
        let mut events = VecDeque::from([Event::JvmHeard { jvm: self.itself }]);
        events.push_back(wait.ok().flatten().unwrap_or(Event::Tick));
        while let Some(event) = events.pop_front() {
            for action in self.elector.step(now(), event) {
                self.carry_out(action, &mut events);
            }
            match self.elector.shown() {
                LockView::Free { term, .. } => {
                    events.push_back(Event::JvmTookLock { term, at: Timestamp::now().to_string(), lock: String::new() })
                }
                LockView::Standby { acknowledged: false } => events.push_back(Event::JvmTold { jvm: self.itself }),
                _ => {}
            }
        }
    }

    fn carry_out(&mut self, action: Action, events: &mut VecDeque<Event>) {
        let (leases, name, tell, limit) =
            (self.leases.clone(), self.name.clone(), self.tell.clone(), self.settings.retry_period);
        match action {
            Action::ReadLease => {
                tokio::spawn(async move {
                    let started = now();
                    let outcome = lease::read(&leases, &name, limit).await;
                    if outcome == Read::Absent {
                        create(&leases, &name).await;
                    }
                    let _ = tell.send(Event::LeaseRead { started, outcome });
                });
            }
            Action::WriteLease { attempt, version, record } => {
                let acquired = !self.elector.leads();
                tokio::spawn(async move {
                    let outcome = lease::write(&leases, &name, &version, &record, acquired, limit).await;
                    let _ = tell.send(Event::LeaseWritten { attempt, outcome });
                });
            }
            // No object carries the operator's term: each of its writes is safe by itself.
            Action::Stamp { term, .. } => events.push_back(Event::Stamped { term, outcome: Stamping::Done }),
            Action::FindJvm { jvm } if jvm != self.itself => events.push_back(Event::JvmDied { jvm }),
            // A process of this pod that ran earlier under the same name.
            Action::FindJvm { jvm } => events.push_back(Event::JvmFound { jvm }),
            // It stood still between two events.
            Action::EndJvm { jvm, why } => {
                tracing::warn!("this process stood still: {why}");
                self.itself = Incarnation { started: jvm.started + 1, ..jvm };
                events.extend([Event::JvmDied { jvm }, Event::JvmHeard { jvm: self.itself }]);
            }
            Action::Publish { .. }
            | Action::AwaitJobs { .. }
            | Action::AskPromises { .. }
            | Action::AnswerPromise { .. }
            | Action::Join { .. }
            | Action::Ping { .. }
            | Action::ProbeWrite => {}
        }
    }
}

fn now() -> Time {
    Time(since_boot().as_millis() as u64)
}

/// Was this Lease released so long ago that a live standby would have taken it? By the wall clocks of two machines, so
/// this only saves an operator that starts the wait for a Lease that nobody uses any more.
fn is_long_released(lease: &Lease) -> bool {
    let spec = lease.spec.as_ref();
    let is_free = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default().is_empty();
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref());
    is_free && renewed.is_some_and(|renewed| Timestamp::now().duration_since(renewed.0) > LONG)
}

/// See [`is_long_released`].
const LONG: jiff::SignedDuration = jiff::SignedDuration::from_secs(600);

async fn create(leases: &Api<Lease>, name: &str) {
    let lease =
        Lease { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..Lease::default() };
    match leases.create(&PostParams::default(), &lease).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => {
            tracing::warn!(error = brief(&error), "failed to create the operators' Lease; trying again")
        }
    }
}

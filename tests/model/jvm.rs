//! A JVM and its gateway's proxy: what Flink asks, what the production [`plan`] makes of it, what Flink believes
//! afterwards.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pure::api::names;
use pure::flink::lock;
use pure::gateway::proxy::asker::By;
use pure::gateway::proxy::request::Call as Asks;
use pure::gateway::proxy::request::Names;
use pure::gateway::proxy::translate::JvmRequest;
use pure::gateway::proxy::translate::OnSuccess;
use pure::gateway::proxy::translate::Plan;
use pure::gateway::proxy::translate::ProxyState;
use pure::gateway::proxy::translate::Signal;
use pure::gateway::proxy::translate::plan;
use pure::lease::elector::Event;
use pure::lease::elector::LockView;
use pure::lease::stamp::stamp;
use pure::lease::term::Incarnation;
use pure::lease::term::Relation;
use pure::lease::term::Term;
use serde_json::{Value, json};

use super::model::Model;
use super::mutants::Mutant;
use super::properties::S2;
use super::properties::Session;
use super::requests::Call;
use super::requests::Writer;
use super::world::Cluster;
use super::world::Gateway;
use super::world::Job;
use super::world::Life;
use super::world::Operation;
use super::world::Read;
use super::world::World;
use super::world::incarnation;

/// The incarnation of a JVM beside the candidate's.
const STRANGER: u8 = 99;

const JOBS: [&str; 2] = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];

fn names_of_the_model() -> Names {
    Names { namespace: "ns".into(), cluster_id: "demo".into() }
}

fn job_name(job: usize) -> String {
    names::job_config_map("demo", JOBS[job])
}

fn json_of(name: &str, version: u32, stamp: &Option<Term>, holder: Option<&str>, data: bool) -> Value {
    let mut object = json!({ "metadata": { "name": name, "annotations": {} } });
    if version > 0 {
        object["metadata"]["resourceVersion"] = json!(version.to_string());
    }
    if let Some(stamp) = stamp {
        object["metadata"]["annotations"][names::TERM_ANNOTATION] = json!(stamp.to_string());
    }
    if let Some(holder) = holder {
        object["metadata"]["annotations"][lock::LOCK_ANNOTATION] =
            json!(json!({ "holderIdentity": holder }).to_string());
    }
    if data {
        object["data"] = json!({ "checkpointID-1": "pointer" });
    }
    object
}

fn json_of_cluster(cluster: &Cluster) -> Value {
    let holder = cluster.holder.map_or(String::new(), |(c, jvm)| format!("{c}-{jvm}"));
    json_of(&names_of_the_model().cluster_config_map(), cluster.version, &cluster.stamp, Some(&holder), false)
}

/// The gateway answers lock requests of this term from memory.
fn stored_in(gateway: &Gateway, term: &Term) -> bool {
    gateway.stored.as_ref().is_some_and(|stored| stored.stamp.as_ref() == Some(term))
}

impl Model {
    /// Asks production code what to do with a request of this candidate's JVM.
    fn plan(&self, world: &World, c: usize, call: &Asks, body: &Value) -> Plan {
        self.plan_by(world, c, By::Jvm(self.seen_incarnation(world, c)), call, body)
    }

    fn plan_by(&self, world: &World, c: usize, by: By, call: &Asks, body: &Value) -> Plan {
        let candidate = &world.candidates[c];
        let shown = candidate.shown().unwrap_or(LockView::Undecided);
        let stored = candidate.gateway.as_ref().and_then(|gateway| gateway.stored.as_ref()).map(json_of_cluster);
        let names = names_of_the_model();
        // No job of the model ends.
        let ended = BTreeSet::new();
        let (now, wall_clock) = (candidate.time(), Timestamp::UNIX_EPOCH);
        let known =
            ProxyState { names: &names, shown: &shown, now, wall_clock, stored: stored.as_ref(), ended: &ended };
        plan(&JvmRequest { by, call, body }, &known)
    }

    /// How the gateway knows the process behind a connection.
    pub fn seen_incarnation(&self, world: &World, c: usize) -> Incarnation {
        let number =
            if self.mutant == Some(Mutant::SameTermForNewJvm) { 1 } else { world.candidates[c].jvm.incarnation };
        incarnation(c, number)
    }

    pub fn kill_jvm(&self, world: &mut World, c: usize) {
        let jvm = self.seen_incarnation(world, c);
        world.jvm(c, |jvm| {
            jvm.life = Life::Dead;
            jvm.leads = None;
            jvm.operation = None;
        });
        if self.mutant != Some(Mutant::SameTermForNewJvm) {
            self.tell(world, c, Event::JvmDied { jvm });
        }
    }

    /// Another Flink JVM of the pod asks for the lock, and has ended before anybody looks at it.
    pub fn stranger_asks(&self, world: &mut World, c: usize) {
        let stranger = incarnation(c, STRANGER);
        if self.mutant == Some(Mutant::StrangerCounts) {
            // Whoever asks takes the place of the JVM.
            let jvm = self.seen_incarnation(world, c);
            self.tell(world, c, Event::JvmDied { jvm });
        }
        self.tell(world, c, Event::JvmHeard { jvm: stranger });
        let Some(term) = world.candidates[c].valid_term().filter(|term| term.jvm != stranger) else { return };
        let body = json_of(&job_name(0), 1, &Some(term), Some("me"), true);
        let writes = [Asks::Replace(job_name(0)), Asks::Delete(job_name(0)), Asks::WriteLock];
        if writes.iter().any(|call| {
            !matches!(self.plan_by(world, c, By::Jvm(stranger), call, &body), Plan::Answer { code: 409, .. })
        }) {
            world.ghost.change(|ghost| ghost.breaks(S2));
        }
    }

    /// Once per tick.
    pub fn heartbeat(&self, world: &mut World, c: usize) {
        let made_up = self.mutant == Some(Mutant::HungJvmRenews) && world.candidates[c].jvm.life == Life::Hung;
        if !(made_up || world.candidates[c].jvm_runs()) || self.waits_for_lock(world, c) {
            return;
        }
        let jvm = self.seen_incarnation(world, c);
        self.tell(world, c, Event::JvmHeard { jvm });
        // A request that was held is answered now.
        let held =
            matches!(self.plan(world, c, &Asks::ReadLock, &Value::Null), Plan::Hold { signal: Signal::Foreign, .. });
        let told = self.mutant != Some(Mutant::NotToldBeforeCampaign);
        if held && told && world.candidates[c].jvm.leads.is_some() {
            self.is_told(world, c);
        }
    }

    fn waits_for_lock(&self, world: &World, c: usize) -> bool {
        let jvm = world.candidates[c].jvm.incarnation;
        world.requests.iter().any(|request| {
            request.awaited && request.from == c && matches!(request.call, Call::Lock { jvm: asks, .. } if asks == jvm)
        })
    }

    fn is_told(&self, world: &mut World, c: usize) {
        let jvm = self.seen_incarnation(world, c);
        world.jvm(c, |jvm| jvm.leads = None);
        self.tell(world, c, Event::JvmTold { jvm });
    }

    /// The JVM asks for its lock, and learns something. `None`: nothing would come of it now.
    pub fn asks(&self, world: &World, c: usize) -> Option<World> {
        let candidate = &world.candidates[c];
        if !candidate.jvm_runs() || !candidate.gateway_runs() || self.waits_for_lock(world, c) {
            return None;
        }
        let gateway = candidate.gateway.as_ref()?;
        match gateway.elector.shown() {
            LockView::Standby { acknowledged: false } | LockView::Free { .. } => {}
            LockView::Leader { term, .. } if candidate.jvm.leads.is_none() || !stored_in(gateway, &term) => {}
            _ => return None,
        }
        let mut next = world.clone();
        match self.plan(world, c, &Asks::ReadLock, &Value::Null) {
            Plan::Answer { signal: Signal::Foreign, .. } => self.is_told(&mut next, c),
            Plan::Answer { code: 200, .. } => {
                let stored = gateway.stored.clone()?;
                self.sees_lock(&mut next, c, &stored);
            }
            Plan::Forward { on_success: OnSuccess::CheckStamp { term, .. }, .. } => {
                let read = self.read_cluster(&mut next, c, &term)?;
                self.sees_lock(&mut next, c, &read);
            }
            _ => return None,
        }
        (next != *world).then_some(next)
    }

    /// Flink's elector sees a lock: it writes one that is free or its own, and gives up before a foreign one.
    fn sees_lock(&self, world: &mut World, c: usize, read: &Cluster) {
        let me = (c, world.candidates[c].jvm.incarnation);
        if read.holder.is_some_and(|holder| holder != me) {
            world.jvm(c, |jvm| jvm.leads = None);
            return;
        }
        let mut patch = json_of_cluster(read);
        patch["metadata"]["annotations"][lock::LOCK_ANNOTATION] = json!(json!({ "holderIdentity": "me" }).to_string());
        match self.plan(world, c, &Asks::WriteLock, &patch) {
            Plan::Answer { code: 200, .. } => self.leads(world, c),
            Plan::Forward { on_success: OnSuccess::TookLock(term), .. } => {
                self.send(world, c, Call::Lock { term, version: read.version, jvm: me.1 });
            }
            _ => {}
        }
    }

    pub fn lock_answered(&self, world: &mut World, c: usize, term: &Term, jvm: u8, stored: Option<Cluster>) {
        let taken = stored.is_some();
        world.gateway(c, |gateway| gateway.stored = stored);
        if !taken {
            return;
        }
        self.tell(world, c, Event::JvmTookLock { term: term.clone(), at: String::new(), lock: String::new() });
        if world.candidates[c].jvm.incarnation == jvm && world.candidates[c].jvm.life != Life::Dead {
            self.leads(world, c);
        }
    }

    /// The JVM learns that it leads, or goes on.
    fn leads(&self, world: &mut World, c: usize) {
        match world.candidates[c].jvm.leads {
            Some(session) => self.goes_on_leading(world, c, session),
            None => {
                let valid = world.candidates[c].valid_term().is_some();
                let session = world.ghost.change(|ghost| {
                    ghost.sessions.push(Session { candidate: c, valid });
                    ghost.sessions.len() as u8 - 1
                });
                world.jvm(c, |jvm| jvm.leads = Some(session));
            }
        }
    }

    /// Quorum read through the proxy, which raises a lower stamp before the JVM sees it. `None`: no answer.
    fn read_cluster(&self, world: &mut World, c: usize, term: &Term) -> Option<Cluster> {
        if !world.connected(c) || !world.api.writable {
            return None;
        }
        let higher =
            world.api.cluster.as_ref()?.stamp.clone().filter(|stamp| term.relation_of(stamp) == Relation::Higher);
        if let Some(stamp) = higher {
            let read = world.api.cluster.clone();
            self.tell(world, c, Event::StampSeen { stamp });
            return read;
        }
        let read = self.stamp_cluster(world, term, true).ok()?;
        world.gateway(c, |gateway| gateway.stored.clone_from(&read));
        read
    }

    fn read_job(&self, world: &mut World, c: usize, job: usize, term: &Term) -> Option<Job> {
        if !world.connected(c) || !world.api.writable {
            return None;
        }
        let read = world.api.jobs[job].object.clone()?;
        if let Some(stamp) = read.stamp.clone().filter(|stamp| term.relation_of(stamp) == Relation::Higher) {
            self.tell(world, c, Event::StampSeen { stamp });
            return Some(read);
        }
        self.stamp_job(world, term, job, false).ok()?;
        world.api.jobs[job].object.clone()
    }

    /// The first half of an operation on HA data: what Flink reads before it writes.
    pub fn begins(&self, world: &World, c: usize, operation: Operation) -> Option<World> {
        let candidate = &world.candidates[c];
        if !candidate.jvm_runs()
            || !candidate.gateway_runs()
            || candidate.jvm.operation.is_some()
            || candidate.jvm.leads.is_none()
        {
            return None;
        }
        let mut next = world.clone();
        let read = match operation {
            Operation::Register(job) | Operation::Unregister(job) => {
                let read = match self.plan(world, c, &Asks::ReadLock, &Value::Null) {
                    Plan::Answer { code: 200, signal: Signal::Nothing, .. } => {
                        candidate.gateway.as_ref()?.stored.clone()?
                    }
                    Plan::Forward { on_success: OnSuccess::CheckStamp { term, .. }, .. } => {
                        self.read_cluster(&mut next, c, &term)?
                    }
                    _ => return None,
                };
                (read.jobs[job] == matches!(operation, Operation::Unregister(_))).then_some(Read::Cluster(read))?
            }
            Operation::Create(job) => {
                // It runs only what it has registered itself or found when its leadership began.
                let registered = candidate.gateway.as_ref()?.stored.as_ref()?.jobs[job];
                (registered && !world.api.jobs[job].finished && world.api.jobs[job].object.is_none())
                    .then_some(Read::Nothing)?
            }
            Operation::Checkpoint(job) | Operation::Delete(job) => {
                match self.plan(world, c, &Asks::ReadJob(job_name(job)), &Value::Null) {
                    Plan::Forward { on_success: OnSuccess::CheckStamp { term, .. }, .. } => {
                        let read = Read::Job(self.read_job(&mut next, c, job, &term)?);
                        if matches!(operation, Operation::Delete(_)) { Read::Nothing } else { read }
                    }
                    _ => return None,
                }
            }
        };
        let session = candidate.jvm.leads?;
        next.jvm(c, |jvm| jvm.operation = Some((operation, read, session)));
        if let Operation::Delete(job) | Operation::Unregister(job) = operation {
            next.api.change(|api| api.jobs[job].finished = true);
        }
        Some(next)
    }

    /// The second half: the write arrives at the gateway, is checked, and sent or refused.
    pub fn writes(&self, world: &World, c: usize) -> Option<World> {
        let candidate = &world.candidates[c];
        if !candidate.jvm_runs() || !candidate.gateway_runs() {
            return None;
        }
        let (operation, read, session) = candidate.jvm.operation.clone()?;
        let mut next = world.clone();
        next.jvm(c, |jvm| jvm.operation = None);
        let writer = |world: &World, term: &Term| self.grant_of(world, c, term).map(|grant| Writer { grant, session });
        let call = match (operation, read) {
            (Operation::Register(job) | Operation::Unregister(job), Read::Cluster(mut read)) => {
                let name = names_of_the_model().cluster_config_map();
                let term = self.put_allowed(world, c, &name, &json_of_cluster(&read));
                read.jobs[job] = matches!(operation, Operation::Register(_));
                term.and_then(|term| writer(world, &term)).map(|write| Call::PutCluster { write, read })
            }
            (Operation::Checkpoint(job), Read::Job(mut read)) => {
                if self.mutant == Some(Mutant::StampNotReturned) {
                    read.stamp = None;
                }
                let body = json_of(&job_name(job), read.version, &read.stamp, None, true);
                let term = self.put_allowed(world, c, &job_name(job), &body);
                term.and_then(|term| writer(world, &term)).map(|write| Call::PutJob { write, job, read })
            }
            (Operation::Create(job), _) => self.post(world, c, job).and_then(|(term, with_data)| {
                writer(world, &term).map(|write| Call::Post { write, job, stamp: term, with_data })
            }),
            (Operation::Delete(job), _) => match self.plan(world, c, &Asks::Delete(job_name(job)), &Value::Null) {
                Plan::DeleteFenced { term, .. } => self
                    .read_job(&mut next, c, job, &term)
                    .filter(|read| read.stamp.as_ref() == Some(&term))
                    .and_then(|read| {
                        writer(world, &term).map(|write| Call::Delete {
                            write,
                            job,
                            uid: read.uid,
                            version: read.version,
                        })
                    }),
                _ => None,
            },
            _ => None,
        };
        if let Some(call) = call {
            self.send(&mut next, c, call);
        }
        Some(next)
    }

    fn put_allowed(&self, world: &World, c: usize, name: &str, body: &Value) -> Option<Term> {
        match self.plan(world, c, &Asks::Replace(name.to_owned()), body) {
            Plan::Forward { .. } => stamp(body)?.ok(),
            _ if self.mutant == Some(Mutant::StampNotReturned) => world.candidates[c].valid_term(),
            _ => None,
        }
    }

    /// The stamp that the gateway puts on a new ConfigMap, and whether data may come with it.
    fn post(&self, world: &World, c: usize, job: usize) -> Option<(Term, bool)> {
        let body = json_of(&job_name(job), 0, &None, None, false);
        match self.plan(world, c, &Asks::Create, &body) {
            Plan::Forward { body: Some(stamped), .. } => {
                Some((stamp(&stamped)?.ok()?, self.mutant == Some(Mutant::PostWithData)))
            }
            _ => None,
        }
    }
}

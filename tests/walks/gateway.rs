//! A gateway on its way to lead: the election as a Lease that is free or not, and the product's own rules for what is
//! found stored, one write after another.

use product::api::names::{self, TERM_ANNOTATION};
use product::cluster::merge::merge;
use product::flink::job_state::End;
use product::flink::result::{Entry, Outcome};
use product::ha_data::entrance::{BeginWrite, Entrance, Records, begin_version, begun, entrance};
use product::ha_data::handover::{HandoverPlan, Stored, raising};
use product::lease::record::Change;
use product::ledger::application::{Before, Progress, Run};
use product::ledger::jobs;
use product::ledger::refusal::Refusal;
use serde_json::Value;

use super::objects::{NAME, time};
use super::rules::Mutant;
use super::world::{World, config_map};

#[derive(Clone, Debug, Default)]
pub enum Gateway {
    #[default]
    Standby,
    Granting {
        term: u64,
        step: Grant,
    },
    Leading(Leading),
}

#[derive(Clone, Debug)]
pub enum Grant {
    Stamp,
    /// The cluster ConfigMap as it was stamped.
    Examine(Value),
    /// The last one comes first.
    Write {
        writes: Vec<Write>,
        is_ending: bool,
    },
    Collect(Option<Outcome>),
}

#[derive(Clone, Debug)]
pub enum Write {
    Progress(Option<Before>),
    Tombstones(Vec<product::flink::job_id::JobId>),
    Entry(Entry),
    Mark(Value),
}

/// A JobManager that leads.
#[derive(Clone, Debug)]
pub struct Leading {
    pub term: u64,
    /// Only for Flink to finish.
    pub is_ending: bool,
    /// What is stored has been recovered, or the main method has run.
    pub has_started: bool,
    pub job: Option<Running>,
    /// Why the main method failed.
    pub error: Option<&'static str>,
    /// The request for a savepoint that the JVM was told of.
    pub attempt: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Running {
    pub state: u32,
    pub is_up: bool,
}

impl Gateway {
    pub fn term(&self) -> Option<u64> {
        match self {
            Self::Standby => None,
            Self::Granting { term, .. } => Some(*term),
            Self::Leading(leading) => Some(leading.term),
        }
    }
}

impl World {
    fn at(&self, uid: &str) -> Option<usize> {
        self.pods.iter().position(|pod| pod.uid == uid)
    }

    /// The gateway of this pod holds the Lease.
    pub fn holds(&self, uid: &str) -> bool {
        let Some(pod) = self.pod(uid).filter(|pod| pod.is_connected()) else { return false };
        self.lease.as_ref().is_some_and(|lease| lease.holder_uid == uid && pod.gateway.term() == Some(lease.term))
    }

    /// A standby takes a Lease that is free.
    pub fn campaign(&mut self, uid: &str) -> bool {
        let Some(at) = self.at(uid) else { return false };
        let pod = &self.pods[at];
        let is_candidate =
            pod.component == 0 && pod.is_connected() && pod.deletion.is_none() && pod.gateway.term().is_none();
        if !is_candidate || !self.is_lease_free() {
            return false;
        }
        let term = self.make();
        self.change_lease(|lease| {
            let from = std::mem::take(&mut lease.holder);
            let from = if from.is_empty() { lease.change.take().unwrap_or_default().from } else { from };
            (lease.holder, lease.holder_uid, lease.term) = (uid.to_owned(), uid.to_owned(), term);
            lease.change = Some(Change { term, from, ..Change::default() });
        });
        self.pods[at].gateway = Gateway::Granting { term, step: Grant::Stamp };
        self.see_requests(uid);
        self.tell(|_| format!("{uid} takes the Lease in term {term}"));
        true
    }

    /// The gateway reads what the operator asks for.
    pub fn see_requests(&mut self, uid: &str) {
        let asked = self.lease.as_ref().and_then(|lease| serde_json::from_str(lease.savepoint.as_ref()?).ok());
        if let Some(at) = self.at(uid).filter(|&at| self.pods[at].is_connected()) {
            self.pods[at].asked = asked;
        }
    }

    /// A leader that leads no more: the process that begins anew is a standby.
    pub fn step_down(&mut self, uid: &str) {
        let jvm = self.make();
        if let Some(at) = self.at(uid) {
            let pod = &mut self.pods[at];
            (pod.gateway, pod.jvm) = (Gateway::Standby, jvm);
            pod.ended.clear();
            (pod.asked, pod.answered) = (None, None);
        }
        self.touch();
    }

    fn give_up(&mut self, uid: &str, why: &str) {
        self.tell(|_| format!("{uid} does not lead: {why}"));
        self.release(uid);
        self.step_down(uid);
    }

    fn refuse(&mut self, uid: &str, refusal: Refusal) {
        let why = refusal.message.clone();
        if let Some(ledger) = &mut self.ledger
            && ledger.refusal.as_ref() != Some(&refusal)
        {
            ledger.refusal = Some(refusal);
            self.changes += 1;
        }
        self.give_up(uid, &why);
    }

    /// The next step of a grant. Whether there was one.
    pub fn grant(&mut self, uid: &str) -> bool {
        let Some(at) = self.at(uid).filter(|&at| self.pods[at].is_connected()) else { return false };
        if self.pods[at].gateway.term().is_some() && !self.holds(uid) {
            self.tell(|_| format!("{uid} has lost the Lease"));
            self.step_down(uid);
            return true;
        }
        let Gateway::Granting { term, step } = self.pods[at].gateway.clone() else { return false };
        match step {
            Grant::Stamp => self.stamp_all(at, term),
            Grant::Examine(cluster) => self.examine(at, term, &cluster),
            Grant::Write { mut writes, is_ending } => match writes.pop() {
                Some(write) => {
                    let run = self.pods[at].run().clone();
                    self.tell(|_| format!("{uid} writes {write:?}"));
                    match self.carry_out(&run, term, write) {
                        Ok(true) => self.next(at, term, Grant::Write { writes, is_ending }),
                        Ok(false) => self.give_up(uid, "a write was refused"),
                        Err(refusal) => self.refuse(uid, refusal),
                    }
                }
                None => self.enter(at, term, is_ending),
            },
            Grant::Collect(outcome) => self.collect_ended(at, term, outcome),
        }
        true
    }

    fn next(&mut self, at: usize, term: u64, step: Grant) {
        self.pods[at].gateway = Gateway::Granting { term, step };
    }

    fn stamp_all(&mut self, at: usize, term: u64) {
        let name = names::cluster_config_map(NAME);
        self.config_maps.entry(name.clone()).or_insert_with(|| config_map(&name, term));
        for config_map in self.config_maps.values_mut() {
            config_map["metadata"]["annotations"][TERM_ANNOTATION] = term.to_string().into();
        }
        let jobs = self.ledger.as_ref().filter(|ledger| ledger.torn != Some("jobs")).map(|ledger| ledger.jobs.clone());
        let ended = jobs.into_iter().flatten().filter(jobs::Job::has_ended).map(|job| job.id);
        self.pods[at].ended =
            if self.rules.lack(Mutant::EndsNotChecked) { Default::default() } else { ended.collect() };
        let cluster = self.config_maps[&name].clone();
        self.next(at, term, Grant::Examine(cluster));
    }

    fn examine(&mut self, at: usize, term: u64, cluster: &Value) {
        let uid = self.pods[at].uid.clone();
        let Some(ledger) = &self.ledger else { return self.give_up(&uid, "there is no ledger") };
        if let Some(key) = ledger.torn {
            return self.refuse(&uid, Refusal::unreadable(NAME, key));
        }
        let mut records =
            Records { progress: ledger.progress(), jobs: ledger.jobs.clone(), entries: self.entries.clone() };
        let answer = records.progress.savepoint.as_ref().filter(|answer| !answer.at.is_empty());
        if let Some(answer) = answer {
            self.pods[at].answered = Some(answer.id.clone());
        }
        let mut run = self.pods[at].run().clone();
        let mut stored = match Stored::in_config_map(cluster) {
            Ok(stored) => stored,
            Err(refusal) => return self.refuse(&uid, refusal),
        };
        self.lack_rules(&mut run, &mut stored, &mut records);
        let is_being_stopped = self.is_being_stopped(at);
        let entrance = entrance(&run, &stored, &records, is_being_stopped, &names::ledger(NAME));
        self.tell(|_| format!("{uid} finds {entrance:?}"));
        let writes = match entrance {
            Entrance::Enter { raises } => raises.then(|| Write::Mark(raising(&run))).into_iter().collect(),
            Entrance::Begin(plan) => self.writes(&plan, cluster),
            Entrance::Finish => return self.next(at, term, Grant::Write { writes: Vec::new(), is_ending: true }),
            Entrance::Collect(outcome) => return self.next(at, term, Grant::Collect(outcome)),
            Entrance::Refuse(refusal) => return self.refuse(&uid, refusal),
            Entrance::Foreign(jobs) => {
                let told =
                    Refusal::new(product::ledger::refusal::FOREIGN_HA_DATA, format!("jobs {jobs:?} are foreign"));
                return self.refuse(&uid, told);
            }
        };
        self.next(at, term, Grant::Write { writes, is_ending: false });
    }

    fn lack_rules(&self, run: &mut Run, stored: &mut Stored, records: &mut Records) {
        let rules = self.rules;
        if rules.lack(Mutant::LaterStartNotChecked) {
            (stored.start, records.progress.start) = (stored.start.map(|_| 0), 0);
        }
        if rules.lack(Mutant::MarkNotCompared) {
            stored.mark = stored.mark.take().map(|_| format!("{}/{}", run.job_id, run.version));
        }
        if rules.lack(Mutant::UnnamedSuperseded) {
            run.replaces =
                stored.plans.iter().copied().chain(stored.job()).chain(records.jobs.iter().map(|job| job.id)).collect();
        }
        if rules.lack(Mutant::EndsNotChecked) {
            records.jobs.retain(|job| !job.has_ended());
            records.entries.clear();
        }
    }

    pub fn is_being_stopped(&self, at: usize) -> bool {
        let pod = &self.pods[at];
        let asked = pod.asked.as_ref().filter(|asked| asked.stop && asked.job == pod.run().job_id);
        !self.rules.lack(Mutant::EndBeforeAnswer) && asked.is_some_and(|asked| Some(&asked.id) != pod.answered.as_ref())
    }

    /// The writes of a version that begins, the last one first.
    fn writes(&self, plan: &HandoverPlan, cluster: &Value) -> Vec<Write> {
        let found = plan.from.and_then(|job| {
            let checkpoint = self.checkpoint(job)?;
            Some(Before { job, checkpoint: Some(path(job, checkpoint)) })
        });
        let mut writes: Vec<Write> = begin_version(plan)
            .map(|write| match write {
                BeginWrite::Progress => Write::Progress(found.clone()),
                BeginWrite::Tombstones(superseded) => Write::Tombstones(superseded.iter().copied().collect()),
                BeginWrite::Entry(entry) => Write::Entry(entry.clone()),
            })
            .collect();
        let mark = Write::Mark(plan.patch(cluster));
        let first = if self.rules.lack(Mutant::MarkFirst) { 0 } else { writes.len() };
        writes.insert(first, mark);
        writes.reverse();
        writes
    }

    /// Whether it was written.
    fn carry_out(&mut self, run: &Run, term: u64, write: Write) -> Result<bool, Refusal> {
        let now = time(self.now).to_string();
        Ok(match write {
            Write::Progress(found) => {
                let before = self.ledger.as_ref().map(super::objects::Ledger::progress).unwrap_or_default();
                let mut after = begun(run, &before, found.clone())?;
                if self.rules.lack(Mutant::FoundForgotten) {
                    after = Progress { before: found, ..after };
                }
                self.write_ledger("application", term, |ledger| ledger.progress = Some(after))
            }
            Write::Tombstones(runs) => self.write_ledger("jobs", term, |ledger| {
                runs.iter().for_each(|run| jobs::supersede(&mut ledger.jobs, *run, &now));
            }),
            Write::Entry(entry) => {
                self.entries.retain(|known| *known != entry);
                true
            }
            Write::Mark(patch) => self.write(&names::cluster_config_map(NAME), term, |cluster| merge(cluster, patch)),
        })
    }

    fn enter(&mut self, at: usize, term: u64, is_ending: bool) {
        let uid = self.pods[at].uid.clone();
        // The JVM writes its lock there.
        if !self.write(&names::cluster_config_map(NAME), term, |_| ()) {
            return self.give_up(&uid, "the lock was not taken");
        }
        self.tell(|_| format!("{uid} leads"));
        let now = time(self.now).to_string();
        let to = uid.clone();
        self.change_lease(|lease| {
            let change = lease.change.take().unwrap_or_default();
            lease.change = Some(Change { to, at: now, ..change });
        });
        if let Some(ledger) = &mut self.ledger {
            ledger.refusal = None;
        }
        self.pods[at].gateway =
            Gateway::Leading(Leading { term, is_ending, has_started: false, job: None, error: None, attempt: None });
        let run = self.pods[at].run().clone();
        self.ghost.leads(&run);
    }

    /// Removes what an ended run has left; nobody leads.
    fn collect_ended(&mut self, at: usize, term: u64, outcome: Option<Outcome>) {
        let (uid, run) = (self.pods[at].uid.clone(), self.pods[at].run().job_id);
        let now = time(self.now).to_string();
        let is_noted =
            self.ledger.as_ref().is_some_and(|ledger| ledger.jobs.iter().any(|job| job.id == run && job.has_ended()));
        if let (Some(outcome), false) = (&outcome, is_noted) {
            if self.write_ledger("jobs", term, |ledger| jobs::bury(&mut ledger.jobs, run, outcome, &now)) {
                return self.touch();
            }
            return self.give_up(&uid, "the end could not be noted");
        }
        let is_in_use = self.stored().is_some_and(|stored| !stored.plans.is_empty())
            || self.jobs_with_config_map().next().is_some();
        if is_in_use {
            return self.give_up(&uid, "something is still stored");
        }
        self.entries.retain(|entry| entry.id != run);
        let removed = [(run, 0)].into();
        self.write_ledger("jobs", term, |ledger| {
            jobs::confirm(&mut ledger.jobs, &removed, &now);
        });
        self.give_up(&uid, "the job has ended");
    }
}

/// Where a checkpoint is.
pub fn path(job: product::flink::job_id::JobId, state: u32) -> String {
    format!("chk/{job}/{state}")
}

/// How jobs end.
pub fn end(number: u8) -> End {
    End::ALL[usize::from(number) % End::ALL.len()]
}

//! The gateway's shell in the model: events to the elector, its actions to the API server, stamping.

use pure::lease::elector::Action;
use pure::lease::elector::Event;
use pure::lease::elector::LockView;
use pure::lease::elector::Read;
use pure::lease::elector::Stamping;
use pure::lease::elector::Time;
use pure::lease::elector::Write;
use pure::lease::record::Change;
use pure::lease::record::Record;
use pure::lease::term::Term;

use super::model::Model;
use super::mutants::Mutant;
use super::peers;
use super::requests::Answer;
use super::requests::Call;
use super::requests::Phase;
use super::requests::stamping;
use super::world::Life;
use super::world::Stamper;
use super::world::World;
use super::world::incarnation;

fn given_back(record: Record) -> Record {
    Record { change: Some(Change::default()), ..record }
}

impl Model {
    /// An event for the elector of this candidate, if there is one that listens.
    pub fn tell(&self, world: &mut World, c: usize, event: Event) {
        let now = world.candidates[c].time();
        let Some(actions) = world.gateway(c, |gateway| {
            if gateway.paused {
                gateway.inbox.push(event);
                return Vec::new();
            }
            gateway.elector.step(now, event)
        }) else {
            return;
        };
        self.watch_grants(world, c);
        for action in actions {
            self.carry_out(world, c, action);
        }
        if self.mutant == Some(Mutant::NotToldBeforeCampaign)
            && world.candidates[c].shown() == Some(LockView::Standby { acknowledged: false })
        {
            let jvm = incarnation(c, world.candidates[c].jvm.incarnation);
            self.tell(world, c, Event::JvmTold { jvm });
        }
    }

    fn carry_out(&self, world: &mut World, c: usize, action: Action) {
        match action {
            Action::ReadLease => {
                let started = world.candidates[c].time();
                self.send(world, c, Call::ReadLease { started });
            }
            Action::WriteLease { attempt, version, record } => {
                // Only versions that the API server gave are ever written.
                let version = version.parse().expect("a version of the model");
                let current = world.api.lease.clone().filter(|_| world.api.lease_version == version);
                let before = current.filter(|_| self.mutant == Some(Mutant::UnknownIsFailed));
                self.send(world, c, Call::WriteLease { attempt, version, record, before });
            }
            Action::Stamp { term, keep_holder } => self.start_stamping(world, c, term, keep_holder),
            Action::FindJvm { jvm } => {
                let candidate = &world.candidates[c];
                let alive = self.seen_incarnation(world, c) == jvm && candidate.jvm.life != Life::Dead;
                self.tell(world, c, if alive { Event::JvmFound { jvm } } else { Event::JvmDied { jvm } });
            }
            Action::EndJvm { jvm, .. } if self.seen_incarnation(world, c) == jvm => self.kill_jvm(world, c),
            Action::AskPromises { term, members, .. } => self.ask_promises(world, c, &term, &members),
            Action::AnswerPromise { answer, .. } => {
                world.gateway(c, |gateway| gateway.said = Some(answer));
            }
            Action::Join { holder, member } => self.join(world, c, peers::at(&holder), member),
            Action::Ping { holder } => self.send(world, c, Call::Ping { to: peers::at(&holder) }),
            Action::ProbeWrite => self.send(world, c, Call::Probe),
            Action::EndJvm { .. } | Action::Publish { .. } | Action::AwaitJobs { .. } => {}
        }
    }

    fn start_stamping(&self, world: &mut World, c: usize, term: Term, keep_holder: bool) {
        let started = world.candidates[c].time().0;
        self.abandon_stamping(world, c);
        world.gateway(c, |gateway| gateway.stored = None);
        if self.mutant == Some(Mutant::NoStampAfterRestart) && keep_holder {
            return self.tell(world, c, Event::Stamped { term, outcome: Stamping::Done });
        }
        // What had been looked up before is stamped beside the cluster ConfigMap.
        let looked_up =
            |job: &usize| world.api.jobs[*job].object.is_some() && self.mutant != Some(Mutant::JobsNotStamped);
        let jobs: Vec<usize> = (0..world.api.jobs.len()).filter(looked_up).collect();
        let stamper =
            Stamper { term: term.clone(), keep_holder, started, cluster: None, jobs: jobs.clone(), listed: false };
        world.gateway(c, |gateway| gateway.stamper = Some(stamper));
        self.send(world, c, Call::StampCluster { term: term.clone(), keep_holder });
        for job in jobs {
            self.send(world, c, Call::StampJob { term: term.clone(), job, create: false });
        }
        if self.mutant == Some(Mutant::ShownBeforeStamped) {
            self.tell(world, c, Event::Stamped { term, outcome: Stamping::Done });
        }
    }

    /// What an earlier stamping still has on its way may be applied, and nobody waits for it.
    fn abandon_stamping(&self, world: &mut World, c: usize) {
        for request in &mut world.requests {
            if request.from == c && request.call.is_stamping() {
                request.change(|request| {
                    request.awaited = false;
                    request.phase = Phase::Held;
                });
            }
        }
    }

    pub fn stamper_goes_on(&self, world: &mut World, c: usize, term: &Term, call: &Call, answer: Answer) {
        let Some(mut stamper) = world.candidates[c].gateway.as_ref().and_then(|gateway| gateway.stamper.clone()) else {
            return;
        };
        if stamper.term != *term {
            return;
        }
        match (call, answer) {
            (_, Answer::Stamped(Err(stamp))) => return self.end_stamping(world, c, Err(stamp)),
            (Call::StampCluster { .. }, Answer::Stamped(Ok(cluster))) => stamper.cluster = cluster,
            (Call::StampJob { job, .. }, _) => stamper.jobs.retain(|waiting| waiting != job),
            (Call::List { .. }, Answer::Listed(listed)) => {
                stamper.listed = true;
                let registered = |job: &usize| stamper.cluster.as_ref().is_some_and(|cluster| cluster.jobs[*job]);
                stamper.jobs =
                    (0..world.api.jobs.len()).filter(|job| listed.contains(job) || registered(job)).collect();
                if self.mutant == Some(Mutant::JobsNotStamped) {
                    stamper.jobs.clear();
                }
                for job in stamper.jobs.clone() {
                    let create = registered(&job) && !stamper.keep_holder;
                    self.send(world, c, Call::StampJob { term: term.clone(), job, create });
                }
            }
            _ => {}
        }
        let all = stamper.cluster.is_some() && stamper.jobs.is_empty();
        let done = all && (stamper.listed || self.mutant == Some(Mutant::JobsListedFirst));
        if all && !done {
            self.send(world, c, Call::List { term: term.clone() });
        }
        world.gateway(c, |gateway| gateway.stamper = Some(stamper.clone()));
        if done {
            self.end_stamping(world, c, Ok(stamper.cluster));
        }
    }

    fn end_stamping(&self, world: &mut World, c: usize, result: Result<Option<super::world::Cluster>, Term>) {
        let Some(stamper) = world.gateway(c, |gateway| gateway.stamper.take()).flatten() else { return };
        self.abandon_stamping(world, c);
        if let Ok(cluster) = &result {
            world.gateway(c, |gateway| gateway.stored.clone_from(cluster));
        }
        self.tell(world, c, Event::Stamped { term: stamper.term, outcome: stamping(result) });
    }

    /// Stamping has a deadline.
    pub fn stop_late_stamping(&self, world: &mut World, c: usize) {
        let now = world.candidates[c].time().0;
        let patience = self.settings.stamp_deadline.as_millis() as u64;
        let late = |stamper: &&Stamper| now >= stamper.started + patience;
        let gateway = world.candidates[c].gateway.as_ref();
        let Some(term) =
            gateway.and_then(|gateway| gateway.stamper.as_ref()).filter(late).map(|stamper| stamper.term.clone())
        else {
            return;
        };
        self.abandon_stamping(world, c);
        world.gateway(c, |gateway| gateway.stamper = None);
        self.tell(world, c, Event::Stamped { term, outcome: Stamping::Failed });
    }

    /// The Lease as this gateway takes it.
    pub fn as_read(&self, world: &World, c: usize, outcome: Read) -> Read {
        match (self.mutant, outcome) {
            (Some(Mutant::EmptiedIsFree), Read::Found { version, record }) if record.holder.is_empty() => {
                Read::Found { version, record: given_back(record) }
            }
            (Some(Mutant::WallClocks), Read::Found { version, record }) => {
                Read::Found { version, record: self.expired_by_wall_clock(world, c, record) }
            }
            // As if nothing had changed since the last answer.
            (Some(Mutant::OutageIsSilence), Read::Failed) => match &world.api.lease {
                Some(record) => Read::Found { version: world.api.lease_version.to_string(), record: record.clone() },
                None => Read::Failed,
            },
            (_, outcome) => outcome,
        }
    }

    fn expired_by_wall_clock(&self, world: &World, c: usize, mut record: Record) -> Record {
        let age = world.candidates[c].clock.saturating_sub(world.api.renew_time);
        if age > self.settings.duration.as_millis() as u64 {
            record.holder.clear();
            record = given_back(record);
        }
        record
    }

    /// The write of the Lease met a conflict.
    pub fn write_conflicts(&self, world: &mut World, c: usize, call: &Call) {
        let Call::WriteLease { attempt, .. } = call else { return };
        self.tell(world, c, Event::LeaseWritten { attempt: *attempt, outcome: Write::Unknown });
        // It was not one of ours that came before, so somebody else has written.
        if let (Some(Mutant::UnknownIsFailed), Some(record)) = (self.mutant, world.api.lease.clone()) {
            let foreign = Record { holder: "another".into(), term: None, ..record };
            self.answers_read(world, c, world.api.lease_version, foreign);
        }
    }

    /// The write of the Lease has no answer.
    pub fn write_is_unknown(&self, world: &mut World, c: usize, call: &Call) {
        let Call::WriteLease { attempt, version, before, .. } = call else { return };
        let outcome = match self.mutant {
            Some(Mutant::UnknownIsApplied) => Write::Done { version: (version + 1).to_string() },
            _ => Write::Unknown,
        };
        self.tell(world, c, Event::LeaseWritten { attempt: *attempt, outcome });
        if let Some(record) = before.clone() {
            self.answers_read(world, c, *version, record);
        }
    }

    /// What a mutant makes up in place of a quorum read.
    fn answers_read(&self, world: &mut World, c: usize, version: u32, record: Record) {
        world.requests.retain(|request| request.from != c || !matches!(request.call, Call::ReadLease { .. }));
        let outcome = Read::Found { version: version.to_string(), record };
        self.tell(world, c, Event::LeaseRead { started: world.candidates[c].time(), outcome });
    }

    /// The quorum read of the Lease was answered.
    pub fn lease_read(&self, world: &mut World, c: usize, started: Time, outcome: Read) {
        let outcome = self.as_read(world, c, outcome);
        self.tell(world, c, Event::LeaseRead { started, outcome: outcome.clone() });
        let reads_again = |request: &&super::shared::Shared<super::requests::Request>| {
            request.from == c && request.awaited && matches!(request.call, Call::ReadLease { .. })
        };
        if let (Some(Mutant::OvertakenReadsCount), Read::Found { version, record }) = (self.mutant, outcome)
            && world.requests.iter().any(|request| reads_again(&request))
        {
            self.answers_read(world, c, version.parse().expect("a version of the model"), record);
        }
    }
}

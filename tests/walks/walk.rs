//! Walks: what the user, Kubernetes, the programs and mishaps do, in random order. A step that cannot be made is none,
//! so that every part of a walk is a walk.

use std::sync::Arc;

use product::api::FlinkHaCluster;
use product::flink::job_state::End;
use serde_json::json;

use super::asked::{DEFINITIONS, Mode};
use super::gateway::{Gateway, end};
use super::ghost::Violation;
use super::leader;
use super::objects::{Ledger, NAME, NAMESPACE, Pod};
use super::operator::KINDS;
use super::rules::Rules;
use super::world::World;

/// What happens, with a number for what it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everybody does what there is to do.
    Round,
    Wait,
    /// One request of the operator.
    Operate,
    Reconcile,
    Watch(u8),
    OperatorDies,
    Control(u8),
    Kubelet(u8),
    Garbage,
    Purge,
    Gateway(u8),
    Leader(u8, u8),
    Define(u8),
    Mode(u8),
    Suspend,
    Resume,
    OnDelete(u8),
    Savepoint,
    Scale,
    Delete,
    JobEnds(u8),
    SavepointFails,
    JvmDies(u8),
    NodeLost(u8),
    NodeReturns,
    ForceDelete(u8),
    PodFails(u8),
    LabelLost(u8),
    LabelBack,
    LedgerLost,
    LedgerCopied,
    LedgerPutBack,
    LedgerTorn(u8),
    LedgerMended,
}

impl Step {
    fn random(random: &mut fastrand::Rng) -> Self {
        let n = random.u8(..);
        match random.u8(..100) {
            0..34 => Self::Round,
            34..37 => Self::Wait,
            37..43 => Self::Operate,
            43..46 => Self::Reconcile,
            46..49 => Self::Watch(n % (KINDS + 2)),
            49..51 => Self::OperatorDies,
            51..54 => Self::Control(n % 2),
            54..56 => Self::Kubelet(n),
            56 => Self::Garbage,
            57 => Self::Purge,
            58..62 => Self::Gateway(n),
            62..65 => Self::Leader(n, random.u8(..leader::STEPS)),
            65..71 => Self::Define(if n % 16 < 14 { n % 6 } else { 6 + n % (DEFINITIONS - 6) }),
            71..73 => Self::Mode(n),
            73 => Self::Suspend,
            74 => Self::Resume,
            75 => Self::OnDelete(n),
            76 => Self::Savepoint,
            77 => Self::Scale,
            78..80 => Self::Delete,
            80..82 => Self::JobEnds(n),
            82 => Self::SavepointFails,
            83..85 => Self::JvmDies(n),
            85..87 => Self::NodeLost(n),
            87 => Self::NodeReturns,
            88 => Self::ForceDelete(n),
            89..91 => Self::PodFails(n),
            91 => Self::LabelLost(n),
            92 => Self::LabelBack,
            93 => Self::LedgerLost,
            94 => Self::LedgerCopied,
            95 => Self::LedgerPutBack,
            96 => Self::LedgerTorn(n),
            97 => Self::LedgerMended,
            _ => Self::Round,
        }
    }

    /// A walk, reproducible by its seed. It begins with a resource.
    pub fn walk(seed: u64) -> Vec<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let length = if random.u8(..4) == 0 { random.usize(14..28) } else { random.usize(4..14) };
        let first = [Self::Define(random.u8(..3)), Self::Round, Self::Round];
        first.into_iter().chain(std::iter::repeat_with(move || Self::random(&mut random)).take(length)).collect()
    }
}

impl World {
    fn chosen(&self, n: u8, of: impl Fn(&Pod) -> bool) -> Option<String> {
        let pods: Vec<&Pod> = self.pods.iter().filter(|pod| of(pod)).collect();
        (!pods.is_empty()).then(|| pods[usize::from(n) % pods.len()].uid.clone())
    }

    fn leading(&self) -> Option<String> {
        let pod = self.pods.iter().find(|pod| matches!(pod.gateway, Gateway::Leading(_)) && self.holds(&pod.uid))?;
        Some(pod.uid.clone())
    }

    fn pod_mut(&mut self, uid: Option<String>) -> Option<&mut Pod> {
        let uid = uid?;
        self.changes += 1;
        self.pods.iter_mut().find(|pod| pod.uid == uid)
    }

    pub fn step(&mut self, step: Step) {
        self.renew();
        self.now += 1;
        if !matches!(step, Step::Round) {
            self.tell(|_| format!("{step:?}"));
        }
        match step {
            Step::Round => self.round(6),
            Step::Wait => {
                self.now += 70;
                self.renew();
            }
            Step::Operate => {
                self.operate();
            }
            Step::Reconcile => while self.operate() {},
            Step::Watch(kind) => self.watch(kind),
            Step::OperatorDies => self.restart_operator(),
            Step::Control(component) => self.control(usize::from(component)),
            Step::Kubelet(n) => {
                if let Some(uid) = self.chosen(n, |pod| pod.deletion.is_some() || pod.failed || !pod.exists) {
                    self.kubelet(&uid);
                }
            }
            Step::Garbage => self.collect_garbage(),
            Step::Purge => self.purge_files(),
            Step::Gateway(n) => {
                if let Some(uid) = self.chosen(n, |pod| pod.component == 0 && pod.is_connected()) {
                    let _ = self.campaign(&uid) || self.grant(&uid);
                }
            }
            Step::Leader(_, what) => {
                if let Some(uid) = self.leading() {
                    self.leader_step(&uid, what);
                }
            }
            Step::JobEnds(n) => {
                if let Some(uid) = self.leading() {
                    self.mishap(&uid, Some(end(n)));
                }
            }
            Step::SavepointFails => {
                if let Some(uid) = self.leading() {
                    self.mishap(&uid, None::<End>);
                }
            }
            other => self.ask(other),
        }
        self.forget_pods();
    }

    /// The user.
    fn ask(&mut self, step: Step) {
        let before = self.asked;
        match step {
            Step::Define(definition) => self.asked.definition = definition,
            Step::Mode(n) => {
                self.asked.mode =
                    [Mode::LastState, Mode::LastState, Mode::Savepoint, Mode::Stateless][usize::from(n) % 4]
            }
            Step::Suspend => self.asked.suspended = true,
            Step::Resume => self.asked.suspended = false,
            Step::OnDelete(n) => self.asked.delete = n % 3 == 0,
            Step::Savepoint => self.asked.nonce += 1,
            Step::Scale => self.asked.scale = 1 - self.asked.scale,
            Step::Delete => {
                if self.resource.as_ref().is_some_and(|live| live.metadata.deletion_timestamp.is_none()) {
                    self.ask_deletion();
                }
                return;
            }
            mishap => return self.suffer(mishap),
        }
        let spec = self.asked.spec();
        match &self.resource {
            None if matches!(step, Step::Define(_)) => {
                let (uid, version) = (self.make().to_string(), self.make().to_string());
                let metadata = json!({
                    "name": NAME, "namespace": NAMESPACE, "uid": uid, "generation": 1, "resourceVersion": version,
                });
                let mut resource = FlinkHaCluster::new(NAME, spec);
                resource.metadata = serde_json::from_value(metadata).unwrap();
                self.resource = Some(Arc::new(resource));
                self.touch();
            }
            Some(_) if before != self.asked => self.change_resource(|live| {
                live.spec = spec;
                live.metadata.generation = live.metadata.generation.map(|generation| generation + 1);
            }),
            _ => {}
        }
    }

    fn suffer(&mut self, mishap: Step) {
        let exists = |pod: &Pod| pod.exists;
        match mishap {
            Step::JvmDies(n) => {
                if let Some(uid) = self.chosen(n, Pod::is_connected) {
                    self.release(&uid);
                    self.step_down(&uid);
                }
            }
            Step::NodeLost(n) => {
                let uid = self.chosen(n, |pod| pod.is_connected() && pod.exists);
                if let Some(pod) = self.pod_mut(uid) {
                    pod.cut = true;
                }
            }
            Step::NodeReturns => self.nodes_return(),
            Step::ForceDelete(n) => {
                let uid = self.chosen(n, |pod| exists(pod) && pod.cut);
                if let Some(pod) = self.pod_mut(uid) {
                    pod.exists = false;
                }
            }
            // The node is lost, and Kubernetes' garbage collector says so of its pods; or the pod is evicted.
            Step::PodFails(n) => {
                if let Some(uid) = self.chosen(n, |pod| exists(pod) && !pod.failed) {
                    let is_cut = self.pod(&uid).is_some_and(|pod| pod.cut);
                    if !is_cut {
                        self.release(&uid);
                        self.end_process(&uid);
                    }
                    if let Some(pod) = self.pod_mut(Some(uid)) {
                        pod.failed = true;
                    }
                }
            }
            Step::LabelLost(n) => {
                let uid = self.chosen(n, |pod| exists(pod) && pod.labelled);
                if let Some(pod) = self.pod_mut(uid) {
                    (pod.labelled, pod.owned) = (false, false);
                }
            }
            Step::LabelBack => {
                let uid = self.chosen(0, |pod| !pod.labelled);
                if let Some(pod) = self.pod_mut(uid) {
                    pod.labelled = true;
                }
            }
            Step::LedgerLost => {
                self.replace_ledger(None);
            }
            Step::LedgerCopied => self.copy.clone_from(&self.ledger),
            Step::LedgerPutBack => {
                if let Some(copy) = self.copy.take() {
                    self.replace_ledger(Some(copy));
                }
            }
            Step::LedgerTorn(n) => {
                if let Some(ledger) = &mut self.ledger {
                    ledger.torn = Some(["jobs", "application"][usize::from(n) % 2]);
                    self.touch();
                }
            }
            Step::LedgerMended => {
                if let Some(ledger) = &mut self.ledger {
                    ledger.torn = None;
                    self.touch();
                }
            }
            _ => {}
        }
    }

    fn replace_ledger(&mut self, ledger: Option<Ledger>) {
        self.ledger = ledger;
        self.touch();
        let jobs = self.ledger.as_ref().map(|ledger| ledger.jobs.clone()).unwrap_or_default();
        let entries = self.entries.clone();
        self.ghost.loses_ledger(|id| {
            jobs.iter().any(|job| job.id == id && job.has_ended()) || entries.iter().any(|entry| entry.id == id)
        });
    }

    /// Lost nodes are there again: what was deleted meanwhile, or has failed, is ended by their kubelets.
    pub fn nodes_return(&mut self) {
        self.pods.iter_mut().for_each(|pod| pod.cut = false);
        self.touch();
    }
}

/// How to walk.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub rules: Rules,
    /// Somebody waits in the end until nothing changes any more, which takes as long as the walk.
    pub settles: bool,
    pub is_told: bool,
}

impl Way {
    /// Of the walk with this seed.
    pub fn of(rules: Rules, seed: u64) -> Self {
        Self { rules, settles: seed.is_multiple_of(3), is_told: false }
    }
}

/// Walks, and then waits. The world in the end.
pub fn run(way: Way, steps: &[Step], mut visit: impl FnMut(&World)) -> World {
    let mut world = World { story: way.is_told.then(Vec::new), ..World::new(way.rules) };
    for step in steps {
        world.step(*step);
        visit(&world);
        if world.ghost.violation.is_some() {
            return world;
        }
    }
    if way.settles {
        world.settle();
        visit(&world);
    }
    world
}

/// The shortest part of a walk that violates the same rule.
pub fn shrink(way: Way, steps: &[Step], rule: &'static str) -> Vec<Step> {
    let fails = |steps: &[Step]| {
        run(way, steps, |_| ()).ghost.violation.is_some_and(|Violation { rule: other, .. }| other == rule)
    };
    let (mut walk, mut chunk) = (steps.to_vec(), steps.len() / 2);
    while chunk > 0 {
        let (mut at, mut shrunk) = (0, false);
        while at < walk.len() {
            let mut shorter = walk.clone();
            shorter.drain(at..(at + chunk).min(walk.len()));
            if fails(&shorter) {
                (walk, shrunk) = (shorter, true);
            } else {
                at += chunk;
            }
        }
        if !shrunk || chunk > 1 {
            chunk /= 2;
        }
    }
    walk
}

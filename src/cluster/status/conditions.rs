//! The conditions: which hold, and why.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::facts::Facts;
use super::generation::Generation;
use super::kinds::{DEGRADED, LEADER_ELECTED, PAUSED, READY, RECONCILING, STALLED, Verdict};
use super::operator_roll_out::operator_roll_out;
use super::quarantine;
use super::waiting::Waiting;
use crate::cluster::application::conditions;
use crate::cluster::cause::Cause;
use crate::cluster::causes;

impl Facts<'_> {
    /// All conditions, in the order in which they are shown, and the time after which something else is to be said.
    pub fn conditions(&self) -> (Vec<Condition>, Option<Duration>) {
        let generation = Generation::of(self);
        let waiting = Waiting::of(self, &generation);
        let [reconciling, stalled] = generation.verdicts(self.resource.metadata.generation);
        let ready = generation.keep_ready(self, self.ready());
        let mut verdicts = vec![
            self.leader_elected(),
            ready,
            self.progressing(),
            self.degraded(&waiting),
            Verdict { kind: RECONCILING, ..reconciling },
            Verdict { kind: STALLED, ..stalled },
        ];
        verdicts.extend(operator_roll_out(self));
        verdicts.extend(quarantine::verdict(self));
        let ends = self.application.into_iter().flat_map(conditions::ends);
        verdicts.extend(ends.map(|(kind, holds, reason, message)| Verdict::new(kind, holds, &reason, message)));
        let pause = self.pause.as_ref();
        verdicts.extend(pause.map(|pause| Verdict::new(PAUSED, true, pause.reason(), pause.message(self.resource))));
        let about = |kind: &str| {
            if kind == READY { generation.of_ready(self) } else { self.resource.metadata.generation }
        };
        let condition = |verdict: Verdict| {
            let about = about(verdict.kind);
            verdict.condition(&self.before.conditions, about, self.now)
        };
        (verdicts.into_iter().map(condition).collect(), waiting.look_again(self.now))
    }

    fn leader_elected(&self) -> Verdict {
        // Its JobManagers are going, and nobody is to look for one of them.
        self.deleting(LEADER_ELECTED, false).unwrap_or_else(|| self.election.verdict())
    }

    fn degraded(&self, waiting: &Waiting) -> Verdict {
        let rejected = self.outcome.as_ref().err().map(|rejection| rejection.cause.clone());
        let told = self.observed.progress().error;
        let wanted = &self.resource.spec;
        let of_application = self.application.into_iter();
        let of_application =
            of_application.flat_map(|application| conditions::causes(application, wanted, told.as_deref()));
        let paused = self.pause.iter().flat_map(|pause| pause.causes(self.resource));
        let known = rejected.into_iter().chain(paused).chain(of_application).chain(quarantine::causes(self));
        let known = known.chain(causes::causes(self.observed));
        let causes: Vec<Cause> = known.chain(waiting.overdue(self.now)).collect();
        let found = causes::sentence(&causes);
        let (holds, (reason, message)) =
            (found.is_some(), found.unwrap_or_else(|| ("AsExpected", "no problem is known".to_owned())));
        Verdict::new(DEGRADED, holds, reason, message)
    }
}

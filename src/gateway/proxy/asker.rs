//! Classifies the sender of a request, as far as the decision needs it: the JVM of a term, another process, or one that
//! cannot be examined.

use crate::lease::elector::{LockView, Time};
use crate::lease::term::{Incarnation, Term};

/// Message to another process that tries to write HA data.
pub const STRANGER: &str = "only the Flink JVM of this pod writes HA ConfigMaps through its gateway, and this request comes from another process; \
    ask the API server itself";

/// Message to a process that cannot be examined now.
pub const UNSEEN: &str = "the gateway cannot identify the process that sent this request, so the process must not write HA ConfigMaps; the gateway's log has the cause";

/// The process behind a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A JVM with one of Flink's entry points. It need not be the JVM that leads.
    Jvm(Incarnation),
    /// For tests: it acts for the JVM that leads, and proves nothing about its life.
    StandIn,
    /// Any other process. It gets an answer, and never counts for the election.
    Stranger,
    /// A process that cannot be examined. It may or may not be the JVM, so the gateway writes nothing for it.
    Unseen,
}

impl By {
    /// May it write in the term of this JVM?
    pub fn is(self, jvm: Incarnation) -> bool {
        self == Self::StandIn || self == Self::Jvm(jvm)
    }
}

/// Why nothing is done in the current term.
pub enum NotLeading {
    Undecided,
    Standby,
    /// The term is valid, and it is unknown whether its JVM sends the request.
    Unseen,
}

/// Returns the current, valid term. An expired term is undecided: the election decides within moments whether it
/// continues, and a JVM that sees a loss too early steps down for nothing.
pub fn leading(shown: &LockView, now: Time) -> Result<&Term, NotLeading> {
    match shown {
        LockView::Free { term, until } | LockView::Leader { term, until } if now < *until => Ok(term),
        LockView::Undecided | LockView::Free { .. } | LockView::Leader { .. } => Err(NotLeading::Undecided),
        LockView::Standby { .. } => Err(NotLeading::Standby),
    }
}

/// Returns the current term if the sender is its JVM. Another Flink JVM in the pod is a standby.
pub fn leading_by(by: By, shown: &LockView, now: Time) -> Result<&Term, NotLeading> {
    match leading(shown, now) {
        Ok(term) if by.is(term.jvm) => Ok(term),
        Ok(_) if by == By::Unseen => Err(NotLeading::Unseen),
        Ok(_) => Err(NotLeading::Standby),
        not => not,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::api::names::TERM_ANNOTATION;
    use crate::flink::lock;
    use crate::gateway::proxy::request::{Call, Names};
    use crate::gateway::proxy::translate::{JvmRequest, OnSuccess, Plan, ProxyState, Signal, plan};

    const JVM: Incarnation = Incarnation { pid: 7, started: 70 };
    const OTHER: By = By::Jvm(Incarnation { pid: 7, started: 71 });
    const JOB: &str = "demo-0123456789abcdef0123456789abcdef-config-map";

    fn term() -> Term {
        Term { number: 3, pod_uid: "u".into(), process: "p".into(), jvm: JVM }
    }

    /// Decides about a request whose body carries the stamp of the term and Flink's lock.
    fn decide(by: By, call: Call, shown: &LockView) -> Plan {
        let lock = json!({ "holderIdentity": "jvm" }).to_string();
        let annotations = json!({ TERM_ANNOTATION: term().to_string(), lock::LOCK_ANNOTATION: lock });
        let body = json!({ "metadata": { "name": JOB, "resourceVersion": "5", "annotations": annotations } });
        let names = Names { namespace: "ns".into(), cluster_id: "demo".into() };
        let ended = BTreeSet::new();
        let (now, wall_clock) = (Time(10), Timestamp::UNIX_EPOCH);
        let facts = ProxyState { names: &names, shown, now, wall_clock, stored: Some(&body), ended: &ended };
        plan(&JvmRequest { by, call: &call, body: &body }, &facts)
    }

    fn shown() -> [LockView; 4] {
        let (term, until) = (term(), Time(100));
        let free = LockView::Free { term: term.clone(), until };
        [LockView::Leader { term, until }, free, LockView::Standby { acknowledged: true }, LockView::Undecided]
    }

    fn writes() -> [Call; 6] {
        [
            Call::WriteLock,
            Call::Replace(JOB.into()),
            Call::Create,
            Call::Delete(JOB.into()),
            Call::DeleteCollection,
            Call::PatchJob,
        ]
    }

    fn code(plan: &Plan) -> Option<u16> {
        match plan {
            Plan::Answer { code, .. } | Plan::Hold { code, .. } => Some(*code),
            _ => None,
        }
    }

    #[test]
    fn a_stranger_reads_what_is_stored_and_writes_nothing_whatever_the_jvm_is_shown() {
        for shown in shown() {
            for call in [Call::ReadLock, Call::ReadJob(JOB.into()), Call::Other] {
                assert_eq!(decide(By::Stranger, call, &shown), Plan::Pass);
            }
            for call in writes() {
                let refused = decide(By::Stranger, call, &shown);
                assert!(matches!(refused, Plan::Answer { code: 403, signal: Signal::Nothing, .. }), "{refused:?}");
            }
        }
    }

    #[test]
    fn another_flink_jvm_stands_by_while_ours_leads() {
        for shown in &shown()[..2] {
            let read = decide(OTHER, Call::ReadLock, shown);
            let Plan::Hold { code: 200, body, signal: Signal::Foreign } = read else { panic!("{read:?}") };
            assert!(lock::of_object(&body).and_then(lock::holder).is_some_and(|holder| holder != "jvm"));
            assert_eq!(decide(OTHER, Call::ReadJob(JOB.into()), shown), Plan::Pass);
            for call in &writes()[..4] {
                assert_eq!(code(&decide(OTHER, call.clone(), shown)), Some(409), "{call:?}");
            }
        }
        let ours = By::Jvm(JVM);
        assert!(matches!(decide(ours, Call::Replace(JOB.into()), &shown()[0]), Plan::Forward { .. }));
        assert!(matches!(
            decide(ours, Call::WriteLock, &shown()[1]),
            Plan::Forward { on_success: OnSuccess::TookLock(_), .. }
        ));
    }

    #[test]
    fn for_a_process_that_cannot_be_seen_a_leader_is_confirmed_and_nothing_is_written() {
        let [leader, free, standby, undecided] = shown();
        for call in [Call::ReadLock, Call::WriteLock] {
            let confirmed = decide(By::Unseen, call.clone(), &leader);
            assert!(matches!(confirmed, Plan::Answer { code: 200, signal: Signal::Nothing, .. }), "{confirmed:?}");
            assert_eq!(code(&decide(By::Unseen, call.clone(), &free)), Some(503), "the lock is not taken");
            assert_eq!(code(&decide(By::Unseen, call, &undecided)), Some(503));
        }
        for call in &writes()[1..4] {
            assert_eq!(code(&decide(By::Unseen, call.clone(), &leader)), Some(503));
            assert_eq!(code(&decide(By::Unseen, call.clone(), &standby)), Some(409));
        }
    }
}

//! Decides about a request of the JVM: a pure function of the request, of the JVM's view of the lock, and of the stored
//! lock.
//!
//! Invariant: it forwards a write of an HA ConfigMap only in a valid term, and only in a form that the API server
//! itself refuses once a newer term has stamped the object (resourceVersion and stamp; `docs/protocol.md`).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::asker::{By, NotLeading, STRANGER, UNSEEN, leading, leading_by};
use super::request::{Call, Names};
use crate::api::names::{self, TERM_ANNOTATION};
use crate::flink::job_id::JobId;
use crate::flink::{ha_data, lock};
use crate::lease::elector::{LockView, Time};
use crate::lease::stamp::{stamp, version};
use crate::lease::term::Term;

/// Message to a JVM that drops the annotations of what it has read: its writes could not be fenced.
const UNFENCED: &str = "the object was written back without the annotation flinkha.dev/term that stands on it; \
    a Flink version that drops annotations is not supported, use 1.20 or later";

/// Message to a client that creates a ConfigMap in YAML or protobuf: what it is could not be told.
const NO_JSON: &str = "the gateway reads ConfigMaps in JSON only; send this one in JSON, or ask the API server itself";

/// What the gateway does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Answer from memory.
    Answer { code: u16, body: Value, signal: Signal },
    /// Hold until the view of the lock changes; if it does not in time, this is the answer.
    Hold { code: u16, body: Value, signal: Signal },
    /// Forward unchanged.
    Pass,
    /// Forward with this body (or the original one), and examine the answer.
    Forward { body: Option<Value>, on_success: OnSuccess },
    /// Read, check the stamp, delete exactly what was read.
    DeleteFenced { name: String, term: Term },
}

/// What an answer means for the JVM's leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Nothing,
    /// The JVM sees another holder.
    Foreign,
    /// The JVM itself gave up, by an empty holder.
    Resigned,
}

/// What the success of a forwarded request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnSuccess {
    Nothing,
    /// The JVM's lock is stored, so it leads in this term. The answer is the new cluster ConfigMap.
    TookLock(Term),
    /// The answer is the new cluster ConfigMap.
    Remember,
    /// The object in the answer must carry the stamp of this term before the JVM sees it.
    CheckStamp {
        name: String,
        term: Term,
    },
}

/// A request of the JVM, as far as the decision needs it.
pub struct JvmRequest<'a> {
    pub by: By,
    pub call: &'a Call,
    /// JSON body; `Null` if there is none or if it is not JSON.
    pub body: &'a Value,
}

/// What this gateway knows now.
pub struct ProxyState<'a> {
    pub names: &'a Names,
    pub shown: &'a LockView,
    pub now: Time,
    pub wall_clock: Timestamp,
    /// The cluster ConfigMap as last stored; `None` if it may be outdated. It may be of an earlier term, because an
    /// answer can be late.
    pub stored: Option<&'a Value>,
    /// Jobs with a tombstone in the ledger.
    pub ended: &'a BTreeSet<JobId>,
}

/// Decides.
pub fn plan(asked: &JvmRequest, facts: &ProxyState) -> Plan {
    match asked.call {
        Call::Other => Plan::Pass,
        // The status 200 instead of 101 makes Flink's client fall back to a plain HTTP watch at once; an error would
        // stall it for seconds.
        Call::WebSocketWatch => Plan::Answer { code: 200, body: json!({}), signal: Signal::Nothing },
        Call::OtherProtocol => refuse(
            501,
            "NotImplemented",
            "of all that leaves HTTP only watches are answered; ask the API server itself",
        ),
        // In another format it could be an HA ConfigMap.
        Call::Create if !asked.body.is_object() => refuse(415, "UnsupportedMediaType", NO_JSON),
        Call::Create if !is_ha_object(facts.names, asked.body) => Plan::Pass,
        Call::ReadLock | Call::ReadJob(_) if asked.by == By::Stranger => Plan::Pass,
        _ if asked.by == By::Stranger => refuse(403, "Forbidden", STRANGER),
        Call::DeleteCollection => refuse(
            403,
            "Forbidden",
            "the gateway deletes HA ConfigMaps one by one; this Flink version is not supported",
        ),
        Call::PatchJob => {
            refuse(403, "Forbidden", "Flink does not patch the ConfigMap of a job; a patch could not be fenced")
        }
        Call::ReadLock => read_lock(asked.by, facts),
        Call::WriteLock => write_lock(asked, facts),
        Call::ReadJob(name) => match leading_by(asked.by, facts.shown, facts.now) {
            Ok(term) => Plan::Forward {
                body: None,
                on_success: OnSuccess::CheckStamp { name: name.clone(), term: term.clone() },
            },
            Err(NotLeading::Undecided) => undecided(),
            Err(NotLeading::Standby | NotLeading::Unseen) => Plan::Pass,
        },
        Call::Replace(_) | Call::Create | Call::Delete(_) => match leading_by(asked.by, facts.shown, facts.now) {
            Ok(term) => write(asked, facts, term),
            Err(NotLeading::Undecided) => undecided(),
            Err(NotLeading::Standby) => refuse(409, "Conflict", "this JobManager does not hold the Lease"),
            Err(NotLeading::Unseen) => refuse(503, "ServiceUnavailable", UNSEEN),
        },
    }
}

/// Returns the stored cluster ConfigMap if it was stored in the current term.
fn stored_now<'a>(facts: &ProxyState<'a>) -> Option<&'a Value> {
    let term = leading(facts.shown, facts.now).ok()?;
    facts.stored.filter(|stored| stamp(stored).is_some_and(|stamp| stamp.as_ref() == Ok(term)))
}

fn read_lock(by: By, facts: &ProxyState) -> Plan {
    match (leading_by(by, facts.shown, facts.now), stored_now(facts)) {
        (Err(NotLeading::Undecided), _) | (Err(NotLeading::Unseen), None) => undecided(),
        // A free lock is shown only to a process that can take it.
        (Err(NotLeading::Unseen), _) if !matches!(facts.shown, LockView::Leader { .. }) => undecided(),
        (Ok(_) | Err(NotLeading::Unseen), Some(stored)) => {
            Plan::Answer { code: 200, body: stored.clone(), signal: Signal::Nothing }
        }
        (Ok(term), None) => {
            let on_success = OnSuccess::CheckStamp { name: facts.names.cluster_config_map(), term: term.clone() };
            Plan::Forward { body: None, on_success }
        }
        (Err(NotLeading::Standby), _) => {
            let (code, body, signal) = (200, with_foreign_lock(facts), Signal::Foreign);
            // A JVM that must step down is answered at once; a standby may wait until something changes.
            match facts.shown {
                LockView::Standby { acknowledged: false } => Plan::Answer { code, body, signal },
                _ => Plan::Hold { code, body, signal },
            }
        }
    }
}

fn write_lock(asked: &JvmRequest, facts: &ProxyState) -> Plan {
    let patch = asked.body;
    let Some(holder) = lock::of_object(patch).and_then(lock::holder) else {
        return refuse(403, "Forbidden", "a patch of the cluster ConfigMap must carry Flink's lock annotation");
    };
    match (facts.shown, leading_by(asked.by, facts.shown, facts.now), stored_now(facts)) {
        (_, Err(NotLeading::Undecided), _) => undecided(),
        // A renewal, which writes nothing.
        (LockView::Leader { .. }, Err(NotLeading::Unseen), Some(stored)) if !holder.is_empty() => {
            Plan::Answer { code: 200, body: stored.clone(), signal: Signal::Nothing }
        }
        (_, Err(NotLeading::Unseen), _) => refuse(503, "ServiceUnavailable", UNSEEN),
        (_, Err(NotLeading::Standby), _) => refuse(409, "Conflict", "another JobManager holds the Lease"),
        (LockView::Leader { .. }, Ok(_), Some(stored)) => {
            let signal = if holder.is_empty() { Signal::Resigned } else { Signal::Nothing };
            Plan::Answer { code: 200, body: stored.clone(), signal }
        }
        (_, Ok(_), _) if holder.is_empty() => refuse(409, "Conflict", "the lock is not held"),
        (_, Ok(_), None) => refuse(409, "Conflict", "the cluster ConfigMap has changed"),
        (_, Ok(term), Some(stored)) if version(patch) == version(stored) && version(patch).is_some() => {
            Plan::Forward { body: None, on_success: OnSuccess::TookLock(term.clone()) }
        }
        (_, Ok(_), Some(_)) => refuse(409, "Conflict", "the cluster ConfigMap has changed"),
    }
}

fn write(asked: &JvmRequest, facts: &ProxyState, term: &Term) -> Plan {
    match asked.call {
        Call::Replace(name) => {
            let real_version = version(asked.body).is_some_and(|version| !version.is_empty() && version != "0");
            match stamp(asked.body) {
                Some(Ok(stamp)) if real_version && stamp == *term => {}
                // Every object that the JVM reads as the leader is stamped.
                None => return refuse(409, "Conflict", UNFENCED),
                _ => return refuse(409, "Conflict", "the object was not read in the term that is held now"),
            }
            let remember = *name == facts.names.cluster_config_map();
            if remember && let Some(job) = revived(asked.body, facts) {
                if stored_now(facts).is_none() {
                    return refuse(409, "Conflict", "the cluster ConfigMap has to be read anew");
                }
                // On 422 Flink's client does not retry, as it does on other errors.
                let message = format!(
                    "job {job} has ended, and an ended job is never started again under its id; submit it as a new job"
                );
                return refuse(422, "Invalid", &message);
            }
            Plan::Forward { body: None, on_success: if remember { OnSuccess::Remember } else { OnSuccess::Nothing } }
        }
        Call::Delete(name) => Plan::DeleteFenced { name: name.clone(), term: term.clone() },
        _ => create(asked.body, facts, term),
    }
}

/// Returns an ended job that this cluster ConfigMap would store again.
fn revived(body: &Value, facts: &ProxyState) -> Option<JobId> {
    if facts.ended.is_empty() {
        return None;
    }
    // If the stored ConfigMap is unknown, an ended job counts as new: the refusal makes Flink read again, and then it
    // is known.
    let before = stored_now(facts).map(ha_data::stored).unwrap_or_default();
    ha_data::stored(body).into_iter().find(|id| facts.ended.contains(id) && !before.contains(id))
}

/// Decides about a create. A new ConfigMap of a job is empty, so a late create of an older term stores nothing that
/// could be restored.
fn create(body: &Value, facts: &ProxyState, term: &Term) -> Plan {
    if body["metadata"]["name"] == facts.names.cluster_config_map().as_str() {
        return refuse(409, "AlreadyExists", "the gateway itself creates the cluster ConfigMap");
    }
    let empty = |key: &str| {
        body.get(key).is_none_or(|value| value.is_null() || value.as_object().is_some_and(|map| map.is_empty()))
    };
    if !empty("data") || !empty("binaryData") {
        return refuse(
            403,
            "Forbidden",
            "Flink creates the ConfigMap of a job empty; one with data could not be fenced",
        );
    }
    let annotations = &body["metadata"]["annotations"];
    if !annotations.is_null() && !annotations.is_object() {
        return refuse(400, "BadRequest", "metadata.annotations of the ConfigMap is no map");
    }
    let mut stamped = body.clone();
    stamped["metadata"]["annotations"][TERM_ANNOTATION] = json!(term.to_string());
    Plan::Forward { body: Some(stamped), on_success: OnSuccess::Nothing }
}

fn is_ha_object(names: &Names, body: &Value) -> bool {
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    name == names.cluster_config_map() || names::job_of_config_map(&names.cluster_id, name).is_some()
}

fn with_foreign_lock(facts: &ProxyState) -> Value {
    let mut object = facts.stored.cloned().unwrap_or_else(|| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": facts.names.cluster_config_map(), "namespace": facts.names.namespace, "resourceVersion": "1" } })
    });
    object["metadata"]["annotations"][lock::LOCK_ANNOTATION] = json!(lock::foreign(facts.wall_clock));
    object
}

/// The gateway has just started and does not know yet; a wrong answer would make a leader step down.
fn undecided() -> Plan {
    Plan::Hold {
        code: 503,
        body: status(503, "ServiceUnavailable", "the gateway has not read the Lease yet"),
        signal: Signal::Nothing,
    }
}

fn refuse(code: u16, reason: &str, message: &str) -> Plan {
    Plan::Answer { code, body: status(code, reason, message), signal: Signal::Nothing }
}

/// Returns a Kubernetes `Status`, which clients expect with every error.
pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("flinkha gateway: {message}"), "reason": reason, "code": code })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::term::Incarnation;

    fn term(number: u64) -> Term {
        Term { number, pod_uid: "u".into(), process: "p".into(), jvm: Incarnation { pid: 1, started: 2 } }
    }

    fn object(name: &str, stamp: &Term) -> Value {
        json!({ "metadata": { "name": name, "resourceVersion": "5", "annotations": { TERM_ANNOTATION: stamp.to_string() } } })
    }

    const CLUSTER: &str = "demo-cluster-config-map";
    const JOB: &str = "demo-0123456789abcdef0123456789abcdef-config-map";
    const OVER: JobId = JobId::from_number(1);

    fn decide(call: Call, body: Value, shown: &LockView, stored: Option<&Value>) -> Plan {
        decided(&JvmRequest { by: By::Jvm(term(1).jvm), call: &call, body: &body }, shown, stored)
    }

    fn decided(asked: &JvmRequest, shown: &LockView, stored: Option<&Value>) -> Plan {
        let names = Names { namespace: "ns".into(), cluster_id: "demo".into() };
        let ended = BTreeSet::from([OVER]);
        let facts = ProxyState {
            names: &names,
            shown,
            now: Time(10),
            wall_clock: Timestamp::UNIX_EPOCH,
            stored,
            ended: &ended,
        };
        plan(asked, &facts)
    }

    fn leader(number: u64) -> LockView {
        LockView::Leader { term: term(number), until: Time(100) }
    }

    fn code(plan: &Plan) -> u16 {
        match plan {
            Plan::Answer { code, .. } => *code,
            other => panic!("not answered from memory: {other:?}"),
        }
    }

    #[test]
    fn a_new_config_map_that_cannot_be_read_or_stamped_is_refused() {
        for by in [By::Jvm(term(1).jvm), By::Stranger] {
            let asked = JvmRequest { by, call: &Call::Create, body: &Value::Null };
            assert_eq!(code(&decided(&asked, &leader(3), None)), 415, "YAML may be an HA ConfigMap");
        }
        for annotations in [json!("x"), json!([]), json!(1)] {
            let body = json!({ "metadata": { "name": JOB, "annotations": annotations } });
            assert_eq!(code(&decide(Call::Create, body, &leader(3), None)), 400);
        }
    }

    #[test]
    fn a_put_is_forwarded_only_with_a_real_version_and_the_stamp_of_the_held_term() {
        let put = || Call::Replace(JOB.into());
        assert!(matches!(
            decide(put(), object(JOB, &term(3)), &leader(3), None),
            Plan::Forward { body: None, on_success: OnSuccess::Nothing }
        ));
        assert_eq!(code(&decide(put(), object(JOB, &term(2)), &leader(3), None)), 409);
        let without_stamp =
            decide(put(), json!({ "metadata": { "name": JOB, "resourceVersion": "5" } }), &leader(3), None);
        assert!(
            matches!(&without_stamp, Plan::Answer { code: 409, body, .. } if body["message"].as_str().is_some_and(|text| text.contains("1.20")))
        );
        for version in [json!(null), json!(""), json!("0")] {
            let mut body = object(JOB, &term(3));
            body["metadata"]["resourceVersion"] = version;
            assert_eq!(code(&decide(put(), body, &leader(3), None)), 409);
        }
    }

    #[test]
    fn an_ended_job_is_not_stored_again() {
        let with = |keys: &[&String]| {
            let mut object = object(CLUSTER, &term(3));
            keys.iter().for_each(|key| object["data"][*key] = "x".into());
            object
        };
        let (over, new) = (format!("executionPlan-{OVER}"), format!("executionPlan-{}", JobId::from_number(2)));
        let put = |body, stored: &Value| decide(Call::Replace(CLUSTER.into()), body, &leader(3), Some(stored));
        assert_eq!(code(&put(with(&[&over]), &with(&[]))), 422);
        assert!(matches!(put(with(&[&new]), &with(&[])), Plan::Forward { .. }));
        // A job that is stored continues.
        assert!(matches!(put(with(&[&over, &new]), &with(&[&over])), Plan::Forward { .. }));
    }

    #[test]
    fn nothing_is_written_without_a_valid_term() {
        let expired = LockView::Leader { term: term(3), until: Time(10) };
        for shown in [expired, LockView::Undecided] {
            for call in
                [Call::Replace(JOB.into()), Call::Create, Call::Delete(JOB.into()), Call::ReadLock, Call::WriteLock]
            {
                let patch = json!({ "metadata": { "name": JOB, "annotations": { lock::LOCK_ANNOTATION: "{\"holderIdentity\":\"jvm\"}" } } });
                let held = decide(call, patch, &shown, None);
                assert!(matches!(held, Plan::Hold { code: 503, signal: Signal::Nothing, .. }), "{held:?}");
            }
        }
        for shown in [LockView::Standby { acknowledged: true }, LockView::Standby { acknowledged: false }] {
            assert_eq!(code(&decide(Call::Replace(JOB.into()), object(JOB, &term(3)), &shown, None)), 409);
            assert_eq!(code(&decide(Call::Create, object(JOB, &term(3)), &shown, None)), 409);
            assert_eq!(code(&decide(Call::Delete(JOB.into()), Value::Null, &shown, None)), 409);
        }
    }

    #[test]
    fn a_created_config_map_of_a_job_is_empty_and_stamped() {
        let Plan::Forward { body: Some(body), .. } =
            decide(Call::Create, json!({ "metadata": { "name": JOB } }), &leader(3), None)
        else {
            panic!("not forwarded")
        };
        assert_eq!(stamp(&body), Some(Ok(term(3))));
        let full = json!({ "metadata": { "name": JOB }, "data": { "checkpointID-1": "x" } });
        assert_eq!(code(&decide(Call::Create, full, &leader(3), None)), 403);
        assert_eq!(decide(Call::Create, json!({ "metadata": { "name": "mine" } }), &leader(3), None), Plan::Pass);
    }

    #[test]
    fn the_lock_passes_once_and_then_ends_here() {
        let stored = object(CLUSTER, &term(3));
        let patch = |holder: &str| {
            let record = json!({ "holderIdentity": holder }).to_string();
            json!({ "metadata": { "resourceVersion": "5", "annotations": { lock::LOCK_ANNOTATION: record } } })
        };
        let free = LockView::Free { term: term(3), until: Time(100) };
        let first = decide(Call::WriteLock, patch("jvm"), &free, Some(&stored));
        assert_eq!(first, Plan::Forward { body: None, on_success: OnSuccess::TookLock(term(3)) });
        assert_eq!(code(&decide(Call::WriteLock, patch("jvm"), &leader(3), Some(&stored))), 200);
        let resigned = decide(Call::WriteLock, patch(""), &leader(3), Some(&stored));
        assert!(matches!(resigned, Plan::Answer { signal: Signal::Resigned, .. }));
        assert_eq!(
            code(&decide(Call::WriteLock, patch("jvm"), &LockView::Standby { acknowledged: true }, Some(&stored))),
            409
        );
    }

    #[test]
    fn what_was_stored_in_an_earlier_term_is_read_anew() {
        let stored = object(CLUSTER, &term(2));
        let read = decide(Call::ReadLock, Value::Null, &leader(3), Some(&stored));
        assert!(matches!(read, Plan::Forward { on_success: OnSuccess::CheckStamp { .. }, .. }));
    }

    #[test]
    fn a_standby_waits_and_a_former_leader_is_answered_at_once() {
        let told = decide(Call::ReadLock, Value::Null, &LockView::Standby { acknowledged: true }, None);
        assert!(matches!(told, Plan::Hold { code: 200, signal: Signal::Foreign, .. }));
        let former = decide(Call::ReadLock, Value::Null, &LockView::Standby { acknowledged: false }, None);
        let Plan::Answer { body, signal: Signal::Foreign, .. } = former else { panic!("not answered") };
        assert!(lock::of_object(&body).and_then(lock::holder).is_some_and(|holder| !holder.is_empty()));
    }

    #[test]
    fn collections_are_not_deleted() {
        assert_eq!(code(&decide(Call::DeleteCollection, Value::Null, &leader(3), None)), 403);
    }
}

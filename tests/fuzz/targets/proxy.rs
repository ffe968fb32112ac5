//! Requests of the JVM, whatever stands in them: none writes an HA ConfigMap but in a valid term, by that term's JVM,
//! and in a form that the API server refuses once a newer term has stamped the object.

use std::collections::BTreeSet;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::names::TERM_ANNOTATION;
use crate::flink::job_id::JobId;
use crate::flink::{ha_data, lock};
use crate::gateway::proxy::asker::By;
use crate::gateway::proxy::request::{Call, Names};
use crate::gateway::proxy::translate::{JvmRequest, OnSuccess, Plan, ProxyState, plan};
use crate::input::Input;
use crate::lease::elector::{LockView, Time};
use crate::lease::stamp::{stamp, version};
use crate::lease::term::{Incarnation, Term};

const CLUSTER: &str = "demo-cluster-config-map";
const JVM: Incarnation = Incarnation { pid: 1, started: 2 };
const ENDED: JobId = JobId::from_number(1);
const NOW: Time = Time(10);

fn term(number: u64) -> Term {
    Term { number, pod_uid: "u".into(), process: "p".into(), jvm: JVM }
}

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (view, by, stored) = (input.byte(), input.byte(), input.byte());
    let (method, path, query, upgrade) = (input.text(), input.text(), input.text(), input.text());
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    // As the server does it: what is no JSON is null.
    let body: Value = serde_json::from_slice(input.rest()).unwrap_or_default();

    let names = Names { namespace: "ns".into(), cluster_id: "demo".into() };
    let upgrade = Some(upgrade.as_str()).filter(|upgrade| !upgrade.is_empty());
    let call = names.call(&method, &path, Some(&query), upgrade);
    let until = if view & 8 == 0 { Time(20) } else { Time(5) };
    let shown = match view % 5 {
        0 => LockView::Undecided,
        1 => LockView::Standby { acknowledged: view & 16 == 0 },
        2 => LockView::Free { term: term(5), until },
        _ => LockView::Leader { term: term(5), until },
    };
    let by = match by % 4 {
        0 => By::Jvm(Incarnation { pid: 3, started: 4 }),
        1 => By::Stranger,
        2 => By::Unseen,
        _ => By::Jvm(JVM),
    };
    let of_term = |number: u64| {
        json!({ "metadata": { "name": CLUSTER, "resourceVersion": "7",
            "annotations": { TERM_ANNOTATION: term(number).to_string() } }, "data": { "counter": "1" } })
    };
    let stored = match stored % 3 {
        0 => None,
        1 => Some(of_term(4)),
        _ => Some(of_term(5)),
    };
    let ended = BTreeSet::from([ENDED]);
    let facts = ProxyState {
        names: &names,
        shown: &shown,
        now: NOW,
        wall_clock: Timestamp::UNIX_EPOCH,
        stored: stored.as_ref(),
        ended: &ended,
    };
    let plan = plan(&JvmRequest { by, call: &call, body: &body }, &facts);
    let leads = matches!(shown, LockView::Free { .. } | LockView::Leader { .. }) && until > NOW && by == By::Jvm(JVM);
    if let Some(write) = Write::of(&method, &path, &body) {
        judge(&write, leads, &body, stored.as_ref(), &plan);
    }
    signals(&call, &plan, leads);
}

/// A write of an HA ConfigMap, as the API server understands the request.
enum Write {
    Replace(String),
    Patch(String),
    Delete,
    Create,
}

impl Write {
    fn of(method: &Method, path: &str, body: &Value) -> Option<Self> {
        let decoded = decoded(path);
        // The API server ignores a slash at the end.
        let parts: Vec<&str> = decoded.trim_end_matches('/').split('/').collect();
        let is_ha = |name: &str| name == CLUSTER || ha_data::job_of("demo", name).is_some();
        match (parts.as_slice(), method.as_str()) {
            (["", "api", "v1", "namespaces", "ns", "configmaps"], "POST") => {
                // What is not JSON may be YAML or protobuf, which it understands as well.
                let is_known = body.is_object();
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                (!is_known || is_ha(name)).then_some(Self::Create)
            }
            (["", "api", "v1", "namespaces", "ns", "configmaps"], "DELETE") => Some(Self::Delete),
            (["", "api", "v1", "namespaces", "ns", "configmaps", name], method) if is_ha(name) => match method {
                "PUT" => Some(Self::Replace((*name).to_owned())),
                "PATCH" => Some(Self::Patch((*name).to_owned())),
                "DELETE" => Some(Self::Delete),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The path without percent-encoding.
fn decoded(path: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), path.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = (*first == b'%').then(|| after.get(..2)).flatten();
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn judge(write: &Write, leads: bool, body: &Value, stored: Option<&Value>, plan: &Plan) {
    let (forwarded, on_success) = match plan {
        Plan::Pass => panic!("a write of HA data passes unread"),
        Plan::DeleteFenced { term: of, .. } => {
            assert!(leads && *of == term(5) && matches!(write, Write::Delete));
            return;
        }
        Plan::Answer { .. } | Plan::Hold { .. } => return,
        Plan::Forward { body, on_success } => (body, on_success),
    };
    assert!(leads, "a write outside of a valid term");
    match write {
        Write::Replace(name) => {
            assert_eq!(*forwarded, None);
            let version = version(body).unwrap_or_default();
            assert!(!["", "0"].contains(&version), "a write of any version");
            assert_eq!(stamp(body), Some(Ok(term(5))), "a write that another term has read");
            let revives = ha_data::stored(body).contains(&ENDED);
            let was_stored = stored.is_some_and(|stored| ha_data::stored(stored).contains(&ENDED));
            assert!(name != CLUSTER || !revives || was_stored, "an ended job is stored again");
        }
        Write::Patch(name) => {
            assert!(name == CLUSTER && matches!(on_success, OnSuccess::TookLock(of) if *of == term(5)));
            let holder = lock::of_object(body).and_then(lock::holder);
            assert!(holder.is_some_and(|holder| !holder.is_empty()));
            assert!(version(body).is_some() && version(body) == stored.and_then(version));
        }
        Write::Create => {
            let forwarded = forwarded.as_ref().expect("a new ConfigMap is stamped");
            assert_eq!(stamp(forwarded), Some(Ok(term(5))));
            let is_empty =
                |key: &str| forwarded.get(key).is_none_or(|data| data.as_object().is_none_or(|data| data.is_empty()));
            assert!(is_empty("data") && is_empty("binaryData"));
            assert_ne!(forwarded["metadata"]["name"], CLUSTER);
        }
        Write::Delete => panic!("a deletion is not fenced"),
    }
}

/// Only the leading JVM's own lock makes it the leader.
fn signals(call: &Call, plan: &Plan, leads: bool) {
    if let Plan::Forward { on_success: OnSuccess::TookLock(of), .. } = plan {
        assert!(leads && *of == term(5) && *call == Call::WriteLock);
    }
    if let Plan::Answer { code, body, .. } | Plan::Hold { code, body, .. } = plan {
        assert!((200..600).contains(code) && body.is_object());
    }
}

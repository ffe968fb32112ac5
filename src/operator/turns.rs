//! Who has its turn when the operator replaces the pods of many clusters, and who comes next. What is decided is in
//! [`crate::cluster::turn`]. A restart takes the turns over from the resources' status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt;
use kube_runtime::reflector::{ObjectRef, Store};

use super::observe::Triggers;
use crate::api::FlinkHaCluster;
use crate::api::names::ROLL_OUT_ANNOTATION;
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::turn::{self, Moving, Turn, TurnLimits, has_turn};

/// The turns of all clusters.
pub struct Turns {
    limits: TurnLimits,
    triggers: Triggers,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Clusters that have their turn, by the UID of the resource.
    moving: BTreeMap<String, Moving>,
    /// Namespace and name of clusters that wait, and nobody has woken.
    waiting: BTreeSet<(String, String)>,
    /// When the last turn began.
    last: Option<Timestamp>,
}

impl Turns {
    pub fn new(limits: TurnLimits, triggers: Triggers, clusters: &Store<FlinkHaCluster>) -> Self {
        let mut state = State::default();
        for resource in clusters.state() {
            let status = resource.status.as_ref();
            let Some(condition) = status.and_then(|status| has_turn(status, resource.metadata.generation)) else {
                continue;
            };
            let since = condition.last_transition_time.0;
            state.last = state.last.max(Some(since));
            state.moving.insert(uid(&resource), Moving { name: name(&resource), since });
        }
        Self { limits, triggers, state: Mutex::new(state) }
    }

    /// Decides whether the operator replaces pods of this cluster now, and takes the turn if it does.
    /// `why`: why they are to be replaced.
    pub fn take(&self, resource: &FlinkHaCluster, before: &FlinkHaClusterStatus, why: &str) -> Turn {
        let (now, uid) = (Timestamp::now(), uid(resource));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_turn = state.moving.contains_key(&uid) || has_turn(before, resource.metadata.generation).is_some();
        let others = state.moving.iter().filter(|(other, _)| **other != uid).map(|(_, moving)| moving.clone());
        let others: Vec<Moving> = others.collect();
        let wish = resource.annotation(ROLL_OUT_ANNOTATION);
        let turn = turn::turn((wish, why), has_turn, &others, state.last, &self.limits, now);
        if let Turn::Waits(waits) = &turn {
            state.moving.remove(&uid);
            if waits.reason != "Held" {
                state.waiting.insert(key(resource));
            }
        } else {
            state.waiting.remove(&key(resource));
            state.moving.entry(uid).or_insert_with(|| Moving { name: name(resource), since: now });
        }
        if turn == Turn::Begins {
            state.last = Some(now);
        }
        turn
    }

    /// Ends the turn of a cluster whose status does not say any more that it has one, and wakes the next.
    pub fn settle(&self, resource: &FlinkHaCluster) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let status = resource.status.as_ref();
        if status.and_then(|status| has_turn(status, resource.metadata.generation)).is_none() {
            state.moving.remove(&uid(resource));
        }
        self.wake(&mut state);
    }

    /// Forgets a cluster that is being deleted.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = state.waiting.remove(&key(resource));
        if state.moving.remove(&uid(resource)).is_some() || waited {
            self.wake(&mut state);
        }
    }

    /// Forgets a cluster whose resource this operator does not see any more: it is gone, or no longer selected.
    pub fn lose(&self, resource: &ObjectRef<FlinkHaCluster>) {
        let key = (resource.namespace.clone().unwrap_or_default(), resource.name.clone());
        let name = format!("{}/{}", key.0, key.1);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, waited) = (state.moving.len(), state.waiting.remove(&key));
        state.moving.retain(|_, moving| moving.name != name);
        if waited || state.moving.len() < before {
            self.wake(&mut state);
        }
    }

    /// Wakes the next cluster that waits, if there is room for it. It takes its place again if it still has to wait.
    fn wake(&self, state: &mut State) {
        let is_full = self.limits.max_concurrent > 0 && state.moving.len() >= self.limits.max_concurrent;
        let pause = state.last.map(|last| turn::pause(last, &self.limits, Timestamp::now())).unwrap_or_default();
        // Until a pause ends, they look again by themselves.
        if is_full || !pause.is_zero() {
            return;
        }
        if let Some((namespace, name)) = state.waiting.pop_first() {
            // The receiver is gone only when the process ends.
            let _ = self.triggers.unbounded_send(ObjectRef::new(&name).within(&namespace));
        }
    }
}

fn uid(resource: &FlinkHaCluster) -> String {
    resource.uid().unwrap_or_default()
}

fn key(resource: &FlinkHaCluster) -> (String, String) {
    (resource.namespace().unwrap_or_default(), resource.name_any())
}

fn name(resource: &FlinkHaCluster) -> String {
    format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;
    use kube_runtime::reflector::store;

    use super::*;
    use crate::cluster::status::announced;
    use crate::cluster::tests as fixture;

    fn resource(name: &str) -> FlinkHaCluster {
        let mut resource = fixture::resource();
        resource.metadata.name = Some(name.to_owned());
        resource.metadata.uid = Some(format!("uid-of-{name}"));
        resource
    }

    /// The same with the status of one whose pods are being replaced.
    fn moving(name: &str) -> FlinkHaCluster {
        let mut resource = resource(name);
        let status = announced(&resource, &FlinkHaClusterStatus::default(), "", Timestamp::now());
        resource.status = Some(status);
        resource
    }

    #[tokio::test]
    async fn the_next_is_woken_when_one_is_done_and_a_restart_forgets_nobody() {
        let (cache, mut writer) = store::store();
        writer.apply_watcher_event(&kube_runtime::watcher::Event::Apply(moving("a")));
        let (triggers, mut woken) = futures::channel::mpsc::unbounded();
        let turns = Turns::new(TurnLimits { max_concurrent: 1, delay: Duration::ZERO }, triggers, &cache);
        let before = FlinkHaClusterStatus::default();
        let waits = |name| matches!(turns.take(&resource(name), &before, ""), Turn::Waits(_));
        assert!(waits("c") && waits("b"), "the one before the restart has its turn");
        assert_eq!(turns.take(&moving("a"), &moving("a").status.unwrap_or_default(), ""), Turn::Continues);
        turns.settle(&moving("a"));
        turns.settle(&resource("a"));
        assert_eq!(woken.next().await.map(|woken| woken.name), Some("b".to_owned()));
        assert_eq!(turns.take(&resource("b"), &before, ""), Turn::Begins);
        assert!(waits("c"));
        assert_eq!(turns.take(&resource("b"), &before, ""), Turn::Continues, "its status was not written");
        turns.forget(&resource("b"));
        assert_eq!(woken.next().await.map(|woken| woken.name), Some("c".to_owned()));
        assert_eq!(turns.take(&resource("c"), &before, ""), Turn::Begins);
        assert!(waits("d"));
        turns.lose(&ObjectRef::from_obj(&resource("c")));
        assert_eq!(woken.next().await.map(|woken| woken.name), Some("d".to_owned()), "c is not selected any more");
    }
}

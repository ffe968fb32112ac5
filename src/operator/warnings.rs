//! Warnings of Kubernetes about objects that something waits for: a volume that cannot be mounted or attached, a pod
//! that a Job may not create. They stand only in events, which are read on demand: of few objects, each at most every
//! 20 s.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::api::FlinkHaCluster;
use crate::cluster::observed::Observed;
use crate::cluster::waits;
use crate::cluster::warnings::latest;

/// What was read is believed for so long.
const FRESH: Duration = Duration::from_secs(20);
/// What was read is forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Events in one answer.
const PAGE: u32 = 50;

/// Reads events, and remembers for a short while what they said.
pub struct Warnings {
    client: Client,
    /// By the UID of the object.
    read: Mutex<HashMap<String, (Instant, Option<String>)>>,
}

impl Warnings {
    pub fn new(client: Client) -> Self {
        Self { client, read: Mutex::default() }
    }

    /// Completes what was observed by the warnings about pods that have not started for a while.
    pub async fn complete(&self, resource: &FlinkHaCluster, observed: &mut Observed) {
        for uid in waits::to_look_at(observed, Timestamp::now()) {
            if let Some(warning) = self.of(&resource.namespace().unwrap_or_default(), &uid).await {
                observed.warnings.insert(uid, warning);
            }
        }
    }

    /// The latest warning about the object of this UID. What cannot be read counts as nothing: it only says more about
    /// what is known to wait.
    pub async fn of(&self, namespace: &str, uid: &str) -> Option<String> {
        if let Some(known) = self.known(uid) {
            return known;
        }
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let selector = format!("regarding.uid={uid},type=Warning");
        let found = events.list(&ListParams::default().fields(&selector).limit(PAGE)).await;
        let warning = match found {
            Ok(found) => latest(&found.items),
            Err(error) => {
                tracing::debug!(namespace, uid, %error, "failed to read events");
                None
            }
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.retain(|_, (at, _)| at.elapsed() < FORGOTTEN);
        read.insert(uid.to_owned(), (Instant::now(), warning.clone()));
        warning
    }

    fn known(&self, uid: &str) -> Option<Option<String>> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.get(uid).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, warning)| warning.clone())
    }
}

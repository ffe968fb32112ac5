//! Publishes the leader's REST endpoint: the leader writes its own address into the EndpointSlice of `<name>-rest`, at
//! the beginning of its term and whenever somebody has changed, emptied or deleted it. It needs no operator, except
//! that only the operator makes a deleted EndpointSlice again. An EndpointSlice has addresses of one family: where the
//! Service has both, the leader is published in two.

use std::future::pending;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, StreamExt, pin_mut};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use kube_runtime::WatchStreamExt;
use kube_runtime::watcher::watch_object;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::api::names::{CLUSTER_LABEL, MANAGED_BY, MANAGED_BY_LABEL};
use crate::api::rest::IpFamily;
use crate::cluster::build::service::{slice_labels, slice_ports};
use crate::gateway::tenure::Tenures;
use crate::lease::term::Term;
use crate::world::error_text::brief;

/// Between two writes: somebody who changes the address again and again is not followed faster.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest pause after failures. A change that the watch shows ends it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Writes the addresses of this pod.
#[derive(Clone)]
pub struct Publisher {
    pub client: Client,
    pub namespace: String,
    /// Name of the FlinkHaCluster.
    pub cluster: String,
    pub pod: String,
    /// One of each family in which the leader is published.
    pub addresses: Vec<IpAddr>,
}

impl Publisher {
    /// Keeps this pod as the only endpoint while it leads in this term. No stronger fence is needed: with an old
    /// address a standby answers the client, and no data is affected.
    pub async fn publish(&self, tenures: &Tenures, term: &Term) {
        let all = join_all(self.addresses.iter().map(|address| self.keep(*address)));
        tenures.while_leading(term, all.map(drop)).await;
    }

    /// The first write does not wait for the watch, which costs no request while nothing happens.
    async fn keep(&self, address: IpAddr) {
        let (slices, name) = (self.slices(), IpFamily::of(address).rest_slice(&self.cluster));
        let watch = watch_object(slices.clone(), &name).default_backoff();
        pin_mut!(watch);
        let (mut due, mut pause) = (Some(Instant::now()), INTERVAL);
        loop {
            let at = due;
            let write = async move {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let next = tokio::select! {
                () = write => None,
                seen = watch.next() => Some(seen),
            };
            match next {
                None => match slices.patch(&name, &PatchParams::default(), &Patch::Merge(self.wanted(address))).await {
                    Ok(_) => (due, pause) = (None, INTERVAL),
                    Err(error) => {
                        let error = brief(&error);
                        tracing::warn!(
                            error,
                            slice = name,
                            ?pause,
                            "failed to publish the leader's address; trying again"
                        );
                        (due, pause) = (Some(Instant::now() + pause), (pause * 2).min(LONGEST_PAUSE));
                    }
                },
                Some(Some(Ok(Some(slice)))) if self.is_published(address, &slice) => due = None,
                Some(Some(Ok(Some(_)))) => {
                    let soon = Instant::now() + INTERVAL;
                    due = Some(due.map_or(soon, |at| at.min(soon)));
                }
                // The operator makes it again, which the watch shows.
                Some(Some(Ok(None))) => {}
                Some(Some(Err(error))) => tracing::debug!(%error, "the watch of the leader's address was interrupted"),
                Some(None) => pending().await,
            }
        }
    }

    fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What the EndpointSlice is to say: whoever changes its labels or ports would hide the leader as well as one who
    /// changes its address.
    fn wanted(&self, address: IpAddr) -> Value {
        let mut labels = slice_labels(&self.cluster);
        labels[MANAGED_BY_LABEL] = MANAGED_BY.into();
        labels[CLUSTER_LABEL] = self.cluster.as_str().into();
        json!({
            "metadata": { "labels": labels },
            "endpoints": [{
                "addresses": [address],
                "conditions": { "ready": true },
                "targetRef": { "kind": "Pod", "namespace": self.namespace, "name": self.pod },
            }],
            "ports": slice_ports(),
        })
    }

    fn is_published(&self, address: IpAddr, slice: &EndpointSlice) -> bool {
        let (seen, wanted) = (json!(slice), self.wanted(address));
        let labels = wanted["metadata"]["labels"].as_object().into_iter().flatten();
        let labelled = labels.into_iter().all(|(key, value)| seen["metadata"]["labels"][key] == *value);
        labelled && ["endpoints", "ports"].iter().all(|field| seen[field] == wanted[field])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hides_the_leader_is_seen_and_what_others_add_is_not() {
        let config = kube::Config::new("http://127.0.0.1:1".parse().expect("an address"));
        let publisher = Publisher {
            client: Client::try_from(config).expect("a client"),
            namespace: "flink".to_owned(),
            cluster: "demo".to_owned(),
            pod: "demo-jobmanager-a".to_owned(),
            addresses: Vec::new(),
        };
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let published = |change: Value| {
            let mut slice = json!({ "addressType": "IPv4" });
            crate::cluster::merge::merge(&mut slice, publisher.wanted(address("10.0.0.1")));
            crate::cluster::merge::merge(&mut slice, change);
            let slice = serde_json::from_value(slice).expect("an EndpointSlice");
            publisher.is_published(address("10.0.0.1"), &slice)
        };
        // As Kubernetes wants it: without brackets.
        let of_ipv6 = publisher.wanted(address("fd00:0:0::1"));
        assert_eq!(of_ipv6["endpoints"][0]["addresses"], json!(["fd00::1"]));
        assert!(published(json!({})));
        assert!(published(json!({ "metadata": { "labels": { "team": "a" }, "uid": "another" } })));
        for hidden in [
            json!({ "endpoints": [] }),
            json!({ "endpoints": [{ "addresses": ["10.0.0.2"] }] }),
            json!({ "ports": [{ "name": "rest", "port": 80, "protocol": "TCP" }] }),
            json!({ "metadata": { "labels": { "kubernetes.io/service-name": "other" } } }),
            json!({ "metadata": { "labels": { CLUSTER_LABEL: null } } }),
        ] {
            assert!(!published(hidden.clone()), "{hidden}");
        }
    }
}

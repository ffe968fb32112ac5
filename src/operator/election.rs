//! Which of several operators works: a Lease of their own. Nothing of a Flink cluster depends on it; two at once would only repeat each other.
//!
//! The way of client-go: whether a foreign Lease has run out is judged by how long its record has stayed unchanged on our own clock, and every
//! write is a compare-and-swap on the record that was judged.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};

use super::observe::chain;

const NAME: &str = "flinkha-operator";
const DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Takes part in the election of the operator.
pub struct Candidate {
    leases: Api<Lease>,
    identity: String,
    seen: Option<Seen>,
}

/// The version of the record that was seen last, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    version: Option<String>,
    since: Instant,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Take,
    Wait,
}

/// Decides by the holder of the Lease and by how long its record has been unchanged.
fn decide(holder: &str, identity: &str, unchanged: Duration) -> Decision {
    if holder.is_empty() || holder == identity || unchanged > DURATION { Decision::Take } else { Decision::Wait }
}

impl Candidate {
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { leases: Api::namespaced(client, namespace), identity, seen: None }
    }

    /// Waits until this operator is elected. Outages of the API server are waited for.
    pub async fn elected(&mut self) -> Lease {
        loop {
            match self.attempt().await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {}
                Err(error) => tracing::warn!(error = %chain(&error), "failed to take part in the operators' election; trying again"),
            }
            tokio::time::sleep(RETRY_PERIOD).await;
        }
    }

    /// Renews until that has not been possible for too long. The process must end then.
    pub async fn lost(&self, mut lease: Lease) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_DEADLINE {
            tokio::time::sleep(RETRY_PERIOD).await;
            let begin = Instant::now();
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.write(lease.clone())).await {
                Ok(Ok(written)) => {
                    lease = written;
                    renewed = begin;
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => return,
                Ok(Err(error)) => tracing::warn!(error = %chain(&error), "failed to renew the operator's Lease; trying again"),
                Err(_) => {}
            }
        }
    }

    /// Gives the Lease up, so that a successor need not wait for it to run out.
    pub async fn release(&self) {
        if let Ok(Some(mut lease)) = self.leases.get_opt(NAME).await
            && let Some(spec) = lease.spec.as_mut()
            && spec.holder_identity.as_deref() == Some(&self.identity)
        {
            spec.holder_identity = None;
            let _ = self.leases.replace(NAME, &PostParams::default(), &lease).await;
        }
    }

    async fn attempt(&mut self) -> kube::Result<Option<Lease>> {
        let Some(lease) = self.leases.get_opt(NAME).await? else {
            let lease = Lease { metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }, ..Lease::default() };
            return self.leases.create(&PostParams::default(), &self.signed(lease)).await.map(Some);
        };
        let version = lease.metadata.resource_version.clone();
        let seen = self.seen.take().filter(|seen| seen.version == version).unwrap_or(Seen { version, since: Instant::now() });
        let unchanged = seen.since.elapsed();
        self.seen = Some(seen);
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        match decide(holder, &self.identity, unchanged) {
            Decision::Wait => Ok(None),
            Decision::Take => match self.write(lease).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
                written => written.map(Some),
            },
        }
    }

    async fn write(&self, lease: Lease) -> kube::Result<Lease> {
        self.leases.replace(NAME, &PostParams::default(), &self.signed(lease)).await
    }

    fn signed(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.take().unwrap_or_default();
        let is_ours = before.holder_identity.as_deref() == Some(&self.identity);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_ours { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!is_ours)),
            ..LeaseSpec::default()
        });
        lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_it_is_free_ours_or_silent_for_longer_than_its_duration() {
        assert_eq!(decide("", "me", Duration::ZERO), Decision::Take);
        assert_eq!(decide("me", "me", Duration::ZERO), Decision::Take);
        assert_eq!(decide("other", "me", DURATION), Decision::Wait);
        assert_eq!(decide("other", "me", DURATION + Duration::from_millis(1)), Decision::Take);
    }

    #[test]
    fn a_leader_gives_up_before_another_may_take_over() {
        assert!(RENEW_DEADLINE < DURATION && RETRY_PERIOD < RENEW_DEADLINE);
    }
}

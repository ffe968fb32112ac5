//! Tells what this process does, elected or not: in the log, at `/readyz`, and as a metric.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::cluster::operators::deployment_of;
use crate::telemetry::probes::Readiness;

/// Tells each change once.
#[derive(Clone)]
pub struct Activity {
    readiness: Arc<watch::Sender<Readiness>>,
    leads: Gauge,
}

impl Activity {
    /// `ready`: this process takes part in an election, so it can take over at any time.
    pub fn new(registry: &mut Registry, ready: bool) -> (Self, watch::Receiver<Readiness>) {
        let leads = Gauge::default();
        registry.register(
            "flinkha_operator_leader",
            "1 while this pod reconciles clusters, 0 while it stands by",
            leads.clone(),
        );
        let (readiness, seen) = watch::channel(Readiness { ready, text: "starting".to_owned() });
        (Self { readiness: Arc::new(readiness), leads }, seen)
    }

    /// This pod works.
    pub fn works(&self, why: &str) {
        self.leads.set(1);
        if self.changes(why) {
            tracing::info!("{why}");
        }
    }

    /// The caches are filled.
    pub fn is_ready(&self) {
        self.readiness.send_if_modified(|now| !std::mem::replace(&mut now.ready, true));
    }

    /// Another pod works, or none; `holder` is empty then.
    pub fn stands_by(&self, holder: &str, own: &str, lease: &str) {
        self.leads.set(0);
        if holder == own {
            return;
        }
        let (text, warning) = standby(holder, own, lease);
        if self.changes(&text) {
            if warning {
                tracing::warn!("{text}");
            } else {
                tracing::info!("{text}");
            }
        }
    }

    /// This pod must not be elected yet.
    pub fn waits(&self, why: &str) {
        self.leads.set(0);
        if self.changes(why) {
            tracing::info!("{why}");
        }
    }

    fn changes(&self, text: &str) -> bool {
        self.readiness.send_if_modified(|now| {
            let changes = now.text != text;
            if changes {
                text.clone_into(&mut now.text);
            }
            changes
        })
    }
}

/// What a standby says, and whether it is a warning.
fn standby(holder: &str, own: &str, lease: &str) -> (String, bool) {
    if holder.is_empty() {
        (format!("standing by: no pod holds Lease {lease}"), false)
    } else if deployment_of(holder) == deployment_of(own) {
        (format!("standing by: pod {holder} holds Lease {lease} and works"), false)
    } else {
        let text = format!(
            "standing by and doing nothing: pod {holder}, which is not of the same release, holds Lease {lease}. Give \
             each release a Lease of its own (--lease-name, as the chart of this version does), or uninstall one"
        );
        (text, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_warns_when_another_release_holds_its_lease() {
        let own = "a-operator-1-1";
        for (holder, words, warning) in [
            ("", "no pod holds Lease flinkha-operator", false),
            ("a-operator-1-2", "pod a-operator-1-2 holds Lease flinkha-operator and works", false),
            ("b-operator-1-1", "pod b-operator-1-1, which is not of the same release", true),
        ] {
            let (text, warns) = standby(holder, own, "flinkha-operator");
            assert!(text.contains(words), "{text}");
            assert_eq!(warns, warning, "{text}");
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let (told, seen) = Activity::new(&mut Registry::default(), true);
        told.stands_by("a-1-1", "a-1-2", "lease");
        assert!(!told.changes("standing by: pod a-1-1 holds Lease lease and works"));
        told.works("elected");
        assert_eq!((told.leads.get(), seen.borrow().text.as_str()), (1, "elected"));
    }
}

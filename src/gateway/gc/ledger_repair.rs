//! Puts back what somebody takes away of the ledger while this gateway's JVM leads: at each read, and as soon as a
//! watch shows it. What belongs there is decided in [`crate::ledger::copy`].

use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube_runtime::WatchStreamExt;
use kube_runtime::watcher::watch_object;
use tokio::time::sleep;

use super::known_ledger::Injury;
use super::ledger::Ledger;
use crate::api::names;
use crate::lease::term::Term;

/// Between two repairs: somebody who empties the ledger again and again is not followed faster.
const INTERVAL: Duration = Duration::from_secs(1);

impl Ledger {
    /// Puts it back; `None` if somebody has written the ledger meanwhile.
    pub(super) async fn put_back(&self, injury: &Injury) -> anyhow::Result<Option<ConfigMap>> {
        let (name, ledgers) = (names::ledger(&self.cluster), self.config_maps());
        let put_back = match injury {
            Injury::Gone(ledger) => ledgers.create(&PostParams::default(), ledger).await,
            Injury::Lacks(patch) => ledgers.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await,
        };
        match put_back {
            Ok(ledger) => {
                tracing::warn!(name, "somebody has deleted or emptied the ledger; what it said is put back");
                if let Some(term) = self.tenures.term() {
                    self.copy.follow(&ledger, &term);
                }
                Ok(Some(ledger))
            }
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(None),
            Err(error) => Err(error).context("failed to put back what the ledger said"),
        }
    }

    /// Keeps it complete until the process ends. It sends no request while nothing happens.
    pub async fn keep(self) {
        self.tenures.during_each(async |term| self.keep_in(term).await).await;
    }

    async fn keep_in(&self, term: &Term) {
        let watch = watch_object(self.config_maps(), &names::ledger(&self.cluster)).default_backoff();
        pin_mut!(watch);
        while let Some(seen) = watch.next().await {
            match seen {
                Ok(seen) if self.copy.injury(seen.as_ref(), term).is_some() => {
                    if let Err(error) = self.object().await {
                        tracing::warn!(error = format!("{error:#}"), "the ledger lacks what it has said");
                    }
                    sleep(INTERVAL).await;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the watch of the ledger was interrupted"),
            }
        }
    }
}

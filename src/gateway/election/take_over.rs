//! Takes over what another version of the application stored, between the stamping and the grant. It carries out what
//! [`crate::ha_data::entrance`] decides.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio::time::timeout;

use crate::api::names;
use crate::gateway::application::handover::{begin_version, last_checkpoint, records, refuse_foreign, tell};
use crate::gateway::gc::final_cleanup;
use crate::gateway::gc::flink_version::VersionGuard;
use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::ownership::DirectoryMark;
use crate::gateway::gc::pointer_store::ConfigMaps;
use crate::ha_data::entrance::{Entrance, entrance};
use crate::ha_data::handover::{HandoverPlan, Stored, raising};
use crate::ha_data::versions::{StoredJobs, goes_on};
use crate::lease::term::Term;
use crate::ledger::application::Run;
use crate::world::storage::Storage;

/// Limit of a take-over; after it the gateway gives up the leadership.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(6);

/// Everything that a take-over reads and writes.
#[derive(Clone)]
pub struct TakeOver {
    pub ledger: Ledger,
    pub mark: DirectoryMark,
    pub config_maps: ConfigMaps,
    /// `None` if the gateway cannot reach the storage.
    pub storage: Option<Storage>,
    pub run: Run,
    pub versions: Arc<VersionGuard>,
}

impl TakeOver {
    /// Takes over the stored data, and returns the cluster ConfigMap as it is then. `None` if no JVM may lead, because
    /// the run has ended, or if the take-over failed; the gateway then releases the Lease.
    pub async fn before_grant(&self, term: &Term, cluster: Value) -> Option<Value> {
        match timeout(TAKE_OVER_TIMEOUT, self.take_over(term, cluster)).await {
            Ok(Ok(cluster)) => Some(cluster),
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), job = %self.run.job_id, "not leading the application");
                tell(&self.ledger, &error).await;
                None
            }
            Err(_) => {
                tracing::warn!(
                    job = %self.run.job_id,
                    "not leading the application: the storage directory or the API server does not answer"
                );
                None
            }
        }
    }

    async fn take_over(&self, term: &Term, cluster: Value) -> anyhow::Result<Value> {
        let Self { ledger, mark, config_maps, storage, run, versions } = self;
        let records = records(ledger, storage.as_ref()).await?;
        let stored = Stored::in_config_map(&cluster)?;
        let is_being_stopped = ledger.signals.is_being_stopped(run.job_id);
        let entrance = entrance(run, &stored, &records, is_being_stopped, &names::ledger(&ledger.cluster));
        if goes_on(run.job_id, &entrance)
            && let Some(refusal) = versions.refusal_of_last_state(&StoredJobs::in_config_map(&cluster)).await
        {
            bail!(refusal);
        }
        match entrance {
            Entrance::Enter { raises: true } => config_maps.change_cluster(&cluster, raising(run)).await,
            Entrance::Enter { raises: false } => Ok(cluster),
            Entrance::Finish => {
                ledger.tenures.note_ending(term);
                Ok(cluster)
            }
            Entrance::Collect(outcome) => {
                if let Some(storage) = storage
                    && let Err(error) = final_cleanup::collect(mark, storage, run, term, outcome).await
                {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "failed to collect what is left of the application; trying again"
                    );
                }
                bail!("the job has ended; its JobManagers are about to go")
            }
            Entrance::Refuse(refusal) => bail!(refusal),
            Entrance::Foreign(jobs) => bail!(refuse_foreign(ledger, term, jobs).await?),
            Entrance::Begin(plan) => self.carry_out(term, &cluster, plan).await,
        }
    }

    async fn carry_out(&self, term: &Term, cluster: &Value, plan: HandoverPlan) -> anyhow::Result<Value> {
        let storage = self.storage.as_ref();
        let before = match &plan.from {
            Some(job) => last_checkpoint(&self.ledger, storage, *job).await?,
            None => None,
        };
        begin_version(&self.ledger, storage, &self.run, term, &plan, before).await?;
        self.config_maps.change_cluster(cluster, plan.patch(cluster)).await
    }
}

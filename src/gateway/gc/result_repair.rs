//! Repairs the result stores before the JVM sees a free lock; [`crate::ha_data::repair`] decides how and explains why.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::flink::ha_data;
use crate::flink::job_id::JobId;
use crate::flink::result::{Store, application_entry};
use crate::ha_data::repair::{Mend, mend};
use crate::world::storage::Storage;

/// Time for a former leader to complete an entry; an entry that is torn after it stays torn.
const SETTLE_DELAY: Duration = Duration::from_millis(500);
/// Limit for the storage: a storage that does not answer must not prevent an election.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(3);

/// Stored jobs and applications, as read in the next leader's term, or after the last leader has died.
#[derive(Clone, Debug, Default)]
pub struct StoredIds {
    pub jobs: BTreeSet<JobId>,
    pub applications: BTreeSet<JobId>,
}

impl StoredIds {
    /// Reads the keys of the cluster ConfigMap with our stamp.
    pub fn in_config_map(cluster: &Value) -> Self {
        Self { jobs: ha_data::stored_jobs(cluster), applications: ha_data::stored_applications(cluster) }
    }
}

/// Repairs the entries. Without anything to repair it takes no time.
async fn mend_all(storage: &Storage, StoredIds { jobs, applications }: &StoredIds) -> object_store::Result<()> {
    let first = mend(&storage.entries().await?, jobs, applications);
    if first.is_empty() {
        return Ok(());
    }
    sleep(SETTLE_DELAY).await;
    let again = mend(&storage.entries().await?, jobs, applications);
    for repair in again.iter().filter(|repair| first.contains(repair)) {
        match repair {
            Mend::Remove { store, id } => {
                tracing::warn!(
                    %id,
                    ?store,
                    "the last leader died while it wrote this result: removing it, the job resumes"
                );
                storage.remove_dirty(*store, *id).await?;
            }
            Mend::Write { application, of_job } => {
                tracing::warn!(%application, "the last leader died before it wrote this result: writing it");
                storage.write_dirty(Store::Application, *application, application_entry(*application, of_job)).await?;
            }
        }
    }
    Ok(())
}

/// Repairs within a time limit. A failure is logged and does not prevent the election.
pub async fn mend_before_grant(storage: &Storage, stored: &StoredIds) {
    match timeout(STORAGE_TIMEOUT, mend_all(storage, stored)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "failed to look through the result stores"),
        Err(_) => tracing::warn!("the storage directory does not answer"),
    }
}

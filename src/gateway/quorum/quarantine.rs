//! Sets jobs of a session aside before its JVM is let in to the quorum, while this gateway holds the place of the
//! leader by a latch node of its own.
//!
//! Flink elects by itself, and a JVM that is elected recovers all jobs at once; so there is no grant that could wait.
//! The latch belongs to a session of its own, which the election takes for another candidate's, and which ends with the
//! attempt.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{sleep, timeout};
use zookeeper_client::Client;

use super::access::connect;
use crate::gateway::gc::pointer_store::Znodes;
use crate::gateway::gc::quarantine::{Quarantine, tell};
use crate::ha_data::quarantine::Moves;
use crate::world::quorum::znodes::candidates;
use crate::world::quorum::{Quorum, latch, quarantine};

/// Time for other candidates, which may be about to end for the same reason, to make way. Flink's client waits longer
/// for a connection.
const TURN_TIMEOUT: Duration = Duration::from_secs(6);
const TURN_INTERVAL: Duration = Duration::from_millis(100);
/// Limit of everything else.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// What setting aside needs.
pub struct Setter {
    pub quarantine: Arc<Quarantine>,
    pub znodes: Znodes,
    /// Access to the quorum.
    pub way: (SocketAddr, Quorum),
}

impl Setter {
    /// Sets aside what Flink could not recover, if this gateway knows of anything and nobody leads. It takes no time
    /// otherwise, and a failure keeps no JVM out.
    pub async fn before_admission(&self) {
        if let Err(error) = self.set_aside().await {
            tracing::warn!(error = format!("{error:#}"), "no job is set aside before the JobManager is let in");
        }
    }

    async fn set_aside(&self) -> anyhow::Result<()> {
        if self.quarantine.to_set_aside().await?.is_empty() {
            return Ok(());
        }
        let client = timeout(STEP_TIMEOUT, connect(self.way.0, &self.way.1)).await.context("no server answers")??;
        let moved = timeout(TURN_TIMEOUT + STEP_TIMEOUT, self.in_turn(&client)).await;
        // Its session would hold the place of the leader for some seconds more.
        timeout(STEP_TIMEOUT, latch::withdraw(&client, &self.znodes.paths)).await.context("no server answers")??;
        moved.context("another JobManager leads, or no server answers")?
    }

    /// Waits until this latch is the first, and moves the pointers by it.
    async fn in_turn(&self, client: &Client) -> anyhow::Result<()> {
        let (paths, acls) = (&self.znodes.paths, self.znodes.acls);
        latch::stand(client, paths, acls).await?;
        let latch = loop {
            let first = candidates(client, paths).await?.into_iter().next();
            if let Some(ours) = first.filter(|first| first.session == client.session_id().0) {
                break ours.path;
            }
            sleep(TURN_INTERVAL).await;
        };
        // Whoever led until now may have moved it.
        let aside = self.quarantine.to_set_aside().await?;
        quarantine::set_aside(client, paths, &latch, acls, &aside).await?;
        tell(&Moves { aside, ..Moves::default() });
        Ok(())
    }
}

//! Serves a cluster that runs one application, with either provider: fetches the jar, takes over what another version
//! stored, monitors the job, and takes savepoints on request.

pub mod fetch;
pub mod handover;
pub mod job_monitor;
pub mod savepoints;

use self::job_monitor::JobMonitor;
use self::savepoints::SavepointTaker;
use super::gc::ledger::Ledger;
use crate::ledger::application::Run;
use crate::world::flink_rest::Rest;
use crate::world::storage::Storage;
use crate::world::storage::reach::FlinkConfiguration;

/// Serves one run.
pub struct ApplicationTasks {
    job_monitor: JobMonitor,
    savepoint_taker: SavepointTaker,
}

impl ApplicationTasks {
    pub fn new(
        ledger: &Ledger,
        storage: Option<&Storage>,
        rest: &Rest,
        run: &Run,
        configuration: FlinkConfiguration,
    ) -> Self {
        let (ledger, rest, run) = (ledger.clone(), rest.clone(), run.clone());
        let job_monitor = JobMonitor { ledger: ledger.clone(), rest: rest.clone(), run: run.clone() };
        Self {
            job_monitor,
            savepoint_taker: SavepointTaker { ledger, storage: storage.cloned(), rest, run, configuration },
        }
    }

    /// Runs until the process ends.
    pub async fn run(self) {
        tokio::join!(self.job_monitor.run(), self.savepoint_taker.run());
    }
}

//! Notices a JVM that leads and whose Flink does not serve: it has the lock, and answers each request that there is no
//! leader. No job runs then, and none can be submitted, although there is a leader for everybody else.
//!
//! Flink publishes its dispatcher when it has read all stored jobs and unfinished results
//! (`SessionDispatcherLeaderProcess`, `JobResultStore::getDirtyResults`; Flink 1.20 to 2.3). A storage that does not
//! answer holds it up without end.

use std::time::Duration;

use tokio::time::sleep;

use super::gc::ledger::Ledger;
use crate::lease::term::Term;
use crate::world::flink_rest::Rest;

/// Interval of the requests until Flink serves. They stay in the pod, and there are none afterwards.
const INTERVAL: Duration = Duration::from_secs(2);
/// A recovery may take so long: the plans of many jobs are read one after the other. Nothing is asked before.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks in each tenure until Flink serves.
pub struct ServingWatch {
    pub ledger: Ledger,
    pub rest: Rest,
}

impl ServingWatch {
    /// Runs until the process ends.
    pub async fn run(self) {
        let lead = async |_: &Term| {
            let signals = &self.ledger.signals;
            signals.note_serving(true);
            sleep(PATIENCE).await;
            loop {
                match self.rest.serves().await {
                    Some(true) => return signals.note_serving(true),
                    Some(false) => signals.note_serving(false),
                    // A REST endpoint that does not answer at all shows nothing: it may speak TLS.
                    None => {}
                }
                sleep(INTERVAL).await;
            }
        };
        self.ledger.tenures.during_each(lead).await;
    }
}

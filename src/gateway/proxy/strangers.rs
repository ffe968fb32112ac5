//! Reports processes that ask without being the JobManager: in the log, and on the resource if such a process may be
//! why nobody leads.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::asker::By;
use super::request::Call;
use crate::gateway::gc::ledger::Ledger;
use crate::ledger::refusal::{JOB_MANAGER_UNKNOWN, Refusal};
use crate::world::process::Owner;

/// Number of programs that the log mentions, each once.
const MOST: usize = 32;

/// The processes that have asked so far.
pub struct Strangers {
    ledger: Ledger,
    pod: String,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    flink: bool,
    refused: bool,
    programs: BTreeSet<String>,
}

impl Seen {
    /// Should the resource mention this JVM, which wants to lead? It may be a Flink that this gateway does not
    /// recognize.
    fn refuses(&mut self, owner: &Owner, call: &Call) -> bool {
        let wants_to_lead = matches!(owner, Owner::Stranger { is_java: true, .. }) && *call == Call::WriteLock;
        wants_to_lead && !self.flink && !std::mem::replace(&mut self.refused, true)
    }

    fn is_new(&mut self, program: &str) -> bool {
        self.programs.len() < MOST && self.programs.insert(program.to_owned())
    }
}

impl Strangers {
    pub fn new(ledger: Ledger, pod: String) -> Self {
        Self { ledger, pod, seen: Mutex::default() }
    }

    /// Notes a request of a process that was found.
    pub fn note(&self, owner: &Owner, by: By, call: &Call) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.flink |= matches!(by, By::Jvm(_));
        let (By::Stranger, Owner::Stranger { process, program, .. }) = (by, owner) else { return };
        if seen.is_new(program) {
            tracing::info!(%process, program, ?call, "a process that is not the JobManager asks: it is answered, and does not count");
        }
        if seen.refuses(owner, call) {
            let refusal = refusal(&self.pod, program);
            tracing::error!(message = refusal.message, "no JobManager can lead here");
            let ledger = self.ledger.clone();
            tokio::spawn(async move {
                if let Err(error) = ledger.note_refusal(Some(&refusal)).await {
                    tracing::warn!(error = format!("{error:#}"), "failed to write the refusal into the ledger");
                }
            });
        }
    }
}

fn refusal(pod: &str, program: &str) -> Refusal {
    let message = format!(
        "pod {pod}: the main class {program} asks for leadership, and it is none of Flink's entry points for JobManagers; use an image that starts \
         Flink by its own scripts, jobmanager.sh or standalone-job.sh"
    );
    Refusal::new(JOB_MANAGER_UNKNOWN, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::term::Incarnation;

    #[test]
    fn a_jvm_that_wants_to_lead_is_told_of_once_and_only_while_no_job_manager_is_known() {
        let stranger = |is_java| Owner::Stranger {
            process: Incarnation { pid: 7, started: 70 },
            program: "org.example.Main".into(),
            is_java,
        };
        let mut seen = Seen::default();
        assert!(!seen.refuses(&stranger(true), &Call::ReadLock), "whoever reads wants nothing");
        assert!(!seen.refuses(&stranger(false), &Call::WriteLock), "curl is no JobManager");
        assert!(seen.refuses(&stranger(true), &Call::WriteLock));
        assert!(!seen.refuses(&stranger(true), &Call::WriteLock));
        let mut seen = Seen { flink: true, ..Seen::default() };
        assert!(!seen.refuses(&stranger(true), &Call::WriteLock));
        assert!(seen.is_new("curl") && !seen.is_new("curl"));
        assert!(refusal("jm-1", "org.example.Main").message.contains("org.example.Main"));
    }
}

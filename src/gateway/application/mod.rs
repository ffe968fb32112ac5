//! What the gateway of an application does besides, with either provider: it follows the job, and takes the savepoints that it is asked for.

pub mod fetch;
pub mod handover;
pub mod job_monitor;
pub mod savepoints;

use super::application::job_monitor::Follower;
use super::application::savepoints::Savepointer;
use super::gc::ledger::Book;
use crate::cluster::application::Run;
use crate::world::flink_rest::Rest;
use crate::world::storage::Storage;
use crate::world::storage::reach::FlinkConfiguration;

/// Serves one run.
pub struct Application {
    follower: Follower,
    savepointer: Savepointer,
}

impl Application {
    pub fn new(book: &Book, storage: Option<&Storage>, rest: &Rest, run: &Run, configuration: FlinkConfiguration) -> Self {
        let (book, rest, run) = (book.clone(), rest.clone(), run.clone());
        let follower = Follower { book: book.clone(), rest: rest.clone(), run: run.clone() };
        Self { follower, savepointer: Savepointer { book, storage: storage.cloned(), rest, run, configuration } }
    }

    /// Runs until the process ends.
    pub async fn run(self) {
        tokio::join!(self.follower.run(), self.savepointer.run());
    }
}

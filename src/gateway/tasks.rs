//! The tasks of the gateway's process, and its end.

use std::future::Future;

use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::signal::unix::{SignalKind, signal};

/// Tasks that none may end before the process does. All run on the task that awaits [`Tasks::run`].
#[derive(Default)]
pub struct Tasks(FuturesUnordered<LocalBoxFuture<'static, &'static str>>);

impl Tasks {
    /// `name`: of the task's module, for whoever reads that it has ended.
    pub fn add(&mut self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        self.0.push(task.map(move |()| name).boxed_local());
    }

    /// Runs all until the process is told to end.
    ///
    /// # Errors
    /// When one of them ends before that.
    pub async fn run(mut self) -> anyhow::Result<()> {
        tokio::select! {
            Some(name) = self.0.next() => anyhow::bail!("the task {name} has ended"),
            result = told_to_end() => result,
        }
    }
}

/// A native sidecar is told to end after its JVM has ended, and the Lease was given back then. If the gateway alone is
/// restarted, its JVM goes on leading: so there is nothing to give back in either case.
///
/// # Errors
/// When the signals cannot be listened for.
pub async fn told_to_end() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tracing::info!("the gateway ends");
    Ok(())
}

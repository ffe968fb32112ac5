//! Runs the tasks of the gateway's process until its end.

use std::future::Future;

use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::signal::unix::{SignalKind, signal};

/// Tasks of which none may end before the process does. All run on the task that awaits [`Tasks::run`].
#[derive(Default)]
pub struct Tasks(FuturesUnordered<LocalBoxFuture<'static, &'static str>>);

impl Tasks {
    /// Adds a task. `name`: that of its module, for the message that it has ended.
    pub fn add(&mut self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        self.0.push(task.map(move |()| name).boxed_local());
    }

    /// Runs all tasks until the process receives a signal to end.
    ///
    /// # Errors
    /// When a task ends before that.
    pub async fn run(mut self) -> anyhow::Result<()> {
        tokio::select! {
            Some(name) = self.0.next() => anyhow::bail!("the task {name} has ended"),
            result = told_to_end() => result,
        }
    }
}

/// Waits for the signal to end. A native sidecar gets it after its JVM has ended, and the Lease has been released by
/// then. If only the gateway is restarted, its JVM still leads. So there is nothing to release in either case.
///
/// # Errors
/// When the signals cannot be received.
pub async fn told_to_end() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tracing::info!("the gateway ends");
    Ok(())
}

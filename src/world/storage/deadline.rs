//! A deadline for each request to a volume. A server of files that is gone, or stands still, stops whoever reads or
//! writes there, without an error and for ever: nothing could be said of it then.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{Error, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A request that is not answered after this time fails. Far above what a busy volume needs for one file.
const PATIENCE: Duration = Duration::from_secs(30);
/// Number of threads that may stand in such a volume. Further requests fail at once, until one of them is answered.
const THREADS: usize = 64;

/// The deadline of one volume's requests.
#[derive(Clone, Debug)]
pub struct Deadline {
    patience: Duration,
    threads: Arc<Semaphore>,
}

impl Default for Deadline {
    fn default() -> Self {
        Self { patience: PATIENCE, threads: Arc::new(Semaphore::new(THREADS)) }
    }
}

impl Deadline {
    /// Waits for a request.
    ///
    /// # Errors
    /// Those of the request, and [`Error::Generic`] if it is not answered in time.
    pub async fn of<T>(&self, location: &Path, request: impl Future<Output = Result<T>>) -> Result<T> {
        match timeout(self.patience, request).await {
            Ok(answer) => answer,
            Err(_) => Err(silent(location, &format!("has not answered for {} s", self.patience.as_secs()))),
        }
    }

    /// Runs work in a thread of its own. A thread that stands in the volume stays there until the volume answers.
    ///
    /// # Errors
    /// Those of the work, and [`Error::Generic`] if it does not end in time, or if too many threads wait already.
    pub async fn thread<T: Send + 'static>(
        &self,
        location: &Path,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let thread = self.start(location, work)?;
        self.of(location, async { thread.await? }).await
    }

    /// Starts work in a thread of its own.
    ///
    /// # Errors
    /// [`Error::Generic`] if too many threads wait already.
    pub fn start<T: Send + 'static>(
        &self,
        location: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let Ok(permit) = Arc::clone(&self.threads).try_acquire_owned() else {
            return Err(silent(location, &format!("does not answer {THREADS} requests")));
        };
        Ok(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        }))
    }
}

fn silent(location: &Path, what: &str) -> Error {
    Error::Generic { store: "file", source: format!("/{location}: the volume {what}").into() }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_volume_that_does_not_answer_is_an_error_and_stops_a_bounded_number_of_threads() {
        let deadline = Deadline { patience: Duration::from_millis(50), ..Deadline::default() };
        let path = Path::from("flink/ha");
        let mut held = Vec::new();
        let mut errors = Vec::new();
        for _ in 0..=THREADS {
            let (release, released) = channel::<()>();
            held.push(release);
            let stands = deadline.thread(&path, move || Ok(released.recv().is_ok())).await;
            errors.push(stands.expect_err("it stands still").to_string());
        }
        assert!(errors[0].contains("/flink/ha: the volume has not answered"), "{}", errors[0]);
        let last = errors.pop().unwrap_or_default();
        assert!(last.contains("the volume does not answer 64 requests"), "{last}");
        // The volume answers.
        drop(held);
        let answered = async || deadline.thread(&path, || Ok(1)).await;
        for _ in 0..100 {
            if answered().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?}", answered().await);
    }
}

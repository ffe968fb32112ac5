//! Makes a JVM wait: every JVM until the znodes are known not to be another Flink's, the JVM of an application for its
//! admission to the quorum, and every JVM before it stores a job. With the other provider the JVM would not see a free
//! lock before that.

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::lease::term::Incarnation;
use crate::quorum::Candidate;

/// Flink waits for a connection for some seconds, and then tries again.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(3);

/// Other requests, the JVM's heartbeats included, wait behind a request that is held back.
const STORE_TIMEOUT: Duration = Duration::from_secs(4);

/// Opened by [`super::foreign`] and [`super::leadership`], passed in [`super::proxy`].
pub struct Gate {
    is_guarded: bool,
    /// The znodes are known to be this cluster's.
    is_own: watch::Sender<bool>,
    /// The process that waits for admission.
    wanted: watch::Sender<Option<Incarnation>>,
    /// The process that is let in.
    admitted: watch::Sender<Option<Incarnation>>,
    /// The latch by which the JVM leads, once it is known which jobs have ended, and that what is stored is its
    /// version's own. Another latch of the same session is another tenure.
    may_store: watch::Sender<Option<Candidate>>,
}

impl Gate {
    /// Creates a gate. `is_guarded`: for an application.
    pub fn new(is_guarded: bool) -> Self {
        let (wanted, admitted) = (watch::Sender::default(), watch::Sender::default());
        Self { is_guarded, is_own: watch::Sender::default(), wanted, admitted, may_store: watch::Sender::default() }
    }

    pub fn is_guarded(&self) -> bool {
        self.is_guarded
    }

    /// Waits until this process is admitted.
    ///
    /// # Errors
    /// When that takes too long; the process retries.
    pub async fn wait_for_admission(&self, jvm: Incarnation) -> io::Result<()> {
        let mut is_own = self.is_own.subscribe();
        let known = timeout(ADMISSION_TIMEOUT, is_own.wait_for(|is_own| *is_own)).await;
        known
            .map(drop)
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the znodes are not known to be this cluster's"))?;
        if !self.is_guarded {
            return Ok(());
        }
        self.wanted.send_if_modified(|wanted| wanted.replace(jvm) != Some(jvm));
        let mut admitted = self.admitted.subscribe();
        let entered = timeout(ADMISSION_TIMEOUT, admitted.wait_for(|admitted| *admitted == Some(jvm))).await;
        entered
            .map(drop)
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the application is being prepared, or has ended"))
    }

    /// Waits until this session may store a job: an application's as long as it takes, because its main method would
    /// fail; a session cluster's for a moment. Returns whether it may. `stands`: the path by which it stood for
    /// election last, if that was seen; what was examined for an earlier latch of the session does not count.
    pub async fn wait_to_store(&self, session: i64, stands: Option<&str>) -> bool {
        let mut may_store = self.may_store.subscribe();
        let is_by_it = |latch: &Candidate| {
            latch.session == session && stands.is_none_or(|requested| latch.path.starts_with(requested))
        };
        let opened = may_store.wait_for(|may| may.as_ref().is_some_and(is_by_it));
        // An error means that the process ends.
        if self.is_guarded {
            opened.await.is_ok()
        } else {
            timeout(STORE_TIMEOUT, opened).await.is_ok_and(|opened| opened.is_ok())
        }
    }

    /// Tells which process waits to be let in, now and whenever that changes; until the process ends.
    pub async fn follow_waiting(&self, mut tell: impl FnMut(Option<Incarnation>)) {
        let (mut wanted, mut admitted) = (self.wanted.subscribe(), self.admitted.subscribe());
        loop {
            let (who, inside) = (*wanted.borrow_and_update(), *admitted.borrow_and_update());
            tell(who.filter(|_| who != inside));
            let changed =
                tokio::select! { changed = wanted.changed() => changed, changed = admitted.changed() => changed };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Notes that the znodes are this cluster's: it has marked them.
    pub fn know_own(&self) {
        self.is_own.send_replace(true);
    }

    pub fn admit(&self, jvm: Incarnation) {
        self.admitted.send_replace(Some(jvm));
    }

    /// Revokes the admission of this process: if it connects again, it waits until it is known whether anything should
    /// run.
    pub fn close(&self, jvm: Incarnation) {
        self.admitted.send_if_modified(|admitted| *admitted == Some(jvm) && admitted.take().is_some());
    }

    /// From now on jobs may be stored by this latch, and by no other.
    pub fn let_store(&self, latch: Option<&Candidate>) {
        self.may_store.send_if_modified(|before| {
            let changed = before.as_ref() != latch;
            *before = latch.cloned();
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const JVM: Incarnation = Incarnation { pid: 1, started: 2 };

    fn latch(session: i64) -> Candidate {
        Candidate { path: "/latch/_c_1-latch-0000000003".to_owned(), session }
    }

    #[test]
    fn a_jvm_that_has_stood_for_election_anew_stores_nothing_by_what_was_examined_before() {
        let gate = Gate::new(true);
        gate.let_store(Some(&latch(7)));
        let stores = |stands| gate.wait_to_store(7, stands).now_or_never();
        assert_eq!(stores(None), Some(true), "a gateway that was started again has not seen it stand");
        assert_eq!(stores(Some("/latch/_c_1-latch-")), Some(true));
        assert_eq!(stores(Some("/latch/_c_2-latch-")), None);
    }

    fn waiting(gate: &Gate) -> Option<Incarnation> {
        let mut waiting = None;
        assert!(gate.follow_waiting(|jvm| waiting = jvm).now_or_never().is_none());
        waiting
    }

    #[tokio::test]
    async fn a_jvm_of_an_application_waits_until_it_is_let_in() {
        let gate = Gate::new(true);
        gate.know_own();
        let mut entering = Box::pin(gate.wait_for_admission(JVM));
        assert!((&mut entering).now_or_never().is_none(), "nobody has opened");
        assert_eq!(waiting(&gate), Some(JVM));
        gate.admit(JVM);
        assert!(entering.await.is_ok() && waiting(&gate).is_none());
        assert!(gate.wait_to_store(7, None).now_or_never().is_none());
        gate.let_store(Some(&latch(7)));
        assert!(gate.wait_to_store(7, None).await);
        assert!(gate.wait_to_store(8, None).now_or_never().is_none(), "a session of its own for each tenure");
        gate.close(Incarnation { pid: 1, started: 3 });
        assert_eq!(
            gate.wait_for_admission(JVM).now_or_never().map(|entered| entered.is_ok()),
            Some(true),
            "another process has ended"
        );
        gate.close(JVM);
        gate.let_store(None);
        assert!(
            gate.wait_for_admission(JVM).now_or_never().is_none()
                && gate.wait_to_store(7, None).now_or_never().is_none()
        );
        assert_eq!(waiting(&gate), Some(JVM), "it is to be looked at again");
    }

    #[tokio::test]
    async fn a_jvm_of_a_session_cluster_enters_at_once_and_stores_nothing_while_the_ended_jobs_are_unknown() {
        let gate = Gate::new(false);
        assert!(gate.wait_for_admission(JVM).now_or_never().is_none(), "the znodes may be another's");
        gate.know_own();
        assert!(gate.wait_for_admission(JVM).await.is_ok());
        assert!(!gate.wait_to_store(7, None).await);
        gate.let_store(Some(&latch(7)));
        assert!(gate.wait_to_store(7, None).await);
    }
}

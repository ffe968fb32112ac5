//! Forwards the JVM's connection to the quorum, on loopback. It reads only the first frame of each direction, which
//! contains the session and its password, and requests that create or remove znodes
//! ([`crate::flink::znode_requests`]). When the JVM's process has ended, it closes the JVM's sessions, so that the
//! ephemeral znodes, above all the latch, vanish at once and not when the session expires.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::gate::Gate;
use super::quarantine::Setter;
use crate::flink::znode_requests::{Part, RequestFrames, latch, named, refuse, refuse_removal_of_all};
use crate::flink::zookeeper_frames::{CONNECT_LIMIT, Session, session_of_response};
use crate::gateway::gc::flink_version::VersionGuard;
use crate::gateway::gc::pointer_store::Znodes;
use crate::gateway::gc::result_repair::{StoredIds, mend_before_grant};
use crate::gateway::signals::Signals;
use crate::lease::term::Incarnation;
use crate::quorum::{self, Sessions};
use crate::world::process::{Connection, Owner, end_of};
use crate::world::quorum::frames::{read_frame, with_length};
use crate::world::quorum::{HANDSHAKE_TIMEOUT, Quorum, znodes};
use crate::world::server::{JVM_CONNECTIONS, accept_one_of};
use crate::world::storage::Storage;

/// Interval of attempts to close a session.
const END_SESSION_INTERVAL: Duration = Duration::from_millis(200);

/// Attempts to find the process behind a connection.
const LOOKS: u32 = 10;

/// Size of the copy buffer, in bytes.
const BUFFER: usize = 16 << 10;

/// Limit of the examination of a JVM's version; a JVM connects again and again.
const EXAMINATION_TIMEOUT: Duration = Duration::from_secs(3);

/// Why no job is stored.
const STRANGER: &str = "only the JobManager stores jobs, and this is another process";
const UNKNOWN: &str = "the API server does not answer whether it has ended; submit it again";

/// The JVM and its sessions.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Sessions that may still be alive, by id.
    pub sessions: BTreeMap<i64, HeldSession>,
    /// The Flink JVM that connected most recently.
    pub jvm: Option<Incarnation>,
    /// Processes that have ended: the most recent one, and those whose sessions may still be alive.
    pub ended: BTreeSet<Incarnation>,
}

impl Known {
    /// The same without the sessions' passwords.
    pub fn sessions(&self) -> Sessions {
        let by_id = self.sessions.iter().map(|(id, HeldSession { session, jvm, .. })| {
            let timeout = Duration::from_millis(session.timeout_millis.unsigned_abs().into());
            (*id, quorum::Held { jvm: *jvm, timeout })
        });
        Sessions { by_id: by_id.collect(), jvm: self.jvm, ended: self.ended.clone() }
    }

    fn note_end_of(&mut self, jvm: Incarnation) {
        self.ended.retain(|ended| self.sessions.values().any(|held| held.jvm == Some(*ended)));
        self.ended.insert(jvm);
    }
}

/// A session and its owner.
#[derive(Clone, Debug)]
pub struct HeldSession {
    pub session: Session,
    pub jvm: Option<Incarnation>,
    /// Path of its latest latch node, without the number that the server appends.
    pub latch: Option<String>,
}

/// The pass-through.
pub struct QuorumProxy {
    quorum: Quorum,
    signals: Arc<Signals>,
    znodes: Znodes,
    storage: Option<Storage>,
    gate: Arc<Gate>,
    versions: Arc<VersionGuard>,
    setter: Setter,
    /// The last JVM that may lead, by its version of Flink.
    fit: Mutex<Option<Incarnation>>,
    known: watch::Sender<Known>,
    /// When the JVM last sent something.
    heard: Mutex<Instant>,
}

impl QuorumProxy {
    pub fn new(
        quorum: Quorum,
        signals: Arc<Signals>,
        znodes: Znodes,
        storage: Option<Storage>,
        gate: Arc<Gate>,
        versions: Arc<VersionGuard>,
        setter: Setter,
    ) -> Self {
        Self {
            quorum,
            signals,
            znodes,
            storage,
            gate,
            versions,
            setter,
            fit: Mutex::default(),
            known: watch::Sender::default(),
            heard: Mutex::new(Instant::now()),
        }
    }

    pub fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Time since the JVM last sent something or tried to connect.
    pub fn silence(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn hear(&self, is_stranger: bool) {
        if is_stranger {
            return;
        }
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Serves until the process ends.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(JVM_CONNECTIONS));
        loop {
            let (near, peer, place) = accept_one_of(&listener, &places).await;
            let pass = Arc::clone(&self);
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = pass.connection(near, peer).await {
                    tracing::debug!(%error, "a connection of the JVM to ZooKeeper has ended");
                }
            });
        }
    }

    async fn connection(self: Arc<Self>, mut near: TcpStream, peer: SocketAddr) -> io::Result<()> {
        near.set_nodelay(true)?;
        let owner = look(Connection::new(near.local_addr()?, peer)).await;
        let is_stranger = matches!(owner, Ok(Owner::Stranger { .. }));
        self.hear(is_stranger);
        let request = timeout(HANDSHAKE_TIMEOUT, read_frame(&mut near, CONNECT_LIMIT)).await??;
        let jvm = match owner {
            Ok(Owner::Flink(jvm)) => {
                self.admit(jvm).await?;
                Some(jvm)
            }
            // Such as Flink's command line: it looks up who leads, and nothing rests on its session.
            Ok(Owner::Stranger { process, program, .. }) => {
                tracing::info!(%process, program, "a process that is not the JobManager goes to the quorum");
                None
            }
            Err(why) if self.gate.is_guarded() => return Err(io::Error::other(why)),
            Err(why) => {
                tracing::error!(why, "the session of this connection will not be ended when its process dies");
                None
            }
        };
        let opened = self.quorum.open(&request).await;
        // Who waits for an answer is not frozen.
        self.hear(is_stranger);
        let (far, response) = opened?;
        let session = session_of_response(&response);
        // Before the JVM hears of it: whatever it does with the session, we know it.
        if !is_stranger {
            self.note(session.clone(), jvm);
        }
        near.write_all(&with_length(&response)).await?;
        let Some(session) = session else { return near.shutdown().await };
        // A client sends something in each third of its time-out, and the server answers it.
        let silence = Duration::from_millis(session.timeout_millis.unsigned_abs().into()) / 2;
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), split(far));
        tokio::select! {
            ended = self.pump_requests((session.id, is_stranger), near_in, far_out) => ended,
            ended = pump_answers(far_in, near_out, silence) => {
                if ended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                    tracing::warn!("a ZooKeeper server is silent; the JVM's connection is cut, so that it goes to another one");
                    self.quorum.pass_over();
                }
                ended
            }
        }
    }

    /// Returns when this JVM may be elected.
    async fn admit(&self, jvm: Incarnation) -> io::Result<()> {
        let is_guarded = self.gate.is_guarded();
        // Before anything of an application is taken over for it, and after the znodes are known to be this cluster's.
        if is_guarded {
            self.examine(jvm).await?;
        }
        self.gate.wait_for_admission(jvm).await?;
        if !is_guarded {
            self.examine(jvm).await?;
            // A JVM that holds a session goes on with it.
            if self.known.borrow().sessions.values().all(|held| held.jvm != Some(jvm)) {
                self.setter.before_admission().await;
            }
        }
        Ok(())
    }

    /// Examines the version of a JVM that connects for the first time.
    async fn examine(&self, jvm: Incarnation) -> io::Result<()> {
        if *self.fit.lock().unwrap_or_else(PoisonError::into_inner) == Some(jvm) {
            return Ok(());
        }
        let examined = async {
            let stored = self.znodes.stored_jobs().await?;
            anyhow::Ok(self.versions.examine(jvm, &stored).await?)
        };
        timeout(EXAMINATION_TIMEOUT, examined).await?.map_err(io::Error::other)?;
        *self.fit.lock().unwrap_or_else(PoisonError::into_inner) = Some(jvm);
        Ok(())
    }

    /// Forwards all requests except those that would store an ended job again, store any job before the gate is open
    /// for that, or remove the whole cluster.
    async fn pump_requests(
        &self,
        by: (i64, bool),
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (mut requests, mut buffer) = (RequestFrames::default(), vec![0; BUFFER]);
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return to.shutdown().await;
            }
            self.hear(by.1);
            for part in requests.push(&buffer[..read]) {
                let bytes = match part {
                    Part::Unread(bytes) => bytes,
                    Part::Creating(bytes) => self.guard(by, bytes).await,
                    Part::Removing(bytes) => self.keep_all(bytes),
                };
                to.write_all(&bytes).await?;
            }
            to.flush().await?;
        }
    }

    /// Returns the request to forward, once it may be forwarded.
    async fn guard(&self, (session, is_stranger): (i64, bool), mut request: Vec<u8>) -> Vec<u8> {
        let named = named(&request, &self.znodes.paths);
        if let Some(latch) = latch(&request, &self.znodes.paths) {
            // Before the server hears of it.
            self.note_latch(session, latch);
        }
        let stands = self.known.borrow().sessions.get(&session).and_then(|held| held.latch.clone());
        if let Some(plan) = named.iter().find(|named| named.is_plan)
            && (is_stranger || !self.gate.wait_to_store(session, stands.as_deref()).await)
        {
            let why = if is_stranger { STRANGER } else { UNKNOWN };
            tracing::warn!(job = %plan.job, why, "refused to store it");
            refuse(&mut request, plan);
        }
        let ended = self.signals.ended();
        if let Some(job) = named.iter().find(|named| ended.contains(&named.job)) {
            tracing::warn!(job = %job.job, "refused to store it: an ended job is never started again under its id");
            refuse(&mut request, job);
        }
        request
    }

    /// Returns the removal to forward.
    fn keep_all(&self, mut request: Vec<u8>) -> Vec<u8> {
        if refuse_removal_of_all(&mut request, &self.znodes.paths) {
            tracing::warn!(
                "refused to remove all znodes of the cluster, those of running jobs too; delete the FlinkHaCluster instead"
            );
        }
        request
    }

    fn note(self: &Arc<Self>, session: Option<Session>, jvm: Option<Incarnation>) {
        let mut is_new = false;
        self.known.send_modify(|known| {
            if let Some(session) = session {
                tracing::info!(?session, ?jvm, "the JVM has a ZooKeeper session");
                let latch = known.sessions.get(&session.id).and_then(|held| held.latch.clone());
                known.sessions.insert(session.id, HeldSession { session, jvm, latch });
            }
            is_new = jvm.is_some() && known.jvm != jvm;
            known.jvm = jvm.or(known.jvm);
        });
        if let (Some(jvm), true) = (jvm, is_new) {
            tokio::spawn(Arc::clone(self).await_end_of(jvm));
        }
    }

    fn note_latch(&self, session: i64, latch: String) {
        self.known.send_if_modified(|known| {
            if let Some(held) = known.sessions.get_mut(&session) {
                held.latch = Some(latch);
            }
            false
        });
    }

    async fn await_end_of(self: Arc<Self>, jvm: Incarnation) {
        end_of(jvm).await;
        tracing::info!(%jvm, "the JobManager's process has ended");
        self.signals.counters.jvm_exited(jvm);
        // Before others hear of it: they forget that it led. Beside another JobManager in the same pod it did not.
        let mut others: Vec<_> = self.known.borrow().sessions.values().filter_map(|held| held.jvm).collect();
        others.retain(|other| *other != jvm);
        let led = self.znodes.leads() && others.is_empty();
        self.known.send_modify(|known| {
            known.note_end_of(jvm);
            if known.jvm == Some(jvm) {
                known.jvm = others.last().copied();
            }
        });
        self.gate.close(jvm);
        if led {
            self.signals.leader_died.notify_one();
            self.mend().await;
        }
        self.end_sessions(|held| held.jvm == Some(jvm)).await;
    }

    /// Repairs half-written results while the dead leader's latch still exists, because nobody else writes results
    /// then. The next leader's Flink would end itself if it read them.
    async fn mend(&self) {
        let (Some(storage), Ok(client)) = (&self.storage, self.znodes.client()) else { return };
        match timeout(HANDSHAKE_TIMEOUT, znodes::stored(&client, &self.znodes.paths)).await {
            Ok(Ok((jobs, applications))) => mend_before_grant(storage, &StoredIds { jobs, applications }).await,
            Ok(Err(error)) => tracing::warn!(%error, "failed to read which jobs are stored"),
            Err(_) => tracing::warn!("failed to read which jobs are stored: no server answers"),
        }
    }

    /// Closes the chosen sessions, and returns when they are closed. It tries for as long as they could live by
    /// themselves.
    pub async fn end_sessions(&self, which: impl Fn(&HeldSession) -> bool) {
        let chosen: Vec<Session> =
            self.known.borrow().sessions.values().filter(|held| which(held)).map(|held| held.session.clone()).collect();
        futures::future::join_all(chosen.into_iter().map(|session| self.end_session(session))).await;
    }

    async fn end_session(&self, session: Session) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(session.timeout_millis.unsigned_abs().into()) {
            match self.quorum.end(&session).await {
                Ok(ended) => {
                    tracing::info!(
                        ?session,
                        ?ended,
                        milliseconds = begin.elapsed().as_millis(),
                        "the session has ended"
                    );
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::error!(?session, %error, "failed to end a session, and each try makes it live longer: it is left to expire");
                    break;
                }
                Err(error) => tracing::warn!(?session, %error, "failed to end a session; trying again"),
            }
            sleep(END_SESSION_INTERVAL).await;
        }
        self.known.send_modify(|known| {
            known.sessions.remove(&session.id);
        });
    }
}

/// Finds the process behind a connection; tries several times within a moment.
async fn look(connection: Connection) -> Result<Owner, String> {
    for _ in 1..LOOKS {
        if let Ok(owner) = connection.owner().await {
            return Ok(owner);
        }
        sleep(END_SESSION_INTERVAL).await;
    }
    connection.owner().await
}

/// Copies bytes until the end of the stream; fails with `TimedOut` when nothing arrives for this long.
async fn pump_answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    silence: Duration,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read =
            timeout(silence, from.read(&mut buffer)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_holds_no_session_not_even_when_another_has_ended_since() {
        let (one, other) = (Incarnation { pid: 1, started: 2 }, Incarnation { pid: 1, started: 3 });
        let held = |id: i64, jvm| {
            (
                id,
                HeldSession {
                    session: Session { id, password: Vec::new(), timeout_millis: 20_000 },
                    jvm: Some(jvm),
                    latch: None,
                },
            )
        };
        let mut known = Known {
            sessions: BTreeMap::from([held(1, one), held(2, other)]),
            jvm: Some(other),
            ended: BTreeSet::new(),
        };
        let holders = |known: &Known| [1, 2, 3].map(|session| known.sessions().holder(session));
        known.note_end_of(one);
        assert_eq!(holders(&known), [None, Some(other), None]);
        known.note_end_of(other);
        assert_eq!(holders(&known), [None, None, None]);
        known.sessions.clear();
        let third = Incarnation { pid: 1, started: 4 };
        known.note_end_of(third);
        assert_eq!(known.ended, BTreeSet::from([third]), "what has no session any more is forgotten");
    }
}

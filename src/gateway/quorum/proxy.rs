//! The way of the JVM to the quorum: a pass-through on loopback. Of what goes through it, only the first frame of each
//! direction is read: there the quorum tells the session and its password. (Requests that create or remove znodes are
//! looked at for two things more: [`crate::flink::znode_requests`].) When the JVM's process has ended, its sessions are
//! ended too, so that its ephemeral znodes, the latch before all, vanish at once and not when the session expires.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::gate::Gate;
use crate::flink::znode_requests::{Part, RequestFrames, named, refuse, refuse_removal_of_all};
use crate::flink::zookeeper_frames::{CONNECT_LIMIT, Session, session_of_response};
use crate::gateway::gc::pointer_store::Znodes;
use crate::gateway::gc::result_repair::{StoredIds, mend_before_grant};
use crate::gateway::signals::Signals;
use crate::lease::term::Incarnation;
use crate::world::process::{Connection, Owner, end_of};
use crate::world::quorum::frames::{read_frame, with_length};
use crate::world::quorum::znodes;
use crate::world::quorum::{HANDSHAKE_TIMEOUT, Quorum};
use crate::world::server::{JVM_CONNECTIONS, accept_one_of};
use crate::world::storage::Storage;

/// Pause between attempts to end a session.
const END_SESSION_INTERVAL: Duration = Duration::from_millis(200);

/// Number of attempts to find the process behind a connection.
const LOOKS: u32 = 10;

/// Bytes that are copied at a time.
const BUFFER: usize = 16 << 10;

/// Why a job is not stored.
const STRANGER: &str = "only the JobManager stores jobs, and this is another process";
const UNKNOWN: &str = "the API server does not answer whether it has ended; submit it again";

/// What is known of the JVM and its sessions.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Sessions that may still be alive, by id.
    pub sessions: BTreeMap<i64, Held>,
    /// The Flink JVM that connected last.
    pub jvm: Option<Incarnation>,
    /// Processes that have ended: the last one.
    pub ended: Option<Incarnation>,
}

impl Known {
    /// The process that holds this session, if it is our JVM and has not ended. A dead one's session lives until it is
    /// closed.
    pub fn holder(&self, session: i64) -> Option<Incarnation> {
        self.sessions.get(&session)?.jvm.filter(|jvm| self.ended != Some(*jvm))
    }
}

/// A session and its process.
#[derive(Clone, Debug)]
pub struct Held {
    pub session: Session,
    pub jvm: Option<Incarnation>,
}

/// The pass-through.
pub struct QuorumProxy {
    quorum: Quorum,
    signals: Arc<Signals>,
    znodes: Znodes,
    storage: Option<Storage>,
    gate: Arc<Gate>,
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
    ) -> Self {
        Self {
            quorum,
            signals,
            znodes,
            storage,
            gate,
            known: watch::Sender::default(),
            heard: Mutex::new(Instant::now()),
        }
    }

    /// From now on the JVM may store jobs by this session, and by no other.
    pub fn let_store(&self, session: Option<i64>) {
        self.gate.let_store(session);
    }

    pub fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Returns the time for which the JVM has sent nothing and has not tried to connect.
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
                self.gate.wait_for_admission(jvm).await?;
                Some(jvm)
            }
            // Flink's command line, for example: it looks up the leader, and nothing depends on its session.
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
        // A process that waits for an answer is not frozen.
        self.hear(is_stranger);
        let (far, response) = opened?;
        let session = session_of_response(&response);
        if !is_stranger {
            // The session is noted before the JVM learns of it, so the gateway knows it whatever the JVM does.
            self.note(session.clone(), jvm);
        }
        near.write_all(&with_length(&response)).await?;
        let Some(session) = session else { return near.shutdown().await };
        // A client sends something in each third of its time-out, and the server answers.
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

    /// Forwards requests. It does not let an ended job be stored again, lets no job be stored before the gate is open,
    /// and lets nothing remove the whole cluster.
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

    /// Returns a creating request as it may be forwarded, once it may.
    async fn guard(&self, (session, is_stranger): (i64, bool), mut request: Vec<u8>) -> Vec<u8> {
        let named = named(&request, &self.znodes.paths);
        if let Some(plan) = named.iter().find(|named| named.is_plan)
            && (is_stranger || !self.gate.wait_to_store(session).await)
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

    /// Returns a removing request as it may be forwarded.
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
                known.sessions.insert(session.id, Held { session, jvm });
            }
            is_new = jvm.is_some() && known.jvm != jvm;
            known.jvm = jvm.or(known.jvm);
        });
        if let (Some(jvm), true) = (jvm, is_new) {
            tokio::spawn(Arc::clone(self).await_end_of(jvm));
        }
    }

    async fn await_end_of(self: Arc<Self>, jvm: Incarnation) {
        end_of(jvm).await;
        tracing::info!(%jvm, "the JobManager's process has ended");
        // This happens before other tasks learn of it, because they forget that it led. With a second JobManager in the
        // pod it did not lead.
        let others: Vec<Incarnation> =
            self.known.borrow().sessions.values().filter_map(|held| held.jvm.filter(|other| *other != jvm)).collect();
        let led = self.znodes.leads() && others.is_empty();
        self.known.send_modify(|known| {
            known.ended = Some(jvm);
            if known.jvm == Some(jvm) {
                known.jvm = others.last().copied();
            }
        });
        self.gate.close(jvm);
        if led {
            self.mend().await;
        }
        self.end_sessions(|held| held.jvm == Some(jvm)).await;
    }

    /// Repairs the result stores while the dead leader's latch exists: nobody else writes results then, and the next
    /// leader would end itself on a torn entry.
    async fn mend(&self) {
        let (Some(storage), Ok(client)) = (&self.storage, self.znodes.client()) else { return };
        match timeout(HANDSHAKE_TIMEOUT, znodes::stored(&client, &self.znodes.paths)).await {
            Ok(Ok((jobs, applications))) => mend_before_grant(storage, &StoredIds { jobs, applications }).await,
            Ok(Err(error)) => tracing::warn!(%error, "failed to read which jobs are stored"),
            Err(_) => tracing::warn!("failed to read which jobs are stored: no server answers"),
        }
    }

    /// Ends the selected sessions, and returns when they have ended. It retries for as long as they could live without
    /// it.
    pub async fn end_sessions(&self, which: impl Fn(&Held) -> bool) {
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

/// Returns the process behind a connection. It retries for a moment if the process cannot be examined.
async fn look(connection: Connection) -> Result<Owner, String> {
    for _ in 1..LOOKS {
        if let Ok(owner) = connection.owner().await {
            return Ok(owner);
        }
        sleep(END_SESSION_INTERVAL).await;
    }
    connection.owner().await
}

/// Copies bytes until the end; an error of the kind `TimedOut` if nothing arrives for the given time.
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
    fn a_process_that_has_ended_holds_no_session() {
        let (one, other) = (Incarnation { pid: 1, started: 2 }, Incarnation { pid: 1, started: 3 });
        let held = |id: i64, jvm| {
            (id, Held { session: Session { id, password: Vec::new(), timeout_millis: 20_000 }, jvm: Some(jvm) })
        };
        let known =
            Known { sessions: BTreeMap::from([held(1, one), held(2, other)]), jvm: Some(other), ended: Some(one) };
        assert_eq!([1, 2, 3].map(|session| known.holder(session)), [None, Some(other), None]);
    }
}

//! Exchanges promises between gateways, pod to pod, without the API server.
//!
//! The request is `POST /peer` with a [`Question`] as JSON; the answer is a [`Reply`]. HMAC-SHA-256 with the key of the
//! cluster's Secret authenticates both (header `flinkha-mac`); a reply's code covers its question too. Each question
//! names the pod for which it is meant, because Kubernetes reuses addresses. [`crate::lease::elector`] decides what
//! they mean.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request as Asked, State};
use axum::http::{HeaderMap, StatusCode};
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use ring::hmac;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::peer_keys::PeerKeys;
use super::peer_messages::{MAC_DIGITS, Question, Reply, is_code, mac};
use crate::gateway::events::{Clock, Events};
use crate::gateway::signals::Signals;
use crate::lease::elector::{Answer, Event};
use crate::lease::record::Member;
use crate::lease::term::Term;
use crate::world::server::BODY_LIMIT;

/// Limit for a peer's answer; without one the peer does not count.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Limit for a machine's answer; without one the machine counts as gone.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest question or reply.
const LIMIT: usize = BODY_LIMIT;
const MAC: &str = "flinkha-mac";

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error("no key: {0}")]
    Key(#[from] std::io::Error),
    #[error("not sent: {0}")]
    Request(#[from] http::Error),
    #[error("not reached: {0}")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    #[error("no answer in time")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("answered with {0}")]
    Refused(StatusCode),
    #[error("the answer is not authentic, or not one")]
    NotAuthentic,
}

/// Asks and answers. Without a key it does neither, and the election rests on the Lease alone.
pub struct PeerExchange {
    events: Events,
    clock: Clock,
    /// Namespace and name.
    cluster: String,
    pod_uid: String,
    keys: Arc<PeerKeys>,
    signals: Arc<Signals>,
    client: Client<HttpConnector, Full<Bytes>>,
    /// Questions that the election has not answered yet.
    open: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
    /// The last question for a promise.
    last: Mutex<Option<(Term, u64)>>,
}

impl PeerExchange {
    pub fn new(
        (events, clock): (Events, Clock),
        cluster: String,
        pod_uid: String,
        keys: Arc<PeerKeys>,
        signals: Arc<Signals>,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(PING_TIMEOUT));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self {
            events,
            clock,
            cluster,
            pod_uid,
            keys,
            signals,
            client,
            open: Mutex::default(),
            next: AtomicU64::new(1),
            last: Mutex::new(None),
        }
    }

    /// Asks one member and passes its answer to the election. Silence causes no event.
    pub async fn ask(&self, term: Term, duration: Duration, member: Member) {
        let asked = self.clock.now();
        let (cluster, to) = (self.cluster.clone(), member.pod_uid.clone());
        let question = Question::Promise {
            cluster,
            to,
            term: term.to_string(),
            millis: duration.as_millis() as u64,
            asked: asked.0,
            all_run: self.signals.recovery.all_run(term.number),
        };
        let pod_uid = member.pod_uid;
        match self.send(&member.address, &question).await {
            Ok(Reply::Promise(Answer::Refused)) => self.events.tell(Event::PeerRefused { term }),
            Ok(Reply::Promise(answer)) => {
                self.events.tell(Event::PeerPromised { term, pod_uid, asked, leaving: answer == Answer::Leaving });
            }
            Ok(Reply::Joined) => {}
            Err(error) => tracing::debug!(%error, pod_uid, "a peer did not promise"),
        }
    }

    pub async fn join(&self, holder: String, member: Member) {
        if let Err(error) = self.send(&holder, &Question::Join { cluster: self.cluster.clone(), member }).await {
            tracing::debug!(%error, holder, "failed to join the holder");
        }
    }

    /// Pings a holder's machine: a refused connection counts as an answer.
    pub async fn ping(&self, holder: &str) {
        let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        let connected = tokio::time::timeout(PING_TIMEOUT, TcpStream::connect(holder)).await;
        let answered = connected.is_ok_and(|connected| connected.map_or_else(|error| refused(&error), |_| true));
        self.events.tell(Event::Pinged { answered });
    }

    /// Passes the election's answer on to the peer that asked.
    pub fn answer(&self, ask: u64, answer: Answer) {
        if let Some(asker) = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&ask) {
            // A peer that has closed its connection needs no answer.
            let _ = asker.send(answer);
        }
    }

    /// A peer that does not know the present key yet knows the former one.
    async fn send(&self, address: &str, question: &Question) -> Result<Reply, PeerError> {
        let body = Bytes::from(serde_json::to_vec(question).unwrap_or_default());
        let mut sent = Err(PeerError::Refused(StatusCode::UNAUTHORIZED));
        for key in self.keys.all()? {
            sent = self.send_under(&key, address, &body).await;
            if !matches!(sent, Err(PeerError::Refused(StatusCode::UNAUTHORIZED))) {
                break;
            }
        }
        sent
    }

    async fn send_under(&self, key: &hmac::Key, address: &str, body: &Bytes) -> Result<Reply, PeerError> {
        let request = Request::post(format!("http://{address}/peer"))
            .header(MAC, mac(key, &[body]))
            .body(Full::new(body.clone()))?;
        let exchange = async {
            let (parts, reply) = self.client.request(request).await?.into_parts();
            let reply = Limited::new(reply, LIMIT).collect().await.map_err(|_| PeerError::NotAuthentic)?.to_bytes();
            Ok::<_, PeerError>((parts, reply))
        };
        let (parts, reply) = tokio::time::timeout(ASK_TIMEOUT, exchange).await??;
        if parts.status != StatusCode::OK {
            return Err(PeerError::Refused(parts.status));
        }
        if !is_authentic(key, &parts.headers, &[body, &reply]) {
            return Err(PeerError::NotAuthentic);
        }
        serde_json::from_slice(&reply).map_err(|_| PeerError::NotAuthentic)
    }

    async fn reply(&self, question: Question) -> Result<Reply, StatusCode> {
        match question {
            Question::Join { cluster, member }
                if cluster == self.cluster && member.address.parse::<SocketAddr>().is_ok() =>
            {
                self.events.tell(Event::PeerJoined { member });
                Ok(Reply::Joined)
            }
            Question::Promise { cluster, to, term, millis, asked, all_run }
                if cluster == self.cluster && to == self.pod_uid =>
            {
                let term: Term = term.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
                match self.novelty_of(&term, asked) {
                    Novelty::New => {}
                    Novelty::Replayed => return Err(StatusCode::CONFLICT),
                    // The election refuses it too. It must not make questions of the later term new again.
                    Novelty::OfEarlierTerm => return Ok(Reply::Promise(Answer::Refused)),
                }
                if all_run {
                    self.signals.recovery.note_told(term.number);
                }
                let (answer, answered) = oneshot::channel();
                let ask = self.next.fetch_add(1, Ordering::Relaxed);
                self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(ask, answer);
                self.events.tell(Event::PromiseAsked { ask, term, duration: Duration::from_millis(millis) });
                let answered = answered.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
                Ok(Reply::Promise(answered))
            }
            // The question is for another cluster, or for a pod that had this address before.
            Question::Join { .. } | Question::Promise { .. } => Err(StatusCode::NOT_FOUND),
        }
    }

    /// Compares a question with the last one, and remembers it if it is new.
    fn novelty_of(&self, term: &Term, asked: u64) -> Novelty {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let novelty = match last.as_ref() {
            Some((known, before)) if known == term && asked <= *before => Novelty::Replayed,
            Some((known, _)) if term.number < known.number => Novelty::OfEarlierTerm,
            _ => Novelty::New,
        };
        if novelty == Novelty::New {
            *last = Some((term.clone(), asked));
        }
        novelty
    }
}

/// Where a question stands among those that were asked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Novelty {
    New,
    Replayed,
    OfEarlierTerm,
}

/// Handles `POST /peer`. It refuses requests without a well-formed code before it reads their body.
pub async fn handle(
    State(peers): State<Arc<PeerExchange>>,
    question: Asked,
) -> Result<([(&'static str, String); 1], Bytes), StatusCode> {
    let (parts, body) = question.into_parts();
    if parts.headers.get(MAC).is_none_or(|sent| sent.len() != MAC_DIGITS) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let body = axum::body::to_bytes(body, LIMIT).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    let keys = peers.keys.all().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let of_sender = keys.iter().find(|key| is_authentic(key, &parts.headers, &[&body]));
    let key = of_sender.ok_or(StatusCode::UNAUTHORIZED)?;
    let question = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let reply = Bytes::from(serde_json::to_vec(&peers.reply(question).await?).unwrap_or_default());
    Ok(([(MAC, mac(key, &[&body, &reply]))], reply))
}

/// Does the code in the header belong to these parts?
fn is_authentic(key: &hmac::Key, headers: &HeaderMap, parts: &[&[u8]]) -> bool {
    headers.get(MAC).and_then(|sent| sent.to_str().ok()).is_some_and(|sent| is_code(key, sent, parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::term::Incarnation;

    #[test]
    fn a_question_of_an_earlier_term_makes_no_later_one_new_again() {
        let (events, _told) = Events::channel();
        let peers = PeerExchange::new(
            (events, Clock::new()),
            "ns/demo".to_owned(),
            "uid".to_owned(),
            Arc::new(PeerKeys::new(None)),
            Arc::default(),
        );
        let term = |number| Term {
            number,
            pod_uid: "u".to_owned(),
            process: "p".to_owned(),
            jvm: Incarnation { pid: 1, started: 1 },
        };
        assert_eq!(peers.novelty_of(&term(1), 5), Novelty::New);
        assert_eq!(peers.novelty_of(&term(2), 3), Novelty::New, "another term has a clock of its own");
        assert_eq!(peers.novelty_of(&term(2), 3), Novelty::Replayed);
        assert_eq!(peers.novelty_of(&term(1), 6), Novelty::OfEarlierTerm);
        assert_eq!(peers.novelty_of(&term(2), 3), Novelty::Replayed);
        assert_eq!(peers.novelty_of(&term(2), 4), Novelty::New);
    }
}

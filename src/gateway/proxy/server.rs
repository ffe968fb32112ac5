//! Serves as the JVM's API server: accepts on loopback, asks [`translate`](super::translate) for a decision, and
//! carries it out.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::asker::By;
use super::fence::{self, Fence};
use super::request::Call;
use super::strangers::Strangers;
use super::translate::{JvmRequest, OnSuccess, Plan, ProxyState, Signal, plan, status};
use super::upstream::{BODY_LIMIT, UpstreamAnswer, UpstreamError, end_to_end};
use crate::flink::job_id::JobId;
use crate::flink::{ha_data, lock};
use crate::gateway::events::Clock;
use crate::lease::elector::{Event, LockView};
use crate::world::process::{Connection, Owner};
use crate::world::server::{JVM_CONNECTIONS, accept_one_of};

/// Longest time for which a request is held; Flink's client gives up after 10 s.
const HOLD_TIMEOUT: Duration = Duration::from_secs(5);

type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Serves the JVM until the process ends.
pub struct Proxy {
    pub fence: Fence,
    pub clock: Clock,
    pub strangers: Strangers,
    /// A process whose requests count as those of the JVM that leads.
    pub stand_in: Option<i32>,
}

/// One request, read to its end.
struct Exchange {
    by: By,
    call: Call,
    parts: Parts,
    bytes: Bytes,
    json: Value,
}

impl Proxy {
    /// Accepts connections, and looks up the process behind each.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(JVM_CONNECTIONS));
        loop {
            let (stream, peer, place) = accept_one_of(&listener, &places).await;
            let proxy = Arc::clone(&self);
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = proxy.connection(stream, peer).await {
                    tracing::debug!(%error, "a connection of the JVM ended");
                }
            });
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let connection = Arc::new(Connection::new(stream.local_addr()?, peer));
        // This happens at once, because the process may end soon.
        if let Err(reason) = connection.owner().await {
            tracing::warn!(reason, "cannot identify the process that sent a request");
        }
        let service = service_fn(move |request| {
            let (proxy, connection) = (Arc::clone(&self), Arc::clone(&connection));
            async move { Ok::<_, Infallible>(proxy.answer(request, &connection).await) }
        });
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
        Ok(())
    }

    async fn answer(&self, request: Request<Incoming>, connection: &Connection) -> Response<Body> {
        let (parts, body) = request.into_parts();
        // A header that is not text is no offer of HTTP/2.
        let upgrade = parts.headers.get(UPGRADE).map(|value| value.to_str().unwrap_or_default());
        let call = self.fence.lock.names.call(&parts.method, parts.uri.path(), parts.uri.query(), upgrade);
        let bytes = match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return local(413, &status(413, "RequestEntityTooLarge", &error.to_string())),
        };
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let by = self.by(connection, &call).await;
        if let (Call::ReadLock | Call::WriteLock, By::Jvm(jvm)) = (&call, by) {
            self.fence.events.tell(Event::JvmHeard { jvm });
        }
        let exchange = Exchange { by, call, parts, bytes, json };
        let plan = self.decide(&exchange).await;
        let fenced = if plan == Plan::Pass { None } else { verb_of_write(&exchange.call) };
        let response = match plan {
            Plan::Answer { code, body, signal } | Plan::Hold { code, body, signal } => {
                match (signal, by) {
                    (Signal::Foreign, By::Jvm(jvm)) => self.fence.events.tell(Event::JvmTold { jvm }),
                    (Signal::Resigned, _) => self.fence.events.tell(Event::JvmResigned),
                    _ => {}
                }
                local(code, &body)
            }
            Plan::Pass => self.pass(&exchange).await,
            Plan::Forward { body, on_success } => {
                self.forward(&exchange, body, on_success).await.unwrap_or_else(|error| failed(&error))
            }
            Plan::DeleteFenced { name, term } => {
                match fence::delete(&self.fence, &exchange.parts.headers, &name, &term).await {
                    Ok(answer) => {
                        self.forget_checkpoints(&name);
                        whole(answer)
                    }
                    Err(error) => failed(&error),
                }
            }
        };
        if let Some(verb) = fenced.filter(|_| response.status() == StatusCode::CONFLICT) {
            self.fence.signals.counters.fenced_writes.inc(verb);
        }
        response
    }

    /// Classifies the sender. A process that cannot be examined now is examined again at its next request.
    async fn by(&self, connection: &Connection, call: &Call) -> By {
        let Ok(owner) = connection.owner().await else { return By::Unseen };
        let by = match owner {
            Owner::Flink(jvm) => By::Jvm(jvm),
            Owner::Stranger { process, .. } if self.stand_in == Some(process.pid) => By::StandIn,
            Owner::Stranger { .. } => By::Stranger,
        };
        self.strangers.note(&owner, by, call);
        by
    }

    /// Returns the plan, after holding the request if the plan says so.
    async fn decide(&self, exchange: &Exchange) -> Plan {
        let mut shown = self.fence.lock.shown.clone();
        let deadline = tokio::time::Instant::now() + HOLD_TIMEOUT;
        loop {
            let now_shown = shown.borrow_and_update().clone();
            let plan = self.plan(exchange, &now_shown);
            if !matches!(plan, Plan::Hold { .. }) {
                return plan;
            }
            if !matches!(tokio::time::timeout_at(deadline, shown.changed()).await, Ok(Ok(()))) {
                // The plan is made again, so that its times are those of the answer.
                return self.plan(exchange, &now_shown);
            }
        }
    }

    fn plan(&self, exchange: &Exchange, shown: &LockView) -> Plan {
        let stored = self.fence.lock.stored();
        let (names, ended) = (&self.fence.lock.names, self.fence.signals.ended());
        let (now, wall_clock) = (self.clock.now(), Timestamp::now());
        let known = ProxyState { names, shown, now, wall_clock, stored: stored.as_ref(), ended: &ended };
        plan(&JvmRequest { by: exchange.by, call: &exchange.call, body: &exchange.json }, &known)
    }

    /// Forwards a request that does not concern HA data. Headers and bytes pass unchanged in both directions, watches
    /// included.
    async fn pass(&self, exchange: &Exchange) -> Response<Body> {
        let parts = &exchange.parts;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        match self.fence.upstream.send(parts.method.clone(), path, &parts.headers, exchange.bytes.clone()).await {
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let mut response = Response::new(body.map_err(Into::into).boxed());
                *response.status_mut() = parts.status;
                *response.headers_mut() = end_to_end(&parts.headers);
                response
            }
            Err(error) => failed(&error),
        }
    }

    async fn forward(
        &self,
        exchange: &Exchange,
        body: Option<Value>,
        on_success: OnSuccess,
    ) -> Result<Response<Body>, UpstreamError> {
        let parts = &exchange.parts;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let bytes = body.map_or_else(|| exchange.bytes.clone(), |body| body.to_string().into());
        let answer = self.fence.upstream.call(parts.method.clone(), path, &parts.headers, bytes).await;
        let written = match &exchange.call {
            Call::Replace(name) => Some(name.clone()),
            Call::WriteLock => Some(self.fence.lock.names.cluster_config_map()),
            _ => None,
        };
        if let (Some(name), Ok(answer)) = (written, &answer)
            && answer.parts.status.is_success()
        {
            self.fence.lock.snapshots.keep(&name, answer.bytes.clone());
            self.note_checkpoint(&name, &exchange.json);
        }
        let lock_is_doubtful = !answer.as_ref().is_ok_and(|answer| answer.parts.status.is_success());
        match on_success {
            OnSuccess::Nothing => {}
            OnSuccess::TookLock(_) | OnSuccess::Remember if lock_is_doubtful => self.fence.lock.store(None),
            OnSuccess::TookLock(term) => {
                self.remember(&answer);
                let stored = self.fence.lock.stored();
                let lock = stored.as_ref().and_then(lock::of_object).unwrap_or_default().to_owned();
                let holder = lock::holder(&lock).unwrap_or_default();
                self.fence.signals.counters.forget_checkpoints();
                self.fence.lock.note_written(&term, lock);
                tracing::info!(term = term.number, "the JobManager took the lock: it leads");
                self.fence.events.tell(Event::JvmTookLock { term, at: Timestamp::now().to_string(), lock: holder });
            }
            OnSuccess::Remember => {
                let before = self.stored_ids();
                self.remember(&answer);
                let after = self.stored_ids();
                if !before.is_subset(&after) {
                    self.fence.signals.job_ended.notify_one();
                }
                if !after.is_subset(&before) {
                    self.fence.signals.jobs_changed.notify_one();
                }
            }
            OnSuccess::CheckStamp { name, term } => {
                let answer = fence::checked(&self.fence, &parts.headers, answer?, &name, &term).await?;
                // A JVM reads before each write, and the write says the same later.
                if self.job_of(&name).is_some_and(|job| !self.fence.signals.counters.knows(job)) {
                    self.note_checkpoint(&name, &answer.json());
                }
                return Ok(whole(answer));
            }
        }
        Ok(whole(answer?))
    }

    fn job_of(&self, config_map: &str) -> Option<JobId> {
        ha_data::job_of(&self.fence.lock.names.cluster_id, config_map)
    }

    /// Notes the last checkpoint in the ConfigMap of a job.
    fn note_checkpoint(&self, name: &str, config_map: &Value) {
        if let (Some(job), Some(number)) = (self.job_of(name), ha_data::last_checkpoint(config_map)) {
            self.fence.signals.counters.note_checkpoint(job, number, Instant::now());
        }
    }

    fn forget_checkpoints(&self, name: &str) {
        self.job_of(name).into_iter().for_each(|job| self.fence.signals.counters.forget_checkpoints_of(job));
    }

    /// Returns the stored jobs and applications.
    fn stored_ids(&self) -> BTreeSet<JobId> {
        self.fence.lock.stored().as_ref().map(ha_data::stored).unwrap_or_default()
    }

    fn remember(&self, answer: &Result<UpstreamAnswer, UpstreamError>) {
        self.fence.lock.store(answer.as_ref().ok().map(UpstreamAnswer::json).filter(Value::is_object));
    }
}

fn local(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn whole(answer: UpstreamAnswer) -> Response<Body> {
    let mut response = Response::new(Full::new(answer.bytes).map_err(|never| match never {}).boxed());
    *response.status_mut() = answer.parts.status;
    *response.headers_mut() = end_to_end(&answer.parts.headers);
    response
}

/// Kubernetes' verb of a write of HA data.
fn verb_of_write(call: &Call) -> Option<&'static str> {
    match call {
        Call::Replace(_) => Some("update"),
        Call::Create => Some("create"),
        Call::Delete(_) => Some("delete"),
        Call::WriteLock => Some("patch"),
        _ => None,
    }
}

/// Answers for an API server that does not answer, so that Flink's client retries.
fn failed(error: &UpstreamError) -> Response<Body> {
    tracing::warn!(%error, "no answer for the JVM");
    let code = if matches!(error, UpstreamError::Silent) { 504 } else { 503 };
    local(code, &status(code, "ServiceUnavailable", &error.to_string()))
}

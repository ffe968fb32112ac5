//! Reads and deletes HA ConfigMaps behind the fence: the JVM sees only objects with our stamp, deletes exactly what was
//! read, and finds restored what somebody else has deleted.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::jvm_lock::JvmLock;
use super::upstream::{Upstream, UpstreamAnswer, UpstreamError};
use crate::flink::lock;
use crate::gateway::events::Events;
use crate::gateway::signals::Signals;
use crate::lease::elector::Event;
use crate::lease::stamp::version;
use crate::lease::stamp::{relation, stamp_patch};
use crate::lease::term::{Relation, Term};

/// The parts that the fence and the proxy share.
pub struct Fence {
    pub lock: Arc<JvmLock>,
    pub events: Events,
    pub signals: Arc<Signals>,
    pub upstream: Upstream,
}

/// Number of attempts; others rarely write between a read and a write.
const ATTEMPTS: usize = 5;

/// Checks the answer to a GET of an HA ConfigMap before the JVM sees it. It raises a lower stamp first. It repairs a
/// lock that somebody has edited, because the JVM would step down. A stamp that is neither ours nor lower means that a
/// newer term exists.
pub async fn checked(
    fence: &Fence,
    headers: &HeaderMap,
    answer: UpstreamAnswer,
    name: &str,
    term: &Term,
) -> Result<UpstreamAnswer, UpstreamError> {
    let path = fence.lock.names.path(name);
    let mut answer = answer;
    for _ in 0..ATTEMPTS {
        if answer.parts.status == StatusCode::NOT_FOUND
            && let Some(copy) = fence.lock.snapshots.to_create(name, term)
        {
            tracing::warn!(name, "an HA ConfigMap has been deleted by somebody else; putting it back");
            let created = fence
                .upstream
                .call(Method::POST, &fence.lock.names.collection(), &json_headers(headers), body(&copy))
                .await?;
            answer = match created.parts.status {
                StatusCode::CONFLICT => fence.upstream.call(Method::GET, &path, headers, Bytes::new()).await?,
                StatusCode::CREATED => {
                    UpstreamAnswer { parts: with_status(created.parts, StatusCode::OK), bytes: created.bytes }
                }
                _ => return Ok(answer),
            };
        }
        if answer.parts.status != StatusCode::OK {
            return Ok(answer);
        }
        let object = answer.json();
        let kept = fence.lock.written_in(term).filter(|_| name == fence.lock.names.cluster_config_map());
        let edited = kept.as_deref().is_some_and(|kept| lock::of_object(&object) != Some(kept));
        match relation(&object, term) {
            (Relation::Same, _) if !edited => {
                fence.lock.snapshots.keep(name, answer.bytes.clone());
                if name == fence.lock.names.cluster_config_map() {
                    fence.lock.store(Some(object));
                }
                return Ok(answer);
            }
            (Relation::Higher, stamp) => {
                fence.events.tell(Event::StampSeen { stamp: stamp.unwrap_or_else(|| term.clone()) });
                return Ok(answer);
            }
            (Relation::Lower | Relation::Same, _) => {
                let Some(version) = version(&object) else { return Ok(answer) };
                let mut patch = stamp_patch(version, term);
                if let Some(kept) = kept {
                    patch["metadata"]["annotations"][lock::LOCK_ANNOTATION] = kept.into();
                }
                let mut patch_headers = headers.clone();
                patch_headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json"));
                let patched = fence.upstream.call(Method::PATCH, &path, &patch_headers, body(&patch)).await?;
                answer = match patched.parts.status {
                    StatusCode::CONFLICT => fence.upstream.call(Method::GET, &path, headers, Bytes::new()).await?,
                    _ => patched,
                };
            }
        }
    }
    Ok(answer)
}

/// Deletes exactly the object that was read with our stamp. Flink's own DELETE has no precondition.
pub async fn delete(
    fence: &Fence,
    headers: &HeaderMap,
    name: &str,
    term: &Term,
) -> Result<UpstreamAnswer, UpstreamError> {
    let path = fence.lock.names.path(name);
    let mut get_headers = headers.clone();
    get_headers.remove(CONTENT_TYPE);
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let read = fence.upstream.call(Method::GET, &path, &get_headers, Bytes::new()).await?;
        if read.parts.status == StatusCode::NOT_FOUND {
            fence.lock.snapshots.forget(name);
        }
        let read = checked(fence, &get_headers, read, name, term).await?;
        let object = read.json();
        if read.parts.status != StatusCode::OK {
            return Ok(read);
        }
        if relation(&object, term).0 != Relation::Same {
            return Ok(refused(read));
        }
        let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": { "uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"] } });
        // This happens even without an answer: the object may be deleted then, and nobody else did it.
        fence.lock.snapshots.forget(name);
        let deleted = fence.upstream.call(Method::DELETE, &path, &json_headers(headers), body(&options)).await?;
        if deleted.parts.status != StatusCode::CONFLICT {
            if name == fence.lock.names.cluster_config_map() {
                fence.lock.store(None);
            }
            fence.signals.job_ended.notify_one();
            return Ok(deleted);
        }
        last = Some(deleted);
    }
    last.ok_or(UpstreamError::Silent)
}

fn refused(read: UpstreamAnswer) -> UpstreamAnswer {
    let status = super::translate::status(409, "Conflict", "a newer term has stamped the object");
    UpstreamAnswer { parts: with_status(read.parts, StatusCode::CONFLICT), bytes: body(&status) }
}

fn with_status(mut parts: http::response::Parts, status: StatusCode) -> http::response::Parts {
    parts.status = status;
    parts
}

fn json_headers(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

fn body(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

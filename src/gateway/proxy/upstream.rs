//! The API server as the JVM's requests reach it: with the JVM's own credentials, without retries and without
//! interpretation.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::world::api_server::{HttpClient, http_client};

/// An object in the API has at most 1.5 MiB; anything longer is no ConfigMap.
pub const BODY_LIMIT: usize = 4 << 20;

/// A request without an answer for this long is given up; Flink's client gives up at 10 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("failed to reach the API server")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("the API server did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    #[error("failed to read the API server's answer: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to make a request of it")]
    NoRequest(#[from] http::Error),
}

/// A connection pool to the API server.
#[derive(Clone)]
pub struct Upstream {
    client: HttpClient<Full<Bytes>>,
    base: String,
}

/// An answer read to its end.
pub struct Answer {
    pub parts: http::response::Parts,
    pub bytes: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }
}

impl Upstream {
    /// # Errors
    /// When the certificates of the configuration cannot be read.
    pub fn new(config: &kube::Config) -> Result<Self, kube::Error> {
        let client = http_client(config)?;
        Ok(Self { client, base: config.cluster_url.to_string().trim_end_matches('/').to_owned() })
    }

    /// Sends a request; returns as soon as the answer begins.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let uri: Uri = format!("{}{path}", self.base).parse().map_err(http::Error::from)?;
        let mut request = Request::builder().method(method).uri(uri).body(Full::new(body))?;
        *request.headers_mut() = end_to_end(headers);
        match tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(request)).await {
            Ok(answer) => answer.map_err(UpstreamError::Unreachable),
            Err(_) => Err(UpstreamError::Silent),
        }
    }

    /// Sends a request and reads the answer to its end. It is not compressed, as the API server would answer with more
    /// than 128 KiB: the gateway itself has to read it.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, UpstreamError> {
        let mut headers = headers.clone();
        headers.remove(ACCEPT_ENCODING);
        let (parts, body) = self.send(method, path, &headers, body).await?.into_parts();
        let read = tokio::time::timeout(ANSWER_TIMEOUT, Limited::new(body, BODY_LIMIT).collect());
        let bytes = read.await.map_err(|_| UpstreamError::Silent)?.map_err(UpstreamError::Broken)?.to_bytes();
        Ok(Answer { parts, bytes })
    }
}

/// Headers without those that belong to one connection only (RFC 9110 §7.6.1).
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    let mut kept = headers.clone();
    for name in [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE] {
        kept.remove(name);
    }
    kept
}
